import { readFileSync } from 'node:fs'
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

const SHAPE = /^([a-z0-9]+)(?:\+[a-z0-9_]+)?:\/\/([^?]*)(?:\?(.*))?$/i
// A password may hold an `@`: the host begins behind the last one.
const PLACE = /^(?:([^:@/]*)(?::(.*))?@)?(?:\[([^\]]*)\]|([^:/]*))(?::(\d*))?(?:\/(.*))?$/s
const KINDS: Readonly<Record<string, DatabaseUrl['kind']>> = {
  sqlite: 'sqlite',
  postgresql: 'postgresql',
  postgres: 'postgresql',
  mysql: 'mysql',
  mariadb: 'mysql',
}

/** Throws `invalid`, without what the URL holds: it may be a password. */
export function parseDatabaseUrl(url: string, parameters = ''): DatabaseUrl {
  const [, scheme, rest = '', query = ''] = SHAPE.exec(url) ?? []
  if (scheme === undefined) throw new ServiceError('invalid', '[database] connection is not a database URL')
  const kind = Object.hasOwn(KINDS, scheme.toLowerCase()) ? KINDS[scheme.toLowerCase()] : undefined
  if (kind === undefined) {
    throw new ServiceError(
      'invalid',
      `[database] connection: ${scheme} databases are not supported, use sqlite, postgresql or mysql`,
    )
  }
  if (kind === 'sqlite') {
    if (rest !== '' && !rest.startsWith('/'))
      throw new ServiceError('invalid', '[database] connection: a file takes three slashes, as in sqlite:///glance.db')
    return { kind, path: rest.slice(1) || ':memory:' }
  }
  const [, user, password, bracketed, plain, port, database] = PLACE.exec(rest) ?? []
  if (database === undefined || database === '')
    throw new ServiceError(
      'invalid',
      `[database] connection: the URL names no database, as in ${kind}://user@host/glance`,
    )
  return {
    kind,
    user: decoded(user),
    password: decoded(password),
    host: decoded(bracketed ?? plain) || undefined,
    port: port === undefined || port === '' ? undefined : Number(port),
    database: decoded(database) ?? '',
    options: new Map([...new URLSearchParams(query), ...new URLSearchParams(parameters)]),
  }
}

function decoded(text: string | undefined): string | undefined {
  if (text === undefined) return undefined
  try {
    return decodeURIComponent(text)
  } catch {
    return text
  }
}

/** What the file holds that an option of the URL names. Throws as reading does. */
export const fileOf = ({ options }: ServerUrl, option: string): string | undefined => {
  const file = options.get(option)
  return file === undefined ? undefined : readFileSync(file, 'utf8')
}
