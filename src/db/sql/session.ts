import { setTimeout as delay } from 'node:timers/promises'
import {
  type CompiledQuery,
  type DatabaseConnection,
  type Dialect,
  type Driver,
  Kysely,
  type QueryExecutorProvider,
  type TransactionSettings,
} from 'kysely'
import { hasKind, ServiceError } from '../../domain/errors.ts'
import { type Facts, MYSQL, POSTGRES, SQLITE } from './facts.ts'
import { mysqlDialect, postgresDialect, type ServerUrl } from './server-dialects.ts'
import { sqliteDialect } from './sqlite-dialect.ts'
import { type Statement, statement, type Values } from './statement.ts'
import type { Tables } from './tables.ts'
import { parseDatabaseUrl } from './url.ts'

export interface ConnectOptions {
  /** `[database] sqlite_synchronous`: whether each commit waits for the disk. */
  readonly synchronous?: boolean
  /** How long a write waits for other processes before it is refused as `unavailable`. */
  readonly busyTimeoutMs?: number
  /** Connections of a server for each of reading and writing, at most. */
  readonly connections?: number
  /** How long a caller waits for a free connection to a server, and for a new one. */
  readonly waitMs?: number
  /** Connections that were idle for so long are closed. */
  readonly idleMs?: number
  /** `[database] connection_parameters`. */
  readonly parameters?: string
  /** `[database] mysql_sql_mode`. */
  readonly sqlMode?: string
  /** Whoever writes is refused, by the database itself. */
  readonly readOnly?: boolean
  /** Reads whole tables, and takes as long as it takes: no requests are answered meanwhile. */
  readonly maintenance?: boolean
  /** Sees every statement. */
  readonly trace?: (sql: string, parameters: readonly unknown[]) => void
}

/** Runs statements inside one transaction. What is done there may be done again, when the database was busy. */
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
  /** Each statement is a transaction by itself, because some of the schema's can be in no other. */
  direct<T>(work: (session: Session) => Promise<T>): Promise<T>
  close(): Promise<void>
}

const sessionOn = (connection: DatabaseConnection, { isNowhere }: Facts, trace: ConnectOptions['trace']): Session => {
  const run = <Row>(prepared: Statement<Row>, values: Values = {}) => {
    const query = prepared.with(values)
    trace?.(query.sql, query.parameters)
    return connection.executeQuery<Row>(query)
  }
  const all = async <Row>(prepared: Statement<Row>, values?: Values): Promise<readonly Row[]> => {
    try {
      return (await run(prepared, values)).rows
    } catch (error) {
      if (isNowhere(error)) return []
      throw error
    }
  }
  return {
    all,
    first: async (prepared, values) => (await all(prepared, values))[0],
    change: async (prepared, values) => Number((await run(prepared, values)).numAffectedRows ?? 0),
  }
}

