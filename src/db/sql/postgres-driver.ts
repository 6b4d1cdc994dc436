import { existsSync } from 'node:fs'
import { PostgresAdapter, PostgresIntrospector, PostgresQueryCompiler } from 'kysely'
import type { ClientConfig, PoolClient, PoolConfig } from 'pg'
import {
  KEEP_ALIVE_MS,
  type Language,
  type Link,
  type Mode,
  type PoolOptions,
  SILENT_TRANSACTION_S,
  type SqlDriver,
} from './driver.ts'
import { POSTGRES_MARKS } from './marks.ts'
import { fileOf, portOf, refused, type ServerUrl, systemAuthorities, timeoutOf } from './url.ts'

export const POSTGRES_LANGUAGE: Language = {
  createAdapter: () => new PostgresAdapter(),
  createIntrospector: (db) => new PostgresIntrospector(db),
  createQueryCompiler: () => new PostgresQueryCompiler(),
}

/** Where libpq looks for a server when nobody says where it is, as distributions have it. */
const SOCKETS = '/var/run/postgresql'
const hostOf = ({ host, options }: ServerUrl): string | undefined =>
  host ?? options.get('host') ?? process.env['PGHOST'] ?? (existsSync(SOCKETS) ? SOCKETS : undefined)

/** libpq's modes; `prefer` is what a URL means that says nothing, and then TLS is tried first. */
const MODES = ['disable', 'allow', 'prefer', 'require', 'verify-ca', 'verify-full']
type Tls = Exclude<PoolConfig['ssl'], undefined>
const tlsOf = (url: ServerUrl): { readonly tls: Tls; readonly orNone: boolean } => {
  const { options } = url
  const mode = options.get('sslmode') ?? 'prefer'
  if (!MODES.includes(mode)) throw refused(`sslmode is none of ${MODES.join(', ')}`)
  if (mode === 'disable' || hostOf(url)?.startsWith('/')) return { tls: false, orNone: false }
  const ca = options.get('sslrootcert') === 'system' ? systemAuthorities() : fileOf(url, 'sslrootcert')
  const tls = {
    ca,
    cert: fileOf(url, 'sslcert'),
    key: fileOf(url, 'sslkey'),
    rejectUnauthorized: mode.startsWith('verify') || (mode === 'require' && ca !== undefined),
    ...(mode === 'verify-full' ? {} : { checkServerIdentity: () => undefined }),
  }
  return { tls, orNone: mode === 'prefer' || mode === 'allow' }
}

/** Types that the library gives as texts or dates, and which the rows of this service have as numbers and texts. */
const INT8 = 20
const TIMESTAMP = 1114

const GREETING = `set time zone 'UTC'; set idle_in_transaction_session_timeout = '${SILENT_TRANSACTION_S}s'`
const READ_ONLY = 'set default_transaction_read_only = on'
const BEGIN_READ = 'begin isolation level repeatable read read only'
const BEGIN_WRITE = 'begin isolation level serializable read write'
const NO_SUCH_TABLE = '42P01'
/** A pooler lends connections for one transaction each, and knows no names; or the schema has changed behind a plan. */
const NAMES_FAIL = ['26000', '42P05', '0A000']
const NO_TLS = /does not support SSL/

