import type { Core, RequestContext } from '../../core/core.ts'
import {
  addAssociation,
  addTags,
  createNamespace,
  type DefinitionUseCases,
  deleteNamespace,
  listAssociations,
  listNamespaces,
  listResourceTypes,
  metadefObjects,
  metadefProperties,
  metadefTags,
  type NamespaceDraft,
  pageTags,
  removeAssociation,
  replaceNamespace,
  showNamespace,
  showPropertyFor,
} from '../../core/metadefs.ts'
import { ServiceError } from '../../domain/errors.ts'
import type { ProjectId } from '../../domain/ids.ts'
import {
  type AssociationAttributes,
  type DefinitionDrafts,
  NAMESPACE_SORT_KEYS,
  NAMESPACE_VISIBILITIES,
  type NamespaceQuery,
  type ObjectAttributes,
  type PageQuery,
  type PropertySchema,
  prefixed,
  TAG_SORT_KEYS,
} from '../../domain/metadef.ts'
import type { RuleName } from '../../policy/rules.ts'
import type { ApiRequest, ApiResponse, Route } from '../http/route.ts'
import { NAMESPACE_LIST_QUERY, RESOURCE_TYPE_QUERY, TAG_LIST_QUERY } from './document.ts'
import { expectedBody } from './images.ts'
import { last, type PageLimits, pageLink, parseLimit, type Query } from './list-query.ts'
import { METADEF_SCHEMAS, namelessProperty, TAG_LIST } from './metadef-schemas.ts'
import {
  associationView,
  NAMESPACES,
  namespaceView,
  objectView,
  propertiesView,
  propertySchemas,
  propertyView,
  resourceTypeView,
  some,
  tagName,
  tagView,
  wholeNamespaceView,
} from './metadef-views.ts'
import { admitAttribute, type Validate, validator } from './validation.ts'

type Request = ApiRequest<RequestContext>
type MetadefRoute = Route<RequestContext>
type Json = Readonly<Record<string, unknown>>

const DONE = { status: 204 } as const
const LIST = '/metadefs/namespaces'
const ONE = `${LIST}/:namespace`

const invalid = (message: string) => new ServiceError('invalid', message)
const ok = (json: unknown): ApiResponse => ({ status: 200, json })
const created = (json: unknown): ApiResponse => ({ status: 201, json })
const namespaceOf = (request: Request): string => request.params['namespace'] as string
const nameOf = (request: Request): string => request.params['name'] as string

export const metadefSchemaRoutes: readonly MetadefRoute[] = Object.entries(METADEF_SCHEMAS).map(([name, schema]) => ({
  method: 'GET',
  path: `/schemas/metadefs/${name}`,
  describe: { summary: `The schema of metadata definitions: ${name}`, answers: { 200: 'schema' } },
  rejectsBody: true,
  handle: async () => ok(schema),
}))

/** The routes in the order in which 405 names their methods. */
export function metadefRoutes(core: Core): readonly MetadefRoute[] {
  const parse = parsers()
  return [
    ...resourceTypeRoutes(core, parse),
    ...namespaceRoutes(core, parse),
    ...propertyRoutes(core, parse),
    ...objectRoutes(core, parse),
    ...tagRoutes(core, parse),
  ]
}

