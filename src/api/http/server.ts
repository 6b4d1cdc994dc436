import type { IncomingMessage, Server, ServerResponse } from 'node:http'
import fastify, { type FastifyInstance, type FastifyReply, type FastifyRequest } from 'fastify'
import { ServiceError } from '../../domain/errors.ts'
import { type ByteSource, fromReadable } from '../../io/bytes.ts'
import type { Log } from '../../log.ts'
import { type Cors, corsHeaders } from './cors.ts'
import { type Failure, methodNotAllowed, methodNotImplemented, TITLES } from './errors.ts'
import type { ApiRequest, ApiResponse, Route } from './route.ts'

// An import of node:http reads all of its exports, and loads Node's own fetch with them: 30 ms of every start.
const { createServer } = process.getBuiltinModule('node:http')

/** A family of routes under one prefix, with its own way to let callers in and to report errors. */
export interface Face<Context> {
  /** `/v2`, or empty. */
  readonly prefix: string
  readonly routes: readonly Route<Context>[]
  /** Finds out who is calling; what it throws is rendered like any other error. */
  enter(request: EnterRequest): Promise<Context>
  /** Headers of every answer to a caller who was let in. */
  headers(context: Context): Readonly<Record<string, string>>
  fail(error: unknown, request: EnterRequest): ApiResponse
  /** Where the lines about this caller go. */
  log?(context: Context): Log
  /** For answers that are no handler's, such as 405. */
  refuse(failure: Failure, request: EnterRequest): ApiResponse
}
export interface EnterRequest {
  readonly method: string
  /** As it is routed. */
  readonly path: string
  readonly headers: IncomingMessage['headers']
  readonly signal: AbortSignal
}

export interface ServerOptions {
  readonly faces: readonly Face<never>[]
  /** Gives the path that is routed, from the path the client sent (without query). */
  readonly rewrite: (path: string, headers: IncomingMessage['headers']) => string
  readonly cors: Cors | undefined
  readonly log: Log
  /** Bytes of a JSON body. */
  readonly jsonLimit: number
  /** Bytes of all headers together; Keystone's tokens and v1's headers are large. */
  readonly headerLimit: number
  /** Ends a connection on which nothing moves for so long; 0 for never. */
  readonly idleTimeoutMs: number
  readonly keepAlive: boolean
  /** Believe Forwarded and X-Forwarded-*. */
  readonly trustProxy: boolean
  /** In PEM; plain HTTP without it. With `ca`, clients must have a certificate of one of those authorities. */
  readonly tls?: { readonly cert: Buffer; readonly key: Buffer; readonly ca?: Buffer } | undefined
}

export interface HttpServer {
  readonly server: Server
  /** Routes a request without a socket, for tests. */
  readonly inject: FastifyInstance['inject']
  ready(): Promise<void>
  /** Refuses new requests, lets running ones end for at most `graceMs` (0: as long as they take), then cuts them. */
  drain(graceMs: number): Promise<void>
}

const KNOWN_METHODS = new Set(['GET', 'HEAD', 'POST', 'PUT', 'DELETE', 'PATCH'])
/** A request whose body nobody wanted may go on sending for so long, so that its client reads the answer. */
const LINGER_MS = 10_000
/** Methods whose chunked body counts as one (glance/common/wsgi.py, `httpverb_may_have_body`). */
const MAY_HAVE_BODY = new Set(['POST', 'PUT', 'PATCH'])
const UNDECODABLE =
  'Error decoding your request. Either the URL or the request body contained characters that could not be decoded by Glance'

function unused(): never {
  throw new Error('The framework compiles no schemas here')
}

