import type { ProjectId } from './ids.ts'

export const NAMESPACE_VISIBILITIES = ['public', 'private'] as const
export type NamespaceVisibility = (typeof NAMESPACE_VISIBILITIES)[number]

/** What is said of a property, as JSON: type, title, enum, default … */
export type PropertySchema = Readonly<Record<string, unknown>>
/** By name; a map, because a client may choose names such as `__proto__`. */
export type PropertySchemas = ReadonlyMap<string, PropertySchema>

export interface Stamps {
  readonly createdAt: Date
  /** Undefined of what glance-manage of upstream loaded, which does not say. */
  readonly updatedAt: Date | undefined
}

export interface NamespaceAttributes {
  readonly name: string
  readonly displayName: string | null
  readonly description: string | null
  readonly visibility: NamespaceVisibility
  readonly protected: boolean
  readonly owner: ProjectId
}
export interface Namespace extends NamespaceAttributes, Stamps {}

/** Properties that belong together. */
export interface ObjectAttributes {
  readonly name: string
  readonly description: string | null
  readonly required: readonly string[]
  readonly properties: PropertySchemas
}
export interface MetadefObject extends ObjectAttributes, Stamps {}

export interface PropertyAttributes {
  readonly name: string
  readonly schema: PropertySchema
}
export interface MetadefProperty extends PropertyAttributes, Stamps {}

export interface TagAttributes {
  readonly name: string
}
export interface MetadefTag extends TagAttributes, Stamps {}

/** A kind of thing that definitions may be used for, such as `OS::Nova::Flavor`; known to all namespaces. */
export interface ResourceType extends Stamps {
  readonly name: string
}

export interface AssociationAttributes {
  /** Of the resource type. */
  readonly name: string
  /** What names of properties begin with when they are used for this type. */
  readonly prefix: string | null
  /** Which of the type's several sets of properties is meant. */
  readonly target: string | null
}
export interface Association extends AssociationAttributes, Stamps {}

export type Definitions<
  ObjectType = MetadefObject,
  PropertyType = MetadefProperty,
  TagType = MetadefTag,
  AssociationType = Association,
> = {
  readonly objects: readonly ObjectType[]
  readonly properties: readonly PropertyType[]
  readonly tags: readonly TagType[]
  readonly associations: readonly AssociationType[]
}

/** What is in a namespace before it has been stored. */
export type DefinitionDrafts = Definitions<ObjectAttributes, PropertyAttributes, TagAttributes, AssociationAttributes>

export const NAMESPACE_SORT_KEYS = [
  'namespace',
  'display_name',
  'description',
  'visibility',
  'protected',
  'owner',
  'id',
  'created_at',
  'updated_at',
] as const
export type NamespaceSortKey = (typeof NAMESPACE_SORT_KEYS)[number]

export const TAG_SORT_KEYS = ['name', 'id', 'created_at', 'updated_at'] as const
export type TagSortKey = (typeof TAG_SORT_KEYS)[number]

/** A page of a list. Ties are broken by the order of creation, in the same direction. */
export interface PageQuery<Key extends string> {
  readonly sort: { readonly key: Key; readonly descending: boolean }
  /** The page begins behind the one of this name; throws `not-found` if there is none, or none to be seen. */
  readonly marker: string | undefined
  readonly limit: number | undefined
}

export interface NamespaceQuery extends PageQuery<NamespaceSortKey> {
  readonly visibility: NamespaceVisibility | undefined
  /** Associated with any of these. */
  readonly resourceTypes: readonly string[] | undefined
}
export type TagQuery = PageQuery<TagSortKey>

/** The definitions under the names that they have for a resource type. */
export function prefixed(definitions: Definitions, resourceType: string): Definitions {
  const prefix = definitions.associations.find(({ name }) => name === resourceType)?.prefix ?? ''
  return {
    ...definitions,
    properties: definitions.properties.map((property) => ({ ...property, name: prefix + property.name })),
    objects: definitions.objects.map((object) => ({
      ...object,
      required: object.required.map((name) => prefix + name),
      properties: new Map([...object.properties].map(([name, schema]) => [prefix + name, schema])),
    })),
  }
}