const resourceTypeRoutes = (core: Core, parse: Parsers): readonly MetadefRoute[] => [
  {
    method: 'GET',
    path: '/metadefs/resource_types',
    describe: {
      summary: 'List resource types',
      rules: ['list_metadef_resource_types', 'get_metadef_namespace'],
      answers: { 200: 'resource_types' },
    },
    rejectsBody: true,
    handle: async ({ context }) =>
      ok({ resource_types: (await listResourceTypes(core, context)).map(resourceTypeView) }),
  },
  {
    method: 'GET',
    path: `${ONE}/resource_types`,
    describe: {
      summary: 'List the resource types that a namespace is for',
      rules: ['get_metadef_namespace', 'get_metadef_resource_type', 'list_metadef_resource_types'],
      answers: { 200: 'metadef_resource_types' },
    },
    rejectsBody: true,
    handle: async (request) => {
      const associations = await listAssociations(core, request.context, namespaceOf(request))
      return ok({ resource_type_associations: associations.map(associationView) })
    },
  },
  {
    method: 'POST',
    path: `${ONE}/resource_types`,
    describe: {
      summary: 'Say that a namespace is for a resource type',
      rules: ['get_metadef_namespace', 'add_metadef_resource_type_association'],
      body: { 'application/json': 'metadef_resource_type' },
      answers: { 201: 'metadef_resource_type' },
    },
    handle: async (request) => {
      const draft = parse.association(await changingBody(request))
      return created(associationView(await addAssociation(core, request.context, namespaceOf(request), draft)))
    },
  },
  {
    method: 'DELETE',
    path: `${ONE}/resource_types/:name`,
    describe: {
      summary: 'Say that a namespace is no longer for a resource type',
      rules: ['get_metadef_namespace', 'remove_metadef_resource_type_association'],
      answers: { 204: null },
    },
    rejectsBody: true,
    handle: async (request) => {
      await removeAssociation(core, request.context, namespaceOf(request), nameOf(request))
      return DONE
    },
  },
]

const namespaceRoutes = (core: Core, parse: Parsers): readonly MetadefRoute[] => [
  {
    method: 'GET',
    path: LIST,
    describe: {
      summary: 'List namespaces',
      rules: ['get_metadef_namespaces', 'get_metadef_namespace', 'list_metadef_resource_types'],
      query: NAMESPACE_LIST_QUERY,
      answers: { 200: 'metadef_namespaces' },
    },
    handle: async (request) => {
      const query = parseNamespaceQuery(request.query, core.limits)
      const { namespaces, next } = await listNamespaces(core, request.context, query)
      return ok({
        namespaces: namespaces.map(({ namespace, associations }) => ({
          ...namespaceView(namespace),
          ...some('resource_type_associations', associations.map(associationView)),
        })),
        first: pageLink(NAMESPACES, request.query, undefined),
        ...(next === undefined ? {} : { next: pageLink(NAMESPACES, request.query, next) }),
        schema: '/v2/schemas/metadefs/namespaces',
      })
    },
  },
  {
    method: 'POST',
    path: LIST,
    describe: {
      summary: 'Create a namespace',
      rules: [
        'get_metadef_namespace',
        'add_metadef_namespace',
        'add_metadef_object',
        'add_metadef_property',
        'add_metadef_tag',
        'add_metadef_resource_type_association',
      ],
      body: { 'application/json': 'metadef_namespace' },
      answers: { 201: 'metadef_namespace' },
    },
    handle: async (request) => {
      const body = await changingBody(request)
      const drafts = parse.definitions(body)
      const namespace = await createNamespace(core, request.context, parse.namespace(body, 'create'), drafts)
      const path = encodeURIComponent(namespace.name).replaceAll('%3A', ':')
      return {
        ...created({ ...namespaceView(namespace), ...contentsAsGiven(body, drafts) }),
        headers: { location: `${request.baseUrl}${NAMESPACES}/${path}` },
      }
    },
  },
  {
    method: 'GET',
    path: ONE,
    describe: {
      summary: 'Show a namespace with all that is in it',
      rules: [
        'get_metadef_namespace',
        'get_metadef_object',
        'get_metadef_property',
        'get_metadef_tag',
        'list_metadef_resource_types',
        'get_metadef_objects',
        'get_metadef_properties',
        'get_metadef_tags',
        'get_metadef_resource_type',
      ],
      query: RESOURCE_TYPE_QUERY,
      answers: { 200: 'metadef_namespace' },
    },
    rejectsBody: true,
    handle: async (request) => {
      const { namespace, definitions } = await showNamespace(core, request.context, namespaceOf(request))
      const resourceType = last(request.query, 'resource_type')
      return ok(wholeNamespaceView(namespace, resourceType ? prefixed(definitions, resourceType) : definitions))
    },
  },
  {
    method: 'PUT',
    path: ONE,
    describe: {
      summary: 'Replace a namespace',
      rules: ['get_metadef_namespace', 'modify_metadef_namespace'],
      body: { 'application/json': 'metadef_namespace' },
      answers: { 200: 'metadef_namespace' },
    },
    handle: async (request) => {
      const draft = parse.namespace(await changingBody(request), 'update')
      return ok(namespaceView(await replaceNamespace(core, request.context, namespaceOf(request), draft)))
    },
  },
  {
    method: 'DELETE',
    path: ONE,
    describe: {
      summary: 'Delete a namespace',
      rules: ['get_metadef_namespace', 'delete_metadef_namespace'],
      answers: { 204: null },
    },
    rejectsBody: true,
    handle: async (request) => {
      await deleteNamespace(core, request.context, namespaceOf(request))
      return DONE
    },
  },
]

