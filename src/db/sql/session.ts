import { type CompiledQuery, DummyDriver, Kysely, type QueryExecutorProvider } from 'kysely'
import { ServiceError } from '../../domain/errors.ts'
import {
  type Language,
  type Link,
  type Mark,
  type Mode,
  SILENT_TRANSACTION_S,
  type SqlDriver,
  type Trace,
} from './driver.ts'
import { type Facts, MYSQL, POSTGRES, SQLITE } from './facts.ts'
import { type Marks, marks } from './marks.ts'
import { MYSQL_LANGUAGE, mysqlDriver } from './mysql-driver.ts'
import { type Patience, patiently, type Reconnect, type Setback } from './patience.ts'
import { POSTGRES_LANGUAGE, postgresDriver } from './postgres-driver.ts'
import { SQLITE_LANGUAGE, sqliteDriver } from './sqlite-driver.ts'
import { type Statement, statement, type Values } from './statement.ts'
import type { Tables } from './tables.ts'
import { parseDatabaseUrl } from './url.ts'

export interface ConnectOptions {
  /** `[database] sqlite_synchronous`: whether each commit waits for the disk. */
  readonly synchronous?: boolean
  /** How long a write waits for other processes before it is refused as `unavailable`. */
  readonly busyTimeoutMs?: number
  /** How to wait for a server that cannot be reached; without it, not at all. */
  readonly reconnect?: Reconnect | undefined
  /** How long to ask for the outcome of a write whose connection was lost in the middle of its commit. */
  readonly outcomeMs?: number
  /** Connections to a server at most, for each of reading and writing. */
  readonly connections?: number
  /** Of these, so many are kept open. */
  readonly keptConnections?: number
  /** How long a caller waits for a free connection to a server, and for a new one. */
  readonly waitMs?: number
  /** Connections of this age are replaced; 0 for never. */
  readonly recycleMs?: number
  /** `[database] connection_parameters`. */
  readonly parameters?: string
  /** `[database] mysql_sql_mode`. */
  readonly sqlMode?: string
  /** Whoever writes is refused, by the database itself. */
  readonly readOnly?: boolean
  /** Reads whole tables, and takes as long as it takes: no requests are answered meanwhile. */
  readonly maintenance?: boolean
  /** `[database] mysql_wsrep_sync_wait`. */
  readonly syncWait?: number | undefined
  /** `[database] connection_trace`: each statement says in a comment which line of code it comes from. */
  readonly callers?: boolean
  readonly trace?: Trace
}

/** Runs statements inside one transaction. What is done there may be done again, when the database was busy. */
export interface Session {
  all<Row>(statement: Statement<Row>, values?: Values): Promise<readonly Row[]>
  first<Row>(statement: Statement<Row>, values?: Values): Promise<Row | undefined>
  /**
   * Says what this unit relies on: nobody else who says so changes it at the same time, on another node of a cluster
   * either. There, a row that is written as it was (a time of whole seconds) is in nobody's way.
   */
  guard(what: 'image' | 'owner', id: string | null): Promise<void>
  /** Returns the number of changed rows. */
  change(statement: Statement<unknown>, values?: Values): Promise<number>
}

export interface WriteOptions {
  /**
   * Whether its outcome can be learned when its connection is lost; true by default. That takes a statement at its
   * beginning, before which nothing else can be said of the transaction.
   */
  readonly marked?: boolean
}

interface Query<Row> {
  compile(on: QueryExecutorProvider): CompiledQuery<Row>
}

export interface Connection {
  readonly facts: Facts
  /** Builds queries; they run in a `Session`. */
  readonly kysely: Kysely<Tables>
  prepare<Row>(query: Query<Row>): Statement<Row>
  /** The same, for one that finds its rows by a key, whatever the values are, and of which there are not many. */
  fixed<Row>(query: Query<Row>): Statement<Row>
  /** Sees one state of the database throughout. */
  read<T>(work: (session: Session) => Promise<T>): Promise<T>
  /**
   * All or nothing; no other writer meanwhile. `unavailable` says that nothing has been changed, unless its detail has
   * `outcome: 'unknown'`: the connection was lost during the commit, and the server could not be asked what became of it.
   */
  write<T>(work: (session: Session) => Promise<T>, options?: WriteOptions): Promise<T>
  /** Each statement is a transaction by itself, because some of the schema's can be in no other. */
  direct<T>(work: (session: Session) => Promise<T>): Promise<T>
  close(): Promise<void>
}

