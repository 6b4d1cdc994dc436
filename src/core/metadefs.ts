import type { DefinitionRepository, MetadefRepository } from '../db/database.ts'
import { hasKind, ServiceError } from '../domain/errors.ts'
import type { ProjectId } from '../domain/ids.ts'
import type {
  Association,
  AssociationAttributes,
  DefinitionDrafts,
  Definitions,
  MetadefObject,
  MetadefProperty,
  MetadefTag,
  Namespace,
  NamespaceAttributes,
  NamespaceQuery,
  ObjectAttributes,
  PropertyAttributes,
  ResourceType,
  TagAttributes,
  TagQuery,
} from '../domain/metadef.ts'
import type { Notification } from '../notify/notifier.ts'
import { enforceNamespace } from '../policy/enforce.ts'
import type { RuleName } from '../policy/rules.ts'
import { namespaceTarget } from '../policy/target.ts'
import type { Core, RequestContext } from './core.ts'

/** A namespace as a client asks for one; it belongs to the caller's project unless another is named. */
export type NamespaceDraft = Omit<NamespaceAttributes, 'owner'> & { readonly owner: ProjectId | undefined }

export interface NamespacePage {
  readonly namespaces: readonly { readonly namespace: Namespace; readonly associations: readonly Association[] }[]
  /** The marker of the next page, if there may be one. */
  readonly next: string | undefined
}

/** `namespace` is undefined where the rule is about none in particular. */
const enforce = (core: Core, ctx: RequestContext, rule: RuleName, namespace?: Namespace): void =>
  enforceNamespace(core.policy, rule, ctx.identity, namespaceTarget(ctx.identity, namespace))

const allows = (core: Core, ctx: RequestContext, rule: RuleName, namespace: Namespace): boolean =>
  core.policy.allows(rule, ctx.identity, namespaceTarget(ctx.identity, namespace))

/** Looks a namespace up; whoever may not see it is told, in the words of `missing`, that there is none. */
async function load(
  core: Core,
  ctx: RequestContext,
  name: string,
  missing = `Namespace ${name} not found`,
): Promise<Namespace> {
  try {
    return await core.db.metadefs.get(name, ctx.scope)
  } catch (cause) {
    if (hasKind(cause, 'not-found')) throw new ServiceError('not-found', missing, { cause })
    throw cause
  }
}

const isProtected = (what: string) =>
  new ServiceError('forbidden', `Metadata definition ${what} is protected and cannot be deleted.`)

const owned = ({ owner, ...rest }: NamespaceDraft, ctx: RequestContext): NamespaceAttributes => {
  const project = owner ?? ctx.identity.projectId
  if (project === undefined) throw new ServiceError('invalid', 'A namespace needs an owner.')
  return { ...rest, owner: project }
}

// --- namespaces ------------------------------------------------------------------------------------------------------

export async function listNamespaces(core: Core, ctx: RequestContext, query: NamespaceQuery): Promise<NamespacePage> {
  enforce(core, ctx, 'get_metadef_namespaces')
  enforce(core, ctx, 'list_metadef_resource_types')
  const found = await core.db.metadefs.list(query, ctx.scope)
  const namespaces = found.filter(({ namespace }) => allows(core, ctx, 'get_metadef_namespace', namespace))
  const isFull = namespaces.length > 0 && namespaces.length === query.limit
  return { namespaces, next: isFull ? namespaces.at(-1)?.namespace.name : undefined }
}

export async function createNamespace(
  core: Core,
  ctx: RequestContext,
  draft: NamespaceDraft,
  definitions: DefinitionDrafts,
): Promise<Namespace> {
  enforce(core, ctx, 'add_metadef_namespace')
  if (definitions.associations.length > 0) enforce(core, ctx, 'add_metadef_resource_type_association')
  if (definitions.objects.length > 0) enforce(core, ctx, 'add_metadef_object')
  if (definitions.properties.length > 0) enforce(core, ctx, 'add_metadef_property')
  if (definitions.tags.length > 0) enforce(core, ctx, 'add_metadef_tag')
  const namespace = await core.db.metadefs.insert(owned(draft, ctx), definitions)
  notifyCreated(core, namespace, definitions)
  return namespace
}

