import { setTimeout as delay } from 'node:timers/promises'
import {
  type CompiledQuery,
  type DatabaseConnection,
  type Dialect,
  Kysely,
  type QueryExecutorProvider,
  type RawBuilder,
  sql,
  type TransactionSettings,
} from 'kysely'
import { hasKind, ServiceError } from '../../domain/errors.ts'
import { fromSqlite, sqliteDialect } from './sqlite-dialect.ts'
import { type Fragment, type Statement, statement, type Value, type Values } from './statement.ts'
import type { Tables } from './tables.ts'

/** What differs between databases, by name. */
export interface Facts {
  readonly name: 'sqlite'
  /** The elements of a JSON array, as a table expression for `in (…)`: one text for any number of values. */
  readonly elements: (json: Value) => Fragment
  /** The same as a table `e`, with `n` counting from 0. */
  readonly numbered: (json: Value) => Fragment
  /** A 64-bit column as a JavaScript number, rounded where it is greater than 2^53. */
  readonly integer: (column: Fragment) => RawBuilder<number | null>
  /** Milliseconds since 1970, by the clock of the database. */
  readonly now: RawBuilder<number>
  /** A time as columns hold it, so many milliseconds from now by the clock of the database; NULL for NULL. */
  readonly timeIn: (ms: Value) => RawBuilder<string>
  /** Milliseconds since the time in a column, by the clock of the database. */
  readonly age: (column: Fragment) => RawBuilder<number>
  /** Follows a table's name: read it by this index and no other. */
  readonly by: (index: string) => Fragment
  /** A foreign error in the service's words. */
  readonly translate: (error: unknown) => unknown
}

const SQLITE: Facts = {
  name: 'sqlite',
  elements: (json) => sql`select value from json_each(${json})`,
  numbered: (json) => sql`(select key as n, value from json_each(${json})) as e`,
  // node:sqlite throws a RangeError when an integer beyond 2^53 is read as one.
  integer: (column) => sql`cast(${column} as real)`,
  now: sql`cast(unixepoch('subsec') * 1000 as integer)`,
  timeIn: (ms) => sql`strftime('%Y-%m-%d %H:%M:%f', 'now', (${ms} / 1000.0) || ' seconds') || '000'`,
  age: (column) => sql`cast((unixepoch('subsec') - unixepoch(${column}, 'subsec')) * 1000 as integer)`,
  by: (index) => sql`indexed by ${sql.ref(index)}`,
  translate: fromSqlite,
}

export interface ConnectOptions {
  /** `[database] sqlite_synchronous`: whether each commit waits for the disk. */
  readonly synchronous?: boolean
  /** How long a write waits for other processes before it is refused as `unavailable`. */
  readonly busyTimeoutMs?: number
  /** Sees every statement. */
  readonly trace?: (sql: string, parameters: readonly unknown[]) => void
}

/** Runs statements inside one transaction. */
export interface Session {
  all<Row>(statement: Statement<Row>, values?: Values): Promise<readonly Row[]>
  first<Row>(statement: Statement<Row>, values?: Values): Promise<Row | undefined>
  /** Returns the number of changed rows. */
  change(statement: Statement<unknown>, values?: Values): Promise<number>
}

export interface Connection {
  readonly facts: Facts
  /** Builds queries; they run in a `Session`. */
  readonly kysely: Kysely<Tables>
  prepare<Row>(query: { compile(on: QueryExecutorProvider): CompiledQuery<Row> }): Statement<Row>
  /** Sees one state of the database throughout. */
  read<T>(work: (session: Session) => Promise<T>): Promise<T>
  /** All or nothing; no other writer meanwhile. */
  write<T>(work: (session: Session) => Promise<T>): Promise<T>
  close(): Promise<void>
}

const URL_SHAPE = /^([a-z0-9]+)(?:\+[a-z0-9_]+)?:\/\/([^?]*)(?:\?.*)?$/i