const sessionOn = (link: Link, { isNowhere }: Facts, callers: boolean): Session => {
  const run = <Row>(prepared: Statement<Row>, values: Values) => {
    const { sql, parameters } = prepared.with(values)
    return link.run(callers ? `${sql} /* ${caller()} */` : sql, parameters, prepared.kept)
  }
  const all = async <Row>(prepared: Statement<Row>, values: Values = {}): Promise<readonly Row[]> => {
    try {
      return (await run(prepared, values)).rows as readonly Row[]
    } catch (error) {
      if (isNowhere(error)) return []
      throw error
    }
  }
  return {
    all,
    guard: async (what, id) => link.guard?.(`${what} ${id ?? ''}`),
    first: async (prepared, values) => (await all(prepared, values))[0],
    change: async (prepared, values = {}) => (await run(prepared, values)).changed,
  }
}

/** The innermost line of the stack outside this file, as `folder/file.ts:line`. */
const caller = (): string => {
  const lines = (new Error().stack ?? '').split('\n').slice(1)
  const place = lines.find((line) => !line.includes('/session.'))
  return /([\w.-]+\/[\w.-]+:\d+):\d+\)?$/.exec(place ?? '')?.[1] ?? 'unknown'
}

interface Manners extends Patience {
  readonly outcomeMs: number
  readonly callers: boolean
  readonly readOnly: boolean
}

const connectThrough = (driver: SqlDriver, language: Language, facts: Facts, manners: Manners): Connection => {
  const kysely = new Kysely<Tables>({ dialect: { ...language, createDriver: () => new DummyDriver() } })
  const ours: Marks | undefined = driver.happened && !manners.readOnly ? marks() : undefined
  let closed = false

  const reasonOf = (error: unknown): unknown => {
    const said = facts.translate(error)
    if (!(said instanceof ServiceError)) return undefined
    return said.kind === 'unavailable' && said.transient ? 'again' : said.detail['reason']
  }
  /** Failures of what had a connection. */
  const underway = new WeakSet<object>()
  const begun = (error: unknown): unknown => {
    if (typeof error === 'object' && error !== null) underway.add(error)
    return error
  }
  const setbackOf = (error: unknown): Setback => {
    const reason = reasonOf(error)
    if (reason === 'away') return underway.has(error as object) ? 'lost' : 'away'
    return reason === 'again' ? reason : undefined
  }

  const acquire = async (mode: Mode): Promise<Link> => {
    if (closed) throw new ServiceError('unavailable', 'The database is closed')
    return driver.acquire(manners.readOnly ? 'read' : mode)
  }
  const undo = async (link: Link, error: unknown): Promise<void> => {
    // A server that says it is away may leave the connection open; the next one may lead to another server.
    const sound = await link.rollback().then(
      () => reasonOf(error) !== 'away',
      () => false,
    )
    link.release(sound)
  }

  /** Whether the write was committed after all. Throws `unavailable` when nobody can say. */
  const asked = async (mark: Mark | undefined, cause: unknown): Promise<boolean> => {
    const unknown = (error: unknown) =>
      new ServiceError('unavailable', 'The database did not say whether the change was made', {
        cause: error,
        detail: { outcome: 'unknown' },
      })
    const ask = driver.happened
    if (mark === undefined || ask === undefined) throw unknown(cause)
    const deadline = performance.now() + manners.outcomeMs
    const late = new AbortController()
    const timer = setTimeout(() => late.abort(), manners.outcomeMs)
    try {
      const answer = patiently(
        () => ask(mark),
        (error) => (performance.now() < deadline ? setbackOf(error) : undefined),
        { busyMs: manners.outcomeMs, reconnect: ASKING },
      )
      return await Promise.race([answer, aborted(late.signal, cause)])
    } catch (error) {
      throw unknown(error)
    } finally {
      clearTimeout(timer)
    }
  }

  const attempt = async <T>(
    mode: 'read' | 'write',
    work: (session: Session) => Promise<T>,
    { marked: wanted = mode === 'write' }: WriteOptions,
  ): Promise<T> => {
    const link = await acquire(mode)
    const mark = wanted ? ours?.take() : undefined
    const settled = () => mark && ours?.giveBack(mark)
    let marked = false
    let result: T
    try {
      marked = await link.begin(mark)
      result = await work(sessionOn(link, facts, manners.callers))
    } catch (error) {
      await undo(link, error)
      settled()
      throw begun(error)
    }
    try {
      await link.commit()
      link.release(true)
    } catch (error) {
      if (mode === 'read' || driver.happened === undefined || reasonOf(error) === 'again') {
        await undo(link, error)
        settled()
        throw begun(error)
      }
      link.release(false)
      if (!(await asked(marked ? mark : undefined, error))) {
        settled()
        throw begun(error)
      }
    }
    settled()
    return result
  }

  const inWords = async <T>(body: () => Promise<T>): Promise<T> => {
    try {
      return await body()
    } catch (error) {
      throw facts.translate(error)
    }
  }
  // Between attempts the connection is free, so that others go on.
  const done = <T>(
    mode: 'read' | 'write',
    work: (session: Session) => Promise<T>,
    options: WriteOptions = {},
  ): Promise<T> => inWords(() => patiently(() => attempt(mode, work, options), setbackOf, manners))

  return {
    facts,
    kysely,
    prepare: (query) => statement(query.compile(kysely), false),
    fixed: (query) => statement(query.compile(kysely), true),
    read: (work) => done('read', work),
    write: (work, options) => done('write', work, options),
    direct: (work) =>
      inWords(async () => {
        const link = await acquire('direct')
        let sound = false
        try {
          const result = await work(sessionOn(link, facts, manners.callers))
          sound = true
          return result
        } finally {
          link.release(sound)
        }
      }),
    close: async () => {
      if (closed) return
      closed = true
      await driver.close()
    },
  }
}

