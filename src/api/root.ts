import { existsSync } from 'node:fs'
import type { IncomingHttpHeaders } from 'node:http'
import { failureOf, renderFailure } from './http/errors.ts'
import type { ApiRequest, ApiResponse, Route } from './http/route.ts'
import type { Face } from './http/server.ts'

/** What decides which minor versions of the API there are. */
export interface Offer {
  readonly cache: boolean
  readonly multiStore: boolean
  /** `public_endpoint`: the base of the links, instead of what the request says. */
  readonly publicEndpoint: string | undefined
}

/**
 * Minor versions in the order in which upstream lists them (glance/api/versions.py); the first CURRENT one is marked.
 * 2.17 stands in the middle when the cache is off: clients look versions up by id.
 */
function minorVersions({ cache, multiStore }: Offer): { readonly minor: number; readonly current: boolean }[] {
  const current = cache ? 18 : 17
  const early = [7, 6, 5, 4, 3, 2, 1, 0]
  const stores = [13, 12, 11, 10]
  const order = cache
    ? [18, 17, 16, 15, 14, ...(multiStore ? [...stores, 9, 8] : [9]), ...early]
    : [15, ...(multiStore ? [...stores, 9, 8] : [9]), 17, ...early]
  return order.map((minor) => ({ minor, current: minor === current }))
}

const versionDocument = (offer: Offer, baseUrl: string) => ({
  versions: minorVersions(offer).map(({ minor, current }) => ({
    id: `v2.${minor}`,
    status: current ? 'CURRENT' : 'SUPPORTED',
    links: [{ rel: 'self', href: `${(offer.publicEndpoint ?? baseUrl).replace(/\/+$/, '')}/v2/` }],
  })),
})

const VENDOR = 'application/vnd.openstack.images-'
/** Path that answers with all versions there are. */
const CHOICES = '/'

/**
 * Finds the route of a path before anybody is asked who they are: `/v2.9/images` and
 * `Accept: application/vnd.openstack.images-v2.9` mean `/v2/images`; an unknown version means the choices.
 */
export function negotiator(
  offer: Offer,
  others: readonly string[],
): (path: string, headers: IncomingHttpHeaders) => string {
  const known = new Set(['v2', ...minorVersions(offer).map(({ minor }) => `v2.${minor}`)])
  return (rawPath, headers) => {
    const path = rawPath.replace(/%2f/gi, '/') // an encoded slash is a slash to every server before us
    const [, first = '', ...rest] = path.split('/')
    if (others.includes(first)) return path
    const accept = headers.accept
    if (accept?.startsWith(VENDOR)) {
      const version = accept.slice(VENDOR.length).split(/[+;,\s]/)[0] ?? ''
      return known.has(version) ? `/v2${path}` : CHOICES
    }
    if (!known.has(first)) return CHOICES
    return rest.length === 0 ? '/v2' : `/v2/${rest.join('/')}`
  }
}

export interface HealthOptions {
  readonly disable_by_file_path: string | undefined
}

/** Answers that need no identity: version documents, the health check, and the OpenAPI document. */
export function rootFace(offer: Offer, health: HealthOptions, document: unknown): Face<undefined> {
  const versions =
    (status: number) =>
    async (request: ApiRequest<undefined>): Promise<ApiResponse> => ({
      status,
      json: versionDocument(offer, request.baseUrl),
    })
  const { routes: healthRoutes, ...face } = healthFace(health)
  const routes: Route<undefined>[] = [...healthRoutes]
  for (const method of METHODS) {
    routes.push({ method, path: CHOICES, handle: versions(300) })
    routes.push({ method, path: '/versions', handle: versions(200) })
    routes.push({ method, path: '/versions/*', handle: versions(200) })
  }
  routes.push({ method: 'GET', path: '/openapi.json', handle: async () => ({ status: 200, json: document }) })
  return { ...face, routes }
}

const METHODS = ['GET', 'POST', 'PUT', 'PATCH', 'DELETE', 'HEAD'] as const

/** `/healthcheck` by itself. */
export function healthFace(health: HealthOptions): Face<undefined> {
  const handle = async (request: ApiRequest<undefined>) => checkHealth(health, request)
  const routes = METHODS.map((method) => ({ method, path: '/healthcheck', handle }))
  return {
    prefix: '',
    routes,
    enter: async () => undefined,
    headers: () => ({}),
    fail: (error, { headers }) => renderFailure(failureOf(error, headers['content-type'], undefined), headers.accept),
    refuse: (failure, { headers }) => renderFailure(failure, headers.accept),
  }
}

/** oslo.middleware's health check: 200 `OK`, or 503 while the operator's file exists. */
function checkHealth(health: HealthOptions, request: ApiRequest<undefined>): ApiResponse {
  const disabled = health.disable_by_file_path !== undefined && existsSync(health.disable_by_file_path)
  const reason = disabled ? 'DISABLED BY FILE' : 'OK'
  if (request.method === 'HEAD') return { status: disabled ? 503 : 204 }
  const status = disabled ? 503 : 200
  const accept = request.headers.accept ?? ''
  if (accept.includes('application/json')) {
    return {
      status,
      headers: { 'content-type': 'application/json' },
      text: JSON.stringify({ detailed: false, reasons: [reason] }, undefined, 4),
    }
  }
  if (accept.includes('text/html')) {
    const body = `<HTML>\n<HEAD><TITLE>Healthcheck Status</TITLE></HEAD>\n<BODY>\n<H2>Result of 1 checks:</H2>\n<TABLE bgcolor="#ffffff" border="1">\n<TBODY>\n<TR>\n<TH>\nReason\n</TH>\n</TR>\n<TR>\n<TD>${reason}</TD>\n</TR>\n</TBODY>\n</TABLE>\n<HR></HR>\n\n</BODY>\n</HTML>`
    return { status, headers: { 'content-type': 'text/html; charset=UTF-8' }, text: body }
  }
  return { status, headers: { 'content-type': 'text/plain; charset=UTF-8' }, text: reason }
}
