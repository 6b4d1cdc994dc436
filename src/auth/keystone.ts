import { hash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { setTimeout as delay } from 'node:timers/promises'
import { LRUCache } from 'lru-cache'
import { Pool } from 'undici'
import { hasKind, ServiceError } from '../domain/errors.ts'
import type { ProjectId, UserId } from '../domain/ids.ts'
import { text, unauthenticated } from './headers.ts'
import type { Call, Identity, IdentityProvider } from './identity.ts'

type Text = string | undefined

/** What `[keystone_authtoken]` says, under oslo's names. An empty text is no text. */
export interface KeystoneOptions {
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

  /** Told to clients that lack a token; `auth_url` when absent. */
  readonly www_authenticate_uri?: Text
  /** Seconds for which an answer is believed; 0 or less asks every time. */
  readonly token_cache_time?: number | undefined
  /** A service token counts if it has one of these roles. */
  readonly service_token_roles?: readonly string[] | undefined
  /** When false, any valid token counts as a service token (though an expired user token needs the role). */
  readonly service_token_roles_required?: boolean | undefined
  /** This service's type in the catalog, for the access rules of application credentials. */
  readonly service_type?: Text
  readonly include_service_catalog?: boolean | undefined
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
}

/** What Keystone said of a token. */
interface Validated {
  readonly identity: Identity
  readonly expiresAt: number
  /** The only requests that the token is good for. */
  readonly accessRules: readonly AccessRule[] | undefined
  /** Types of the services in the catalog; kept for access rules only. */
  readonly services: readonly string[]
}

interface AccessRule {
  readonly service: string
  readonly method: string
  readonly path: string
}

const CACHED_TOKENS = 20_000

/** Asks Keystone who a token belongs to, and remembers the answer for a while. */
export function keystoneIdentity(options: KeystoneOptions, { warn, now = Date.now }: KeystoneTools): IdentityProvider {
  const keystone = connect(options)
  const ownToken = serviceToken(keystone, options, { warn, now })
  const cacheMs = (options.token_cache_time ?? 300) * 1000
  const cache = new LRUCache<string, Validated>({
    max: CACHED_TOKENS,
    ttl: Math.max(cacheMs, 1),
    ttlResolution: 0,
    perf: { now },
  })
  const running = new Map<string, Promise<Validated>>()
  const serviceRoles = new Set((options.service_token_roles ?? ['service']).map((role) => role.toLowerCase()))
  const rolesRequired = options.service_token_roles_required ?? true
  if (!rolesRequired) warn('service_token_roles_required is false: any token is taken for a service token')

  /** Throws `unauthenticated`. Callers who ask about the same token at the same time share one request. */
  const validate = async (token: string, allowExpired: boolean): Promise<Validated> => {
    const key = hash('sha256', token, 'base64url')
    const validated = cache.get(key) ?? (await fetchOnce(key, token, allowExpired))
    if (!allowExpired && validated.expiresAt <= now()) throw unauthenticated()
    return validated
  }

  const fetchOnce = (key: string, token: string, allowExpired: boolean): Promise<Validated> => {
    const question = `${key} ${allowExpired}`
    const asked = running.get(question)
    if (asked !== undefined) return asked
    const answer = fetchToken(token, allowExpired)
      .then((validated) => {
        if (cacheMs > 0) cache.set(key, validated)
        return validated
      })
      .finally(() => running.delete(question))
    running.set(question, answer)
    return answer
  }

  const fetchToken = async (token: string, allowExpired: boolean): Promise<Validated> => {
    const flags = [
      ...(options.include_service_catalog === false ? ['nocatalog'] : []),
      ...(allowExpired ? ['allow_expired=1'] : []),
    ]
    const path = `/auth/tokens${flags.length === 0 ? '' : `?${flags.join('&')}`}`
    const ask = async (own: string) =>
      keystone.request('GET', path, {
        'x-auth-token': own,
        'x-subject-token': token,
        'openstack-identity-access-rules': '1',
      })

    const own = await ownToken.get()
    let answer = await ask(own)
    if (answer.status === 401 || answer.status === 403) {
      // Revoked, or Keystone has lost its keys.
      ownToken.forget(own)
      answer = await ask(await ownToken.get())
    }
    if (answer.status === 404) throw unauthenticated()
    if (answer.status !== 200) throw unexpected('validate a token', answer)
    return readToken(answer)
  }

  /** The service that passes the request on, if it proves to be one. */
  const validateService = async (token: string | undefined): Promise<{ service?: Identity; allowExpired: boolean }> => {
    if (token === undefined) return { allowExpired: false }
    try {
      const { identity } = await validate(token, false)
      const hasRole = identity.roles.some((role) => serviceRoles.has(role))
      return hasRole || !rolesRequired ? { service: identity, allowExpired: hasRole } : { allowExpired: false }
    } catch (error) {
      if (hasKind(error, 'unauthenticated')) return { allowExpired: false }
      throw error
    }
  }

  const admitAccessRules = ({ accessRules, services }: Validated, call: Call | undefined, byService: boolean): void => {
    if (accessRules === undefined) return
    const type = options.service_type || undefined
    if (type === undefined || !services.includes(type)) {
      warn('A token with access rules is refused: service_type is not set, or not in the catalog of the token')
      throw unauthenticated()
    }
    // The user talked to that other service, whose request the rules were for.
    if (byService) return
    const matches = ({ service, method, path }: AccessRule) =>
      service === type && method === call?.method && matchesPath(path, call.path)
    if (!accessRules.some(matches)) throw unauthenticated()
  }

  return {
    challenge: `Keystone uri="${options.www_authenticate_uri || options.auth_url}"`,

    async authenticate(headers, signal, call) {
      const token = text(headers, 'x-auth-token', 'x-storage-token')
      if (token === undefined) throw unauthenticated()
      const { service, allowExpired } = await orAborted(validateService(text(headers, 'x-service-token')), signal)
      const validated = await orAborted(validate(token, allowExpired), signal)
      admitAccessRules(validated, call, service !== undefined)
      return {
        ...validated.identity,
        token,
        serviceRoles: service?.roles ?? [],
        serviceUserId: service?.userId,
        serviceProjectId: service?.projectId,
      }
    },

    close: () => keystone.close(),
  }
}

// ---- the answer

interface Named {
  readonly id: string
  readonly name: string
  readonly domain?: { readonly id: string }
}

/** The body of GET /v3/auth/tokens, as far as it matters. */
interface TokenDocument {
  readonly token: {
    readonly expires_at: string
    readonly user: Named
    readonly project?: Named
    readonly domain?: { readonly id: string }
    readonly system?: { readonly all?: boolean }
    readonly roles?: readonly { readonly name: string }[]
    readonly is_admin_project?: boolean
    readonly application_credential?: { readonly access_rules?: readonly AccessRule[] }
    readonly catalog?: readonly { readonly type: string }[]
  }
}

function readToken(answer: Answer): Validated {
  try {
    const { token } = JSON.parse(answer.body) as TokenDocument
    const expiresAt = Date.parse(token.expires_at)
    if (Number.isNaN(expiresAt)) throw new Error('no expires_at')
    const accessRules = token.application_credential?.access_rules
    return {
      expiresAt,
      accessRules,
      services: accessRules === undefined ? [] : (token.catalog ?? []).map(({ type }) => type),
      identity: {
        userId: token.user.id as UserId,
        projectId: token.project?.id as ProjectId | undefined,
        domainId: token.domain?.id,
        userDomainId: token.user.domain?.id,
        projectDomainId: token.project?.domain?.id,
        roles: (token.roles ?? []).map(({ name }) => name.toLowerCase()),
        serviceRoles: [],
        serviceUserId: undefined,
        serviceProjectId: undefined,
        systemScope: token.system?.all === true ? 'all' : undefined,
        isAdminProject: token.is_admin_project ?? true,
        readOnly: false,
        isAdmin: undefined,
        expiresAt: new Date(expiresAt),
        token: undefined,
      },
    }
  } catch (cause) {
    throw unavailable('Keystone describes a token in an unknown way', { cause })
  }
}

/** `*` and `{name}` stand for one segment, `**` for any number. */
function matchesPath(pattern: string, path: string): boolean {
  const source = pattern.replace(/\*\*|\*|\{[^}]*\}|[^*{}]+|[{}]/g, (part) => {
    if (part === '**') return '.*'
    if (part === '*' || part.startsWith('{')) return '[^/]+'
    return part.replace(/[^\w/]/g, '\\$&')
  })
  return new RegExp(`^${source}$`).test(path)
}

