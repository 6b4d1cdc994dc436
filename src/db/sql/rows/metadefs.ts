import { sql } from 'kysely'
import { hasKind } from '../../../domain/errors.ts'
import { type Arguments, type Exception, type Row, raised } from '../../rows.ts'
import {
  badArguments,
  type Commands,
  type Desk,
  dictionary,
  integer,
  isDictionary,
  optionalText,
  reads,
  text,
  without,
  writes,
} from './command.ts'
import { limitOf } from './image-list.ts'
import { pageOf, type RowOf, TABLES } from './table.ts'

type Namespace = RowOf<'metadef_namespaces'>
type KindTable = 'metadef_objects' | 'metadef_properties' | 'metadef_tags'

/** Objects, properties and tags: what their arguments are called, and what their exceptions. */
interface Kind {
  readonly table: KindTable
  readonly name: string
  readonly id: string
  readonly values: string
  readonly missing: Exception
  readonly duplicate: Exception
  readonly noun: string
  /** What is said when a new one's name is taken. */
  readonly taken: (name: string, namespace: string) => string
}

const KINDS: Readonly<Record<string, Kind>> = {
  metadef_object: {
    ...{ table: 'metadef_objects', name: 'object_name', id: 'object_id', values: 'object_dict' },
    ...{ missing: 'MetadefObjectNotFound', duplicate: 'MetadefDuplicateObject', noun: 'object' },
    taken: (name, namespace) =>
      `A metadata definition object with name=${name} already exists in namespace=${namespace}.`,
  },
  metadef_property: {
    ...{ table: 'metadef_properties', name: 'property_name', id: 'property_id', values: 'property_dict' },
    ...{ missing: 'MetadefPropertyNotFound', duplicate: 'MetadefDuplicateProperty', noun: 'property' },
    taken: (name, namespace) =>
      `A metadata definition property with name=${name} already exists in namespace=${namespace}.`,
  },
  metadef_tag: {
    ...{ table: 'metadef_tags', name: 'name', id: 'id', values: 'tag_dict' },
    ...{ missing: 'MetadefTagNotFound', duplicate: 'MetadefDuplicateTag', noun: 'tag' },
    taken: (name, namespace) =>
      `A metadata tag with name=${name} already exists in namespace=${namespace}. (Please note that metadata tag names are case insensitive).`,
  },
}

const PAGE = ['filters', 'marker', 'limit', 'sort_key', 'sort_dir']
const PROTECTED = ['created_at', 'updated_at']

/** Runs what may meet another row of the same name. */
const orDuplicate = async <T>(desk: Desk, exception: Exception, message: string, run: Promise<T>): Promise<T> => {
  try {
    return await run
  } catch (error) {
    throw hasKind(desk.facts.translate(error), 'conflict') ? raised(exception, message) : error
  }
}

const born = (desk: Desk, values: Arguments): Arguments => {
  const now = desk.now()
  return { ...without(values, PROTECTED), created_at: now, updated_at: now }
}
const changed = (desk: Desk, values: Arguments): Arguments => ({
  ...without(values, PROTECTED),
  updated_at: desk.now(),
})

function requireVisible(desk: Desk, namespace: Namespace | undefined, missing: string): Namespace {
  const { admin, owner } = desk.context
  if (namespace === undefined) throw raised('MetadefNamespaceNotFound', missing)
  if (!admin && namespace.visibility !== 'public' && (owner === null || namespace.owner !== owner))
    throw raised(
      'MetadefForbidden',
      `Forbidding request, metadata definition namespace=${namespace.namespace} is not visible.`,
    )
  return namespace
}

async function namespaceOf(desk: Desk, args: Arguments): Promise<Namespace> {
  const name = text(args, 'namespace_name')
  const [found] = await desk.select(desk.session, 'metadef_namespaces', sql`where namespace = ${name}`)
  return requireVisible(desk, found, `Metadata definition namespace=${name} was not found.`)
}

async function namespaceById(desk: Desk, id: number): Promise<Namespace> {
  const [found] = await desk.select(desk.session, 'metadef_namespaces', sql`where id = ${id}`)
  return requireVisible(desk, found, `Metadata definition namespace not found for id=${id}`)
}

