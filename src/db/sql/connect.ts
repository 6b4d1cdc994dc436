import { setTimeout as delay } from 'node:timers/promises'
import { sql } from 'kysely'
import { hasKind, ServiceError } from '../../domain/errors.ts'
import type { Database } from '../database.ts'
import { cachedRepository } from './cached.ts'
import { delayedDeleteRepository } from './delayed-delete.ts'
import { withParts } from './facts.ts'
import { imageRepository } from './images.ts'
import { jobRepository } from './jobs.ts'
import { type LocationCipher, locationCipher } from './location-cipher.ts'
import { requireFittingKey } from './location-rows.ts'
import { maintenanceRepository } from './maintenance.ts'
import { forgetMarks } from './marks.ts'
import { memberRepository } from './members.ts'
import { metadefRepository } from './metadefs.ts'
import type { Reconnect } from './patience.ts'
import { prepareSchema, readSchema } from './prepare.ts'
import { withReplica } from './replica.ts'
import { type Connection, type ConnectOptions, connect } from './session.ts'
import { taskRepository } from './tasks.ts'
import { unheededOptions } from './url.ts'
import { workerRepository } from './workers.ts'

/** As `[database]` of the configuration has it. */
export interface DatabaseSettings {
  readonly connection?: string | undefined
  readonly slave_connection?: string | undefined
  readonly asyncio_slave_connection?: string | undefined
  readonly connection_parameters?: string | undefined
  readonly sqlite_synchronous?: boolean | undefined
  readonly mysql_sql_mode?: string | undefined
  readonly mysql_wsrep_sync_wait?: number | undefined
  readonly max_pool_size?: number | undefined
  readonly max_overflow?: number | undefined
  /** Seconds. */
  readonly pool_timeout?: number | undefined
  readonly connection_recycle_time?: number | undefined
  readonly max_retries?: number | undefined
  /** Seconds. */
  readonly retry_interval?: number | undefined
  readonly use_db_reconnect?: boolean | undefined
  /** Seconds. */
  readonly db_retry_interval?: number | undefined
  readonly db_inc_retry_interval?: boolean | undefined
  readonly db_max_retry_interval?: number | undefined
  readonly db_max_retries?: number | undefined
  readonly connection_debug?: number | undefined
  readonly connection_trace?: boolean | undefined
  /** That of `[DEFAULT]`: locations are encrypted. */
  readonly metadata_encryption_key?: string | undefined
}

/** SQLAlchemy's pool waits so long where nothing else is said. */
const POOL_TIMEOUT_S = 30
/** A pool "without limit" has one all the same: servers have. */
const MOST_CONNECTIONS = 100

/** One that works, and one that holds the others off. */
const MANAGER_CONNECTIONS = 4
/** Commands have time to wait for services. */
const MANAGER_PATIENCE_MS = 600_000
const MANAGING = { connections: MANAGER_CONNECTIONS, busyTimeoutMs: MANAGER_PATIENCE_MS, maintenance: true } as const

/** From this value of `connection_debug` on, SQLAlchemy prints statements. */
const DEBUG_STATEMENTS = 50

const optionsOf = (settings: DatabaseSettings, debug?: (text: string) => void): ConnectOptions => {
  const { max_pool_size: size = 5, max_overflow: overflow = 50, connection_recycle_time: recycle = 3600 } = settings
  const most = size <= 0 || overflow < 0 ? MOST_CONNECTIONS : Math.min(size + overflow, MOST_CONNECTIONS)
  return {
    synchronous: settings.sqlite_synchronous ?? true,
    connections: most,
    keptConnections: size <= 0 ? most : Math.min(size, most),
    waitMs: (settings.pool_timeout ?? POOL_TIMEOUT_S) * 1000,
    recycleMs: Math.max(recycle, 0) * 1000,
    reconnect: reconnectOf(settings),
    syncWait: settings.mysql_wsrep_sync_wait,
    callers: settings.connection_trace ?? false,
    ...(settings.connection_parameters === undefined ? {} : { parameters: settings.connection_parameters }),
    ...(settings.mysql_sql_mode === undefined ? {} : { sqlMode: settings.mysql_sql_mode }),
    // Never with their values, which may be credentials.
    ...((settings.connection_debug ?? 0) < DEBUG_STATEMENTS || debug === undefined ? {} : { trace: debug }),
  }
}

const reconnectOf = (settings: DatabaseSettings): Reconnect | undefined =>
  settings.use_db_reconnect
    ? {
        retries: settings.db_max_retries ?? 20,
        intervalMs: (settings.db_retry_interval ?? 1) * 1000,
        growing: settings.db_inc_retry_interval ?? true,
        maxIntervalMs: (settings.db_max_retry_interval ?? 10) * 1000,
      }
    : undefined

export interface OpenOptions extends ConnectOptions {
  /** Is told what an operator should know of the database, in a line each. */
  readonly warn?: (text: string) => void
  /** Is told each statement, where `connection_debug` asks for that. */
  readonly debug?: (text: string) => void
}

/** A part of the database that is not there: whoever asks for it hears why. */
const absent = (db: Connection, reason: string): Connection => {
  const refuse = () => Promise.reject(new ServiceError('unavailable', reason))
  return { ...db, read: refuse, write: refuse }
}

