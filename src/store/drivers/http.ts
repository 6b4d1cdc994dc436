import { readFile } from 'node:fs/promises'
import type { Readable } from 'node:stream'
import type { Dispatcher } from 'undici'
import { bool, dict, text, type Values } from '../../config/options.ts'
import { ServiceError } from '../../domain/errors.ts'
import type { LocationUri } from '../../domain/ids.ts'
import { abortable, type ByteSource, slice } from '../../io/bytes.ts'
import { defineStore, guarded, type Reach, type StoreDriver } from '../driver.ts'

const options = {
  https_ca_certificates_file: text({
    help: 'PEM file of the certificate authorities that servers of image data are checked against.',
  }),
  https_insecure: bool({
    default: true,
    help: 'Trust any certificate of a server of image data, unless https_ca_certificates_file is set.',
  }),
  http_proxy_information: dict({ help: 'Proxies by scheme, as http:10.0.0.1:3128,https:10.0.0.1:1080.' }),
}

/** Image data on other people's web servers: read, and never written or deleted. */
export const httpStore = defineStore({ type: 'http', options, open: openHttpDriver })

const MAX_REDIRECTS = 5

async function openHttpDriver(config: Values<typeof options>, reach?: Reach): Promise<StoreDriver> {
  const connect = await connector(config, reach)
  let dispatchers: Promise<Dispatchers> | undefined

  /** The answer of the server that has the data, behind all redirects. */
  const ask = async (
    method: 'GET' | 'HEAD',
    uri: LocationUri,
    { signal, range }: { readonly signal: AbortSignal; readonly range?: string | undefined },
  ): Promise<Dispatcher.ResponseData> => {
    let { url, authorization } = parseUri(uri)
    for (let redirects = 0; ; redirects++) {
      if (reach !== undefined && !(await reach.admits(url.href))) {
        throw new ServiceError('unavailable', 'Image data may not be read from this address')
      }
      dispatchers ??= connect()
      const answer = await request((await dispatchers)[schemeOf(url)], url, {
        method,
        signal,
        // An image may take any time; the caller's signal ends what takes too long.
        headersTimeout: 0,
        bodyTimeout: 0,
        headers: {
          'user-agent': 'glimpse',
          'accept-encoding': 'identity',
          ...(range === undefined ? {} : { range }),
          ...(authorization === undefined ? {} : { authorization }),
        },
      })
      if (answer.statusCode < 300 || answer.statusCode === 416) return answer
      discard(answer.body)
      const target = redirectTarget(answer, url)
      if (redirects === MAX_REDIRECTS) throw unavailable('The server that has the image data redirects too often')
      // Credentials are for the server they were given for.
      if (target.url.origin !== url.origin) authorization = undefined
      url = target.url
      authorization = target.authorization ?? authorization
    }
  }

  return guarded({
    schemes: ['http', 'https'],
    features: { write: false, randomRead: true, unsizedWrite: false },
    write: async () => {
      throw new ServiceError('gone', 'Image data cannot be added to an http store')
    },
    read: async (uri, { offset = 0, length, signal }) => {
      const wanted = { offset, length: length ?? Number.POSITIVE_INFINITY }
      const answer = await ask('GET', uri, { signal, range: rangeHeader(wanted) })
      const body = abortable(received(answer.body), signal)
      if (answer.statusCode === 416) return slice(body, { offset: 0, length: 0 })
      if (answer.statusCode !== 206) return slice(body, wanted)
      if (startOf(answer) === offset) return slice(body, { ...wanted, offset: 0 })
      discard(answer.body)
      throw unavailable('The server that has the image data sends another range than asked for')
    },
    stat: async (uri, { signal }) => {
      const answer = await ask('HEAD', uri, { signal })
      discard(answer.body)
      return { size: Number(answer.headers['content-length'] ?? 0) }
    },
    // The data belong to somebody else, and so there is nothing of ours to remove.
    delete: async (uri) => void parseUri(uri),
    sweep: async () => undefined,
    close: async () => {
      await Promise.all(Object.values((await dispatchers) ?? {}).map((dispatcher) => dispatcher.destroy()))
    },
    properties: () => ({}),
  })
}

// Configuration

type Scheme = 'http' | 'https'
type Dispatchers = Readonly<Record<Scheme, Dispatcher>>
const schemeOf = (url: URL): Scheme => (url.protocol === 'https:' ? 'https' : 'http')

