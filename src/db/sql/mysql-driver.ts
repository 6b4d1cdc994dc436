import { MysqlAdapter, MysqlIntrospector, MysqlQueryCompiler } from 'kysely'
import type { Pool, PoolConnection, PoolOptions as PoolSettings, QueryError } from 'mysql2'
import { ServiceError } from '../../domain/errors.ts'
import {
  KEEP_ALIVE_MS,
  type Language,
  type Link,
  type Mode,
  type PoolOptions,
  type Result,
  SILENT_TRANSACTION_S,
  type SqlDriver,
} from './driver.ts'
import { MYSQL_MARKS } from './marks.ts'
import { mysqlTls, withDefaultFile } from './mysql-options.ts'
import { type ServerUrl, timeoutOf } from './url.ts'

export const MYSQL_LANGUAGE: Language = {
  createAdapter: () => new MysqlAdapter(),
  createIntrospector: (db) => new MysqlIntrospector(db),
  createQueryCompiler: () => new MysqlQueryCompiler(),
}

export interface MysqlOptions extends PoolOptions {
  /** `[database] mysql_sql_mode`; empty leaves that of the server. */
  readonly sqlMode: string
  /** `[database] mysql_wsrep_sync_wait`, of a Galera cluster. */
  readonly syncWait?: number | undefined
}

/**
 * What a session is told first. `NO_BACKSLASH_ESCAPES` would change what the library's escaped texts mean. MySQL takes
 * what only MariaDB knows for a comment.
 */
const greeting = (mode: 'read' | 'write', { sqlMode, syncWait, reading }: MysqlOptions): readonly string[] => [
  `set time_zone = '+00:00', autocommit = ${mode === 'read' ? 1 : 0},
    sql_mode = replace(${sqlMode === '' ? '@@sql_mode' : `'${sqlMode}'`}, 'NO_BACKSLASH_ESCAPES', '')
    /*M! , idle_transaction_timeout = ${SILENT_TRANSACTION_S} */`,
  mode === 'read'
    ? 'set session transaction isolation level repeatable read, read only'
    : 'set session transaction isolation level serializable, read write',
  ...(mode === 'read' ? reading : []),
  ...(syncWait === undefined ? [] : [`set session wsrep_sync_wait = ${syncWait}`]),
]

const runOn = (connection: PoolConnection, { trace }: PoolOptions, sql: string, values: readonly unknown[]) =>
  new Promise<Result>((resolve, reject) => {
    trace?.(sql, values)
    connection.query(sql, [...values], (error: QueryError | null, result: unknown) => {
      if (error) reject(error)
      else if (Array.isArray(result)) resolve({ rows: result, changed: 0 })
      else resolve({ rows: [], changed: (result as { affectedRows?: number }).affectedRows ?? 0 })
    })
  })

/** Connections of one mode: the isolation level of MySQL is the session's, so that beginning is one round trip or none. */
const openPool = (pool: Pool, mode: 'read' | 'write', options: MysqlOptions) => {
  const bornAt = new WeakMap<PoolConnection, number>()
  // A connection that is lost fails what runs on it; an `error` that nobody hears would end the process.
  pool.on('connection', (connection) => connection.on('error', () => undefined))

  const next = () =>
    new Promise<PoolConnection>((resolve, reject) => {
      let late = false
      const timer = setTimeout(() => {
        late = true
        reject(
          new ServiceError('unavailable', 'The database has no free connection', { detail: { code: 'POOL_TIMEOUT' } }),
        )
      }, options.waitMs)
      pool.getConnection((error, connection) => {
        clearTimeout(timer)
        if (late) connection?.release()
        else if (error) reject(error)
        else resolve(connection)
      })
    })
  const isOld = (born: number) => options.recycleMs > 0 && performance.now() - born > options.recycleMs

  const acquire = async (): Promise<PoolConnection> => {
    const connection = await next()
    const born = bornAt.get(connection)
    if (born === undefined) {
      try {
        for (const sql of greeting(mode, options)) await runOn(connection, options, sql, [])
        bornAt.set(connection, performance.now())
      } catch (error) {
        connection.destroy()
        throw error
      }
    } else if (isOld(born)) {
      connection.destroy()
      return acquire()
    }
    return connection
  }
  return acquire
}