// ---- the service's own token

/** Renewed while it still has this long to live, or the last quarter of a short life. */
const RENEW_BEFORE_MS = 60_000

function serviceToken(keystone: Keystone, options: KeystoneOptions, { warn, now }: Required<KeystoneTools>) {
  const auth = credentials(options)
  let current: { readonly token: string; readonly renewAt: number } | undefined
  let running: Promise<string> | undefined

  const login = async (): Promise<string> => {
    const answer = await keystone.request('POST', '/auth/tokens?nocatalog', {}, JSON.stringify({ auth }))
    const token = answer.headers['x-subject-token']
    if (answer.status !== 201 || typeof token !== 'string') {
      warn(`Keystone gives the service no token of its own (status ${answer.status}): check [keystone_authtoken]`)
      throw unexpected('log in', answer)
    }
    const left = readToken(answer).expiresAt - now()
    current = { token, renewAt: now() + left - Math.min(RENEW_BEFORE_MS, left / 4) }
    return token
  }

  return {
    async get(): Promise<string> {
      if (current !== undefined && now() < current.renewAt) return current.token
      running ??= login().finally(() => {
        running = undefined
      })
      return running
    },
    /** Unless it has been replaced already. */
    forget(token: string): void {
      if (current?.token === token) current = undefined
    },
  }
}

/** The `auth` object of a login. Throws `invalid` when the options do not make one. */
function credentials(options: KeystoneOptions): unknown {
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
  throw new ServiceError(
    'invalid',
    `[keystone_authtoken] auth_type must be password or v3applicationcredential, not ${type}`,
  )
}

