import { ServiceError } from '../domain/errors.ts'
import { type Answer, openRest, unavailable, unexpected } from '../io/rest.ts'

type Text = string | undefined

/** How a service logs in to Keystone, under the names of keystoneauth. An empty text is no text. */
export interface LoginOptions {
  /** Where Keystone is, with or without `/v3`. */
  readonly auth_url?: Text
  /** `password` (or `v3password`) or `v3applicationcredential`; guessed from the other options when absent. */
  readonly auth_type?: Text
  readonly username?: Text
  readonly user_id?: Text
  readonly password?: Text
  readonly user_domain_id?: Text
  readonly user_domain_name?: Text
  readonly project_id?: Text
  readonly project_name?: Text
  readonly project_domain_id?: Text
  readonly project_domain_name?: Text
  readonly domain_id?: Text
  readonly domain_name?: Text
  readonly default_domain_id?: Text
  readonly default_domain_name?: Text
  readonly system_scope?: Text
  readonly trust_id?: Text
  readonly application_credential_id?: Text
  readonly application_credential_name?: Text
  readonly application_credential_secret?: Text

  /** Seconds. */
  readonly http_connect_timeout?: number | undefined
  readonly http_request_max_retries?: number | undefined
  readonly cafile?: Text
  readonly certfile?: Text
  readonly keyfile?: Text
  readonly insecure?: boolean | undefined
}

export interface KeystoneTools {
  readonly warn: (message: string) => void
  /** Milliseconds since 1970; a test's clock. */
  readonly now?: () => number
  /** Where the options stand, for errors. */
  readonly group: string
}

/** Requests to Keystone in the service's own name. */
export interface KeystoneSession {
  /** A request below `/v3` with the service's token, which is renewed when Keystone does not take it. Throws `unavailable`. */
  get(path: string, headers?: Readonly<Record<string, string>>): Promise<Answer>
  /** The service's own token; another than `refused`, which somebody did not take. Throws `unavailable`. */
  token(refused?: string): Promise<string>
  close(): Promise<void>
}

/** Renewed while it still has this long to live, or the last quarter of a short life. */
const RENEW_BEFORE_MS = 60_000

/** Throws `invalid` when the options are wrong. Logs in with the first request. */
export function openKeystoneSession(
  options: LoginOptions,
  { warn, now = Date.now, group }: KeystoneTools,
): KeystoneSession {
  const url = keystoneUrl(options.auth_url, group)
  const auth = credentials(options, group)
  const { http_connect_timeout: timeout, http_request_max_retries: retries, ...tls } = options
  const rest = openRest({ ...tls, name: 'Keystone', timeout, retries })
  let current: { readonly token: string; readonly renewAt: number } | undefined
  let running: Promise<string> | undefined

  const login = async (): Promise<string> => {
    const answer = await rest.request('POST', `${url}/auth/tokens?nocatalog`, { body: JSON.stringify({ auth }) })
    const token = answer.headers['x-subject-token']
    if (answer.status !== 201 || typeof token !== 'string') {
      warn(`Keystone gives the service no token of its own (status ${answer.status}): check [${group}]`)
      throw unexpected('Keystone does not let the service log in', answer)
    }
    const left = expiryOf(answer) - now()
    current = { token, renewAt: now() + left - Math.min(RENEW_BEFORE_MS, left / 4) }
    return token
  }

  const token = async (refused?: string): Promise<string> => {
    // Revoked, or Keystone has lost its keys. Somebody else may have replaced it meanwhile.
    if (current !== undefined && current.token === refused) current = undefined
    if (current !== undefined && now() < current.renewAt) return current.token
    running ??= login().finally(() => {
      running = undefined
    })
    return running
  }

  return {
    async get(path, headers = {}) {
      const ask = (own: string) =>
        rest.request('GET', `${url}${path}`, { headers: { ...headers, 'x-auth-token': own } })
      const own = await token()
      const answer = await ask(own)
      if (answer.status !== 401 && answer.status !== 403) return answer
      return ask(await token(own))
    },
    token,
    close: rest.close,
  }
}

function expiryOf({ body }: Answer): number {
  try {
    const { token } = JSON.parse(body) as { readonly token: { readonly expires_at: string } }
    const expiresAt = Date.parse(token.expires_at)
    if (Number.isNaN(expiresAt)) throw new Error('no expires_at')
    return expiresAt
  } catch (cause) {
    throw unavailable('Keystone describes a token in an unknown way', { cause })
  }
}

/** The `auth` object of a login. Throws `invalid` when the options do not make one. */
function credentials(options: LoginOptions, group: string): unknown {
  const type = options.auth_type || (options.application_credential_secret ? 'v3applicationcredential' : 'password')
  const user = {
    ...(options.user_id ? { id: options.user_id } : { name: options.username, domain: domain(options, 'user') }),
  }
  if (type === 'v3applicationcredential') {
    const { application_credential_id: id, application_credential_name: name } = options
    const secret = options.application_credential_secret
    const application_credential = id ? { id, secret } : { name, secret, user }
    return { identity: { methods: ['application_credential'], application_credential } }
  }
  if (type === 'password' || type === 'v3password') {
    const scope = scopeOf(options)
    const identity = { methods: ['password'], password: { user: { ...user, password: options.password } } }
    return scope === undefined ? { identity } : { identity, scope }
  }
  throw new ServiceError('invalid', `[${group}] auth_type must be password or v3applicationcredential, not ${type}`)
}

function scopeOf(options: LoginOptions): unknown {
  if (options.system_scope) return { system: { all: true } }
  if (options.trust_id) return { 'OS-TRUST:trust': { id: options.trust_id } }
  if (options.project_id) return { project: { id: options.project_id } }
  if (options.project_name) return { project: { name: options.project_name, domain: domain(options, 'project') } }
  if (options.domain_id) return { domain: { id: options.domain_id } }
  if (options.domain_name) return { domain: { name: options.domain_name } }
  return undefined
}

function domain(options: LoginOptions, of: 'user' | 'project'): { id: string } | { name: string } {
  const id = options[`${of}_domain_id`]
  const name = options[`${of}_domain_name`]
  if (id) return { id }
  if (name) return { name }
  return options.default_domain_name
    ? { name: options.default_domain_name }
    : { id: options.default_domain_id || 'default' }
}

/** The root of the API, which ends in `/v3`. Throws `invalid`. */
export function keystoneUrl(authUrl: Text, group: string): string {
  if (!authUrl || !URL.canParse(authUrl)) {
    throw new ServiceError('invalid', `[${group}] auth_url must be the URL of Keystone, not ${authUrl || 'empty'}`)
  }
  const { origin, pathname } = new URL(authUrl)
  const path = pathname.replace(/\/+$/, '').replace(/\/v2\.0$/, '')
  return `${origin}${path.endsWith('/v3') ? path : `${path}/v3`}`
}