const CLUSTERED = `show variables where variable_name = 'wsrep_on' and value = 'ON'`
const NO_SUCH_TABLE = 'ER_NO_SUCH_TABLE'

const linkOf = (connection: PoolConnection, mode: Mode, options: MysqlOptions, clustered: boolean): Link => {
  const run = (sql: string, values: readonly unknown[]) => runOn(connection, options, sql, values)
  const only = async (sql: string) => {
    await run(sql, [])
  }
  return {
    run,
    begin: async (mark) => {
      // A session of writers is in a transaction from its first statement on.
      if (mode === 'read') await only('start transaction')
      if (mark === undefined) return false
      try {
        await only(MYSQL_MARKS.set(mark))
        return true
      } catch (error) {
        if ((error as { code?: unknown }).code !== NO_SUCH_TABLE) throw error
        return false
      }
    },
    ...(clustered ? { guard: (name: string) => only(MYSQL_MARKS.guard(name)) } : {}),
    commit: () => only('commit'),
    rollback: () => only('rollback'),
    release: (sound) => {
      if (sound && mode !== 'direct') connection.release()
      else connection.destroy()
    },
  }
}

export async function mysqlDriver(given: ServerUrl, options: MysqlOptions): Promise<SqlDriver> {
  const { createPool } = await import('mysql2')
  const url = withDefaultFile(given)
  const ssl = mysqlTls(url)
  const socket = url.options.get('unix_socket')
  const settings: PoolSettings = {
    ...(url.user === undefined ? {} : { user: url.user }),
    ...(url.password === undefined ? {} : { password: url.password }),
    ...(socket === undefined ? { host: url.host ?? '127.0.0.1', port: url.port ?? 3306 } : { socketPath: socket }),
    database: url.database,
    ...(ssl === undefined ? {} : { ssl }),
    // Whatever the URL says (`charset=utf8` as a rule): the wider one holds all that a narrower column has.
    charset: 'utf8mb4',
    connectionLimit: options.most,
    maxIdle: options.kept,
    idleTimeout: FOREVER_MS,
    connectTimeout: timeoutOf(url, 'connect_timeout', options.waitMs),
    dateStrings: true,
    enableKeepAlive: true,
    keepAliveInitialDelay: KEEP_ALIVE_MS,
  }
  const pools = { read: createPool(settings), write: createPool(settings) }
  const connect = { read: openPool(pools.read, 'read', options), write: openPool(pools.write, 'write', options) }

  let clustered: boolean | undefined
  /** Whether this is a node of Galera, which a server is from its start on. */
  const isClustered = async (connection: PoolConnection): Promise<boolean> => {
    try {
      clustered ??= (await runOn(connection, options, CLUSTERED, [])).rows.length > 0
      return clustered
    } catch (error) {
      connection.destroy()
      throw error
    }
  }
  const acquire = async (mode: Mode): Promise<Link> => {
    const connection = await connect[mode === 'read' ? 'read' : 'write']()
    const link = linkOf(connection, mode, options, mode === 'write' && (await isClustered(connection)))
    if (mode !== 'direct') return link
    try {
      await link.run('set autocommit = 1', [])
      return link
    } catch (error) {
      link.release(false)
      throw error
    }
  }
  return {
    acquire,
    happened: async (mark) => {
      const link = await acquire('write')
      let sound = false
      try {
        await link.run(MYSQL_MARKS.refuse(mark), [])
        const { rows } = await link.run(MYSQL_MARKS.look(mark), [])
        await link.commit()
        sound = true
        return Number((rows[0] as { n?: unknown } | undefined)?.n) === mark.n
      } finally {
        link.release(sound)
      }
    },
    close: async () => {
      for (const pool of [pools.read, pools.write])
        await new Promise<void>((resolve, reject) => pool.end((error) => (error ? reject(error) : resolve())))
    },
  }
}

/** Age, and not idleness, is what connections that are kept are replaced for. */
const FOREVER_MS = 2 ** 31 - 1