/** A replica that cannot be reached for so long is left out. */
const REPLICA_WAIT_MS = 3_000

/** Where the settings name one; it is not looked at before the first list. */
const replicaOf = async (
  settings: DatabaseSettings,
  options: ConnectOptions,
  parts: ReadonlySet<string>,
): Promise<Connection | undefined> => {
  const url = settings.slave_connection ?? settings.asyncio_slave_connection
  if (url === undefined || url === '') return undefined
  const { waitMs = REPLICA_WAIT_MS, ...rest } = { ...optionsOf(settings), ...options }
  const replica = await connect(url, { ...rest, waitMs: Math.min(waitMs, REPLICA_WAIT_MS) })
  return { ...replica, facts: withParts(replica.facts, parts) }
}

/** Connects as the settings say; a server that is away is tried again. `work` is what is done first. */
const connected = async <T>(
  settings: DatabaseSettings,
  { warn = () => undefined, debug, ...options }: OpenOptions,
  work: (connection: Connection) => Promise<T>,
): Promise<readonly [Connection, T]> => {
  const { connection: url = '', max_retries: retries = 10, retry_interval: interval = 10 } = settings
  for (const line of unheededOptions(settings)) warn(line)
  for (let failures = 0; ; failures++) {
    const connection = await connect(url, { ...optionsOf(settings, debug), ...options })
    try {
      return [connection, await work(connection)]
    } catch (error) {
      await connection.close()
      const away =
        connection.facts.name !== 'sqlite' && hasKind(error, 'unavailable') && error.detail['reason'] === 'away'
      if (!away || (retries >= 0 && failures >= retries)) throw error
      const left = retries < 0 ? 'the next attempt follows' : `${retries - failures} attempts left`
      warn(`The database cannot be reached (${error.detail['code']}): ${left}`)
    }
    await delay(interval * 1000)
  }
}

/** The connection alone, for those who look after the schema; nothing is asked of the database yet. */
export const connectDatabase = (settings: DatabaseSettings, options: ConnectOptions = {}): Promise<Connection> => {
  if (settings.connection === undefined) throw new ServiceError('invalid', '[database] connection is not set')
  return connect(settings.connection, { ...optionsOf(settings), ...MANAGING, ...options })
}

/** The same, once the server answers: one that is away is tried again as the settings say. Throws what it answers. */
export const reachDatabase = async (settings: DatabaseSettings, options: OpenOptions = {}): Promise<Connection> => {
  if (settings.connection === undefined) throw new ServiceError('invalid', '[database] connection is not set')
  const [connection] = await connected(settings, { ...MANAGING, ...options }, (db) =>
    db.read((session) => session.all(db.prepare(sql`select 1`))),
  )
  return connection
}

export interface OpenConnection {
  readonly connection: Connection
  /** For the URIs of locations. */
  readonly cipher: LocationCipher
  /** Why there are no tables for `Database.cached`, where there are none. */
  readonly lag: string | undefined
  /** From which lists are read. */
  readonly replica: Connection | undefined
}

/**
 * Opens the database that a SQLAlchemy URL names; an empty one gets the schema. A server that is away is tried again
 * as the settings say. With `readOnly`, nothing is made. Throws `invalid` for a URL that cannot be served or a key that
 * does not fit, `unavailable` when the database cannot be opened or its schema is of a release that is too old.
 */
export const openConnection = async (
  from: string | DatabaseSettings,
  options: OpenOptions = {},
): Promise<OpenConnection> => {
  const settings: DatabaseSettings = typeof from === 'string' ? { connection: from, max_retries: 0 } : from
  const cipher = locationCipher(settings.metadata_encryption_key)
  const [raw, found] = await connected(settings, options, async (db) => {
    const schema = await (options.readOnly ? readSchema : prepareSchema)(db)
    await requireFittingKey(db, cipher)
    if (db.facts.name !== 'sqlite' && !options.readOnly) await forgetMarks(db)
    return schema
  })
  // How quick lists are is nothing to those who make none.
  if (!options.maintenance) for (const line of found.warnings) options.warn?.(line)
  return {
    connection: { ...raw, facts: withParts(raw.facts, found.parts) },
    cipher,
    lag: found.lag,
    replica: await replicaOf(settings, options, found.parts),
  }
}

const repositories = ({ connection, cipher, lag }: Omit<OpenConnection, 'replica'>): Database => ({
  images: imageRepository(connection, cipher),
  members: memberRepository(connection),
  workers: workerRepository(connection),
  metadefs: metadefRepository(connection),
  cached: cachedRepository(lag === undefined ? connection : absent(connection, lag)),
  tasks: taskRepository(connection),
  jobs: jobRepository(connection, cipher),
  maintenance: maintenanceRepository(connection),
  delayed: delayedDeleteRepository(connection, cipher),
  close: connection.close,
})

export const databaseOn = ({ replica, ...opened }: OpenConnection): Database => {
  const primary = repositories(opened)
  return replica === undefined ? primary : withReplica(primary, repositories({ ...opened, connection: replica }))
}

/** As `openConnection`. */
export const openDatabase = async (from: string | DatabaseSettings, options: OpenOptions = {}): Promise<Database> =>
  databaseOn(await openConnection(from, options))
