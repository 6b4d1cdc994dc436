// Metadata definitions to JSON. What has no value is left out.
import type {
  Association,
  Definitions,
  MetadefObject,
  MetadefProperty,
  MetadefTag,
  Namespace,
  PropertySchema,
  Stamps,
} from '../../domain/metadef.ts'
import { isoTime } from './views.ts'

type Json = Readonly<Record<string, unknown>>

export const NAMESPACES = '/v2/metadefs/namespaces'

const stamps = ({ createdAt, updatedAt }: Stamps) => ({
  created_at: isoTime(createdAt),
  ...(updatedAt === undefined ? {} : { updated_at: isoTime(updatedAt) }),
})

/** Without members that are null. */
const said = (members: Json): Json => Object.fromEntries(Object.entries(members).filter(([, value]) => value !== null))

export const namespaceView = (namespace: Namespace): Json =>
  said({
    namespace: namespace.name,
    display_name: namespace.displayName,
    description: namespace.description,
    visibility: namespace.visibility,
    protected: namespace.protected,
    owner: namespace.owner,
    ...stamps(namespace),
    self: `${NAMESPACES}/${namespace.name}`,
    schema: '/v2/schemas/metadefs/namespace',
  })

/** A namespace with all that is in it; kinds of which there are none are left out. */
export const wholeNamespaceView = (namespace: Namespace, definitions: Definitions): Json => ({
  ...namespaceView(namespace),
  ...some('resource_type_associations', definitions.associations.map(associationView)),
  ...(definitions.properties.length > 0 ? { properties: propertiesView(definitions.properties) } : {}),
  ...some(
    'objects',
    definitions.objects.map((object) => objectView(namespace.name, object)),
  ),
  ...some('tags', definitions.tags.map(tagName)),
})

export const some = (name: string, items: readonly Json[]): Json => (items.length > 0 ? { [name]: items } : {})

export const objectView = (namespace: string, object: MetadefObject): Json =>
  said({
    name: object.name,
    required: object.required,
    description: object.description,
    properties: propertySchemas(object.properties),
    ...stamps(object),
    self: `${NAMESPACES}/${namespace}/objects/${object.name}`,
    schema: '/v2/schemas/metadefs/object',
  })

export const propertySchemas = (schemas: Iterable<readonly [string, PropertySchema]>): Json =>
  Object.fromEntries([...schemas].map(([name, schema]) => [name, propertySchema(schema)]))

export const propertiesView = (properties: readonly MetadefProperty[]): Json =>
  propertySchemas(properties.map(({ name, schema }) => [name, schema]))

export const propertyView = ({ name, schema }: MetadefProperty): Json => ({ ...propertySchema(schema), name })

/** Clients have always read defaults as texts, in Python's words; lists and objects as none. */
const propertySchema = (schema: PropertySchema): Json =>
  Object.hasOwn(schema, 'default') ? { ...schema, default: defaultText(schema['default']) } : schema

function defaultText(value: unknown): string | null {
  if (typeof value === 'boolean') return value ? 'True' : 'False'
  return typeof value === 'string' || typeof value === 'number' ? String(value) : null
}

export const tagName = ({ name }: { readonly name: string }): Json => ({ name })

export const tagView = (tag: MetadefTag): Json => ({ name: tag.name, ...stamps(tag) })

export const resourceTypeView = tagView

export const associationView = (association: Association): Json =>
  said({
    name: association.name,
    prefix: association.prefix,
    properties_target: association.target,
    ...stamps(association),
  })