/** Checks the configuration now, and loads the client when it is first needed: most services never do. */
async function connector(config: Values<typeof options>, reach?: Reach): Promise<() => Promise<Dispatchers>> {
  const { https_ca_certificates_file: file, https_insecure: insecure } = config
  const tls = file === undefined ? { rejectUnauthorized: !insecure } : { ca: await readCertificates(file) }
  const proxies = { http: proxyFor('http', config), https: proxyFor('https', config) }
  return async () => {
    const { Agent, ProxyAgent } = await import('undici')
    const open = async (scheme: Scheme) => {
      const uri = proxies[scheme]
      if (uri === undefined) return new Agent({ connect: (await reach?.connector(tls)) ?? tls })
      return new ProxyAgent({ uri, requestTls: tls, proxyTunnel: scheme === 'https' })
    }
    return { http: await open('http'), https: await open('https') }
  }
}

function proxyFor(scheme: Scheme, config: Values<typeof options>): string | undefined {
  const proxy = config.http_proxy_information?.[scheme]
  if (proxy === undefined) return undefined
  const uri = proxy.includes('://') ? proxy : `http://${proxy}`
  if (!URL.canParse(uri)) throw new ServiceError('invalid', `http_proxy_information: no address for ${scheme}`)
  return uri
}

async function readCertificates(file: string): Promise<Buffer> {
  try {
    return await readFile(file)
  } catch (cause) {
    throw new ServiceError('invalid', `https_ca_certificates_file: ${file} cannot be read`, { cause })
  }
}

// Locations. They may hold credentials, and so do errors of the URL parser: neither appears in a message or a cause.

interface Address {
  /** Without credentials. */
  readonly url: URL
  readonly authorization: string | undefined
}

function parseUri(uri: string): Address {
  const url = /^https?:\/\/[^/?#]/i.test(uri) ? URL.parse(uri) : null
  if (url === null || (url.username === '') !== (url.password === '')) {
    throw new ServiceError('invalid', 'Not a location of an http store')
  }
  const credentials = url.username === '' ? undefined : `${decode(url.username)}:${decode(url.password)}`
  url.username = ''
  url.password = ''
  return { url, authorization: credentials && `Basic ${Buffer.from(credentials).toString('base64')}` }
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text)
  } catch {
    return text
  }
}

// Answers

const unavailable = (message: string, cause?: unknown) =>
  new ServiceError('unavailable', message, { cause, transient: true })

async function request(
  dispatcher: Dispatcher,
  url: URL,
  options: Pick<Dispatcher.RequestOptions, 'method' | 'headers' | 'headersTimeout' | 'bodyTimeout'> & {
    readonly signal: AbortSignal
  },
): Promise<Dispatcher.ResponseData> {
  try {
    return await dispatcher.request({ ...options, origin: url.origin, path: url.pathname + url.search })
  } catch (cause) {
    options.signal.throwIfAborted()
    throw unavailable('The server that has the image data does not answer', cause)
  }
}

/** Where the answer sends us. Throws when it is no redirect that one follows. */
function redirectTarget({ statusCode, headers }: Dispatcher.ResponseData, from: URL): Address {
  if (statusCode === 404 || statusCode === 410) throw new ServiceError('not-found', 'Image data not found')
  const { location } = headers
  if (
    (statusCode !== 301 && statusCode !== 302) ||
    typeof location !== 'string' ||
    !URL.canParse(location, from.href)
  ) {
    throw unavailable(`The server that has the image data answers ${statusCode}`)
  }
  return parseUri(new URL(location, from).href)
}

const rangeHeader = ({ offset, length }: { readonly offset: number; readonly length: number }): string | undefined => {
  if (length === 0 || (offset === 0 && length === Number.POSITIVE_INFINITY)) return undefined
  return `bytes=${offset}-${length === Number.POSITIVE_INFINITY ? '' : offset + length - 1}`
}

const startOf = ({ headers }: Dispatcher.ResponseData): number =>
  Number(/^bytes (\d+)-/.exec(String(headers['content-range']))?.[1])

/** Closes the connection rather than read what nobody wants. */
function discard(body: Readable): void {
  body.on('error', () => undefined).destroy()
}

function received(body: Readable): ByteSource {
  const bytes = chunks(body)
  return {
    [Symbol.asyncIterator]: () => ({
      next: () => bytes.next(),
      return: async () => {
        discard(body)
        return bytes.return(undefined)
      },
    }),
  }
}

async function* chunks(body: Readable): AsyncGenerator<Buffer> {
  try {
    for await (const chunk of body) yield chunk as Buffer
  } catch (cause) {
    throw unavailable('The server that has the image data broke off', cause)
  }
}