const propertyRoutes = (core: Core, parse: Parsers): readonly MetadefRoute[] => [
  {
    method: 'GET',
    path: `${ONE}/properties`,
    describe: {
      summary: 'List the properties of a namespace',
      rules: ['get_metadef_namespace', 'get_metadef_properties', 'get_metadef_property'],
      answers: { 200: 'metadef_properties' },
    },
    rejectsBody: true,
    handle: async (request) => {
      const properties = await metadefProperties.list(core, request.context, namespaceOf(request))
      return ok({ properties: propertiesView(properties) })
    },
  },
  {
    method: 'POST',
    path: `${ONE}/properties`,
    describe: {
      summary: 'Create a property',
      rules: ['get_metadef_namespace', 'add_metadef_property'],
      body: { 'application/json': 'metadef_property' },
      answers: { 201: 'metadef_property' },
    },
    handle: async (request) => {
      const draft = parse.property(await changingBody(request), 'create')
      return created(propertyView(await metadefProperties.add(core, request.context, namespaceOf(request), draft)))
    },
  },
  removeAll(core, 'properties', metadefProperties),
  {
    method: 'GET',
    path: `${ONE}/properties/:name`,
    describe: {
      summary: 'Show a property',
      rules: ['get_metadef_namespace', 'get_metadef_property'],
      query: RESOURCE_TYPE_QUERY,
      answers: { 200: 'metadef_property' },
    },
    handle: async (request) => {
      const resourceType = last(request.query, 'resource_type')
      const where = [core, request.context, namespaceOf(request), nameOf(request)] as const
      return ok(
        propertyView(
          resourceType ? await showPropertyFor(...where, resourceType) : await metadefProperties.show(...where),
        ),
      )
    },
  },
  {
    method: 'PUT',
    path: `${ONE}/properties/:name`,
    describe: {
      summary: 'Replace a property',
      rules: ['get_metadef_namespace', 'modify_metadef_property'],
      body: { 'application/json': 'metadef_property' },
      answers: { 200: 'metadef_property' },
    },
    handle: async (request) => {
      const draft = parse.property(await changingBody(request), 'update')
      const where = [core, request.context, namespaceOf(request), nameOf(request)] as const
      return ok(propertyView(await metadefProperties.replace(...where, draft)))
    },
  },
  removeOne(core, 'properties', metadefProperties, 'remove_metadef_property', false),
]