function scopeOf(options: KeystoneOptions): unknown {
  if (options.system_scope) return { system: { all: true } }
  if (options.trust_id) return { 'OS-TRUST:trust': { id: options.trust_id } }
  if (options.project_id) return { project: { id: options.project_id } }
  if (options.project_name) return { project: { name: options.project_name, domain: domain(options, 'project') } }
  if (options.domain_id) return { domain: { id: options.domain_id } }
  if (options.domain_name) return { domain: { name: options.domain_name } }
  return undefined
}

function domain(options: KeystoneOptions, of: 'user' | 'project'): { id: string } | { name: string } {
  const id = options[`${of}_domain_id`]
  const name = options[`${of}_domain_name`]
  if (id) return { id }
  if (name) return { name }
  return options.default_domain_name
    ? { name: options.default_domain_name }
    : { id: options.default_domain_id || 'default' }
}

// ---- HTTP

interface Answer {
  readonly status: number
  readonly headers: Readonly<Record<string, string | string[] | undefined>>
  readonly body: string
}

interface Keystone {
  /** Throws `unavailable` when no answer comes. */
  request(method: 'GET' | 'POST', path: string, headers: Record<string, string>, body?: string): Promise<Answer>
  close(): Promise<void>
}

/** Errors of a connection, after which the same request may be sent again; it changes nothing. */
const AGAIN: ReadonlySet<unknown> = new Set([
  'ECONNREFUSED',
  'ECONNRESET',
  'EPIPE',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'EAI_AGAIN',
  'UND_ERR_SOCKET',
  'UND_ERR_CONNECT_TIMEOUT',
])
const FIRST_PAUSE_MS = 100
const DEFAULT_TIMEOUT_S = 30
const CONNECTIONS = 32

function connect(options: KeystoneOptions): Keystone {
  const url = endpoint(options.auth_url)
  const timeout = (options.http_connect_timeout || DEFAULT_TIMEOUT_S) * 1000
  const retries = options.http_request_max_retries ?? 3
  const pool = new Pool(url.origin, {
    connections: CONNECTIONS,
    headersTimeout: timeout,
    bodyTimeout: timeout,
    connect: {
      timeout,
      rejectUnauthorized: options.insecure !== true,
      ...(options.cafile ? { ca: readPem(options.cafile) } : {}),
      ...(options.certfile ? { cert: readPem(options.certfile) } : {}),
      // One file may hold both.
      ...(options.certfile ? { key: readPem(options.keyfile || options.certfile) } : {}),
    },
  })

  const send = async (method: 'GET' | 'POST', path: string, headers: Record<string, string>, body?: string) => {
    const response = await pool.request({
      method,
      path: `${url.pathname}${path}`,
      headers: {
        accept: 'application/json',
        ...(body === undefined ? {} : { 'content-type': 'application/json' }),
        ...headers,
      },
      body: body ?? null,
    })
    return { status: response.statusCode, headers: response.headers, body: await response.body.text() }
  }

  return {
    async request(...request) {
      for (let attempt = 0; ; attempt++) {
        try {
          return await send(...request)
        } catch (cause) {
          const again = attempt < retries && AGAIN.has((cause as NodeJS.ErrnoException).code)
          if (!again) throw unavailable('Keystone does not answer', { cause })
          await delay(FIRST_PAUSE_MS * 2 ** attempt)
        }
      }
    },
    close: () => pool.destroy(),
  }
}

function endpoint(authUrl: Text): URL {
  if (!authUrl || !URL.canParse(authUrl)) {
    throw new ServiceError(
      'invalid',
      `[keystone_authtoken] auth_url must be the URL of Keystone, not ${authUrl || 'empty'}`,
    )
  }
  const url = new URL(authUrl)
  const path = url.pathname.replace(/\/+$/, '').replace(/\/v2\.0$/, '')
  url.pathname = path.endsWith('/v3') ? path : `${path}/v3`
  return url
}

function readPem(path: string): Buffer {
  try {
    return readFileSync(path)
  } catch (cause) {
    throw new ServiceError('invalid', `[keystone_authtoken] ${path} cannot be read: ${(cause as Error).message}`, {
      cause,
    })
  }
}

const unexpected = (what: string, { status, body }: Answer): ServiceError =>
  unavailable(`Keystone does not let the service ${what}`, { detail: { status, body: body.slice(0, 500) } })

const unavailable = (message: string, fields: { cause?: unknown; detail?: Record<string, unknown> }): ServiceError =>
  new ServiceError('unavailable', message, { ...fields, transient: true })

/** The shared work goes on for those who still wait. */
const orAborted = <T>(work: Promise<T>, signal: AbortSignal): Promise<T> =>
  new Promise((resolve, reject) => {
    const abort = () => reject(signal.reason)
    if (signal.aborted) abort()
    signal.addEventListener('abort', abort, { once: true })
    work.then(resolve, reject).finally(() => signal.removeEventListener('abort', abort))
  })
