import { readFileSync } from 'node:fs'
import { CompiledQuery, type DatabaseConnection, type Dialect, MysqlDialect, PostgresDialect } from 'kysely'
import type { DatabaseUrl } from './url.ts'

export type ServerUrl = Exclude<DatabaseUrl, { readonly kind: 'sqlite' }>

export interface ServerOptions {
  /** Connections at most, those of `max_overflow` included. */
  readonly connections: number
  /** How long to wait for a free connection, and for a new one. */
  readonly waitMs: number
  /** Idle connections are closed after this time. */
  readonly idleMs: number
  /** What each new session is told first. */
  readonly session: readonly string[]
}

const greet =
  (statements: readonly string[]) =>
  async (connection: DatabaseConnection): Promise<void> => {
    for (const statement of statements) await connection.executeQuery(CompiledQuery.raw(statement))
  }

const fileOf = (url: ServerUrl, option: string): string | undefined => {
  const file = url.options.get(option)
  return file === undefined ? undefined : readFileSync(file, 'utf8')
}

/** Certificates that are given are used; without any, `sslmode` says whether there is TLS at all (libpq's words). */
const postgresTls = (url: ServerUrl) => {
  const mode = url.options.get('sslmode') ?? 'prefer'
  const ca = fileOf(url, 'sslrootcert')
  if (mode === 'disable' || mode === 'allow' || (mode === 'prefer' && ca === undefined)) return false
  return {
    ca,
    cert: fileOf(url, 'sslcert'),
    key: fileOf(url, 'sslkey'),
    rejectUnauthorized: mode.startsWith('verify') || ca !== undefined,
    ...(mode === 'verify-full' ? {} : { checkServerIdentity: () => undefined }),
  }
}

/** Types that libraries give as texts or dates, and which the rows of this service have as numbers and texts. */
const INT8 = 20
const TIMESTAMP = 1114

export async function postgresDialect(url: ServerUrl, options: ServerOptions): Promise<Dialect> {
  const { default: pg } = await import('pg')
  const pool = new pg.Pool({
    user: url.user,
    password: url.password,
    host: url.host ?? url.options.get('host'),
    port: url.port,
    database: url.database,
    ssl: postgresTls(url),
    max: options.connections,
    connectionTimeoutMillis: options.waitMs,
    idleTimeoutMillis: options.idleMs,
    application_name: url.options.get('application_name') ?? 'glimpse',
    keepAlive: true,
    types: {
      getTypeParser: (oid: number, format?: 'text' | 'binary') => {
        if (oid === INT8) return Number
        if (oid === TIMESTAMP) return (text: string) => text
        return pg.types.getTypeParser(oid, format as 'text')
      },
    },
  })
  // An idle connection that the server closes is replaced when it is next needed.
  pool.on('error', () => undefined)
  return new PostgresDialect({ pool, onCreateConnection: greet(options.session) })
}

/** As PyMySQL has them in a URL: `ssl_ca=…&ssl_cert=…&ssl_key=…&ssl_check_hostname=false`. */
const mysqlTls = (url: ServerUrl) => {
  const ca = fileOf(url, 'ssl_ca')
  const cert = fileOf(url, 'ssl_cert')
  if (ca === undefined && cert === undefined && !url.options.has('ssl')) return {}
  const checked = url.options.get('ssl_check_hostname') !== 'false'
  return {
    ssl: {
      ...(ca === undefined ? {} : { ca }),
      ...(cert === undefined ? {} : { cert, key: fileOf(url, 'ssl_key') ?? '' }),
      rejectUnauthorized: ca !== undefined && url.options.get('ssl_verify_cert') !== 'false',
      verifyIdentity: checked && ca !== undefined,
    },
  }
}

export async function mysqlDialect(url: ServerUrl, options: ServerOptions): Promise<Dialect> {
  const { createPool } = await import('mysql2')
  const socket = url.options.get('unix_socket')
  const pool = createPool({
    ...(url.user === undefined ? {} : { user: url.user }),
    ...(url.password === undefined ? {} : { password: url.password }),
    ...(socket === undefined ? { host: url.host ?? '127.0.0.1', port: url.port ?? 3306 } : { socketPath: socket }),
    database: url.database,
    ...mysqlTls(url),
    // Whatever the URL says (`charset=utf8` as a rule): the wider one holds all that a narrower column has.
    charset: 'utf8mb4',
    connectionLimit: options.connections,
    connectTimeout: options.waitMs,
    idleTimeout: options.idleMs,
    dateStrings: true,
    enableKeepAlive: true,
  })
  return new MysqlDialect({ pool, onCreateConnection: greet(options.session) })
}
