import { homedir } from 'node:os'
import { join } from 'node:path'
import type { SslOptions } from 'mysql2'
import { fileOf, portOf, refused, type ServerUrl, systemAuthorities } from './url.ts'

const NO = /^(false|0|no|off|none|)$/i
const MODES = ['DISABLED', 'PREFERRED', 'REQUIRED', 'VERIFY_CA', 'VERIFY_IDENTITY'] as const

/**
 * How the options of a URL have TLS, as SQLAlchemy gives them to PyMySQL, and `ssl_mode` to mysqlclient. A server is
 * checked where `ssl_ca`, `ssl_verify_cert` or `ssl_verify_identity` ask for that; its name by `ssl_verify_identity`,
 * and with `ssl_ca` unless `ssl_check_hostname` or an `ssl_verify_cert` beside it says something else.
 */
export function mysqlTls(url: ServerUrl): SslOptions | undefined {
  const { options } = url
  const says = (name: string): boolean | undefined => {
    const text = options.get(name)
    return text === undefined ? undefined : !NO.test(text)
  }
  const mode = options.get('ssl_mode')?.toUpperCase()
  if (mode !== undefined && !MODES.some((one) => one === mode)) throw refused(`ssl_mode is none of ${MODES.join(', ')}`)
  if (says('ssl_disabled') || mode === 'DISABLED') return undefined
  const wanted =
    ['ssl_ca', 'ssl_cert', 'ssl_key', 'ssl_cipher', 'ssl_check_hostname'].some((name) => options.has(name)) ||
    ['ssl', 'ssl_verify_cert', 'ssl_verify_identity'].some((name) => says(name)) ||
    (mode !== undefined && mode !== 'PREFERRED')
  if (!wanted) return undefined

  const ca = fileOf(url, 'ssl_ca')
  const identity =
    says('ssl_verify_identity') ??
    says('ssl_check_hostname') ??
    (mode === undefined ? ca !== undefined && !options.has('ssl_verify_cert') : mode === 'VERIFY_IDENTITY')
  const verified =
    says('ssl_verify_cert') ?? (ca !== undefined || says('ssl_verify_identity') || mode?.startsWith('VERIFY')) ?? false
  const [cert, key, ciphers] = [fileOf(url, 'ssl_cert'), fileOf(url, 'ssl_key'), options.get('ssl_cipher')]
  return {
    ...(verified ? { ca: ca === undefined ? systemAuthorities() : [ca] } : {}),
    ...(cert === undefined ? {} : { cert }),
    ...(key === undefined ? {} : { key }),
    ...(ciphers === undefined ? {} : { ciphers }),
    rejectUnauthorized: verified,
    verifyIdentity: verified && identity,
  }
}

/** What an option file says of a group. Quotes around values go, and names are those of options or of variables. */
const readGroup = (text: string, group: string): ReadonlyMap<string, string> => {
  const values = new Map<string, string>()
  let inside = false
  for (const line of text.split(/\r?\n/).map((one) => one.trim())) {
    const [, header] = /^\[(.*)\]$/.exec(line) ?? []
    if (header !== undefined) inside = header === group
    const [, name, value = ''] = /^([^#;=:\s][^=:]*?)\s*[=:]\s*(.*)$/.exec(line) ?? []
    if (inside && header === undefined && name !== undefined)
      values.set(name.toLowerCase().replaceAll('_', '-'), value.replace(/^(['"])(.*)\1$/, '$2'))
  }
  return values
}

/**
 * The URL with what it leaves to the option file of `read_default_file`: the group `client` of it, or that of
 * `read_default_group`. Throws `invalid` when the file cannot be read.
 */
export function withDefaultFile(url: ServerUrl): ServerUrl {
  const { options } = url
  const file = options.get('read_default_file')
  if (file === undefined) return url
  const path = file.startsWith('~/') ? join(homedir(), file.slice(2)) : file
  const text = fileOf({ ...url, options: new Map([['read_default_file', path]]) }, 'read_default_file') ?? ''
  const given = readGroup(text, options.get('read_default_group') ?? 'client')
  const left: readonly (readonly [string, string | undefined])[] = [
    ['unix_socket', url.host === undefined ? given.get('socket') : undefined],
    ...['ca', 'cert', 'key', 'cipher'].map((name) => [`ssl_${name}`, given.get(`ssl-${name}`)] as const),
  ]
  const found = left.filter((pair): pair is readonly [string, string] => pair[1] !== undefined)
  return {
    ...url,
    user: url.user || given.get('user'),
    password: url.password || given.get('password'),
    host: url.host ?? given.get('host'),
    port: url.port ?? portOf(given.get('port')),
    options: new Map([...found, ...options]),
  }
}