export function createHttpServer(options: ServerOptions): HttpServer {
  const { log } = options
  const faces = options.faces as unknown as readonly Face<unknown>[]
  let draining = false
  let server: Server | undefined

  const app = fastify({
    logger: false,
    exposeHeadRoutes: false,
    // Routes have no schemas of the framework's kind: its compilers need not be loaded.
    schemaController: { compilersFactory: { buildValidator: unused, buildSerializer: unused } },
    routerOptions: { maxParamLength: 1_000_000, querystringParser: () => ({}) },
    serverFactory: (handler) => {
      const limits = {
        maxHeaderSize: options.headerLimit,
        requestTimeout: 0, // a slow upload may take days
        headersTimeout: 60_000,
        keepAliveTimeout: options.keepAlive ? 75_000 : 1,
        noDelay: true,
      }
      const { tls } = options
      server =
        tls === undefined
          ? createServer(limits)
          : process.getBuiltinModule('node:https').createServer({
              ...limits,
              ...tls,
              requestCert: tls.ca !== undefined,
            })
      server.on('request', handler)
      server.on('checkContinue', handler)
      server.timeout = options.idleTimeoutMs
      return server
    },
    rewriteUrl: (raw) => {
      const [path, query] = splitUrl(raw.url ?? '/')
      const routed = options.rewrite(path, raw.headers)
      return query === undefined ? routed : `${routed}?${query}`
    },
    frameworkErrors: (_error, request, reply) => {
      const face = faces.find(({ prefix }) => (request.raw.url ?? '').startsWith(prefix)) ?? faces[0]
      serve(request, reply, face, undefined, async () => {
        throw new ServiceError('invalid', UNDECODABLE)
      })
    },
  })
  // Bodies are read by whoever wants them, never by the framework.
  app.removeAllContentTypeParsers()
  app.addContentTypeParser('*', (_request, _payload, done) => done(null))

  for (const face of faces) {
    for (const route of face.routes) {
      app.route({
        method: route.method,
        url: `${face.prefix}${route.path}`,
        // The router takes an empty segment for a parameter; to us it is another path.
        handler: (request, reply) =>
          hasEmptyParameter(request) ? notFound(request, reply) : serve(request, reply, face, route, route.handle),
      })
    }
  }
  app.setNotFoundHandler((request, reply) => notFound(request, reply))

  function notFound(request: FastifyRequest, reply: FastifyReply): void {
    const path = splitUrl(request.raw.url ?? '/')[0]
    const face =
      faces.find(({ prefix }) => prefix !== '' && (path === prefix || path.startsWith(`${prefix}/`))) ?? faces.at(-1)
    serve(request, reply, face, undefined, async () => {
      const method = request.method
      const allowed = face === undefined ? [] : allowedMethods(face, path)
      if (allowed.length > 0) throw new Refusal(methodNotAllowed(method, allowed))
      if (!KNOWN_METHODS.has(method)) throw new Refusal(methodNotImplemented(method))
      throw new ServiceError('not-found', 'The resource could not be found.')
    })
  }

  /** Runs one request from its first byte to its last; never throws. */
  function serve(
    request: FastifyRequest,
    reply: FastifyReply,
    face: Face<unknown> | undefined,
    route: Route<unknown> | undefined,
    handle: (request: ApiRequest<unknown>) => Promise<ApiResponse>,
  ): void {
    reply.hijack()
    const started = performance.now()
    const { raw } = request
    const remoteAddress = raw.socket.remoteAddress // gone with the socket
    const res = reply.raw
    const gone = new AbortController()
    res.once('close', () => {
      if (!res.writableFinished) gone.abort(new ServiceError('invalid', 'The client went away'))
    })
    const entering: EnterRequest = {
      method: request.method,
      path: splitUrl(raw.url ?? '/')[0],
      headers: raw.headers,
      signal: gone.signal,
    }

    let about = log

    const answer = async (): Promise<ApiResponse> => {
      // Browsers ask before anybody has logged in; without `[cors]` the answer promises nothing.
      if (request.method === 'OPTIONS') return { status: 200 }
      if (face === undefined) return { status: 404, text: '' }
      let extra: Readonly<Record<string, string>> = {}
      try {
        if (draining)
          throw new ServiceError('unavailable', 'The server is shutting down. Please try again.', {
            detail: { draining },
          })
        const context = await face.enter(entering)
        extra = face.headers(context)
        about = face.log?.(context) ?? log
        const api = apiRequest(request, res, context, gone.signal, remoteAddress)
        if (route?.rejectsBody && api.hasBody)
          throw new ServiceError('invalid', 'A body is not expected with this request.')
        const response = await handle(api)
        return { ...response, headers: { ...extra, ...response.headers } }
      } catch (error) {
        const failed = error instanceof Refusal ? face.refuse(error.failure, entering) : face.fail(error, entering)
        if (failed.status >= 500) about.error(`${raw.method} ${originalUrl(request)} failed`, error)
        else about.debug(`${raw.method} ${originalUrl(request)} refused`, error)
        return { ...failed, headers: { ...extra, ...failed.headers } }
      }
    }

    void answer()
      .then((response) => send(raw, res, response, options.cors, draining))
      .catch((error: unknown) => {
        if (!gone.signal.aborted) about.error(`${raw.method} ${originalUrl(request)} broke off`, error)
        res.destroy()
        return undefined
      })
      .then((length) => {
        lingerOnBody(raw)
        const seconds = ((performance.now() - started) / 1000).toFixed(6)
        about.info(
          `${remoteAddress ?? '-'} "${raw.method} ${originalUrl(request)} HTTP/${raw.httpVersion}" ${res.statusCode} ${length ?? '-'} ${seconds}${res.writableFinished ? '' : ' (client went away)'}`,
        )
      })
  }

  function apiRequest(
    request: FastifyRequest,
    res: ServerResponse,
    context: unknown,
    signal: AbortSignal,
    remoteAddress: string | undefined,
  ): ApiRequest<unknown> {
    const { raw } = request
    const [path, queryText] = splitUrl(raw.url ?? '/')
    const take = () => {
      if (expectsContinue(raw) && !res.headersSent) res.writeContinue()
      return raw
    }
    let query: ApiRequest<unknown>['query'] | undefined
    return {
      method: request.method,
      path,
      params: (request.params ?? {}) as Record<string, string>,
      get query() {
        query ??= parseQuery(queryText)
        return query
      },
      headers: raw.headers,
      get baseUrl() {
        return baseUrl(raw, options.trustProxy)
      },
      context,
      signal,
      remoteAddress,
      hasBody:
        Number(raw.headers['content-length'] ?? 0) > 0 ||
        (raw.headers['transfer-encoding'] !== undefined && MAY_HAVE_BODY.has(request.method)),
      body: () => fromReadable(take(), { owned: true }),
      json: () => readJson(fromReadable(take()), options.jsonLimit),
    }
  }

  return {
    get server() {
      if (server === undefined) throw new Error('the server is made by ready()')
      return server
    },
    inject: app.inject.bind(app),
    ready: async () => {
      await app.ready()
    },
    drain: async (graceMs) => {
      draining = true
      const closed = new Promise<void>((resolve) => (server?.listening ? server.close(() => resolve()) : resolve()))
      server?.closeIdleConnections()
      const sweepIdle = setInterval(() => server?.closeIdleConnections(), 200)
      const cut = graceMs > 0 ? setTimeout(() => server?.closeAllConnections(), graceMs) : undefined
      await closed
      clearInterval(sweepIdle)
      clearTimeout(cut)
      await app.close()
    },
  }
}

