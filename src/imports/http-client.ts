import { isIP, type LookupFunction } from 'node:net'
import type { Readable } from 'node:stream'
import { getCACertificates } from 'node:tls'
import type { buildConnector, Dispatcher } from 'undici'
import { type ErrorFields, ServiceError } from '../domain/errors.ts'
import type { ByteSource } from '../io/bytes.ts'
import type { UriFilter } from './uri-filter.ts'

/** What to ask for, and what only its own server may see. */
export interface Target {
  /** Without credentials. */
  readonly url: URL
  /** Headers that go to this origin and to no other. */
  readonly secrets: Readonly<Record<string, string>>
}

export interface Answer {
  /** 2xx. */
  readonly status: number
  readonly headers: Readonly<Record<string, string | string[] | undefined>>
  readonly body: Readable
  /** Where it came from, behind all redirects. */
  readonly target: Target
}

/** Asks other people's web servers for image data. */
export interface HttpClient {
  /**
   * The answer, redirects followed as far as the filter lets them go. Throws `bad-gateway` for an answer that is none,
   * `timeout`, `forbidden` for what the filter refuses, and the signal's reason; `transient` where asking again may
   * help, with `detail.status`. No error holds credentials.
   */
  get(
    target: Target,
    options: { readonly headers?: Record<string, string>; readonly signal: AbortSignal },
  ): Promise<Answer>
  /** The bytes of an answer; throws like `get`. Leaving early closes the connection. */
  read(answer: Answer): ByteSource
  /** Closes the connection of an answer that nobody will read. */
  discard(answer: Answer): void
  close(): Promise<void>
}

export interface HttpClientOptions {
  readonly filter: UriFilter
  /** Time in which a server must send something. */
  readonly stallMs: number
}

/** As urllib, which upstream uses. */
const MAX_REDIRECTS = 10
const CONNECT_MS = 30_000

/** Throws `invalid` unless `uri` is one of http or https. */
export function parseTarget(uri: string, secrets: Readonly<Record<string, string>> = {}): Target {
  const url = URL.parse(uri)
  if (url === null || !/^https?:$/.test(url.protocol)) throw new ServiceError('invalid', 'Not an http or https URL')
  const { username, password } = url
  url.username = ''
  url.password = ''
  url.hash = ''
  if (username === '' && password === '') return { url, secrets }
  const basic = Buffer.from(`${unescaped(username)}:${unescaped(password)}`).toString('base64')
  return { url, secrets: { ...secrets, authorization: `Basic ${basic}` } }
}

function unescaped(text: string): string {
  try {
    return decodeURIComponent(text)
  } catch {
    return text
  }
}

