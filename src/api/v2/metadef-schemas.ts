// The JSON schemas of metadata definitions, served at /v2/schemas/metadefs.
import type { JsonSchema } from '../http/route.ts'

const text = (maxLength?: number, description?: string) => ({
  type: 'string',
  ...(description === undefined ? {} : { description }),
  ...(maxLength === undefined ? {} : { maxLength }),
})
const stamp = (description: string) => ({ type: 'string', readOnly: true, description, format: 'date-time' })
const link = { readOnly: true, type: 'string' }
const flag = { type: 'boolean' }
const ref = (name: string) => ({ $ref: `#/definitions/${name}` })
const strings = { type: 'array', items: { type: 'string' } }
const valueType = { type: 'string', enum: ['array', 'boolean', 'integer', 'number', 'object', 'string', null] }

const numbers = {
  positiveInteger: { type: 'integer', minimum: 0 },
  positiveIntegerDefault0: { allOf: [ref('positiveInteger'), { default: 0 }] },
}

/** A property: a JSON schema itself, as far as user interfaces use it. */
const propertyMembers = {
  name: text(80),
  title: text(),
  description: text(),
  operators: strings,
  type: valueType,
  required: ref('stringArray'),
  minimum: { type: 'number' },
  maximum: { type: 'number' },
  maxLength: ref('positiveInteger'),
  minLength: ref('positiveIntegerDefault0'),
  pattern: { type: 'string', format: 'regex' },
  enum: { type: 'array' },
  readonly: flag,
  default: {},
  items: { type: 'object', properties: { type: valueType, enum: { type: 'array' } } },
  maxItems: ref('positiveInteger'),
  minItems: ref('positiveIntegerDefault0'),
  uniqueItems: { type: 'boolean', default: false },
  additionalItems: flag,
}

const definitions = {
  ...numbers,
  stringArray: { ...strings, uniqueItems: true },
  property: {
    type: 'object',
    additionalProperties: { type: 'object', required: ['title', 'type'], properties: propertyMembers },
  },
}

const listOf = (properties: object) => ({ type: 'array', items: { type: 'object', properties } })

const namespace = {
  name: 'namespace',
  properties: {
    namespace: text(80, 'The name of the namespace; no other has it.'),
    display_name: text(80, 'The name that user interfaces show.'),
    description: text(500, 'What the namespace is about.'),
    visibility: { ...text(undefined, 'Who sees the namespace.'), enum: ['public', 'private'] },
    protected: { ...flag, description: 'Whether the namespace is kept from being deleted.' },
    owner: text(255, 'The project that the namespace belongs to.'),
    created_at: stamp('When the namespace was created'),
    updated_at: stamp('When the namespace was last changed'),
    schema: link,
    self: link,
    resource_type_associations: listOf({ name: text(), prefix: text(), properties_target: text() }),
    properties: ref('property'),
    objects: listOf({
      name: text(),
      description: text(),
      required: ref('stringArray'),
      properties: ref('property'),
    }),
    tags: listOf({ name: text() }),
  },
  additionalProperties: false,
  definitions,
  required: ['namespace'],
}

const object = {
  name: 'object',
  properties: {
    name: text(80),
    description: text(),
    required: ref('stringArray'),
    properties: ref('property'),
    schema: link,
    self: link,
    created_at: stamp('When the object was created'),
    updated_at: stamp('When the object was last changed'),
  },
  additionalProperties: false,
  definitions,
  required: ['name'],
}

const property = {
  name: 'property',
  properties: propertyMembers,
  additionalProperties: false,
  definitions: { ...numbers, stringArray: { ...strings, minItems: 1, uniqueItems: true } },
  required: ['type', 'title', 'name'],
}

const tag = {
  name: 'tag',
  properties: {
    name: text(80),
    created_at: stamp('When the tag was created'),
    updated_at: stamp('When the tag was last changed'),
  },
  additionalProperties: false,
  required: ['name'],
}

const resourceType = {
  name: 'resource_type_association',
  properties: {
    name: text(80, 'The resource type, by the name that Heat has for it where there is one.'),
    prefix: text(
      80,
      'What names of properties begin with when they are used for the resource type, with its separator, such as a colon.',
    ),
    properties_target: text(
      80,
      'Which properties are meant where a resource has several sets of them: volumes, for example, have metadata of users and of images.',
    ),
    created_at: stamp('When the association was created'),
    updated_at: stamp('When the association was last changed'),
  },
  additionalProperties: false,
  required: ['name'],
}

const collection = (name: string, item: JsonSchema, container: (item: JsonSchema) => JsonSchema): JsonSchema => {
  const { definitions: shared, ...items } = item
  return {
    name,
    properties: {
      [name]: container(items),
      first: { type: 'string' },
      next: { type: 'string' },
      schema: { type: 'string' },
    },
    links: [
      { rel: 'first', href: '{first}' },
      { rel: 'next', href: '{next}' },
      { rel: 'describedby', href: '{schema}' },
    ],
    ...(shared === undefined ? {} : { definitions: shared }),
  }
}
const array = (items: JsonSchema) => ({ type: 'array', items })
const dictionary = (items: JsonSchema) => ({ type: 'object', additionalProperties: items })

/** A property where its name stands before it. */
export const namelessProperty: JsonSchema = { ...property, required: ['type', 'title'] }

/** By the last part of their path. */
export const METADEF_SCHEMAS = {
  namespace,
  namespaces: collection('namespaces', namespace, array),
  resource_type: resourceType,
  resource_types: collection('resource_type_associations', resourceType, array),
  property,
  properties: collection('properties', namelessProperty, dictionary),
  object,
  objects: collection('objects', object, array),
  tag,
  tags: collection('tags', tag, array),
} as const satisfies Record<string, JsonSchema>

/** What is sent to set many tags at once. */
export const TAG_LIST: JsonSchema = {
  name: 'tags',
  properties: {
    tags: array({ type: 'object', properties: { name: text(80) }, required: ['name'], additionalProperties: false }),
  },
  additionalProperties: false,
  required: ['tags'],
}