/** An answer that is no error of the service, such as 405. */
class Refusal extends Error {
  readonly failure: Failure
  constructor(failure: Failure) {
    super(`${failure.status}`)
    this.failure = failure
  }
}

function splitUrl(url: string): [path: string, query: string | undefined] {
  const at = url.indexOf('?')
  return at < 0 ? [url, undefined] : [url.slice(0, at), url.slice(at + 1)]
}

const originalUrl = (request: FastifyRequest): string => request.originalUrl

/** The methods of the routes that a path is on, in the order of the table. */
const allowedMethods = (face: Face<unknown>, path: string): readonly string[] => [
  ...new Set(face.routes.filter((route) => matches(`${face.prefix}${route.path}`, path)).map(({ method }) => method)),
]

/** Whether a path is one of a route's; static segments must be equal, parameters and a final `*` take anything. */
export function matches(pattern: string, path: string): boolean {
  const wanted = pattern.split('/')
  const given = path.split('/')
  if (wanted.length !== given.length && wanted.at(-1) !== '*') return false
  return wanted.every((segment, index) => {
    if (segment === '*') return true
    const part = given[index]
    return segment.startsWith(':') ? part !== undefined && part !== '' : segment === part
  })
}

const expectsContinue = (raw: IncomingMessage): boolean => raw.headers.expect?.toLowerCase() === '100-continue'

const hasEmptyParameter = (request: FastifyRequest): boolean =>
  Object.values((request.params ?? {}) as Record<string, string>).includes('')

/** A percent sign that is not followed by two hex digits stands for itself. */
const decode = (text: string): string => {
  try {
    return decodeURIComponent(text.replaceAll('+', ' ').replace(/%(?![0-9a-f]{2})/gi, '%25'))
  } catch (cause) {
    throw new ServiceError('invalid', UNDECODABLE, { cause })
  }
}

function parseQuery(text: string | undefined): readonly (readonly [string, string])[] {
  if (text === undefined || text === '') return []
  return text
    .split('&')
    .filter((pair) => pair !== '')
    .map((pair) => {
      const at = pair.indexOf('=')
      return at < 0 ? [decode(pair), ''] : [decode(pair.slice(0, at)), decode(pair.slice(at + 1))]
    })
}