/** As a client may see it again: without user, password and query, any of which may be a secret. */
export const shownUri = (uri: string): string =>
  // A password may itself hold an `@` or a slash: everything up to the last one goes.
  uri.replace(/[?#].*$/s, '').replace(/:\/\/.*@/s, '://***@')

export function openHttpClient({ filter, stallMs }: HttpClientOptions): HttpClient {
  let opened: Promise<Dispatcher> | undefined
  const seconds = Math.round(stallMs / 1000)

  const ask = async ({ url, secrets }: Target, headers: Record<string, string>, signal: AbortSignal) => {
    opened ??= openDispatcher(filter)
    try {
      return await (await opened).request({
        origin: url.origin,
        path: url.pathname + url.search,
        method: 'GET',
        signal,
        headersTimeout: stallMs,
        bodyTimeout: stallMs,
        // Bytes are counted and resumed, so they have to be those of the resource itself.
        headers: { 'user-agent': 'glimpse', 'accept-encoding': 'identity', ...headers, ...secrets },
      })
    } catch (cause) {
      signal.throwIfAborted()
      throw failure(cause, url, seconds)
    }
  }

  return {
    get: async (first, { headers = {}, signal }) => {
      let target = first
      for (let redirects = 0; ; redirects++) {
        const answer = await ask(target, headers, signal)
        if (answer.statusCode >= 200 && answer.statusCode < 300) {
          return { status: answer.statusCode, headers: answer.headers, body: answer.body, target }
        }
        discard(answer.body)
        const { location } = answer.headers
        if (![301, 302, 303, 307, 308].includes(answer.statusCode) || typeof location !== 'string') {
          throw refused(answer, target.url)
        }
        if (redirects === MAX_REDIRECTS) throw badGateway(`${target.url.host} redirects too often`)
        target = await follow(filter, target, location)
      }
    },
    read: (answer) => {
      const bytes = chunks(answer, seconds)
      return {
        [Symbol.asyncIterator]: () => ({
          next: () => bytes.next(),
          return: async () => {
            discard(answer.body)
            return bytes.return(undefined)
          },
        }),
      }
    },
    discard: ({ body }) => discard(body),
    close: async () => {
      await (await opened)?.destroy()
    },
  }
}

async function follow(filter: UriFilter, from: Target, location: string): Promise<Target> {
  // What it says is judged as it is written: the client's parser would make a plain address of 127.1.
  const absolute = /^[a-z][a-z\d+.-]*:/i.test(location)
  const host = /^[/\\]{2}/.test(location) ? `${from.url.protocol}${location}` : undefined
  const uri = absolute ? location : (host ?? URL.parse(location, from.url.href)?.href)
  if (uri === undefined || !(await filter.admits(uri))) {
    throw new ServiceError('forbidden', `Redirect to disallowed URL: ${shownUri(uri ?? location)}`)
  }
  const target = parseTarget(uri)
  return target.url.origin === from.url.origin ? { ...target, secrets: { ...from.secrets, ...target.secrets } } : target
}

// Connections

/** Goes through the proxy that the environment names, as urllib does; the addresses are then the proxy's to judge. */
async function openDispatcher(filter: UriFilter): Promise<Dispatcher> {
  const { Agent, EnvHttpProxyAgent } = await import('undici')
  const tls = { ca: [...getCACertificates('default'), ...getCACertificates('system')] }
  const connect = await filteredConnector(filter, { ...tls, timeout: CONNECT_MS })
  const proxied = Object.keys(process.env).some((name) => /^https?_proxy$/i.test(name) && process.env[name] !== '')
  // Many proxies open tunnels for https alone.
  return proxied ? new EnvHttpProxyAgent({ connect, requestTls: tls, proxyTunnel: false }) : new Agent({ connect })
}

/** Opens connections, to no address that the filter does not admit. */
export async function filteredConnector(
  filter: UriFilter,
  options: buildConnector.BuildOptions,
): Promise<buildConnector.connector> {
  const { buildConnector } = await import('undici')
  return guardedConnector(filter, buildConnector({ ...options, lookup: guardedLookup(filter) }))
}

const forbiddenAddress = (host: string) =>
  new ServiceError('forbidden', `${host} has no address that data may be fetched from`)

/** The address that passed the check is the one that is connected to: a second answer of the name server cannot differ. */
const guardedLookup =
  (filter: UriFilter): LookupFunction =>
  (name, { all }, callback) => {
    const answer = async () => {
      const admitted = (await filter.resolve(name)).filter(({ address }) => filter.admitsAddress(address, name))
      const [first] = admitted
      if (first === undefined) throw forbiddenAddress(name)
      return { admitted, first }
    }
    answer().then(
      ({ admitted, first }) => (all ? callback(null, [...admitted]) : callback(null, first.address, first.family)),
      (error: NodeJS.ErrnoException) => callback(error, ''),
    )
  }

/** An address in a URL is not looked up, and so is checked here. */
const guardedConnector =
  (filter: UriFilter, connect: buildConnector.connector): buildConnector.connector =>
  (options, callback) => {
    const { hostname } = options
    if (isIP(hostname) === 0 || filter.admitsAddress(hostname)) connect(options, callback)
    else callback(forbiddenAddress(hostname), null)
  }

// Answers

const badGateway = (message: string, fields: ErrorFields = {}) => new ServiceError('bad-gateway', message, fields)

/** Answers that another try may not meet again. */
const PASSING = [408, 425, 429, 500, 502, 503, 504]

// Not by an import, for the reason that api/http/server.ts gives.
const reasonOf = (status: number): string => process.getBuiltinModule('node:http').STATUS_CODES[status] ?? ''

const refused = ({ statusCode }: Dispatcher.ResponseData, { host }: URL) =>
  badGateway(`${host} answers ${`${statusCode} ${reasonOf(statusCode)}`.trim()}`, {
    detail: { status: statusCode },
    transient: PASSING.includes(statusCode),
  })

function failure(cause: unknown, { host }: URL, seconds: number): ServiceError {
  if (cause instanceof ServiceError) return cause
  const { code = '' } = cause as NodeJS.ErrnoException
  if (/^UND_ERR_(HEADERS|BODY|CONNECT)_TIMEOUT$/.test(code)) {
    const silent = code.includes('CONNECT') ? 'does not answer' : `has sent nothing for ${seconds} seconds`
    return new ServiceError('timeout', `${host} ${silent}`, { cause, transient: true })
  }
  if (code === 'ENOTFOUND') return badGateway(`${host} is not known`, { cause })
  if (code === 'ECONNREFUSED') return badGateway(`${host} refuses connections`, { cause, transient: true })
  if (/CERT|SELF_SIGNED|^ERR_TLS|UNABLE_TO/.test(code)) {
    return badGateway(`The certificate of ${host} cannot be verified (${code})`, { cause })
  }
  const known = /^(?:$|UND_ERR_)/.test(code) ? '' : ` (${code})`
  return badGateway(`The connection to ${host} broke${known}`, { cause, transient: true })
}

/** Closes the connection rather than read what nobody wants. */
function discard(body: Readable): void {
  body.on('error', () => undefined).destroy()
}

async function* chunks({ body, target }: Answer, seconds: number): AsyncGenerator<Buffer> {
  try {
    for await (const chunk of body) yield chunk as Buffer
  } catch (cause) {
    throw failure(cause, target.url, seconds)
  }
}