/** The file a SQLAlchemy URL of SQLite names: `sqlite:///relative`, `sqlite:////absolute`; none means memory. */
export const sqlitePath = (url: string): string => {
  const [, scheme, rest = ''] = URL_SHAPE.exec(url) ?? []
  if (scheme === undefined) throw new ServiceError('invalid', '[database] connection is not a database URL')
  // The rest may hold a password.
  if (scheme.toLowerCase() !== 'sqlite')
    throw new ServiceError('invalid', `[database] connection: ${scheme} databases are not supported, use sqlite`)
  if (rest !== '' && !rest.startsWith('/'))
    throw new ServiceError('invalid', '[database] connection: a file takes three slashes, as in sqlite:///glance.db')
  return rest.slice(1) || ':memory:'
}

const READ = { accessMode: 'read only' } as const
const WRITE = { accessMode: 'read write' } as const

const sessionOn = (connection: DatabaseConnection): Session => ({
  all: async <Row>(prepared: Statement<Row>, values: Values = {}) =>
    (await connection.executeQuery<Row>(prepared.with(values))).rows,
  first: async <Row>(prepared: Statement<Row>, values: Values = {}) =>
    (await connection.executeQuery<Row>(prepared.with(values))).rows[0],
  change: async (prepared, values = {}) =>
    Number((await connection.executeQuery(prepared.with(values))).numAffectedRows ?? 0),
})

/** Repeats what finds the database busy until `deadline`, and waits between attempts where others can run. */
const patiently = async (attempt: () => Promise<void>, translate: Facts['translate'], deadline: number) => {
  for (let pauseMs = 1; ; pauseMs = Math.min(pauseMs * 2, 50)) {
    try {
      return await attempt()
    } catch (error) {
      const said = translate(error)
      if (!(hasKind(said, 'unavailable') && said.transient) || Date.now() > deadline) throw error
    }
    await delay(pauseMs * (0.5 + Math.random()))
  }
}

const connectDialect = async (dialect: Dialect, facts: Facts, busyTimeoutMs: number): Promise<Connection> => {
  const driver = dialect.createDriver()
  const kysely = new Kysely<Tables>({ dialect: { ...dialect, createDriver: () => driver } })
  await driver.init()
  let closed = false

  const begin = async (settings: TransactionSettings): Promise<DatabaseConnection> => {
    const connection = await driver.acquireConnection()
    try {
      await driver.beginTransaction(connection, settings)
      return connection
    } catch (error) {
      await driver.releaseConnection(connection)
      throw error
    }
  }

  const transaction = async <T>(connection: DatabaseConnection, work: (session: Session) => Promise<T>): Promise<T> => {
    try {
      const result = await work(sessionOn(connection))
      await driver.commitTransaction(connection)
      return result
    } catch (error) {
      await driver.rollbackTransaction(connection).catch(() => {}) // the first error says more
      throw error
    } finally {
      await driver.releaseConnection(connection)
    }
  }

  const inWords = async <T>(body: () => Promise<T>): Promise<T> => {
    try {
      return await body()
    } catch (error) {
      throw facts.translate(error)
    }
  }

  return {
    facts,
    kysely,
    prepare: (query) => statement(query.compile(kysely)),
    read: (work) => inWords(async () => transaction(await begin(READ), work)),
    write: (work) =>
      inWords(async () => {
        let connection: DatabaseConnection | undefined
        const attempt = async () => {
          connection = await begin(WRITE)
        }
        // Between attempts the connection is free, so that reads go on.
        await patiently(attempt, facts.translate, Date.now() + busyTimeoutMs)
        return transaction(connection as unknown as DatabaseConnection, work)
      }),
    close: async () => {
      if (closed) return
      closed = true
      const connection = await driver.acquireConnection()
      await driver.destroy()
      await driver.releaseConnection(connection)
    },
  }
}

/** Throws `invalid` for a URL that cannot be served, `unavailable` when the database cannot be opened. */
export const connect = async (url: string, options: ConnectOptions = {}): Promise<Connection> => {
  const { synchronous = true, busyTimeoutMs = 5_000, trace } = options
  const dialect = sqliteDialect({ path: sqlitePath(url), synchronous, trace })
  try {
    return await connectDialect(dialect, SQLITE, busyTimeoutMs)
  } catch (error) {
    throw SQLITE.translate(error)
  }
}
