import { LRUCache } from 'lru-cache'
import { ServiceError } from '../domain/errors.ts'
import { unexpected } from '../io/rest.ts'
import { type KeystoneSession, type KeystoneTools, type LoginOptions, openKeystoneSession } from './keystone-session.ts'
import { type ProjectLimits, RESOURCES, type ResourceLimits } from './limits.ts'

/** What `[oslo_limit]` says, under oslo's names. */
export interface KeystoneLimitOptions extends LoginOptions {
  readonly endpoint_id?: string | undefined
  readonly endpoint_service_type?: string | undefined
  readonly endpoint_service_name?: string | undefined
  readonly endpoint_region_name?: string | undefined
  readonly endpoint_interface?: string | undefined
  readonly timeout?: number | undefined
  /** Seconds for which limits are believed; 0 asks each time, though only once at a time. */
  readonly cache_time?: number | undefined
}

/** How long a Keystone that did not answer is not asked again about a project whose limits were known. */
const REST_MS = 10_000
/** Of one part of an answer. */
const TIMEOUT_S = 10
/** To the cache, 0 would mean for ever. */
const SHORTEST_MS = 1
const REMEMBERED_PROJECTS = 10_000

/**
 * Keystone's unified limits: a project's own, else what is registered, else 0. While Keystone does not answer, what was
 * last known of a project holds.
 */
export function keystoneLimits(
  options: KeystoneLimitOptions,
  { warn, now = Date.now }: Omit<KeystoneTools, 'group'>,
): ProjectLimits {
  const login = { ...options, http_connect_timeout: options.timeout || TIMEOUT_S, http_request_max_retries: 1 }
  const keystone = openKeystoneSession(login, { warn, now, group: 'oslo_limit' })
  let place: Promise<string> | undefined

  const limitsOf = async (project: string): Promise<ResourceLimits> => {
    place ??= findPlace(keystone, options).catch((error: unknown) => {
      place = undefined
      throw error
    })
    const ours = await place
    const registered = ask<RegisteredLimits>(keystone, `/registered_limits?${ours}`)
    const own =
      project === '' ? undefined : ask<Limits>(keystone, `/limits?${ours}&project_id=${encodeURIComponent(project)}`)
    const [{ registered_limits }, limits] = await Promise.all([registered, own])
    const found = new Map([
      ...registered_limits.map(({ resource_name, default_limit }) => [resource_name, default_limit] as const),
      ...(limits?.limits ?? []).map(({ resource_name, resource_limit }) => [resource_name, resource_limit] as const),
    ])
    for (const name of RESOURCES) if (!found.has(name)) warn(`Keystone has no registered limit ${name}: it counts as 0`)
    return Object.fromEntries(RESOURCES.map((name) => [name, found.get(name) ?? 0])) as Record<
      (typeof RESOURCES)[number],
      number
    >
  }

  const cache = new LRUCache<string, ResourceLimits>({
    max: REMEMBERED_PROJECTS,
    ttl: Math.max((options.cache_time ?? 0) * 1000, SHORTEST_MS),
    ttlResolution: 0,
    perf: { now },
    noDeleteOnFetchRejection: true,
    fetchMethod: limitsOf,
  })
  return {
    of: async (project) => {
      const key = project ?? ''
      try {
        return await cache.forceFetch(key)
      } catch (error) {
        const last = cache.get(key, { allowStale: true })
        if (last === undefined) throw error
        // Who waits for a Keystone that is silent waits long.
        cache.set(key, last, { ttl: REST_MS })
        return last
      }
    },
    close: keystone.close,
  }
}

interface RegisteredLimits {
  readonly registered_limits: readonly { readonly resource_name: string; readonly default_limit: number }[]
}
interface Limits {
  readonly limits: readonly { readonly resource_name: string; readonly resource_limit: number }[]
}
interface Endpoint {
  readonly service_id: string
  readonly region_id: string | null
}

/** Service and region whose limits are ours, as a query. Throws `internal` when the configuration names none. */
async function findPlace(keystone: KeystoneSession, options: KeystoneLimitOptions): Promise<string> {
  const { model } = await ask<{ readonly model: { readonly name: string } }>(keystone, '/limits/model')
  if (model.name !== 'flat') throw misconfigured(`Keystone enforces limits by the model ${model.name}, not flat`)
  const { service_id, region_id } = await findEndpoint(keystone, options)
  return new URLSearchParams({ service_id, ...(region_id ? { region_id } : {}) }).toString()
}

async function findEndpoint(keystone: KeystoneSession, options: KeystoneLimitOptions): Promise<Endpoint> {
  if (options.endpoint_id) {
    const path = `/endpoints/${encodeURIComponent(options.endpoint_id)}`
    return (await ask<{ readonly endpoint: Endpoint }>(keystone, path)).endpoint
  }
  const { services } = await ask<{ readonly services: readonly { readonly id: string }[] }>(
    keystone,
    `/services?${query({ type: options.endpoint_service_type, name: options.endpoint_service_name })}`,
  )
  const [service] = services
  if (service === undefined || services.length > 1 || !(options.endpoint_service_type || options.endpoint_service_name))
    throw misconfigured('[oslo_limit] names no single service: set endpoint_id, or endpoint_service_type')
  const { endpoints } = await ask<{ readonly endpoints: readonly Endpoint[] }>(
    keystone,
    `/endpoints?${query({
      service_id: service.id,
      interface: options.endpoint_interface?.replace(/URL$/i, ''),
      region_id: options.endpoint_region_name,
    })}`,
  )
  const [endpoint] = endpoints
  if (endpoint === undefined || endpoints.length > 1)
    throw misconfigured('[oslo_limit] names no single endpoint: set endpoint_id, or endpoint_region_name')
  return endpoint
}

const query = (parameters: Readonly<Record<string, string | undefined>>): string =>
  new URLSearchParams(
    Object.entries(parameters).filter((entry): entry is [string, string] => (entry[1] ?? '') !== ''),
  ).toString()

async function ask<Body>(keystone: KeystoneSession, path: string): Promise<Body> {
  const answer = await keystone.get(path)
  if (answer.status !== 200) throw unexpected('Keystone does not tell the service the limits', answer)
  return JSON.parse(answer.body) as Body
}

const misconfigured = (message: string) => new ServiceError('internal', message)
