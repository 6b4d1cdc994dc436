import { sql } from 'kysely'
import { ServiceError } from '../../domain/errors.ts'
import type { ProjectId } from '../../domain/ids.ts'
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
  PageQuery,
  PropertyAttributes,
  PropertySchema,
  ResourceType,
  Stamps,
  TagAttributes,
} from '../../domain/metadef.ts'
import type { DefinitionRepository, LoadMode, MetadefRepository, Scope } from '../database.ts'
import { fromText } from '../time.ts'
import type { Connection, Session } from './session.ts'
import { type Fragment, slot, type Values } from './statement.ts'

interface StampedRow {
  readonly created_at: string
  readonly updated_at: string | null
}
interface NamespaceRow extends StampedRow {
  readonly id: number
  readonly namespace: string
  readonly display_name: string | null
  readonly description: string | null
  readonly visibility: string | null
  readonly protected: number | boolean | null
  readonly owner: string
}
interface NamedRow extends StampedRow {
  readonly name: string
}
interface ObjectRow extends NamedRow {
  readonly description: string | null
  /** Names, with commas between them. */
  readonly required: string | null
  /** JSON */
  readonly json_schema: string
}
interface PropertyRow extends NamedRow {
  readonly json_schema: string
}
interface AssociationRow extends NamedRow {
  readonly namespace_id: number
  readonly prefix: string | null
  readonly properties_target: string | null
}

const stamps = ({ created_at, updated_at }: StampedRow): Stamps => ({
  createdAt: fromText(created_at),
  updatedAt: updated_at === null ? undefined : fromText(updated_at),
})

const toNamespace = (row: NamespaceRow): Namespace => ({
  name: row.namespace,
  displayName: row.display_name,
  description: row.description,
  visibility: row.visibility === 'public' ? 'public' : 'private',
  protected: Boolean(row.protected),
  owner: row.owner as ProjectId,
  ...stamps(row),
})

const toAssociation = (row: AssociationRow): Association => ({
  name: row.name,
  prefix: row.prefix,
  target: row.properties_target,
  ...stamps(row),
})

const namespaceValues = (namespace: NamespaceAttributes): Values => ({
  name: namespace.name,
  display_name: namespace.displayName,
  description: namespace.description,
  visibility: namespace.visibility,
  protected: namespace.protected,
  owner: namespace.owner,
})

const jsonObject = (text: string | null): Readonly<Record<string, PropertySchema>> => {
  const value: unknown = JSON.parse(text ?? 'null')
  return typeof value === 'object' && value !== null ? (value as Record<string, PropertySchema>) : {}
}

/** How definitions of one kind lie in their table, and what is said when something is wrong with their names. */
interface Kind<Row extends NamedRow, Item, Attributes extends { readonly name: string }> {
  readonly table: string
  /** Beyond name and times. */
  readonly columns: readonly string[]
  readonly toItem: (row: Row) => Item
  readonly toValues: (attributes: Attributes) => Values
  readonly missing: (name: string) => string
  readonly taken: (name: string, namespace: string) => string
  /** When it is changed to the name of another. */
  readonly clash: (name: string, namespace: string) => string
}

const OBJECTS: Kind<ObjectRow, MetadefObject, ObjectAttributes> = {
  table: 'metadef_objects',
  columns: ['description', 'required', 'json_schema'],
  toItem: (row) => ({
    name: row.name,
    description: row.description,
    required: row.required ? row.required.split(',') : [],
    properties: new Map(Object.entries(jsonObject(row.json_schema))),
    ...stamps(row),
  }),
  toValues: ({ description, required, properties }) => ({
    description,
    required: required.length > 0 ? required.join(',') : null,
    json_schema: JSON.stringify(Object.fromEntries(properties)),
  }),
  missing: (name) => `Could not find metadata object ${name}`,
  taken: (name, namespace) =>
    `A metadata definition object with name=${name} already exists in namespace=${namespace}.`,
  clash: (name, namespace) =>
    `Invalid update. It would result in a duplicate metadata definition object with the same name=${name} in namespace=${namespace}.`,
}