function notifyCreated(core: Core, namespace: Namespace, definitions: DefinitionDrafts): void {
  const { name, createdAt, updatedAt } = namespace
  const { notify } = core.notifier
  const stamped = <Item>(item: Item) => ({ namespace: name, item: { ...item, createdAt, updatedAt } })
  notify({ type: 'metadef_namespace.create', namespace })
  for (const each of definitions.associations) notify({ type: 'metadef_resource_type.create', ...stamped(each) })
  for (const each of definitions.objects) notify({ type: 'metadef_object.create', ...stamped(each) })
  for (const each of definitions.tags) notify({ type: 'metadef_tag.create', ...stamped(each) })
  for (const each of definitions.properties) notify({ type: 'metadef_property.create', ...stamped(each) })
}

/** With all that is in it. */
export async function showNamespace(
  core: Core,
  ctx: RequestContext,
  name: string,
): Promise<{ readonly namespace: Namespace; readonly definitions: Definitions }> {
  const namespace = await load(core, ctx, name, `Metadata definition namespace=${name} was not found.`)
  enforce(core, ctx, 'get_metadef_namespace', namespace)
  enforce(core, ctx, 'list_metadef_resource_types', namespace)
  enforce(core, ctx, 'get_metadef_objects', namespace)
  enforce(core, ctx, 'get_metadef_properties', namespace)
  enforce(core, ctx, 'get_metadef_tags', namespace)
  return { namespace, definitions: await core.db.metadefs.contents(name) }
}

/** What is in it stays as it is. */
export async function replaceNamespace(
  core: Core,
  ctx: RequestContext,
  name: string,
  draft: NamespaceDraft,
): Promise<Namespace> {
  const namespace = await load(core, ctx, name)
  enforce(core, ctx, 'modify_metadef_namespace', namespace)
  const replaced = await core.db.metadefs.replace(name, owned(draft, ctx))
  core.notifier.notify({ type: 'metadef_namespace.update', namespace: replaced, oldName: name })
  return replaced
}

export async function deleteNamespace(core: Core, ctx: RequestContext, name: string): Promise<void> {
  const namespace = await load(core, ctx, name)
  enforce(core, ctx, 'delete_metadef_namespace', namespace)
  if (namespace.protected) throw isProtected(`namespace ${name}`)
  await core.db.metadefs.remove(name)
  core.notifier.notify({ type: 'metadef_namespace.delete', namespace })
}

// --- what is in a namespace ------------------------------------------------------------------------------------------

/** What can be done with definitions of one kind. */
export interface DefinitionUseCases<Item, Attributes> {
  list(core: Core, ctx: RequestContext, namespace: string): Promise<readonly Item[]>
  show(core: Core, ctx: RequestContext, namespace: string, name: string): Promise<Item>
  add(core: Core, ctx: RequestContext, namespace: string, attributes: Attributes): Promise<Item>
  replace(core: Core, ctx: RequestContext, namespace: string, name: string, attributes: Attributes): Promise<Item>
  remove(core: Core, ctx: RequestContext, namespace: string, name: string): Promise<void>
  removeAll(core: Core, ctx: RequestContext, namespace: string): Promise<void>
}

interface Kind<Item, Attributes> {
  /** As a message calls one. */
  readonly noun: string
  readonly of: (metadefs: MetadefRepository) => DefinitionRepository<Item, Attributes>
  readonly rules: Readonly<Record<'list' | 'show' | 'add' | 'replace' | 'remove', RuleName>>
  /** Beyond the rule about the namespace. */
  readonly toRemoveAll?: RuleName
  /** What others are told of it. */
  readonly told: {
    one(change: 'create' | 'update' | 'delete', about: About<Item>): Notification
    readonly all: 'delete_objects' | 'delete_properties' | 'delete_tags'
  }
}

