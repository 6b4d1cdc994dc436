import { DatabaseSync, type SQLInputValue, type StatementSync } from 'node:sqlite'
import {
  CompiledQuery,
  type DatabaseConnection,
  type Dialect,
  type Driver,
  type QueryResult,
  SqliteAdapter,
  SqliteIntrospector,
  SqliteQueryCompiler,
  type TransactionSettings,
} from 'kysely'
import { LRUCache } from 'lru-cache'
import { ServiceError } from '../../domain/errors.ts'

export interface SqliteOptions {
  /** A file name, or `:memory:`. */
  readonly path: string
  /** Whether a commit survives a power failure (FULL) or only a crash of the process (NORMAL). */
  readonly synchronous: boolean
  /** Nothing is changed, not even the mode of the journal; the file must be there. */
  readonly readOnly?: boolean | undefined
  readonly trace?: ((sql: string, parameters: readonly unknown[]) => void) | undefined
}

/** While a server waits inside SQLite for another process, nothing else runs: the longer wait is ours, between attempts. */
const BUSY_TIMEOUT_MS = 2
/** At start nobody is served yet. */
const START_TIMEOUT_MS = 30_000
const CACHED_STATEMENTS = 500
const CACHE_KIB = 65_536

/** Primary result codes; the extended ones carry more in the higher bits. */
const BUSY = 5
const LOCKED = 6
const CONSTRAINT_UNIQUE = [2067, 1555, 2579] as readonly number[]
/** PERM, NOMEM, READONLY, IOERR, CORRUPT, FULL, CANTOPEN, PROTOCOL, NOTADB */
const AWAY = [3, 7, 8, 10, 11, 13, 14, 15, 26] as readonly number[]

const resultCode = (error: unknown): number | undefined =>
  error instanceof Error && 'errcode' in error && typeof error.errcode === 'number' ? error.errcode : undefined

/** Says in the service's words what SQLite refused; errors that are nobody's fault but ours stay as they are. */
export const fromSqlite = (error: unknown): unknown => {
  const code = resultCode(error)
  if (code === undefined) return error
  const detail = { code }
  if (CONSTRAINT_UNIQUE.includes(code))
    return new ServiceError('conflict', 'It exists already', { cause: error, detail })
  const primary = code & 0xff
  if (primary === BUSY || primary === LOCKED)
    return new ServiceError('unavailable', 'The database is busy', { cause: error, detail, transient: true })
  if (AWAY.includes(primary))
    return new ServiceError('unavailable', 'The database is not available', { cause: error, detail })
  return error
}

interface Prepared {
  readonly statement: StatementSync
  /** Names of the columns, where it returns rows. */
  readonly columns: readonly string[]
}

/** node:sqlite makes arrays faster than objects, by more than it takes to make objects of the arrays. */
const asRow = <Row>(columns: readonly string[], values: readonly unknown[]): Row => {
  const row: Record<string, unknown> = {}
  for (let n = 0; n < columns.length; n++) row[columns[n] as string] = values[n]
  return row as Row
}

const bindable = (value: unknown): SQLInputValue =>
  typeof value === 'boolean' ? Number(value) : (value as SQLInputValue)

const openConnection = (database: DatabaseSync, trace: SqliteOptions['trace']): DatabaseConnection => {
  const cache = new LRUCache<string, Prepared>({ max: CACHED_STATEMENTS })
  const prepare = (sql: string): Prepared => {
    const known = cache.get(sql)
    if (known) return known
    const statement = database.prepare(sql)
    statement.setReturnArrays(true)
    const prepared = { statement, columns: statement.columns().map(({ name }) => name) }
    cache.set(sql, prepared)
    return prepared
  }
  return {
    async executeQuery<Row>({ sql, parameters }: CompiledQuery): Promise<QueryResult<Row>> {
      trace?.(sql, parameters)
      const { statement, columns } = prepare(sql)
      const values = parameters.map(bindable)
      if (columns.length > 0) {
        const rows = statement.all(...values) as unknown as readonly (readonly unknown[])[]
        return { rows: rows.map((row) => asRow<Row>(columns, row)) }
      }
      return { rows: [], numAffectedRows: BigInt(statement.run(...values).changes) }
    },
    streamQuery: () => {
      throw new Error('SQLite statements are short and are not streamed')
    },
  }
}

const BEGIN_READ = CompiledQuery.raw('begin')
const BEGIN_WRITE = CompiledQuery.raw('begin immediate')
const COMMIT = CompiledQuery.raw('commit')
const ROLLBACK = CompiledQuery.raw('rollback')

/** One connection, one user at a time: two transactions on it would be one. */
const createDriver = (options: SqliteOptions): Driver => {
  let database: DatabaseSync | undefined
  let connection: DatabaseConnection | undefined
  let taken = false
  const waiting: (() => void)[] = []

  return {
    async init() {
      const { path, readOnly = false } = options
      database = new DatabaseSync(path, { timeout: START_TIMEOUT_MS, enableForeignKeyConstraints: true, readOnly })
      if (!readOnly) database.exec('PRAGMA journal_mode = WAL')
      database.exec(`PRAGMA synchronous = ${options.synchronous ? 'FULL' : 'NORMAL'}`)
      database.exec(`PRAGMA cache_size = -${CACHE_KIB}`)
      database.exec('PRAGMA temp_store = MEMORY')
      database.exec(`PRAGMA busy_timeout = ${BUSY_TIMEOUT_MS}`)
      connection = openConnection(database, options.trace)
    },
    async acquireConnection() {
      if (taken) await new Promise<void>((resolve) => waiting.push(resolve))
      taken = true
      if (connection) return connection
      await this.releaseConnection({} as DatabaseConnection)
      throw new ServiceError('unavailable', 'The database is closed')
    },
    async releaseConnection() {
      const next = waiting.shift()
      // `taken` stays true for the next in line: nobody can slip in between.
      if (next) next()
      else taken = false
    },
    async beginTransaction(on: DatabaseConnection, { accessMode }: TransactionSettings) {
      // A transaction that begins with reading cannot always become a writer, so that a writer says so at once.
      await on.executeQuery(accessMode === 'read only' ? BEGIN_READ : BEGIN_WRITE)
    },
    async commitTransaction(on: DatabaseConnection) {
      await on.executeQuery(COMMIT)
    },
    async rollbackTransaction(on: DatabaseConnection) {
      // SQLite ends some failed transactions (disk full, I/O error) by itself.
      if (database?.isTransaction) await on.executeQuery(ROLLBACK)
    },
    async destroy() {
      const last = await this.acquireConnection()
      connection = undefined
      database?.close()
      database = undefined
      await this.releaseConnection(last)
    },
  }
}

/** Kysely over node:sqlite. */
export const sqliteDialect = (options: SqliteOptions): Dialect => ({
  createAdapter: () => new SqliteAdapter(),
  createDriver: () => createDriver(options),
  createIntrospector: (kysely) => new SqliteIntrospector(kysely),
  createQueryCompiler: () => new SqliteQueryCompiler(),
})