const PROPERTIES: Kind<PropertyRow, MetadefProperty, PropertyAttributes> = {
  table: 'metadef_properties',
  columns: ['json_schema'],
  toItem: (row) => ({ name: row.name, schema: jsonObject(row.json_schema), ...stamps(row) }),
  toValues: ({ schema }) => ({ json_schema: JSON.stringify(schema) }),
  missing: (name) => `Could not find property ${name}`,
  taken: (name, namespace) =>
    `A metadata definition property with name=${name} already exists in namespace=${namespace}.`,
  clash: (name, namespace) =>
    `Invalid update. It would result in a duplicate metadata definition property with the same name=${name} in namespace=${namespace}.`,
}

const tagTaken = (name: string, namespace: string) =>
  `A metadata tag with name=${name} already exists in namespace=${namespace}. (Please note that metadata tag names are case insensitive).`

const TAGS: Kind<NamedRow, MetadefTag, TagAttributes> = {
  table: 'metadef_tags',
  columns: [],
  toItem: (row) => ({ name: row.name, ...stamps(row) }),
  toValues: () => ({}),
  missing: (name) => `Could not find metadata tag ${name}`,
  taken: tagTaken,
  clash: tagTaken,
}

const comma = sql`, `
const listed = (parts: readonly Fragment[]): Fragment => sql.join([...parts], comma)

/** Of the keys that are no texts. */
const NULL_IS: Readonly<Record<string, Fragment>> = { protected: sql`false`, updated_at: sql`created_at` }

/** The tail of a query for a page: the place behind the marker's row, order and limit. NULL sorts as ''. */
const behind = <Key extends string>(query: PageQuery<Key>, markerRow: Fragment | undefined) => {
  const { key, descending } = query.sort
  const first = sql`coalesce(${sql.ref(key)}, ${NULL_IS[key] ?? sql`''`})`
  const keys = [...(key === 'created_at' || key === 'id' ? [] : [first]), sql`created_at`, sql`id`]
  const ordered = key === 'id' ? [sql`id`] : keys
  const columns = listed(ordered)
  const direction = descending ? sql`desc` : sql`asc`
  return {
    place: markerRow && sql`(${columns}) ${descending ? sql`<` : sql`>`} (select ${columns} ${markerRow})`,
    order: sql`order by ${listed(ordered.map((column) => sql`${column} ${direction}`))}`,
    limit: query.limit === undefined ? sql`` : sql`limit ${query.limit}`,
  }
}

const visibleTo = (scope: Scope): Fragment => {
  if (scope.admin) return sql`1 = 1`
  return scope.project === undefined
    ? sql`visibility = 'public'`
    : sql`(visibility = 'public' or owner = ${scope.project})`
}

const isVisible = (namespace: Namespace, scope: Scope): boolean =>
  scope.admin || namespace.visibility === 'public' || namespace.owner === scope.project

const noNamespace = (name: string) =>
  new ServiceError('not-found', `Metadata definition namespace=${name} was not found.`)

/** A namespace's row id is only good within the transaction that asked for it. */
interface Place {
  readonly id: number
  readonly name: string
}

type FindNamespace = (session: Session, name: string) => Promise<Place>

const TIMES: readonly string[] = ['created_at', 'updated_at']