/** The order of a page of namespaces or tags. Throws `InvalidSortKey`. */
function pageKeys(table: 'metadef_namespaces' | 'metadef_tags', args: Arguments) {
  const key = optionalText(args, 'sort_key') ?? 'created_at'
  if (!Object.hasOwn(TABLES[table], key)) throw raised('InvalidSortKey', 'Sort key supplied was not valid.')
  const descending = (optionalText(args, 'sort_dir') ?? 'asc') !== 'asc'
  return [...new Set([...(key === 'id' ? [] : [key]), 'created_at', 'id'])].map((column) => ({ column, descending }))
}

const pageLimit = (args: Arguments): number | null => (args['limit'] == null ? null : limitOf(args))

const namespaceCommands: Commands = {
  metadef_namespace_get_all: reads([], PAGE, async (desk, args) => {
    const { admin, owner } = desk.context
    const filters = isDictionary(args['filters']) ? args['filters'] : {}
    const { visibility = null, resource_types: types = null } = filters
    const marker = args['marker'] == null ? undefined : await namespaceById(desk, integer(args, 'marker'))
    const conditions = [
      ...(admin ? [] : [sql`(visibility = 'public' or owner = ${owner})`]),
      ...(visibility === null ? [] : [sql`visibility = ${String(visibility)}`]),
      ...(types === null
        ? []
        : [
            sql`id in (select a.namespace_id from metadef_namespace_resource_types a
              join metadef_resource_types t on t.id = a.resource_type_id
              where t.name in (${sql.join(String(types).split(','))}))`,
          ]),
    ]
    const keys = pageKeys('metadef_namespaces', args)
    const where = pageOf(desk, 'metadef_namespaces', conditions, { keys, marker, limit: pageLimit(args) })
    return desk.select(desk.session, 'metadef_namespaces', where)
  }),
  metadef_namespace_get: reads(['namespace_name'], [], namespaceOf),
  metadef_namespace_create: writes(['values'], [], async (desk, args) => {
    const values = born(desk, dictionary(args, 'values'))
    const namespace = text(values, 'namespace')
    await orDuplicate(
      desk,
      'MetadefDuplicateNamespace',
      `The metadata definition namespace=${namespace} already exists.`,
      desk.insert(desk.session, 'metadef_namespaces', values),
    )
    const [created] = await desk.select(desk.session, 'metadef_namespaces', sql`where namespace = ${namespace}`)
    return created
  }),
  metadef_namespace_update: writes(['namespace_id', 'namespace_dict'], [], async (desk, args) => {
    const { id } = await namespaceById(desk, integer(args, 'namespace_id'))
    const values = dictionary(args, 'namespace_dict')
    await orDuplicate(
      desk,
      'MetadefDuplicateNamespace',
      `Invalid update. It would result in a duplicate metadata definition namespace with the same name of ${String(values['namespace'])}`,
      desk.update(desk.session, 'metadef_namespaces', changed(desk, values), sql`id = ${id}`),
    )
    return namespaceById(desk, id)
  }),
  metadef_namespace_delete: writes(['namespace_name'], [], async (desk, args) => {
    const namespace = await namespaceOf(desk, args)
    for (const table of [
      ...(['metadef_tags', 'metadef_objects', 'metadef_properties'] as const),
      'metadef_namespace_resource_types' as const,
    ])
      await desk.remove(desk.session, table, sql`namespace_id = ${namespace.id}`)
    await desk.remove(desk.session, 'metadef_namespaces', sql`id = ${namespace.id}`)
    return namespace
  }),
}

