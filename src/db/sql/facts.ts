import { type RawBuilder, sql } from 'kysely'
import { ServiceError } from '../../domain/errors.ts'
import { toText } from '../time.ts'
import { fromSqlite } from './sqlite-driver.ts'
import type { Fragment, Value } from './statement.ts'

export type ElementType = 'text' | 'integer' | 'boolean'

/** What differs between databases, by name. */
export interface Facts {
  readonly name: 'sqlite' | 'postgresql' | 'mysql'
  /** The elements of a JSON array, as a table expression for `in (…)`: one text for any number of values. */
  readonly elements: (json: Value, type?: ElementType) => Fragment
  /** The same texts as a table `e`, with `n` counting from 0. */
  readonly numbered: (json: Value) => Fragment
  /** A 64-bit column as a JavaScript number, rounded where it is greater than 2^53. */
  readonly integer: (column: Fragment) => RawBuilder<number | null>
  /** Whether a column of long texts has the value, in a way that an index of it can answer. */
  readonly sameText: (column: Fragment, value: Value) => Fragment
  /** Whether a column has the value to the byte, whatever its collation takes for the same; by an index of the column. */
  readonly exactly: (column: Fragment, value: Value) => RawBuilder<boolean>
  /** Milliseconds since 1970, by the clock of the database. */
  readonly now: RawBuilder<number>
  /** A time as columns hold it, so many milliseconds from now by the clock of the database; NULL for NULL. */
  readonly timeIn: (ms: Value) => RawBuilder<string>
  /** Milliseconds since the time in a column, by the clock of the database. */
  readonly age: (column: Fragment) => RawBuilder<number>
  /** Whether a part of ours is in the database: an index, a column, a table that triggers keep. */
  readonly has: (part: string) => boolean
  /** Follows a table's name: read it by this index and no other; nothing for an index of ours that is not there. */
  readonly by: (index: string) => Fragment
  /** That a row is not deleted, as a condition that leads no planner to look for all such rows. */
  readonly living: Fragment
  /** Joins the image with this id, after the tables before it, by its primary key. */
  readonly thenImage: (id: Fragment) => Fragment
  /** Whether ranges of an index are found for a list of values only where each of them stands in the text. */
  readonly listsValues: boolean
  /** A time as a value of a column. */
  readonly toTime: (time: Date) => string
  /** Merges the ordered branches of a union as they come; where it does not, each branch gets the page's limit. */
  readonly mergesUnions: boolean
  /** Whether it works inside our process, where nothing else runs while a statement does. */
  readonly inProcess: boolean
  /** Said in a transaction: sort what an index leaves open, in stretches. Where it does so anyway, nothing needs saying. */
  readonly sortStretches?: RawBuilder<unknown>
  /** What an index can follow a comparison of rows by. */
  readonly comparesRows: 'of columns' | 'of expressions' | 'never'
  /** Whether an error says that no row can have the value that was looked for. */
  readonly isNowhere: (error: unknown) => boolean
  /** A foreign error in the service's words. */
  readonly translate: (error: unknown) => unknown
}

export const SQLITE: Facts = {
  name: 'sqlite',
  elements: (json) => sql`select value from json_each(${json})`,
  numbered: (json) => sql`(select key as n, value from json_each(${json})) as e`,
  // node:sqlite throws a RangeError when an integer beyond 2^53 is read as one.
  integer: (column) => sql`cast(${column} as real)`,
  sameText: (column, value) => sql`${column} = ${value}`,
  exactly: (column, value) => sql`${column} = ${value}`,
  now: sql`cast(unixepoch('subsec') * 1000 as integer)`,
  timeIn: (ms) => sql`strftime('%Y-%m-%d %H:%M:%f', 'now', (${ms} / 1000.0) || ' seconds') || '000'`,
  age: (column) => sql`cast((unixepoch('subsec') - unixepoch(${column}, 'subsec')) * 1000 as integer)`,
  has: () => true,
  by: (index) => sql`indexed by ${sql.ref(index)}`,
  living: sql`not deleted`,
  thenImage: (id) => sql`cross join images on images.id = ${id}`,
  listsValues: false,
  toTime: toText,
  mergesUnions: true,
  inProcess: true,
  comparesRows: 'of columns',
  isNowhere: () => false,
  translate: fromSqlite,
}

const POSTGRES_TYPE = { text: 'text', integer: 'bigint', boolean: 'boolean' } as const satisfies Record<
  ElementType,
  string
>