const objectRoutes = (core: Core, parse: Parsers): readonly MetadefRoute[] => [
  {
    method: 'GET',
    path: `${ONE}/objects`,
    describe: {
      summary: 'List the objects of a namespace',
      rules: ['get_metadef_namespace', 'get_metadef_objects', 'get_metadef_object'],
      answers: { 200: 'metadef_objects' },
    },
    handle: async (request) => {
      parseObjectQuery(request.query)
      const namespace = namespaceOf(request)
      const objects = await metadefObjects.list(core, request.context, namespace)
      // Without a slash at the front, as it has always been.
      return ok({ objects: objects.map((each) => objectView(namespace, each)), schema: 'v2/schemas/metadefs/objects' })
    },
  },
  {
    method: 'POST',
    path: `${ONE}/objects`,
    describe: {
      summary: 'Create an object',
      rules: ['get_metadef_namespace', 'add_metadef_object'],
      body: { 'application/json': 'metadef_object' },
      answers: { 201: 'metadef_object' },
    },
    handle: async (request) => {
      const body = await changingBody(request)
      const draft = parse.object(body, 'create')
      const object = await metadefObjects.add(core, request.context, namespaceOf(request), draft)
      return created(objectAsGiven(body, objectView(namespaceOf(request), object)))
    },
  },
  removeAll(core, 'objects', metadefObjects),
  {
    method: 'GET',
    path: `${ONE}/objects/:name`,
    describe: {
      summary: 'Show an object',
      rules: ['get_metadef_namespace', 'get_metadef_object'],
      answers: { 200: 'metadef_object' },
    },
    rejectsBody: true,
    handle: async (request) => {
      const object = await metadefObjects.show(core, request.context, namespaceOf(request), nameOf(request))
      return ok(objectView(namespaceOf(request), object))
    },
  },
  {
    method: 'PUT',
    path: `${ONE}/objects/:name`,
    describe: {
      summary: 'Replace an object',
      rules: ['get_metadef_namespace', 'modify_metadef_object'],
      body: { 'application/json': 'metadef_object' },
      answers: { 200: 'metadef_object' },
    },
    handle: async (request) => {
      const body = await changingBody(request)
      const draft = parse.object(body, 'update')
      const object = await metadefObjects.replace(core, request.context, namespaceOf(request), nameOf(request), draft)
      return ok(objectAsGiven(body, objectView(namespaceOf(request), object)))
    },
  },
  removeOne(core, 'objects', metadefObjects, 'delete_metadef_object', true),
]

const tagRoutes = (core: Core, parse: Parsers): readonly MetadefRoute[] => [
  {
    method: 'GET',
    path: `${ONE}/tags`,
    describe: {
      summary: 'List the tags of a namespace',
      rules: ['get_metadef_namespace', 'get_metadef_tags'],
      query: TAG_LIST_QUERY,
      answers: { 200: 'metadef_tags' },
    },
    handle: async (request) => {
      const { query } = request
      admitVisibility(query, [...NAMESPACE_VISIBILITIES, 'shared'])
      const tags = await pageTags(core, request.context, namespaceOf(request), {
        sort: parseSort(query, TAG_SORT_KEYS),
        marker: last(query, 'marker') || undefined,
        limit: parseLimit(last(query, 'limit') || undefined),
      })
      return ok({ tags: tags.map(tagName) })
    },
  },
  {
    method: 'POST',
    path: `${ONE}/tags`,
    describe: {
      summary: 'Replace the tags of a namespace, or add some',
      rules: ['get_metadef_namespace', 'add_metadef_tags'],
      headers: { 'X-Openstack-Append': { type: 'string' } },
      body: { 'application/json': 'metadef_tag_names' },
      answers: { 201: 'metadef_tag_names' },
    },
    handle: async (request) => {
      const tags = parse.tags(await changingBody(request))
      await addTags(
        core,
        request.context,
        namespaceOf(request),
        tags,
        isTrue(request.headers['x-openstack-append']) ? 'append' : 'replace',
      )
      return created({ tags: tags.map(tagName) })
    },
  },
  removeAll(core, 'tags', metadefTags, ['delete_metadef_tags']),
  {
    method: 'GET',
    path: `${ONE}/tags/:name`,
    describe: {
      summary: 'Show a tag',
      rules: ['get_metadef_namespace', 'get_metadef_tag'],
      answers: { 200: 'metadef_tag' },
    },
    rejectsBody: true,
    handle: async (request) =>
      ok(tagView(await metadefTags.show(core, request.context, namespaceOf(request), nameOf(request)))),
  },
  {
    method: 'POST',
    path: `${ONE}/tags/:name`,
    describe: {
      summary: 'Create a tag',
      rules: ['get_metadef_namespace', 'add_metadef_tag'],
      answers: { 201: 'metadef_tag' },
    },
    rejectsBody: true,
    handle: async (request) => {
      const draft = parse.tag({ name: nameOf(request) }, 'create')
      return created(tagView(await metadefTags.add(core, request.context, namespaceOf(request), draft)))
    },
  },
  {
    method: 'PUT',
    path: `${ONE}/tags/:name`,
    describe: {
      summary: 'Rename a tag',
      rules: ['get_metadef_namespace', 'modify_metadef_tag'],
      body: { 'application/json': 'metadef_tag' },
      answers: { 200: 'metadef_tag' },
    },
    handle: async (request) => {
      const draft = parse.tag(await changingBody(request), 'update')
      const where = [core, request.context, namespaceOf(request), nameOf(request)] as const
      return ok(tagView(await metadefTags.replace(...where, draft)))
    },
  },
  removeOne(core, 'tags', metadefTags, 'delete_metadef_tag', true),
]

