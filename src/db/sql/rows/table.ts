import { sql } from 'kysely'
import { Timestamp } from '../../rows.ts'
import type { Connection, Session } from '../session.ts'
import type { Fragment, Value } from '../statement.ts'

/** How a column is read and written; `big` holds 64 bits. */
export type ColumnType = 'text' | 'integer' | 'big' | 'flag' | 'time' | 'json'
export type Columns = Readonly<Record<string, ColumnType>>

const STAMPS = { created_at: 'time', updated_at: 'time', deleted_at: 'time', deleted: 'flag' } as const
const METADEF_STAMPS = { created_at: 'time', updated_at: 'time' } as const

/** Upstream's columns until Ussuri, and the few since then that must not be lost. */
export const TABLES = {
  images: {
    ...{ id: 'text', name: 'text', disk_format: 'text', container_format: 'text', size: 'big', virtual_size: 'big' },
    ...{ status: 'text', visibility: 'text', checksum: 'text', os_hash_algo: 'text', os_hash_value: 'text' },
    ...{ min_disk: 'integer', min_ram: 'integer', owner: 'text', protected: 'flag', os_hidden: 'flag', ...STAMPS },
  },
  image_properties: { id: 'integer', image_id: 'text', name: 'text', value: 'text', ...STAMPS },
  image_tags: { id: 'integer', image_id: 'text', value: 'text', ...STAMPS },
  image_locations: { id: 'integer', image_id: 'text', value: 'text', meta_data: 'json', status: 'text', ...STAMPS },
  image_members: { id: 'integer', image_id: 'text', member: 'text', can_share: 'flag', status: 'text', ...STAMPS },
  tasks: { id: 'text', type: 'text', status: 'text', owner: 'text', expires_at: 'time', ...STAMPS },
  task_info: { task_id: 'text', input: 'json', result: 'json', message: 'text' },
  metadef_namespaces: {
    ...{ id: 'integer', namespace: 'text', display_name: 'text', description: 'text', visibility: 'text' },
    ...{ protected: 'flag', owner: 'text', ...METADEF_STAMPS },
  },
  metadef_objects: {
    ...{ id: 'integer', namespace_id: 'integer', name: 'text', description: 'text', required: 'text' },
    ...{ json_schema: 'json', ...METADEF_STAMPS },
  },
  metadef_properties: {
    ...{ id: 'integer', namespace_id: 'integer', name: 'text', json_schema: 'json', ...METADEF_STAMPS },
  },
  metadef_tags: { id: 'integer', namespace_id: 'integer', name: 'text', ...METADEF_STAMPS },
  metadef_resource_types: { id: 'integer', name: 'text', protected: 'flag', ...METADEF_STAMPS },
  metadef_namespace_resource_types: {
    ...{ resource_type_id: 'integer', namespace_id: 'integer', properties_target: 'text', prefix: 'text' },
    ...METADEF_STAMPS,
  },
} as const satisfies Record<string, Columns>
export type TableName = keyof typeof TABLES

type Cell<Type extends ColumnType> = Type extends 'text'
  ? string | null
  : Type extends 'integer'
    ? number
    : Type extends 'big'
      ? number | null
      : Type extends 'flag'
        ? boolean
        : Type extends 'time'
          ? Timestamp | null
          : unknown
export type RowOf<Name extends TableName> = {
  readonly [Column in keyof (typeof TABLES)[Name]]: (typeof TABLES)[Name][Column] extends ColumnType
    ? Cell<(typeof TABLES)[Name][Column]>
    : never
}
export type Written = Readonly<Record<string, unknown>>

/** Reads and writes rows of any table of Glance's. */
export interface RowTables {
  /** `rest` follows `from TABLE`. */
  select<Name extends TableName>(session: Session, table: Name, rest: Fragment): Promise<readonly RowOf<Name>[]>
  /** Members of `values` that are no columns are left out. */
  insert(session: Session, table: TableName, values: Written): Promise<void>
  /** Gives the number of rows. */
  update(session: Session, table: TableName, values: Written, where: Fragment): Promise<number>
  remove(session: Session, table: TableName, where: Fragment): Promise<number>
  count(session: Session, table: TableName, where: Fragment): Promise<number>
  /** Now, as columns hold it. */
  now(): string
  toTime(time: unknown): string | null
}