export const POSTGRES: Facts = {
  name: 'postgresql',
  elements: (json, type = 'text') =>
    sql`select value::${sql.raw(POSTGRES_TYPE[type])} from json_array_elements_text(${json}::json) as value`,
  numbered: (json) =>
    sql`(select ordinality - 1 as n, value from json_array_elements_text(${json}::json) with ordinality) as e`,
  integer: (column) => sql`cast(${column} as double precision)`,
  sameText: (column, value) => sql`md5(${column}) = md5(${value}) and ${column} = ${value}`,
  exactly: (column, value) => sql`${column} = ${value}`,
  now: sql`cast(extract(epoch from clock_timestamp()) * 1000 as bigint)`,
  // The same for all columns of a statement; to the millisecond, as everywhere: the service reads no more of it.
  timeIn: (ms) =>
    sql`date_trunc('milliseconds', timezone('UTC', statement_timestamp()) + cast(${ms} as double precision) * interval '1 millisecond')`,
  age: (column) => sql`cast(extract(epoch from (timezone('UTC', clock_timestamp()) - ${column})) * 1000 as bigint)`,
  has: () => true,
  by: () => sql``,
  living: sql`not deleted`,
  // A subquery of its own, which the planner leaves where it is.
  thenImage: (id) => sql`cross join lateral (select * from images where images.id = ${id} offset 0) as images`,
  listsValues: false,
  toTime: toText,
  mergesUnions: false,
  inProcess: false,
  sortStretches: sql`select set_config('enable_incremental_sort', 'on', true)`,
  comparesRows: 'of expressions',
  isNowhere: () => false,
  translate: (error) => translated(error, POSTGRES_KINDS),
}

const MYSQL_TYPE = {
  // In the character set of upstream's columns: a wider one would have the column converted, and no index used.
  text: 'varchar(4096) character set utf8mb3',
  integer: 'bigint',
  boolean: 'boolean',
} as const satisfies Record<ElementType, string>

/** Of a text in any character set. */
const bytesOf = (text: Value | Fragment) => sql`cast(convert(${text} using utf8mb4) as binary)`

export const MYSQL: Facts = {
  name: 'mysql',
  elements: (json, type = 'text') =>
    sql`select value from json_table(${json}, '$[*]' columns (value ${sql.raw(MYSQL_TYPE[type])} path '$')) as elements`,
  numbered: (json) => sql`(select place - 1 as n, value from json_table(${json}, '$[*]'
    columns (place for ordinality, value varchar(255) character set utf8mb3 path '$')) as elements) as e`,
  integer: (column) => sql`cast(${column} as double)`,
  sameText: (column, value) => sql`${column} = ${value}`,
  exactly: (column, value) => sql`${column} = ${value} and ${bytesOf(column)} = ${bytesOf(value)}`,
  now: sql`cast(unix_timestamp(now(3)) * 1000 as signed)`,
  timeIn: (ms) => sql`date_add(utc_timestamp(), interval cast(${ms} / 1000 as signed) second)`,
  age: (column) => sql`cast(timestampdiff(microsecond, ${column}, utc_timestamp(6)) / 1000 as signed)`,
  has: () => true,
  by: (index) => sql`force index (${sql.ref(index)})`,
  // `not deleted` is `deleted = 0` here, and has each index with that column estimated.
  living: sql`deleted + 0 = 0`,
  thenImage: (id) => sql`straight_join images force index (primary) on images.id = ${id}`,
  listsValues: true,
  // Its columns hold whole seconds, and would round to the next one.
  toTime: (time) => `${toText(time).slice(0, 19)}`,
  mergesUnions: false,
  inProcess: false,
  comparesRows: 'never',
  // A character of four bytes beside a column that has no room for it.
  isNowhere: (error) => error instanceof Error && 'code' in error && error.code === 'ER_CANT_AGGREGATE_2COLLATIONS',
  translate: (error) => translated(error, MYSQL_KINDS),
}

/** Of a database that has only these parts of ours. */
export const withParts = (facts: Facts, parts: ReadonlySet<string>): Facts => ({
  ...facts,
  has: (part) => parts.has(part),
  by: (index) => (index.startsWith('glimpse_') && !parts.has(index) ? sql`` : facts.by(index)),
})

/** It would take as long once more, wherever. */
export const tooSlow = (message: string, cause?: unknown): ServiceError =>
  new ServiceError('unavailable', message, { cause, detail: { slow: true } })

export const isSlow = (error: unknown): boolean => error instanceof ServiceError && error.detail['slow'] === true

/** `away`: the connection, or the server behind it, is gone, and with it every transaction that was not committed. */
type Meaning = 'exists' | 'again' | 'away' | 'full' | 'slow' | 'refused' | 'denied'