export async function postgresDriver(url: ServerUrl, options: PoolOptions): Promise<SqlDriver> {
  const { default: pg } = await import('pg')
  const { trace } = options
  const { tls, orNone } = tlsOf(url)
  const connectMs = timeoutOf(url, 'connect_timeout', options.waitMs)
  /** The pool's time is that of waiting for a free connection, too. */
  class Client extends pg.Client {
    constructor(config?: string | ClientConfig) {
      super(typeof config === 'object' ? { ...config, connectionTimeoutMillis: connectMs } : config)
    }
  }
  const config = (ssl: Tls, greeting: string): PoolConfig =>
    ({
      user: url.user ?? url.options.get('user'),
      password: url.password ?? url.options.get('password'),
      host: hostOf(url),
      port: url.port ?? portOf(url.options.get('port')),
      database: url.database,
      ssl,
      Client,
      max: options.most,
      min: options.kept,
      connectionTimeoutMillis: options.waitMs,
      idleTimeoutMillis: OVERFLOW_IDLE_MS,
      maxLifetimeSeconds: options.recycleMs / 1000,
      options: url.options.get('options'),
      application_name: url.options.get('application_name') ?? 'glimpse',
      keepAlive: true,
      keepAliveInitialDelayMillis: KEEP_ALIVE_MS,
      // What is asked at once is sent at once.
      pipeline: true,
      onConnect: async (client) => {
        await client.query(greeting)
      },
      types: {
        getTypeParser: (oid: number, format?: 'text' | 'binary') => {
          if (oid === INT8) return Number
          if (oid === TIMESTAMP) return (text: string) => text
          return pg.types.getTypeParser(oid, format as 'text')
        },
      },
    }) as PoolConfig
  const open = (ssl: Tls, greeting: string) => {
    const pool = new pg.Pool(config(ssl, greeting))
    // A connection that is lost fails what runs on it, and is replaced when one is next needed. That is all: an
    // `error` that nobody hears would end the process.
    pool.on('error', () => undefined)
    pool.on('connect', (client) => client.on('error', () => undefined))
    return pool
  }
  const poolOf = (greeting: string) => {
    let pool = open(tls, greeting)
    return {
      connect: async (): Promise<PoolClient> => {
        const tried = pool
        try {
          return await tried.connect()
        } catch (error) {
          if (!(error instanceof Error && NO_TLS.test(error.message) && orNone)) throw error
          // The other pool has nothing that could be closed: nobody has got a connection from it.
          if (pool === tried) pool = open(false, greeting)
          return pool.connect()
        }
      },
      end: () => pool.end(),
    }
  }
  const readGreeting = [GREETING, ...options.reading, ...(options.readOnly ? [READ_ONLY] : [])].join('; ')
  const pools = { read: poolOf(readGreeting), write: poolOf(GREETING) }

  // A name for each statement that the server keeps, until it turns out that it does not.
  let naming = true
  const names = new Map<string, string>()
  const nameOf = (sql: string): string => {
    const name = names.get(sql) ?? `glimpse_${names.size}`
    names.set(sql, name)
    return name
  }
  const withoutNames = (error: unknown): never => {
    if (NAMES_FAIL.includes(String((error as { code?: unknown }).code))) naming = false
    throw error
  }

  const linkOf = (client: PoolClient, mode: Mode): Link => {
    const run = async (sql: string, values: readonly unknown[] = [], kept = false) => {
      trace?.(sql, values)
      const query =
        kept && naming ? { name: nameOf(sql), text: sql, values: [...values] } : { text: sql, values: [...values] }
      const { rows, rowCount } = await (values.length === 0 ? client.query(sql) : client.query(query)).catch(
        withoutNames,
      )
      return { rows: rows ?? [], changed: rowCount ?? 0 }
    }
    // Rows come in the order of the questions: with those, a failure of this has come too.
    let begun: Promise<unknown> = Promise.resolve()
    const beginRead = () => {
      begun = run(BEGIN_READ)
      begun.catch(() => undefined)
    }
    return {
      run,
      begin: async (mark) => {
        if (mode === 'read') beginRead()
        else if (mark === undefined) await run(BEGIN_WRITE)
        else {
          try {
            await run(`${BEGIN_WRITE}; ${POSTGRES_MARKS.set(mark)}`)
            return true
          } catch (error) {
            if ((error as { code?: unknown }).code !== NO_SUCH_TABLE) throw error
            await run('rollback')
            await run(BEGIN_WRITE)
          }
        }
        return false
      },
      commit: async () => {
        if (mode === 'write') await run('commit')
        else {
          await begun
          run('commit').catch(() => undefined)
        }
      },
      rollback: async () => {
        await run('rollback')
      },
      release: (sound) => client.release(!sound),
    }
  }

  const acquire = async (mode: Mode) => linkOf(await pools[mode === 'read' ? 'read' : 'write'].connect(), mode)
  return {
    acquire,
    happened: async (mark) => {
      const link = await acquire('direct')
      let sound = false
      try {
        const refused = await link.run(POSTGRES_MARKS.refuse(mark), [])
        sound = true
        return refused.rows.length === 0
      } finally {
        link.release(sound)
      }
    },
    close: async () => {
      await pools.read.end()
      await pools.write.end()
    },
  }
}

/** How long a connection beyond those that are kept waits for its next use. */
const OVERFLOW_IDLE_MS = 10_000
