import { readFileSync } from 'node:fs'
import { type LoginOptions, openKeystoneSession } from '../../../auth/keystone-session.ts'
import { ServiceError } from '../../../domain/errors.ts'
import type { Caller } from './shadow.ts'

export interface CallerOptions {
  /** Each has a token in every line. */
  readonly tokenFiles: readonly string[]
  /** `Name: value`, of every request. */
  readonly headers: readonly string[]
  readonly env: NodeJS.ProcessEnv
  readonly insecure: boolean
  readonly cafile: string | undefined
}

export interface Callers {
  readonly callers: readonly Caller[]
  close(): Promise<void>
}

/** Those of the files, else the one that the OS_* variables are about, else one without a token. Throws `invalid`. */
export function openCallers({ tokenFiles, headers: lines, env, insecure, cafile }: CallerOptions): Callers {
  const headers = Object.fromEntries(lines.map(readHeader))
  const withToken = (token: string) => ({ ...headers, 'x-auth-token': token })
  const tokens = tokenFiles.flatMap(readTokens)
  const given = tokens.length > 0 ? tokens : [env['OS_TOKEN'] ?? env['OS_AUTH_TOKEN'] ?? ''].filter((one) => one !== '')
  if (given.length > 0)
    return { callers: given.map((token) => async () => withToken(token)), close: async () => undefined }
  if (!env['OS_AUTH_URL']) return { callers: [async () => headers], close: async () => undefined }
  const keystone = openKeystoneSession(
    { ...loginOf(env), insecure, ...(cafile === undefined ? {} : { cafile }) },
    { warn: () => undefined, group: 'OS_*' },
  )
  return { callers: [async () => withToken(await keystone.token())], close: keystone.close }
}

function readHeader(line: string): readonly [name: string, value: string] {
  const [, name, value] = /^([\w!#$%&'*+.^`|~-]+):\s*(.*)$/.exec(line) ?? []
  if (name === undefined || value === undefined)
    throw new ServiceError('invalid', `--header must be "Name: value", not "${line.split(':')[0]}"`)
  return [name.toLowerCase(), value]
}

function readTokens(file: string): readonly string[] {
  let text: string
  try {
    text = readFileSync(file, 'utf8')
  } catch (cause) {
    throw new ServiceError('invalid', `--token-file: ${file} cannot be read`, { cause })
  }
  const tokens = text.split('\n').map((line) => line.trim())
  const found = tokens.filter((token) => token !== '' && !token.startsWith('#'))
  if (found.length === 0) throw new ServiceError('invalid', `--token-file: there is no token in ${file}`)
  return found
}

/** What the clients of OpenStack read. */
const loginOf = (env: NodeJS.ProcessEnv): LoginOptions =>
  Object.fromEntries(
    (
      [
        ...([
          'auth_url',
          'auth_type',
          'username',
          'user_id',
          'password',
          'user_domain_id',
          'user_domain_name',
        ] as const),
        ...(['project_id', 'project_name', 'project_domain_id', 'project_domain_name', 'system_scope'] as const),
        ...(['domain_id', 'domain_name', 'default_domain_id', 'default_domain_name', 'trust_id'] as const),
        ...(['application_credential_id', 'application_credential_name', 'application_credential_secret'] as const),
        'cacert',
      ] as const
    ).map((name) => [name === 'cacert' ? 'cafile' : name, env[`OS_${name.toUpperCase()}`]]),
  )
