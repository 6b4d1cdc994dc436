import { DatabaseSync, type SQLInputValue, type StatementSync } from 'node:sqlite'
import { SqliteAdapter, SqliteIntrospector, SqliteQueryCompiler } from 'kysely'
import { LRUCache } from 'lru-cache'
import { ServiceError } from '../../domain/errors.ts'
import type { Language, Link, Mode, Result, SqlDriver, Trace } from './driver.ts'

export const SQLITE_LANGUAGE: Language = {
  createAdapter: () => new SqliteAdapter(),
  createIntrospector: (db) => new SqliteIntrospector(db),
  createQueryCompiler: () => new SqliteQueryCompiler(),
}

export interface SqliteOptions {
  /** A file name, or `:memory:`. */
  readonly path: string
  /** Whether a commit survives a power failure (FULL) or only a crash of the process (NORMAL). */
  readonly synchronous: boolean
  /** Nothing is changed, not even the mode of the journal; the file must be there. */
  readonly readOnly?: boolean | undefined
  readonly trace?: Trace | undefined
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

const openRun = (database: DatabaseSync, trace: SqliteOptions['trace']) => {
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
  return async (sql: string, given: readonly unknown[]): Promise<Result> => {
    trace?.(sql, given)
    const { statement, columns } = prepare(sql)
    const values = given.map(bindable)
    if (columns.length === 0) return { rows: [], changed: Number(statement.run(...values).changes) }
    const rows = statement.all(...values) as unknown as readonly (readonly unknown[])[]
    return { rows: rows.map((row) => asRow(columns, row)), changed: 0 }
  }
}

/** Kept by one process, in a file: there is no connection that could be lost. */
export const sqliteDriver = (options: SqliteOptions): SqlDriver => {
  const { path, readOnly = false } = options
  const database = new DatabaseSync(path, { timeout: START_TIMEOUT_MS, enableForeignKeyConstraints: true, readOnly })
  if (!readOnly) database.exec('PRAGMA journal_mode = WAL')
  database.exec(`PRAGMA synchronous = ${options.synchronous ? 'FULL' : 'NORMAL'}`)
  database.exec(`PRAGMA cache_size = -${CACHE_KIB}`)
  database.exec('PRAGMA temp_store = MEMORY')
  database.exec(`PRAGMA busy_timeout = ${BUSY_TIMEOUT_MS}`)
  const run = openRun(database, options.trace)

  // One connection, one user at a time: two transactions on it would be one.
  let taken = false
  let closed = false
  const waiting: (() => void)[] = []
  const release = () => {
    const next = waiting.shift()
    // `taken` stays true for the next in line: nobody can slip in between.
    if (next) next()
    else taken = false
  }
  const only = async (sql: string) => {
    await run(sql, [])
  }
  const linkOf = (mode: Mode): Link => ({
    run,
    begin: async () => {
      // A transaction that begins with reading cannot always become a writer, so that a writer says so at once.
      await only(mode === 'read' ? 'begin' : 'begin immediate')
      return false
    },
    commit: () => only('commit'),
    rollback: async () => {
      // SQLite ends some failed transactions (disk full, I/O error) by itself.
      if (database.isTransaction) await only('rollback')
    },
    release,
  })
  const acquire = async (mode: Mode): Promise<Link> => {
    if (taken) await new Promise<void>((resolve) => waiting.push(resolve))
    taken = true
    if (!closed) return linkOf(mode)
    release()
    throw new ServiceError('unavailable', 'The database is closed')
  }
  return {
    acquire,
    close: async () => {
      await acquire('direct')
      closed = true
      database.close()
      release()
    },
  }
}
