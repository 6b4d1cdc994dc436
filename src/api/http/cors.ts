import type { IncomingMessage } from 'node:http'

/** oslo.middleware's `[cors]`. */
export interface Cors {
  readonly allowed_origin: readonly string[]
  readonly allow_credentials: boolean
  readonly expose_headers: readonly string[]
  readonly max_age: number
  readonly allow_methods: readonly string[]
  readonly allow_headers: readonly string[]
}

export const isPreflight = (raw: IncomingMessage): boolean =>
  raw.method === 'OPTIONS' && raw.headers.origin !== undefined

/** Headers for this request's origin; only `Vary` for one that is not allowed, which the browser then refuses. */
export function corsHeaders(cors: Cors | undefined, raw: IncomingMessage): Record<string, string> {
  const origin = raw.headers.origin
  if (cors === undefined || origin === undefined) return {}
  const anyone = cors.allowed_origin.includes('*')
  if (!anyone && !cors.allowed_origin.includes(origin)) return { vary: 'Origin' }

  const headers: Record<string, string> = { vary: 'Origin', 'access-control-allow-origin': origin }
  if (cors.allow_credentials) headers['access-control-allow-credentials'] = 'true'
  if (!isPreflight(raw)) {
    if (cors.expose_headers.length > 0) headers['access-control-expose-headers'] = cors.expose_headers.join(',')
    return headers
  }
  const method = raw.headers['access-control-request-method']
  if (method === undefined || !cors.allow_methods.includes(method)) return { vary: 'Origin' }
  const asked = (raw.headers['access-control-request-headers'] ?? '')
    .split(',')
    .map((name) => name.trim())
    .filter((name) => name !== '')
  const allowed = new Set([...cors.allow_headers, ...SIMPLE_HEADERS].map((name) => name.toLowerCase()))
  if (!asked.every((name) => allowed.has(name.toLowerCase()))) return { vary: 'Origin' }
  headers['access-control-max-age'] = String(cors.max_age)
  headers['access-control-allow-methods'] = method
  if (asked.length > 0) headers['access-control-allow-headers'] = asked.join(',')
  return headers
}

/** Need no permission (Fetch standard, "CORS-safelisted request-header"), plus what oslo.middleware always allows. */
const SIMPLE_HEADERS = [
  'Accept',
  'Accept-Language',
  'Content-Type',
  'Cache-Control',
  'Content-Language',
  'Expires',
  'Last-Modified',
  'Pragma',
]