/** RFC 7239 and its forerunners, as oslo.middleware's http_proxy_to_wsgi reads them. */
function baseUrl(raw: IncomingMessage, trustProxy: boolean): string {
  const header = (name: string) => {
    const value = raw.headers[name]
    return typeof value === 'string' ? value : undefined
  }
  let scheme = 'http'
  let host = header('host') ?? 'localhost'
  let prefix = ''
  if (trustProxy) {
    const forwarded = header('forwarded')?.split(',')[0] ?? ''
    const part = (name: string) => new RegExp(`(?:^|;)\\s*${name}="?([^";]+)"?`, 'i').exec(forwarded)?.[1]
    scheme = part('proto') ?? header('x-forwarded-proto') ?? scheme
    host = part('host') ?? header('x-forwarded-host') ?? host
    prefix = (header('x-forwarded-prefix') ?? '').replace(/\/+$/, '')
  }
  return `${scheme}://${host}${prefix}`
}

async function readJson(body: ByteSource, limit: number): Promise<unknown> {
  const chunks: Buffer[] = []
  let size = 0
  for await (const chunk of body) {
    size += chunk.length
    if (size > limit) throw new ServiceError('too-large', 'The body of your request was too large for this server.')
    chunks.push(Buffer.from(chunk))
  }
  let value: unknown
  try {
    value = JSON.parse(new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(Buffer.concat(chunks)))
  } catch (cause) {
    throw new ServiceError('invalid', 'Malformed JSON in request body.', { cause })
  }
  if (typeof value !== 'object' || value === null) {
    throw new ServiceError('invalid', 'Unexpected body type. Expected list/dict.')
  }
  if (isDeeperThan(DEEPEST, value)) throw new ServiceError('invalid', 'The request body is nested too deeply.')
  return value
}

/** Whatever goes through a body member by member must not run out of stack. */
const DEEPEST = 500

function isDeeperThan(most: number, value: object): boolean {
  let level = [value]
  for (let depth = 0; level.length > 0; depth += 1) {
    if (depth === most) return true
    const below: object[] = []
    for (const one of level)
      for (const member of Object.values(one)) if (typeof member === 'object' && member !== null) below.push(member)
    level = below
  }
  return false
}

/** Gives the length of the body, for the log. */
async function send(
  raw: IncomingMessage,
  res: ServerResponse,
  response: ApiResponse,
  cors: Cors | undefined,
  closing: boolean,
): Promise<string | number | undefined> {
  if (res.destroyed) return undefined
  const headers: Record<string, string | number> = { ...response.headers, ...corsHeaders(cors, raw) }
  // A body that was not asked for would be read as the next request.
  if (closing || (expectsContinue(raw) && !raw.readableDidRead && !raw.complete)) headers['connection'] = 'close'
  if (response.data !== undefined) {
    res.writeHead(response.status, headers)
    await pour(response.data, res)
    return headers['content-length']
  }
  let text = response.text ?? ''
  if (response.json !== undefined) {
    text = JSON.stringify(response.json)
    headers['content-type'] ??= 'application/json'
  }
  if (response.status !== 204) {
    headers['content-length'] = Buffer.byteLength(text)
  }
  res.writeHead(response.status, TITLES[response.status], headers)
  await new Promise<void>((resolve) => {
    res.once('close', resolve)
    res.end(raw.method === 'HEAD' ? undefined : text, () => resolve())
  })
  return headers['content-length']
}

/** Writes chunk after chunk, each only when the one before has left: its buffer is used again. */
async function pour(source: ByteSource, res: ServerResponse): Promise<void> {
  let leave: ((error: Error) => void) | undefined
  const closed = () => leave?.(new Error('connection closed'))
  res.once('close', closed)
  try {
    for await (const chunk of source) {
      if (res.destroyed) throw new Error('connection closed')
      await new Promise<void>((resolve, reject) => {
        leave = reject
        res.write(chunk, (error) => (error ? reject(error) : resolve()))
      })
    }
    leave = undefined
    await new Promise<void>((resolve) => {
      res.once('close', () => resolve())
      res.end(() => resolve())
    })
  } finally {
    res.off('close', closed)
  }
}

/** Reads the rest of an unwanted body, so that its client reads the answer; not for ever. */
function lingerOnBody(raw: IncomingMessage): void {
  if (raw.complete || raw.destroyed) return
  const timer = setTimeout(() => raw.socket.destroy(), LINGER_MS)
  timer.unref()
  raw.once('close', () => clearTimeout(timer))
  raw.resume()
}