const definitions = <Row extends NamedRow, Item, Attributes extends { readonly name: string }>(
  { facts, prepare, read, write }: Connection,
  find: FindNamespace,
  kind: Kind<Row, Item, Attributes>,
) => {
  const table = sql.table(kind.table)
  const columns = ['name', 'created_at', 'updated_at', ...kind.columns]
  const within = sql`from ${table} where namespace_id = ${slot('id')}`
  const fields = listed(columns.map((column) => sql.ref(column)))
  const given = (column: string) => (TIMES.includes(column) ? facts.timeIn(0) : sql`${slot(column)}`)
  const statements = {
    list: prepare(sql<Row>`select ${fields} ${within} order by name`),
    get: prepare(sql<Row>`select ${fields} ${within} and name = ${slot('name')}`),
    insert: prepare(
      sql`insert into ${table} (namespace_id, ${fields})
        values (${slot('id')}, ${listed(columns.map(given))})`,
    ),
    replace: prepare(
      sql`update ${table} set ${listed(
        columns.filter((column) => column !== 'created_at').map((column) => sql`${sql.ref(column)} = ${given(column)}`),
      )} where namespace_id = ${slot('id')} and name = ${slot('was')}`,
    ),
    remove: prepare(sql`delete ${within} and name = ${slot('name')}`),
    clear: prepare(sql`delete ${within}`),
  }
  const missing = (name: string) => new ServiceError('not-found', kind.missing(name))
  const conflict = (message: string) => new ServiceError('conflict', message)

  const get = async (session: Session, { id }: Place, name: string): Promise<Item> => {
    const row = await session.first(statements.get, { id, name })
    if (row === undefined) throw missing(name)
    return kind.toItem(row)
  }
  const has = async (session: Session, { id }: Place, name: string): Promise<boolean> =>
    (await session.first(statements.get, { id, name })) !== undefined
  const put = async (session: Session, { id }: Place, attributes: Attributes): Promise<void> => {
    await session.change(statements.insert, { id, name: attributes.name, ...kind.toValues(attributes) })
  }
  const change = async (session: Session, { id }: Place, was: string, attributes: Attributes): Promise<void> => {
    await session.change(statements.replace, { id, was, name: attributes.name, ...kind.toValues(attributes) })
  }
  const add = async (session: Session, place: Place, attributes: Attributes): Promise<void> => {
    if (await has(session, place, attributes.name)) throw conflict(kind.taken(attributes.name, place.name))
    await put(session, place, attributes)
  }

  const repository: DefinitionRepository<Item, Attributes> = {
    list: (namespace) =>
      read(async (session) => {
        const { id } = await find(session, namespace)
        return (await session.all(statements.list, { id })).map(kind.toItem)
      }),
    get: (namespace, name) => read(async (session) => get(session, await find(session, namespace), name)),
    insert: (namespace, attributes) =>
      write(async (session) => {
        const place = await find(session, namespace)
        await add(session, place, attributes)
        return get(session, place, attributes.name)
      }),
    replace: (namespace, name, attributes) =>
      write(async (session) => {
        const place = await find(session, namespace)
        if (!(await has(session, place, name))) throw missing(name)
        if (attributes.name !== name && (await has(session, place, attributes.name)))
          throw conflict(kind.clash(attributes.name, namespace))
        await change(session, place, name, attributes)
        return get(session, place, attributes.name)
      }),
    remove: (namespace, name) =>
      write(async (session) => {
        const { id } = await find(session, namespace)
        if ((await session.change(statements.remove, { id, name })) === 0) throw missing(name)
      }),
    clear: (namespace) =>
      write(async (session) => {
        const { id } = await find(session, namespace)
        await session.change(statements.clear, { id })
      }),
  }

  return {
    repository,
    get,
    add,
    list: async (session: Session, { id }: Place) => (await session.all(statements.list, { id })).map(kind.toItem),
    clear: (session: Session, { id }: Place) => session.change(statements.clear, { id }),
    merge: async (session: Session, place: Place, attributes: Attributes, preferNew: boolean): Promise<void> => {
      if (!(await has(session, place, attributes.name))) await put(session, place, attributes)
      else if (preferNew) await change(session, place, attributes.name, attributes)
    },
  }
}

