import { hash } from 'node:crypto'
import { LRUCache } from 'lru-cache'
import { hasKind } from '../domain/errors.ts'
import type { ProjectId, UserId } from '../domain/ids.ts'
import { unavailable, unexpected } from '../io/rest.ts'
import { text, unauthenticated } from './headers.ts'
import type { Call, Identity, IdentityProvider } from './identity.ts'
import { type KeystoneTools, type LoginOptions, openKeystoneSession } from './keystone-session.ts'
import { openTokenCache, type TokenCacheOptions } from './token-cache.ts'

type Text = string | undefined

/** What `[keystone_authtoken]` says, under oslo's names. */
export interface KeystoneOptions extends LoginOptions, TokenCacheOptions {
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
/** How long a process believes itself what memcached keeps: short, so that both times together are near the one that is configured. */
const OWN_CACHE_MS = 5000

/** Asks Keystone who a token belongs to, and remembers the answer for a while. */
export function keystoneIdentity(
  options: KeystoneOptions,
  { warn, now = Date.now }: Omit<KeystoneTools, 'group'>,
): IdentityProvider {
  const keystone = openKeystoneSession(options, { warn, now, group: 'keystone_authtoken' })
  const shared = openTokenCache(options, { warn, now })
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
      .then(({ validated, kept }) => {
        if (cacheMs > 0) cache.set(key, validated, { ttl: kept ? Math.min(cacheMs, OWN_CACHE_MS) : cacheMs })
        return validated
      })
      .finally(() => running.delete(question))
    running.set(question, answer)
    return answer
  }

  /** What the other processes know, or Keystone does; and whether the others know it now. */
  const fetchToken = async (
    token: string,
    allowExpired: boolean,
  ): Promise<{ readonly validated: Validated; readonly kept: boolean }> => {
    const known = readKnown(await shared?.get(token))
    if (known !== undefined) return { validated: known, kept: true }
    const answer = await askKeystone(token, allowExpired)
    const validated = readToken(answer)
    return { validated, kept: (await shared?.set(token, answer)) ?? false }
  }

  const askKeystone = async (token: string, allowExpired: boolean): Promise<string> => {
    const flags = [
      ...(options.include_service_catalog === false ? ['nocatalog'] : []),
      ...(allowExpired ? ['allow_expired=1'] : []),
    ]
    const answer = await keystone.get(`/auth/tokens${flags.length === 0 ? '' : `?${flags.join('&')}`}`, {
      'x-subject-token': token,
      'openstack-identity-access-rules': '1',
    })
    if (answer.status === 404) throw unauthenticated()
    if (answer.status !== 200) throw unexpected('Keystone does not let the service validate a token', answer)
    return answer.body
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

    close: async () => {
      shared?.close()
      await keystone.close()
    },
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

/** What was kept; undefined when it makes no sense, so that Keystone is asked. */
function readKnown(body: string | undefined): Validated | undefined {
  try {
    return body === undefined ? undefined : readToken(body)
  } catch {
    return undefined
  }
}

function readToken(body: string): Validated {
  try {
    const { token } = JSON.parse(body) as TokenDocument
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

/** The shared work goes on for those who still wait. */
const orAborted = <T>(work: Promise<T>, signal: AbortSignal): Promise<T> =>
  new Promise((resolve, reject) => {
    const abort = () => reject(signal.reason)
    if (signal.aborted) abort()
    signal.addEventListener('abort', abort, { once: true })
    work.then(resolve, reject).finally(() => signal.removeEventListener('abort', abort))
  })