const definitionCommands = (prefix: string, kind: Kind): Commands => {
  const { table, name, id, values, missing, duplicate, noun, taken } = kind
  const named = async (desk: Desk, args: Arguments): Promise<Row & { readonly id: number }> => {
    const namespace = await namespaceOf(desk, args)
    const wanted = text(args, name)
    const where = sql`where namespace_id = ${namespace.id} and name = ${wanted}`
    const [found] = await desk.select(desk.session, table, where)
    if (found === undefined)
      throw raised(
        missing,
        `The metadata definition ${noun} with name=${wanted} was not found in namespace=${namespace.namespace}.`,
      )
    return found
  }
  const insert = async (desk: Desk, namespace: Namespace, given: Arguments): Promise<Row | undefined> => {
    const wanted = text(given, 'name')
    await orDuplicate(
      desk,
      duplicate,
      taken(wanted, namespace.namespace ?? ''),
      desk.insert(desk.session, table, { ...born(desk, without(given, ['id'])), namespace_id: namespace.id }),
    )
    const where = sql`where namespace_id = ${namespace.id} and name = ${wanted}`
    return (await desk.select(desk.session, table, where))[0]
  }
  const inNamespace = async (desk: Desk, args: Arguments) => sql`namespace_id = ${(await namespaceOf(desk, args)).id}`

  return {
    [`${prefix}_get`]: reads(['namespace_name', name], [], named),
    [`${prefix}_create`]: writes(['namespace_name', values], [], async (desk, args) =>
      insert(desk, await namespaceOf(desk, args), dictionary(args, values)),
    ),
    [`${prefix}_update`]: writes(['namespace_name', id, values], [], async (desk, args) => {
      const namespace = await namespaceOf(desk, args)
      const change = changed(desk, without(dictionary(args, values), ['id', 'namespace_id']))
      const where = sql`id = ${integer(args, id)}`
      const count = await orDuplicate(
        desk,
        duplicate,
        `Invalid update. It would result in a duplicate metadata definition ${noun} with the same name=${String(change['name'])} in namespace=${namespace.namespace}.`,
        desk.update(desk.session, table, change, where),
      )
      if (count === 0) throw raised(missing, `Metadata definition ${noun} not found for id=${integer(args, id)}`)
      return (await desk.select(desk.session, table, sql`where ${where}`))[0]
    }),
    [`${prefix}_delete`]: writes(['namespace_name', name], [], async (desk, args) => {
      const found = await named(desk, args)
      await desk.remove(desk.session, table, sql`id = ${found.id}`)
      return found
    }),
    [`${prefix}_delete_namespace_content`]: writes(['namespace_name'], [], async (desk, args) =>
      desk.remove(desk.session, table, await inNamespace(desk, args)),
    ),
    [`${prefix}_count`]: reads(['namespace_name'], [], async (desk, args) =>
      desk.count(desk.session, table, await inNamespace(desk, args)),
    ),
    ...(table === 'metadef_tags'
      ? tagCommands(insert)
      : {
          [`${prefix}_get_all`]: reads(['namespace_name'], [], async (desk, args) =>
            desk.select(desk.session, table, sql`where ${await inNamespace(desk, args)} order by id`),
          ),
        }),
  }
}

const tagCommands = (
  insert: (desk: Desk, namespace: Namespace, values: Arguments) => Promise<Row | undefined>,
): Commands => ({
  metadef_tag_get_all: reads(['namespace_name'], PAGE, async (desk, args) => {
    const namespace = await namespaceOf(desk, args)
    const [marker] =
      args['marker'] == null
        ? []
        : await desk.select(desk.session, 'metadef_tags', sql`where id = ${integer(args, 'marker')}`)
    if (args['marker'] != null && marker === undefined)
      throw raised('MetadefTagNotFound', `Metadata tag not found for id ${integer(args, 'marker')}`)
    const keys = pageKeys('metadef_tags', args)
    const where = pageOf(desk, 'metadef_tags', [sql`namespace_id = ${namespace.id}`], {
      keys,
      marker,
      limit: pageLimit(args),
    })
    return desk.select(desk.session, 'metadef_tags', where)
  }),
  metadef_tag_create_tags: writes(['namespace_name', 'tag_list'], [], async (desk, args) => {
    const list = args['tag_list']
    if (list === null || (Array.isArray(list) && list.length === 0)) return []
    if (!Array.isArray(list) || !list.every(isDictionary)) throw badArguments('tag_list must be a list of dictionaries')
    const namespace = await namespaceOf(desk, args)
    await desk.remove(desk.session, 'metadef_tags', sql`namespace_id = ${namespace.id}`)
    const created: (Row | undefined)[] = []
    for (const values of list) created.push(await insert(desk, namespace, values))
    return created
  }),
})

async function typeOf(desk: Desk, name: string): Promise<RowOf<'metadef_resource_types'>> {
  const [found] = await desk.select(desk.session, 'metadef_resource_types', sql`where name = ${name}`)
  if (found === undefined)
    throw raised(
      'MetadefResourceTypeNotFound',
      `The metadata definition resource-type with name=${name}, was not found.`,
    )
  return found
}

async function createType(desk: Desk, values: Arguments): Promise<Row> {
  const name = text(values, 'name')
  await orDuplicate(
    desk,
    'MetadefDuplicateResourceType',
    `A metadata definition resource-type with name=${name} already exists.`,
    desk.insert(desk.session, 'metadef_resource_types', { protected: false, ...born(desk, without(values, ['id'])) }),
  )
  return typeOf(desk, name)
}