const aborted = (signal: AbortSignal, cause: unknown): Promise<never> =>
  new Promise((_, reject) => signal.addEventListener('abort', () => reject(cause)))

/** A server that has just been lost is asked for soon, and then once a second. */
const ASKING: Reconnect = { retries: -1, intervalMs: 50, growing: true, maxIntervalMs: 1000 }

/** A statement that reads is given up after so long. */
const STATEMENT_S = 30

/** What sessions are told that answer requests, and only read. */
const ANSWERING = {
  postgresql:
    // What is read here is a few rows by indexes, whatever the statistics say: no plan begins with a whole table, nor
    // goes through all images in the order of an index that has more than those of the list.
    `select ${['seqscan', 'bitmapscan', 'hashjoin', 'mergejoin', 'material', 'memoize', 'incremental_sort']
      .map((method) => `set_config('enable_${method}', 'off', false)`)
      .join()}, set_config('jit', 'off', false), set_config('statement_timeout', '${STATEMENT_S}s', false)`,
  // The option has one name in MariaDB, another one and milliseconds in MySQL.
  mysql: `set @@session.sql_safe_updates = 0
    /*M!100100 , @@session.max_statement_time = ${STATEMENT_S} */
    /*!80000 , @@session.max_execution_time = ${STATEMENT_S * 1000} */`,
} as const

const PATIENCE_MS = 5_000
/** Longer than a server lets a silent transaction live, with which an old connection may block the answer. */
const OUTCOME_MS = (SILENT_TRANSACTION_S + 15) * 1000

/** Throws `invalid` for a URL that cannot be served, `unavailable` when a file cannot be opened. */
export const connect = async (url: string, options: ConnectOptions = {}): Promise<Connection> => {
  const { synchronous = true, busyTimeoutMs = PATIENCE_MS, outcomeMs = OUTCOME_MS, callers = false, trace } = options
  const { connections = 20, keptConnections = connections, waitMs = 30_000, recycleMs = 0 } = options
  const { reconnect, sqlMode = 'TRADITIONAL', syncWait, readOnly = false } = options
  const manners = { busyMs: busyTimeoutMs, reconnect, outcomeMs, callers, readOnly }
  const pool = { most: connections, kept: keptConnections, waitMs, recycleMs, readOnly, trace }
  const reading = (kind: keyof typeof ANSWERING) => (options.maintenance ? [] : [ANSWERING[kind]])
  const parsed = parseDatabaseUrl(url, options.parameters)
  switch (parsed.kind) {
    case 'postgresql':
      return connectThrough(
        await postgresDriver(parsed, { ...pool, reading: reading('postgresql') }),
        POSTGRES_LANGUAGE,
        POSTGRES,
        manners,
      )
    case 'mysql': {
      const driver = await mysqlDriver(parsed, { ...pool, reading: reading('mysql'), sqlMode, syncWait })
      return connectThrough(driver, MYSQL_LANGUAGE, MYSQL, manners)
    }
    default:
      try {
        const driver = sqliteDriver({ path: parsed.path, synchronous, readOnly, trace })
        return connectThrough(driver, SQLITE_LANGUAGE, SQLITE, manners)
      } catch (error) {
        throw SQLITE.translate(error)
      }
  }
}