const associationTable = ({ facts, prepare, read, write }: Connection, find: FindNamespace) => {
  const now = facts.timeIn(0)
  const type = sql`(select id from metadef_resource_types where name = ${slot('name')})`
  const one = sql`namespace_id = ${slot('id')} and resource_type_id = ${type}`
  const statements = {
    list: prepare(
      sql<AssociationRow>`select a.namespace_id, t.name, a.prefix, a.properties_target, a.created_at, a.updated_at
        from metadef_namespace_resource_types a join metadef_resource_types t on t.id = a.resource_type_id
        where a.namespace_id = ${slot('id')} order by a.created_at, t.id`,
    ),
    has: prepare(sql<{ id: number }>`select namespace_id as id from metadef_namespace_resource_types where ${one}`),
    insert: prepare(
      sql`insert into metadef_namespace_resource_types
        (namespace_id, resource_type_id, prefix, properties_target, created_at, updated_at)
        values (${slot('id')}, ${type}, ${slot('prefix')}, ${slot('target')}, ${now}, ${now})`,
    ),
    replace: prepare(
      sql`update metadef_namespace_resource_types
        set prefix = ${slot('prefix')}, properties_target = ${slot('target')}, updated_at = ${now} where ${one}`,
    ),
    remove: prepare(sql`delete from metadef_namespace_resource_types where ${one}`),
    clear: prepare(sql`delete from metadef_namespace_resource_types where namespace_id = ${slot('id')}`),
    type: prepare(
      sql<NamedRow>`select name, created_at, updated_at from metadef_resource_types where name = ${slot('name')}`,
    ),
    types: prepare(sql<NamedRow>`select name, created_at, updated_at from metadef_resource_types order by id`),
    insertType: prepare(
      sql`insert into metadef_resource_types (name, protected, created_at, updated_at)
        values (${slot('name')}, ${slot('protected')}, ${now}, ${now})`,
    ),
    touchType: prepare(sql`update metadef_resource_types set updated_at = ${now} where name = ${slot('name')}`),
  }
  const valuesOf = ({ id }: Place, { name, prefix, target }: AssociationAttributes): Values => ({
    id,
    name,
    prefix,
    target,
  })
  const list = async (session: Session, { id }: Place) =>
    (await session.all(statements.list, { id })).map(toAssociation)
  const has = async (session: Session, values: Values) => (await session.first(statements.has, values)) !== undefined
  const put = async (session: Session, values: Values, seeded: boolean): Promise<void> => {
    if (!(await session.first(statements.type, values)))
      await session.change(statements.insertType, { ...values, protected: seeded })
    await session.change(statements.insert, values)
  }
  const add = async (session: Session, place: Place, association: AssociationAttributes): Promise<void> => {
    const values = valuesOf(place, association)
    if (await has(session, values))
      throw new ServiceError(
        'conflict',
        `The metadata definition resource-type association of resource-type=${association.name} to namespace=${place.name} already exists.`,
      )
    await put(session, values, false)
  }

  const repository: MetadefRepository['associations'] = {
    list: (namespace) => read(async (session) => list(session, await find(session, namespace))),
    insert: (namespace, association) =>
      write(async (session) => {
        const place = await find(session, namespace)
        await add(session, place, association)
        return (await list(session, place)).find(({ name }) => name === association.name) as Association
      }),
    remove: (namespace, name) =>
      write(async (session) => {
        const { id } = await find(session, namespace)
        if ((await session.change(statements.remove, { id, name })) === 0)
          throw new ServiceError(
            'not-found',
            `The metadata definition resource-type association of resource-type=${name} to namespace=${namespace}, was not found.`,
          )
      }),
  }

  return {
    repository,
    list,
    add,
    clear: (session: Session, { id }: Place) => session.change(statements.clear, { id }),
    types: (): Promise<readonly ResourceType[]> =>
      read(async (session) => (await session.all(statements.types)).map((row) => ({ name: row.name, ...stamps(row) }))),
    merge: async (session: Session, place: Place, association: AssociationAttributes, preferNew: boolean) => {
      const values = valuesOf(place, association)
      if (preferNew) await session.change(statements.touchType, values)
      if (!(await has(session, values))) await put(session, values, true)
      else if (preferNew) await session.change(statements.replace, values)
    },
  }
}