export const rowTables = ({ facts, prepare }: Connection): RowTables => {
  const change = (session: Session, statement: Fragment) => session.change(prepare(statement))
  const entries = (table: TableName, values: Written): readonly (readonly [column: string, value: Value])[] =>
    Object.entries(TABLES[table] as Columns).flatMap(([column, type]) =>
      Object.hasOwn(values, column) ? [[column, write(type, values[column])] as const] : [],
    )
  const toTime = (time: unknown): string | null => {
    if (time === null || time === undefined) return null
    if (time instanceof Date) return facts.toTime(time)
    if (time instanceof Timestamp) return exactly(time)
    const text = String(time)
    const parsed = new Date(/[zZ]|[+-]\d\d:?\d\d$/.test(text) ? text : `${text}Z`)
    return Number.isNaN(parsed.getTime()) ? text : facts.toTime(parsed)
  }
  /** To the microsecond, where columns hold so much. */
  const exactly = ({ iso }: Timestamp): string => {
    const [seconds = iso, fraction = ''] = iso.replace('T', ' ').split('.')
    return facts.name === 'mysql' ? seconds : `${seconds}.${fraction.padEnd(6, '0')}`
  }
  const write = (type: ColumnType, value: unknown): Value => {
    if (value === null || value === undefined) return null
    switch (type) {
      case 'text':
        return typeof value === 'string' ? value : pythonText(value)
      case 'integer':
      case 'big':
        return Number(value)
      case 'flag':
        return Boolean(value)
      case 'time':
        return toTime(value)
      case 'json':
        return JSON.stringify(value)
    }
  }

  return {
    select: async (session, table, rest) => {
      const columns = Object.entries(TABLES[table] as Columns)
      const list = columns.map(([column, type]) => {
        const ref = sql.ref(`${table}.${column}`)
        return type === 'big' ? sql`${facts.integer(ref)} as ${sql.ref(column)}` : sql`${ref} as ${sql.ref(column)}`
      })
      const rows = await session.all(
        prepare(sql<Record<string, Value>>`select ${sql.join(list)} from ${sql.table(table)} ${rest}`),
      )
      return rows.map((row) =>
        Object.fromEntries(columns.map(([column, type]) => [column, read(type, row[column] ?? null)])),
      ) as never
    },
    insert: async (session, table, values) => {
      const given = entries(table, values)
      await change(
        session,
        sql`insert into ${sql.table(table)} (${sql.join(given.map(([column]) => sql.ref(column)))})
          values (${sql.join(given.map(([, value]) => value))})`,
      )
    },
    update: (session, table, values, where) =>
      change(
        session,
        sql`update ${sql.table(table)} set ${sql.join(
          entries(table, values).map(([column, value]) => sql`${sql.ref(column)} = ${value}`),
        )} where ${where}`,
      ),
    remove: (session, table, where) => change(session, sql`delete from ${sql.table(table)} where ${where}`),
    count: async (session, table, where) =>
      Number(
        (await session.first(prepare(sql<{ n: number }>`select count(*) as n from ${sql.table(table)} where ${where}`)))
          ?.n ?? 0,
      ),
    now: () => facts.toTime(new Date()),
    toTime,
  }
}

const read = (type: ColumnType, value: Value): unknown => {
  if (value === null) return type === 'flag' ? false : null
  switch (type) {
    case 'flag':
      return Boolean(value)
    case 'time':
      return new Timestamp(String(value))
    case 'json':
      return parseJson(String(value))
    case 'integer':
      return Number(value)
    default:
      return value
  }
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return null
  }
}

/** A property of a client that is written in Python may be a number, or True. */
const pythonText = (value: unknown): string =>
  typeof value === 'boolean'
    ? value
      ? 'True'
      : 'False'
    : typeof value === 'object'
      ? JSON.stringify(value)
      : `${value}`

/** Order and position of a page. */
export interface PageOf {
  readonly keys: readonly { readonly column: string; readonly descending: boolean }[]
  /** The row before the page. */
  readonly marker: Readonly<Record<string, unknown>> | undefined
  readonly limit: number | null
}

/** NULL sorts as '' or 0. */
export function pageOf(tables: RowTables, table: TableName, where: readonly Fragment[], page: PageOf): Fragment {
  const types = TABLES[table] as Columns
  const blank = (column: string): Value => (types[column] === 'text' ? '' : types[column] === 'flag' ? false : 0)
  const key = (column: string): Fragment => {
    const ref = sql.ref(`${table}.${column}`)
    return types[column] === 'time' ? ref : sql`coalesce(${ref}, ${blank(column)})`
  }
  const value = (column: string): Value => {
    const found = page.marker?.[column] ?? null
    return types[column] === 'time' ? tables.toTime(found) : ((found as Value) ?? blank(column))
  }
  const steps = page.keys.map(({ column, descending }, n) =>
    sql.join(
      [
        ...page.keys.slice(0, n).map((before) => sql`${key(before.column)} = ${value(before.column)}`),
        sql`${key(column)} ${descending ? sql`<` : sql`>`} ${value(column)}`,
      ],
      sql` and `,
    ),
  )
  const behind =
    page.marker === undefined
      ? []
      : [
          sql`(${sql.join(
            steps.map((step) => sql`(${step})`),
            sql` or `,
          )})`,
        ]
  const order = page.keys.map(({ column, descending }) => sql`${key(column)} ${descending ? sql`desc` : sql`asc`}`)
  const conditions = [...where, ...behind, sql`1 = 1`]
  const limit = page.limit === null ? sql`` : sql`limit ${sql.lit(page.limit)}`
  return sql`where ${sql.join(conditions, sql` and `)} order by ${sql.join(order)} ${limit}`
}