const typeCommands: Commands = {
  metadef_resource_type_create: writes(['values'], [], (desk, args) => createType(desk, dictionary(args, 'values'))),
  metadef_resource_type_get: reads(['resource_type_name'], [], (desk, args) =>
    typeOf(desk, text(args, 'resource_type_name')),
  ),
  metadef_resource_type_get_all: reads([], [], (desk) =>
    desk.select(desk.session, 'metadef_resource_types', sql`order by id`),
  ),
  metadef_resource_type_delete: writes(['resource_type_name'], [], async (desk, args) => {
    const type = await typeOf(desk, text(args, 'resource_type_name'))
    if (type.protected)
      throw raised(
        'ProtectedMetadefResourceTypeSystemDelete',
        `Metadata definition resource-type ${type.name} is a seeded-system type and cannot be deleted.`,
      )
    if ((await desk.count(desk.session, 'metadef_namespace_resource_types', sql`resource_type_id = ${type.id}`)) > 0)
      throw raised(
        'MetadefIntegrityError',
        `The metadata definition resource-type with name=${type.name} not deleted. Other records still refer to it.`,
      )
    await desk.remove(desk.session, 'metadef_resource_types', sql`id = ${type.id}`)
    return type
  }),
}

type AssociationRow = RowOf<'metadef_namespace_resource_types'>

const association = (name: string | null, row: AssociationRow): Row => ({
  name,
  properties_target: row.properties_target,
  prefix: row.prefix,
  created_at: row.created_at,
  updated_at: row.updated_at,
})

async function findAssociation(desk: Desk, args: Arguments) {
  const namespace = await namespaceOf(desk, args)
  const type = await typeOf(desk, text(args, 'resource_type_name'))
  const where = sql`namespace_id = ${namespace.id} and resource_type_id = ${type.id}`
  const [row] = await desk.select(desk.session, 'metadef_namespace_resource_types', sql`where ${where}`)
  if (row === undefined)
    throw raised(
      'MetadefResourceTypeAssociationNotFound',
      `The metadata definition resource-type association of resource-type=${type.name} to namespace=${namespace.namespace}, was not found.`,
    )
  return { type, row, where }
}

const associationCommands: Commands = {
  metadef_resource_type_association_get: reads(['namespace_name', 'resource_type_name'], [], async (desk, args) => {
    const { type, row } = await findAssociation(desk, args)
    return association(type.name, row)
  }),
  metadef_resource_type_association_get_all_by_namespace: reads(['namespace_name'], [], async (desk, args) => {
    const namespace = await namespaceOf(desk, args)
    const rows = await desk.select(
      desk.session,
      'metadef_namespace_resource_types',
      sql`where namespace_id = ${namespace.id} order by resource_type_id`,
    )
    const types = await desk.select(desk.session, 'metadef_resource_types', sql`order by id`)
    const names = new Map(types.map(({ id, name }) => [id, name]))
    return rows.map((row) => association(names.get(row.resource_type_id) ?? null, row))
  }),
  metadef_resource_type_association_create: writes(['namespace_name', 'values'], [], async (desk, args) => {
    const namespace = await namespaceOf(desk, args)
    const values = dictionary(args, 'values')
    const name = text(values, 'name')
    const [known] = await desk.select(desk.session, 'metadef_resource_types', sql`where name = ${name}`)
    const type = known ?? (await createType(desk, { name, protected: false }))
    const { properties_target = null, prefix = null } = values
    await orDuplicate(
      desk,
      'MetadefDuplicateResourceTypeAssociation',
      `The metadata definition resource-type association of resource-type=${name} to namespace=${namespace.namespace} already exists.`,
      desk.insert(desk.session, 'metadef_namespace_resource_types', {
        ...born(desk, { properties_target, prefix }),
        namespace_id: namespace.id,
        resource_type_id: type['id'],
      }),
    )
    const { row } = await findAssociation(desk, { ...args, resource_type_name: name })
    return association(name, row)
  }),
  metadef_resource_type_association_delete: writes(['namespace_name', 'resource_type_name'], [], async (desk, args) => {
    const { type, row, where } = await findAssociation(desk, args)
    await desk.remove(desk.session, 'metadef_namespace_resource_types', where)
    return association(type.name, row)
  }),
}

export const metadefCommands: Commands = {
  ...namespaceCommands,
  ...Object.assign({}, ...Object.entries(KINDS).map(([prefix, kind]) => definitionCommands(prefix, kind))),
  ...typeCommands,
  ...associationCommands,
}