function removeAll<Item, Attributes>(
  core: Core,
  kind: string,
  useCases: DefinitionUseCases<Item, Attributes>,
  rules: readonly RuleName[] = [],
): MetadefRoute {
  return {
    method: 'DELETE',
    path: `${ONE}/${kind}`,
    describe: {
      summary: `Delete all ${kind} of a namespace`,
      rules: ['get_metadef_namespace', 'delete_metadef_namespace', ...rules],
      answers: { 204: null },
    },
    handle: async (request) => {
      await useCases.removeAll(core, request.context, namespaceOf(request))
      return DONE
    },
  }
}

function removeOne<Item, Attributes>(
  core: Core,
  kind: string,
  useCases: DefinitionUseCases<Item, Attributes>,
  rule: RuleName,
  rejectsBody: boolean,
): MetadefRoute {
  return {
    method: 'DELETE',
    path: `${ONE}/${kind}/:name`,
    describe: {
      summary: `Delete one of the ${kind} of a namespace`,
      rules: ['get_metadef_namespace', rule],
      answers: { 204: null },
    },
    rejectsBody,
    handle: async (request) => {
      await useCases.remove(core, request.context, namespaceOf(request), nameOf(request))
      return DONE
    },
  }
}

// --- bodies ----------------------------------------------------------------------------------------------------------

async function changingBody(request: Request): Promise<Json> {
  const body = await expectedBody(request)
  if (Array.isArray(body)) throw invalid('A metadata definition must be a JSON object.')
  return body as Json
}

/** What of a new object was not said is not in the answer, though it is in every later one. */
const objectAsGiven = (body: Json, view: Json): Json =>
  Object.fromEntries(
    Object.entries(view).filter(
      ([name]) => (name !== 'required' && name !== 'properties') || Object.hasOwn(body, name),
    ),
  )

/** The contents of a new namespace, as the client sent them. */
const contentsAsGiven = (body: Json, { properties }: DefinitionDrafts): Json => ({
  ...(body['resource_type_associations'] === undefined
    ? {}
    : { resource_type_associations: body['resource_type_associations'] }),
  ...(body['properties'] === undefined
    ? {}
    : { properties: propertySchemas(properties.map(({ name, schema }) => [name, schema])) }),
  ...(body['objects'] === undefined
    ? {}
    : {
        objects: (body['objects'] as readonly Json[]).map((object) =>
          object['properties'] === undefined ? object : { ...object, properties: propertySchemas(schemasOf(object)) },
        ),
      }),
  ...(body['tags'] === undefined ? {} : { tags: body['tags'] }),
})

type Doing = 'create' | 'update'
type Parsers = ReturnType<typeof parsers>

