import { readFileSync } from 'node:fs'
import { getCACertificates } from 'node:tls'
import { ServiceError } from '../../domain/errors.ts'

/** Where a SQLAlchemy URL leads. */
export type DatabaseUrl =
  | { readonly kind: 'sqlite'; readonly path: string }
  | {
      readonly kind: 'postgresql' | 'mysql'
      readonly user: string | undefined
      readonly password: string | undefined
      readonly host: string | undefined
      readonly port: number | undefined
      readonly database: string
      /** What stands behind the question mark, decoded. */
      readonly options: ReadonlyMap<string, string>
    }

/** Where a server is. */
export type ServerUrl = Exclude<DatabaseUrl, { readonly kind: 'sqlite' }>

const SHAPE = /^([a-z0-9]+)(?:\+[a-z0-9_]+)?:\/\/(.*)$/is
// As SQLAlchemy reads it, where a name may hold an `@`, and a password `/` and `?`; here a password may hold an `@`, too.
const PLACE = /^(?:([^:/]*?)(?::(.*?))?@)?(?:\[([^\]/?@]*)\]|([^:/?@[]*))(?::([^/?@]*))?(?:\/([^?@]*))?(?:\?(.*))?$/s
const FILE = /^([^?]*)(?:\?(.*))?$/s
const KINDS: Readonly<Record<string, DatabaseUrl['kind']>> = {
  sqlite: 'sqlite',
  postgresql: 'postgresql',
  postgres: 'postgresql',
  mysql: 'mysql',
  mariadb: 'mysql',
}

/**
 * Options of a URL that are followed, or that this service does in any case: its texts are Unicode, and it finds rows
 * by what they are and not by what a statement has changed.
 */
const KNOWN: Readonly<Record<ServerUrl['kind'], readonly string[]>> = {
  mysql: [
    ...['charset', 'use_unicode', 'unix_socket', 'connect_timeout', 'read_default_file', 'read_default_group'],
    ...['ssl', 'ssl_ca', 'ssl_cert', 'ssl_key', 'ssl_cipher', 'ssl_check_hostname', 'ssl_verify_cert'],
    ...['ssl_verify_identity', 'ssl_disabled', 'ssl_mode'],
  ],
  postgresql: [
    ...['host', 'port', 'user', 'password', 'client_encoding', 'connect_timeout', 'application_name', 'options'],
    ...['sslmode', 'sslrootcert', 'sslcert', 'sslkey'],
  ],
}

/** What to throw for a URL that cannot be served. */
export const refused = (what: string, cause?: unknown) =>
  new ServiceError('invalid', `[database] connection: ${what}`, { cause })

/** Throws `invalid`, without what the URL holds: it may be a password. */
export function parseDatabaseUrl(url: string, parameters = ''): DatabaseUrl {
  const [, scheme, rest = ''] = SHAPE.exec(url) ?? []
  if (scheme === undefined) throw new ServiceError('invalid', '[database] connection is not a database URL')
  const kind = Object.hasOwn(KINDS, scheme.toLowerCase()) ? KINDS[scheme.toLowerCase()] : undefined
  if (kind === undefined) throw refused(`${scheme} databases are not supported, use sqlite, postgresql or mysql`)
  if (kind === 'sqlite') {
    const [, path = ''] = FILE.exec(rest) ?? []
    if (path !== '' && !path.startsWith('/')) throw refused('a file takes three slashes, as in sqlite:///glance.db')
    return { kind, path: path.slice(1) || ':memory:' }
  }
  const [place, user, password, bracketed, plain, port, database, query] = PLACE.exec(rest) ?? []
  if (place === undefined)
    throw refused(
      `the URL is not like ${kind}://user:password@host:port/glance; in a user or password, @ : / and % are written %40 %3A %2F and %25`,
    )
  if (database === undefined || database === '')
    throw refused(`the URL names no database, as in ${kind}://user@host/glance`)
  const given = [...new URLSearchParams(query), ...new URLSearchParams(parameters)]
  const options = new Map(given)
  const host = (bracketed ?? plain) || undefined
  const hosts = [host, ...given.filter(([name]) => name === 'host').map(([, value]) => value)]
  if (hosts.filter((one) => one !== undefined).length > 1 || [...hosts, port].some((one) => one?.includes(',')))
    throw refused('the URL names several hosts; name one, such as that of a proxy before them')
  const unsafe = [...options.keys()].find((name) => /^(ssl|tls)/.test(name) && !KNOWN[kind].includes(name))
  if (unsafe !== undefined) throw refused(`${unsafe} is not supported, and a connection without it may be less safe`)
  return {
    kind,
    user: decoded(user),
    password: decoded(password),
    host: decoded(host),
    port: portOf(port),
    database: decoded(database) ?? '',
    options,
  }
}

interface Urls {
  readonly connection?: string | undefined
  readonly slave_connection?: string | undefined
  readonly connection_parameters?: string | undefined
}

/** Whether it is SQLite's, of one process, and gone with it. */
export function isInMemory(connection = ''): boolean {
  if (!/^sqlite\b/i.test(connection)) return false
  const url = parseDatabaseUrl(connection)
  return url.kind === 'sqlite' && url.path === ':memory:'
}

/** Which options of the URLs have no effect: a line for each URL, without their values. Throws as `parseDatabaseUrl`. */
export const unheededOptions = ({ connection, slave_connection, connection_parameters }: Urls): readonly string[] =>
  Object.entries({ connection, slave_connection }).flatMap(([place, text]) => {
    const url = text === undefined || text === '' ? undefined : parseDatabaseUrl(text, connection_parameters)
    if (url === undefined || url.kind === 'sqlite') return []
    const names = [...url.options.keys()].filter((name) => !KNOWN[url.kind].includes(name))
    return names.length === 0 ? [] : [`[database] ${place}: options of the URL without effect: ${names.join(', ')}`]
  })

export function portOf(text: string | undefined): number | undefined {
  if (text === undefined || text === '') return undefined
  const port = Number(text)
  if (!/^\d+$/.test(text) || port < 1 || port > 65_535) throw refused('the port is not a number from 1 to 65535')
  return port
}

/** What is no escape stays as it is. */
const decoded = (text: string | undefined): string | undefined =>
  text?.replace(/(%[0-9a-f]{2})+/gi, (escaped) => {
    try {
      return decodeURIComponent(escaped)
    } catch {
      return escaped
    }
  })

/** Seconds that an option of the URL says, in milliseconds, and `most` at most. Throws `invalid` for what is no number. */
export function timeoutOf({ options }: ServerUrl, option: string, most: number): number {
  const text = options.get(option)
  if (text === undefined) return most
  if (!/^\d+$/.test(text)) throw refused(`${option} is not a number of seconds`)
  const ms = Number(text) * 1000
  return ms === 0 ? most : Math.min(ms, most)
}

/** What the file holds that an option of the URL names. Throws `invalid` when it cannot be read. */
export const fileOf = ({ options }: ServerUrl, option: string): string | undefined => {
  const file = options.get(option)
  if (file === undefined) return undefined
  try {
    return readFileSync(file, 'utf8')
  } catch (cause) {
    throw refused(`${option} cannot be read`, cause)
  }
}

/** Authorities that are trusted where none are named. */
export const systemAuthorities = (): string[] => [...getCACertificates('default'), ...getCACertificates('system')]