export const metadefRepository = (connection: Connection): MetadefRepository => {
  const { facts, prepare, read, write } = connection
  const now = facts.timeIn(0)
  const fields = sql`id, namespace, display_name, description, visibility, protected, owner, created_at, updated_at`
  const statements = {
    get: prepare(sql<NamespaceRow>`select ${fields} from metadef_namespaces where namespace = ${slot('name')}`),
    insert: prepare(
      sql`insert into metadef_namespaces
        (namespace, display_name, description, visibility, protected, owner, created_at, updated_at)
        values (${slot('name')}, ${slot('display_name')}, ${slot('description')}, ${slot('visibility')},
          ${slot('protected')}, ${slot('owner')}, ${now}, ${now})`,
    ),
    replace: prepare(
      sql`update metadef_namespaces set namespace = ${slot('name')}, display_name = ${slot('display_name')},
        description = ${slot('description')}, visibility = ${slot('visibility')}, protected = ${slot('protected')},
        owner = ${slot('owner')}, updated_at = ${now} where id = ${slot('id')}`,
    ),
    remove: prepare(sql`delete from metadef_namespaces where id = ${slot('id')}`),
    associations: prepare(
      sql<AssociationRow>`select a.namespace_id, t.name, a.prefix, a.properties_target, a.created_at, a.updated_at
        from metadef_namespace_resource_types a join metadef_resource_types t on t.id = a.resource_type_id
        where a.namespace_id in (${facts.elements(slot('ids'), 'integer')}) order by a.created_at, t.id`,
    ),
    clear: [
      'metadef_properties',
      'metadef_objects',
      'metadef_tags',
      'metadef_namespace_resource_types',
      'metadef_namespaces',
      'metadef_resource_types',
    ].map((table) => prepare(sql`delete from ${sql.table(table)}`)),
  }

  const findRow = async (session: Session, name: string): Promise<NamespaceRow> => {
    const row = await session.first(statements.get, { name })
    if (row === undefined) throw noNamespace(name)
    return row
  }
  const find: FindNamespace = async (session, name) => ({ id: (await findRow(session, name)).id, name })

  const objects = definitions(connection, find, OBJECTS)
  const properties = definitions(connection, find, PROPERTIES)
  const tags = definitions(connection, find, TAGS)
  const associations = associationTable(connection, find)

  const pageOfTags = (session: Session, { id }: Place, query: PageQuery<string>) => {
    const marker = query.marker
    const { place, order, limit } = behind(
      query,
      marker === undefined ? undefined : sql`from metadef_tags where namespace_id = ${id} and name = ${marker}`,
    )
    return session.all(
      prepare(
        sql<NamedRow>`select name, created_at, updated_at from metadef_tags
          where namespace_id = ${id} ${place === undefined ? sql`` : sql`and ${place}`} ${order} ${limit}`,
      ),
    )
  }

  const insertNamespace = async (session: Session, namespace: NamespaceAttributes): Promise<Place> => {
    await session.change(statements.insert, namespaceValues(namespace))
    return find(session, namespace.name)
  }
  const clearNamespace = async (session: Session, place: Place): Promise<void> => {
    await tags.clear(session, place)
    await objects.clear(session, place)
    await properties.clear(session, place)
    await associations.clear(session, place)
    await session.change(statements.remove, { id: place.id })
  }

  return {
    objects: objects.repository,
    properties: properties.repository,
    tags: {
      ...tags.repository,
      page: (namespace, query) =>
        read(async (session) => {
          const place = await find(session, namespace)
          if (query.marker !== undefined) await tags.get(session, place, query.marker)
          return (await pageOfTags(session, place, query)).map(TAGS.toItem)
        }),
      insertAll: (namespace, all, mode) =>
        write(async (session) => {
          const place = await find(session, namespace)
          if (mode === 'replace') await tags.clear(session, place)
          for (const tag of all) await tags.add(session, place, tag)
        }),
    },
    associations: associations.repository,
    resourceTypes: associations.types,

    insert: (namespace, drafts) =>
      write(async (session) => {
        if (await session.first(statements.get, { name: namespace.name }))
          throw new ServiceError('conflict', `The metadata definition namespace=${namespace.name} already exists.`)
        const place = await insertNamespace(session, namespace)
        for (const draft of drafts.associations) await associations.add(session, place, draft)
        for (const draft of drafts.objects) await objects.add(session, place, draft)
        for (const draft of drafts.tags) await tags.add(session, place, draft)
        for (const draft of drafts.properties) await properties.add(session, place, draft)
        return toNamespace(await findRow(session, namespace.name))
      }),
    get: (name, scope) =>
      read(async (session) => {
        const namespace = toNamespace(await findRow(session, name))
        if (!isVisible(namespace, scope)) throw noNamespace(name)
        return namespace
      }),
    list: (query, scope) =>
      read(async (session) => {
        if (query.marker !== undefined && !isVisible(toNamespace(await findRow(session, query.marker)), scope))
          throw noNamespace(query.marker)
        const rows = await session.all(prepare(pageOfNamespaces(facts, fields, query, scope)))
        const ids = JSON.stringify(rows.map(({ id }) => id))
        const found = Map.groupBy(await session.all(statements.associations, { ids }), (row) => row.namespace_id)
        return rows.map((row) => ({
          namespace: toNamespace(row),
          associations: (found.get(row.id) ?? []).map(toAssociation),
        }))
      }),
    replace: (name, attributes) =>
      write(async (session) => {
        const { id } = await find(session, name)
        if (attributes.name !== name && (await session.first(statements.get, { name: attributes.name })))
          throw new ServiceError(
            'conflict',
            `Invalid update. It would result in a duplicate metadata definition namespace with the same name of ${attributes.name}`,
          )
        await session.change(statements.replace, { ...namespaceValues(attributes), id })
        return toNamespace(await findRow(session, attributes.name))
      }),
    remove: (name) => write(async (session) => clearNamespace(session, await find(session, name))),
    contents: (namespace) =>
      read(async (session): Promise<Definitions> => {
        const place = await find(session, namespace)
        const newest = { sort: { key: 'created_at', descending: true }, marker: undefined, limit: undefined } as const
        return {
          objects: await objects.list(session, place),
          properties: await properties.list(session, place),
          tags: (await pageOfTags(session, place, newest)).map(TAGS.toItem),
          associations: await associations.list(session, place),
        }
      }),
    load: (namespace, drafts: DefinitionDrafts, mode: LoadMode) =>
      write(async (session) => {
        const there = await session.first(statements.get, { name: namespace.name })
        if (there && mode === 'skip') return false
        if (there && mode === 'overwrite') await clearNamespace(session, { id: there.id, name: namespace.name })
        if (there && mode === 'prefer-new')
          await session.change(statements.replace, { ...namespaceValues(namespace), id: there.id })
        const place =
          there && mode !== 'overwrite'
            ? { id: there.id, name: namespace.name }
            : await insertNamespace(session, namespace)
        const preferNew = mode === 'prefer-new'
        for (const draft of drafts.associations) await associations.merge(session, place, draft, preferNew)
        for (const draft of drafts.properties) await properties.merge(session, place, draft, preferNew)
        for (const draft of drafts.objects) await objects.merge(session, place, draft, preferNew)
        for (const draft of drafts.tags) await tags.merge(session, place, draft, preferNew)
        return true
      }),
    clear: () =>
      write(async (session) => {
        for (const statement of statements.clear) await session.change(statement)
      }),
  }
}

const pageOfNamespaces = (facts: Connection['facts'], fields: Fragment, query: NamespaceQuery, scope: Scope) => {
  const { marker, visibility, resourceTypes } = query
  const { place, order, limit } = behind(
    query,
    marker === undefined ? undefined : sql`from metadef_namespaces where namespace = ${marker}`,
  )
  const conditions = [
    visibleTo(scope),
    ...(place === undefined ? [] : [place]),
    ...(visibility === undefined ? [] : [sql`visibility = ${visibility}`]),
    ...(resourceTypes === undefined
      ? []
      : [
          sql`id in (select a.namespace_id from metadef_namespace_resource_types a
            join metadef_resource_types t on t.id = a.resource_type_id
            where t.name in (${facts.elements(JSON.stringify(resourceTypes))}))`,
        ]),
  ]
  return sql<NamespaceRow>`select ${fields} from metadef_namespaces
    where ${sql.join(conditions, sql` and `)} ${order} ${limit}`
}