/** By SQLSTATE, or its class of two letters. */
const POSTGRES_KINDS: Readonly<Record<string, Meaning>> = {
  '23505': 'exists',
  '40001': 'again',
  '40P01': 'again',
  '55P03': 'again',
  '57014': 'slow',
  // A statement that the server was to keep, and has lost: it is not asked to again.
  '26000': 'again',
  '42P05': 'again',
  '0A000': 'again',
  '08': 'away',
  '57': 'away',
  '53': 'full',
  // A server that is a replica, or has become one.
  '25006': 'away',
  // It ended a transaction that had been silent for too long.
  '25P03': 'away',
  // Text that is none, or longer than its column.
  '22': 'refused',
  // A wrong password or none, a user who may not, a database that is not there.
  '28': 'denied',
  '3D000': 'denied',
  '42501': 'denied',
}

/** By the name of the error, as the driver has it. */
const MYSQL_KINDS: Readonly<Record<string, Meaning>> = {
  ER_DUP_ENTRY: 'exists',
  ER_LOCK_DEADLOCK: 'again',
  ER_LOCK_WAIT_TIMEOUT: 'again',
  ER_CHECKREAD: 'again',
  // MySQL's group replication, where Galera says that there was a deadlock.
  ER_TRANSACTION_ROLLBACK_DURING_COMMIT: 'again',
  // Galera says so of a node that is not in the cluster at the moment.
  ER_UNKNOWN_COM_ERROR: 'away',
  ER_SERVER_SHUTDOWN: 'away',
  ER_NORMAL_SHUTDOWN: 'away',
  ER_CONNECTION_KILLED: 'away',
  ER_NEW_ABORTING_CONNECTION: 'away',
  ER_OPTION_PREVENTS_STATEMENT: 'away',
  ER_CON_COUNT_ERROR: 'away',
  ER_TOO_MANY_USER_CONNECTIONS: 'away',
  // A wrong password or none, a user who may not, a database that is not there.
  ER_ACCESS_DENIED_ERROR: 'denied',
  ER_ACCESS_DENIED_NO_PASSWORD_ERROR: 'denied',
  ER_DBACCESS_DENIED_ERROR: 'denied',
  ER_TABLEACCESS_DENIED_ERROR: 'denied',
  ER_COLUMNACCESS_DENIED_ERROR: 'denied',
  ER_SPECIFIC_ACCESS_DENIED_ERROR: 'denied',
  ER_BAD_DB_ERROR: 'denied',
  ER_RECORD_FILE_FULL: 'full',
  ER_DISK_FULL: 'full',
  PROTOCOL_CONNECTION_LOST: 'away',
  ER_QUERY_TIMEOUT: 'slow',
  // MariaDB's own number for the same.
  '1969': 'slow',
  ER_DATA_TOO_LONG: 'refused',
  ER_TRUNCATED_WRONG_VALUE_FOR_FIELD: 'refused',
  WARN_DATA_TRUNCATED: 'refused',
  ER_INVALID_JSON_TEXT_IN_PARAM: 'refused',
  // MariaDB's own number for JSON that is none.
  '4038': 'refused',
}

/** Of the socket, whichever database is behind it. */
const CONNECTION_ERRORS = [
  'ECONNREFUSED',
  'ECONNRESET',
  'EPIPE',
  'ETIMEDOUT',
  'ENOTFOUND',
  'EAI_AGAIN',
  'EHOSTUNREACH',
  'ENETUNREACH',
]

function translated(error: unknown, kinds: Readonly<Record<string, Meaning>>): unknown {
  if (error instanceof ServiceError || !(error instanceof Error)) return error
  const code = 'code' in error && typeof error.code === 'string' ? error.code : ''
  const number = 'errno' in error ? String(error.errno) : ''
  const lost =
    CONNECTION_ERRORS.includes(code) ||
    /connection (terminated|ended|is closed|timeout)|closed state|not queryable|when trying to connect|^timeout expired$/i.test(
      error.message,
    )
  const reason = lost ? 'away' : (kinds[code] ?? kinds[code.slice(0, 2)] ?? kinds[number])
  const detail = { code, reason }
  switch (reason) {
    case 'exists':
      return new ServiceError('conflict', 'It exists already', { cause: error, detail })
    case 'again':
      return new ServiceError('unavailable', 'The database is busy', { cause: error, detail, transient: true })
    case 'slow':
      return tooSlow('The database takes too long to answer', error)
    case 'refused':
      return new ServiceError('invalid', 'The database cannot hold such a value', { cause: error, detail })
    case 'denied':
    case 'away':
    case 'full':
      return new ServiceError('unavailable', 'The database is not available', { cause: error, detail })
    default:
      return error
  }
}