/** Bodies to drafts. They throw `invalid` or, where a client says what is not its to say, `forbidden`. */
function parsers() {
  const validate = {
    namespace: validator('namespace', METADEF_SCHEMAS.namespace),
    object: validator('object', METADEF_SCHEMAS.object),
    property: validator('property', METADEF_SCHEMAS.property),
    namelessProperty: validator('property', namelessProperty),
    tag: validator('tag', METADEF_SCHEMAS.tag),
    tags: validator('tags', TAG_LIST),
    association: validator('resource_type_association', METADEF_SCHEMAS.resource_type),
  }

  /** Of a namespace that is created, everything that is in it is looked at as if it came alone. */
  const checked = (body: Json, check: Validate, readOnly: readonly string[]): Json => {
    for (const name of readOnly)
      if (Object.hasOwn(body, name)) throw new ServiceError('forbidden', `Attribute '${name}' is read-only.`)
    check(body)
    return body
  }
  const schemas = (body: Json): ReadonlyMap<string, PropertySchema> => {
    const found = schemasOf(body)
    for (const [name, schema] of found) {
      validate.namelessProperty(schema)
      admitTextsWithin({ [name]: schema }, '')
      admitSchema(name, schema)
    }
    return found
  }
  const toObject = (body: Json, doing: Doing): ObjectAttributes => {
    admitTexts('object', doing, body, ['name', 'description'])
    return {
      name: body['name'] as string,
      description: (body['description'] as string | undefined) ?? null,
      required: (body['required'] as string[] | undefined) ?? [],
      properties: schemas(body),
    }
  }
  const toTag = (body: Json, doing: Doing) => {
    admitTexts('tag', doing, body, ['name'])
    return { name: body['name'] as string }
  }
  const toAssociation = (body: Json): AssociationAttributes => {
    admitTexts('resource type association', 'create', body, ['name', 'prefix', 'properties_target'])
    return {
      name: body['name'] as string,
      prefix: (body['prefix'] as string | undefined) ?? null,
      target: (body['properties_target'] as string | undefined) ?? null,
    }
  }
  const each = <Item>(body: Json, name: string, check: Validate, make: (item: Json) => Item): readonly Item[] =>
    ((body[name] as readonly Json[] | undefined) ?? []).map((item) => make(checked(item, check, [])))

  return {
    namespace: (body: Json, doing: Doing): NamespaceDraft => {
      checked(body, validate.namespace, ['self', 'schema', 'created_at', 'updated_at'])
      admitTexts('namespace', doing, body, ['namespace', 'display_name', 'description', 'owner'])
      return {
        name: body['namespace'] as string,
        displayName: (body['display_name'] as string | undefined) ?? null,
        description: (body['description'] as string | undefined) ?? null,
        visibility: body['visibility'] === 'public' ? 'public' : 'private',
        protected: body['protected'] === true,
        owner: (body['owner'] as ProjectId | undefined) || undefined,
      }
    },
    definitions: (body: Json): DefinitionDrafts => {
      checked(body, validate.namespace, ['self', 'schema', 'created_at', 'updated_at'])
      return {
        objects: each(body, 'objects', validate.object, (item) => toObject(item, 'create')),
        properties: [...schemas(body)].map(([name, schema]) => {
          admitTexts('property', 'create', { name }, ['name'])
          return { name, schema }
        }),
        tags: each(body, 'tags', validate.tag, (item) => toTag(item, 'create')),
        associations: each(body, 'resource_type_associations', validate.association, toAssociation),
      }
    },
    object: (body: Json, doing: Doing) =>
      toObject(checked(body, validate.object, ['self', 'schema', 'created_at', 'updated_at']), doing),
    property: (body: Json, doing: Doing) => {
      checked(body, validate.property, ['created_at', 'updated_at'])
      admitTexts('property', doing, body, ['name'])
      admitTextsWithin(body, `Couldn't ${doing} metadata property: `)
      const name = body['name'] as string
      admitSchema(name, body)
      return { name, schema: body }
    },
    tag: (body: Json, doing: Doing) => toTag(checked(body, validate.tag, ['created_at', 'updated_at']), doing),
    tags: (body: Json) => {
      checked(body, validate.tags, ['created_at', 'updated_at'])
      return (body['tags'] as readonly Json[]).map((tag) => toTag(tag, 'create'))
    },
    association: (body: Json) => toAssociation(checked(body, validate.association, ['created_at', 'updated_at'])),
  }
}