/** Repeats what finds the database busy, until `deadline`, and waits between attempts where others can run. */
const patiently = async <T>(attempt: () => Promise<T>, translate: Facts['translate'], deadline: number): Promise<T> => {
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

interface Drivers {
  /** One state of the database throughout each transaction. */
  readonly reader: Driver
  /** Transactions that could not have happened one after the other fail as busy. */
  readonly writer: Driver
  readonly dialect: Dialect
  /** What the sessions do not know of themselves. */
  readonly settings: { readonly read: TransactionSettings; readonly write: TransactionSettings }
}

const connectDrivers = async (
  { reader, writer, dialect, settings }: Drivers,
  facts: Facts,
  patienceMs: number,
  trace?: ConnectOptions['trace'],
): Promise<Connection> => {
  const kysely = new Kysely<Tables>({
    dialect: {
      createAdapter: () => dialect.createAdapter(),
      createQueryCompiler: () => dialect.createQueryCompiler(),
      createIntrospector: (db) => dialect.createIntrospector(db),
      createDriver: () => writer,
    },
  })
  const drivers = new Set([reader, writer])
  for (const driver of drivers) await driver.init()
  let closed = false

  const begin = async (driver: Driver, settings: TransactionSettings): Promise<DatabaseConnection> => {
    if (closed) throw new ServiceError('unavailable', 'The database is closed')
    const connection = await driver.acquireConnection()
    try {
      await driver.beginTransaction(connection, settings)
      return connection
    } catch (error) {
      await driver.releaseConnection(connection)
      throw error
    }
  }

  const transaction = async <T>(
    driver: Driver,
    settings: TransactionSettings,
    work: (session: Session) => Promise<T>,
  ): Promise<T> => {
    const connection = await begin(driver, settings)
    try {
      const result = await work(sessionOn(connection, facts, trace))
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
    read: (work) => inWords(() => transaction(reader, settings.read, work)),
    // Between attempts the connection is free, so that others go on.
    write: (work) =>
      inWords(() =>
        patiently(() => transaction(writer, settings.write, work), facts.translate, Date.now() + patienceMs),
      ),
    direct: (work) =>
      inWords(async () => {
        const connection = await writer.acquireConnection()
        try {
          return await work(sessionOn(connection, facts, trace))
        } finally {
          await writer.releaseConnection(connection)
        }
      }),
    close: async () => {
      if (closed) return
      closed = true
      for (const driver of drivers) await driver.destroy()
    },
  }
}

/** One connection serves both. */
const connectSqlite = (path: string, options: ConnectOptions): Promise<Connection> => {
  const { synchronous = true, busyTimeoutMs = PATIENCE_MS, readOnly, trace } = options
  const dialect = sqliteDialect({ path, synchronous, readOnly, trace })
  const driver = dialect.createDriver()
  const settings = { read: { accessMode: 'read only' }, write: { accessMode: 'read write' } } as const
  return connectDrivers({ reader: driver, writer: driver, dialect, settings }, SQLITE, busyTimeoutMs)
}

/** A statement that reads is given up after so long. */
const STATEMENT_S = 30

/** Their own isolation levels are the sessions', so that a transaction begins with one round trip. */
const SESSIONS = {
  postgresql: {
    facts: POSTGRES,
    open: postgresDialect,
    common: ["set time zone 'UTC'"],
    reader: ['set session characteristics as transaction isolation level repeatable read, read only'],
    answering: [
      // What is read here is a few rows by indexes, whatever the statistics say: no plan begins with a whole table, nor
      // goes through all images in the order of an index that has more than those of the list.
      `select ${['seqscan', 'bitmapscan', 'hashjoin', 'mergejoin', 'material', 'memoize', 'incremental_sort']
        .map((method) => `set_config('enable_${method}', 'off', false)`)
        .join()}, set_config('jit', 'off', false), set_config('statement_timeout', '${STATEMENT_S}s', false)`,
    ],
    writer: ['set session characteristics as transaction isolation level serializable, read write'],
  },
  mysql: {
    facts: MYSQL,
    open: mysqlDialect,
    common: ["set time_zone = '+00:00'"],
    reader: ['set session transaction isolation level repeatable read, read only'],
    answering: [
      // The option has one name in MariaDB, another one and milliseconds in MySQL.
      `set @@session.sql_safe_updates = 0
        /*M!100100 , @@session.max_statement_time = ${STATEMENT_S} */
        /*!80000 , @@session.max_execution_time = ${STATEMENT_S * 1000} */`,
    ],
    writer: ['set session transaction isolation level serializable, read write'],
  },
} as const

const connectServer = async (url: ServerUrl, options: ConnectOptions): Promise<Connection> => {
  const { facts, open, common, reader, answering, writer } = SESSIONS[url.kind]
  const { connections = 20, waitMs = 30_000, idleMs = 600_000 } = options
  const { busyTimeoutMs = PATIENCE_MS, sqlMode = 'TRADITIONAL' } = options
  const session = url.kind === 'mysql' && sqlMode !== '' ? [...common, `set sql_mode = '${sqlMode}'`] : common
  const pool = { connections, waitMs, idleMs }
  const dialect = await open(url, { ...pool, session: [...session, ...(options.readOnly ? reader : writer)] })
  const reading = options.maintenance ? reader : [...reader, ...answering]
  const readDialect = await open(url, { ...pool, session: [...session, ...reading] })
  const drivers = {
    reader: readDialect.createDriver(),
    writer: dialect.createDriver(),
    dialect,
    settings: { read: {}, write: {} },
  }
  return connectDrivers(drivers, facts, busyTimeoutMs, options.trace)
}

const PATIENCE_MS = 5_000

/** Throws `invalid` for a URL that cannot be served, `unavailable` when the database cannot be opened. */
export const connect = async (url: string, options: ConnectOptions = {}): Promise<Connection> => {
  const parsed = parseDatabaseUrl(url, options.parameters)
  if (parsed.kind !== 'sqlite') return connectServer(parsed, options)
  try {
    return await connectSqlite(parsed.path, options)
  } catch (error) {
    throw SQLITE.translate(error)
  }
}