interface About<Item> {
  readonly namespace: string
  readonly item: Item
  readonly oldName?: string
}

const useCases = <Item, Attributes>(kind: Kind<Item, Attributes>): DefinitionUseCases<Item, Attributes> => {
  const { noun, of, rules, told } = kind
  const admitted = async (core: Core, ctx: RequestContext, name: string, rule: RuleName): Promise<Namespace> => {
    const namespace = await load(core, ctx, name)
    enforce(core, ctx, rule, namespace)
    return namespace
  }
  return {
    list: async (core, ctx, name) => {
      const namespace = await admitted(core, ctx, name, rules.list)
      return allows(core, ctx, rules.show, namespace) ? of(core.db.metadefs).list(name) : []
    },
    show: async (core, ctx, namespace, name) => {
      await admitted(core, ctx, namespace, rules.show)
      return of(core.db.metadefs).get(namespace, name)
    },
    add: async (core, ctx, namespace, attributes) => {
      await admitted(core, ctx, namespace, rules.add)
      const item = await of(core.db.metadefs).insert(namespace, attributes)
      core.notifier.notify(told.one('create', { namespace, item }))
      return item
    },
    replace: async (core, ctx, namespace, name, attributes) => {
      await admitted(core, ctx, namespace, rules.replace)
      const item = await of(core.db.metadefs).replace(namespace, name, attributes)
      core.notifier.notify(told.one('update', { namespace, item, oldName: name }))
      return item
    },
    remove: async (core, ctx, namespace, name) => {
      const found = await admitted(core, ctx, namespace, rules.remove)
      const item = await of(core.db.metadefs).get(namespace, name)
      if (found.protected) throw isProtected(`${noun} ${name}`)
      await of(core.db.metadefs).remove(namespace, name)
      core.notifier.notify(told.one('delete', { namespace, item }))
    },
    removeAll: async (core, ctx, name) => {
      const namespace = await load(core, ctx, name)
      enforce(core, ctx, 'delete_metadef_namespace', namespace)
      if (kind.toRemoveAll !== undefined) enforce(core, ctx, kind.toRemoveAll, namespace)
      if (namespace.protected) throw isProtected(`namespace ${name}`)
      await of(core.db.metadefs).clear(name)
      core.notifier.notify({ type: `metadef_namespace.${told.all}`, namespace })
    },
  }
}

export const metadefObjects = useCases<MetadefObject, ObjectAttributes>({
  noun: 'object',
  of: (metadefs) => metadefs.objects,
  told: { one: (change, about) => ({ type: `metadef_object.${change}`, ...about }), all: 'delete_objects' },
  rules: {
    list: 'get_metadef_objects',
    show: 'get_metadef_object',
    add: 'add_metadef_object',
    replace: 'modify_metadef_object',
    remove: 'delete_metadef_object',
  },
})

export const metadefProperties = useCases<MetadefProperty, PropertyAttributes>({
  noun: 'property',
  of: (metadefs) => metadefs.properties,
  told: { one: (change, about) => ({ type: `metadef_property.${change}`, ...about }), all: 'delete_properties' },
  rules: {
    list: 'get_metadef_properties',
    show: 'get_metadef_property',
    add: 'add_metadef_property',
    replace: 'modify_metadef_property',
    remove: 'remove_metadef_property',
  },
})

export const metadefTags = useCases<MetadefTag, TagAttributes>({
  noun: 'tag',
  of: (metadefs) => metadefs.tags,
  told: { one: (change, about) => ({ type: `metadef_tag.${change}`, ...about }), all: 'delete_tags' },
  rules: {
    list: 'get_metadef_tags',
    show: 'get_metadef_tag',
    add: 'add_metadef_tag',
    replace: 'modify_metadef_tag',
    remove: 'delete_metadef_tag',
  },
  toRemoveAll: 'delete_metadef_tags',
})