const schemasOf = (body: Json): ReadonlyMap<string, PropertySchema> =>
  new Map(Object.entries((body['properties'] as Readonly<Record<string, PropertySchema>> | undefined) ?? {}))

/** Names have characters, and texts only those that every database can hold. */
function admitTexts(kind: string, doing: Doing, body: Json, names: readonly string[]): void {
  const [first = ''] = names
  if (body[first] === '') throw invalid(`Couldn't ${doing} metadata ${kind}: ${first} may not be empty.`)
  for (const name of names) admitAttribute(name, body[name], `Couldn't ${doing} metadata ${kind}: `)
}

/** Texts at any depth, as those of `admitTexts`. */
function admitTextsWithin(schema: Json, context: string): void {
  for (const [name, value] of Object.entries(schema)) {
    if (typeof value === 'object' && value !== null && !Array.isArray(value)) admitTextsWithin(value as Json, context)
    else admitAttribute(name, value, context)
  }
}

/** What the schema allows, though no Glance can read it back. */
function admitSchema(name: string, schema: PropertySchema): void {
  const items = schema['items'] as Json | undefined
  const refuse = (what: string) => invalid(`Property ${name}: ${what}`)
  for (const list of [schema['enum'], items?.['enum']]) {
    if (Array.isArray(list) && list.some((value) => typeof value !== 'string'))
      throw refuse('enum may hold texts only.')
  }
  if (items !== undefined && items['type'] === undefined) throw refuse('items must have a type.')
  if (schema['required'] !== undefined) throw refuse('required is for objects only.')
}

// --- queries ---------------------------------------------------------------------------------------------------------

function parseNamespaceQuery(query: Query, { pageDefault, pageMax }: PageLimits): NamespaceQuery {
  const visibility = admitVisibility(query, NAMESPACE_VISIBILITIES)
  return {
    visibility,
    resourceTypes: last(query, 'resource_types')?.split(','),
    sort: parseSort(query, NAMESPACE_SORT_KEYS),
    marker: last(query, 'marker'),
    limit: Math.min(parseLimit(last(query, 'limit')) ?? pageDefault, pageMax),
  }
}

/** A list of objects has no pages, but what asks for them must make sense. */
function parseObjectQuery(query: Query): void {
  admitVisibility(query, [...NAMESPACE_VISIBILITIES, 'shared'])
  direction(query)
  if (parseLimit(last(query, 'limit')) === 0) throw invalid('limit param must be positive')
}

function admitVisibility<Visibility extends string>(
  query: Query,
  known: readonly Visibility[],
): Visibility | undefined {
  const text = last(query, 'visibility')
  if (!text) return undefined
  const visibility = known.find((each) => each === text)
  if (visibility === undefined) throw invalid(`Invalid visibility value: ${text}`)
  return visibility
}

function parseSort<Key extends string>(query: Query, keys: readonly Key[]): PageQuery<Key>['sort'] {
  const text = last(query, 'sort_key') ?? 'created_at'
  const key = keys.find((known) => known === text)
  if (key === undefined)
    throw invalid(`Invalid sort key: ${text}. It must be one of the following: ${keys.join(', ')}.`)
  return { key, descending: direction(query) === 'desc' }
}

function direction(query: Query): string {
  const text = last(query, 'sort_dir') ?? 'desc'
  if (text !== 'asc' && text !== 'desc') throw invalid(`Invalid sort direction: ${text}`)
  return text
}

const TRUE = new Set(['1', 't', 'true', 'on', 'y', 'yes'])
const isTrue = (header: string | string[] | undefined): boolean =>
  TRUE.has((Array.isArray(header) ? header[0] : header)?.trim().toLowerCase() ?? '')