/** By the name that a property has for a resource type: it begins with the prefix of their association. */
export async function showPropertyFor(
  core: Core,
  ctx: RequestContext,
  namespace: string,
  name: string,
  resourceType: string,
): Promise<MetadefProperty> {
  const found = await load(core, ctx, namespace)
  enforce(core, ctx, 'get_metadef_property', found)
  enforce(core, ctx, 'get_metadef_resource_type', found)
  const associations = await core.db.metadefs.associations.list(namespace)
  const association = associations.find((each) => each.name === resourceType)
  if (association === undefined) {
    throw new ServiceError(
      'not-found',
      `The metadata definition resource-type association of resource-type=${resourceType} to namespace=${namespace}, was not found.`,
    )
  }
  const { prefix } = association
  if (!prefix || !name.startsWith(prefix)) {
    throw new ServiceError(
      'not-found',
      `Property ${name} does not start with the expected resource type association prefix of '${prefix ?? 'None'}'.`,
    )
  }
  return core.db.metadefs.properties.get(namespace, name.slice(prefix.length))
}

export async function pageTags(
  core: Core,
  ctx: RequestContext,
  namespace: string,
  query: TagQuery,
): Promise<readonly MetadefTag[]> {
  enforce(core, ctx, 'get_metadef_tags', await load(core, ctx, namespace))
  return core.db.metadefs.tags.page(namespace, query)
}

/** Takes `tags` for all there are, or adds them; none at all changes nothing. */
export async function addTags(
  core: Core,
  ctx: RequestContext,
  namespace: string,
  tags: readonly TagAttributes[],
  mode: 'append' | 'replace',
): Promise<void> {
  enforce(core, ctx, 'add_metadef_tags', await load(core, ctx, namespace))
  if (tags.length > 0) await core.db.metadefs.tags.insertAll(namespace, tags, mode)
  const now = new Date()
  for (const tag of tags) {
    const item = { ...tag, createdAt: now, updatedAt: now }
    core.notifier.notify({ type: 'metadef_tag.create', namespace, item })
  }
}

// --- resource types --------------------------------------------------------------------------------------------------

export async function listResourceTypes(core: Core, ctx: RequestContext): Promise<readonly ResourceType[]> {
  enforce(core, ctx, 'list_metadef_resource_types')
  return core.db.metadefs.resourceTypes()
}

export async function listAssociations(core: Core, ctx: RequestContext, name: string): Promise<readonly Association[]> {
  const namespace = await load(core, ctx, name)
  enforce(core, ctx, 'list_metadef_resource_types', namespace)
  return allows(core, ctx, 'get_metadef_resource_type', namespace) ? core.db.metadefs.associations.list(name) : []
}

export async function addAssociation(
  core: Core,
  ctx: RequestContext,
  namespace: string,
  association: AssociationAttributes,
): Promise<Association> {
  enforce(core, ctx, 'add_metadef_resource_type_association', await load(core, ctx, namespace))
  const item = await core.db.metadefs.associations.insert(namespace, association)
  core.notifier.notify({ type: 'metadef_resource_type.create', namespace, item })
  return item
}

export async function removeAssociation(
  core: Core,
  ctx: RequestContext,
  name: string,
  resourceType: string,
): Promise<void> {
  const namespace = await load(core, ctx, name)
  enforce(core, ctx, 'remove_metadef_resource_type_association', namespace)
  const associations = await core.db.metadefs.associations.list(name)
  const item = associations.find((each) => each.name === resourceType)
  if (item === undefined) throw new ServiceError('not-found', `Failed to find resource type ${resourceType} to delete`)
  if (namespace.protected) throw isProtected(`resource-type-association ${resourceType}`)
  await core.db.metadefs.associations.remove(name, resourceType)
  core.notifier.notify({ type: 'metadef_resource_type.delete', namespace: name, item })
}
