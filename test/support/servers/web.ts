import { randomUUID } from 'node:crypto'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'

/** How a web server treats requests for a path; what it answers when it does nothing special is up to the data. */
export type Behaviour = (request: IncomingMessage, response: ServerResponse) => void

export interface WebServer {
  /** `http://127.0.0.1:PORT`, without a slash. */
  readonly url: string
  readonly port: number
  /** Serves `data` at a new path, with HEAD and single ranges; gives the path. */
  serve(data: Buffer): string
  /** Serves a path in some other way. */
  on(path: string, behave: Behaviour): void
  /** Of all requests so far: method, path, and headers. */
  readonly requests: readonly IncomingMessage[]
  close(): Promise<void>
}

/** A web server on a free port of the loopback. */
export async function startWebServer(): Promise<WebServer> {
  const behaviours = new Map<string, Behaviour>()
  const requests: IncomingMessage[] = []
  const server = createServer((request, response) => {
    requests.push(request)
    const path = (request.url ?? '').split('?')[0] ?? ''
    const behave = behaviours.get(path)
    if (behave !== undefined) behave(request, response)
    else response.writeHead(404).end('nothing here')
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  return {
    url: `http://127.0.0.1:${port}`,
    port,
    requests,
    serve: (data) => {
      const path = `/images/${randomUUID()}`
      behaviours.set(path, serving(data))
      return path
    },
    on: (path, behave) => void behaviours.set(path, behave),
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve())
        server.closeAllConnections()
      }),
  }
}

/** As ordinary web servers do it. */
export const serving =
  (data: Buffer): Behaviour =>
  (request, response) => {
    const [, first, last] = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? '') ?? []
    if (first === undefined) {
      response.writeHead(200, { 'content-length': data.length }).end(request.method === 'HEAD' ? undefined : data)
      return
    }
    const [from, to] = [Number(first), Math.min(last === '' ? Infinity : Number(last), data.length - 1)]
    if (from > to) {
      response.writeHead(416, { 'content-range': `bytes */${data.length}` }).end()
      return
    }
    const part = data.subarray(from, to + 1)
    response
      .writeHead(206, { 'content-length': part.length, 'content-range': `bytes ${from}-${to}/${data.length}` })
      .end(part)
  }

/** The web server of the transcripts: `/ten`, `/other` and `/big` are there, some others are not as they should be. */
export async function startTranscriptsWeb(): Promise<WebServer> {
  const web = await startWebServer()
  web.on('/ten', serving(Buffer.from('ten bytes!')))
  web.on('/other', serving(Buffer.from('ten others')))
  web.on('/big', serving(Buffer.alloc(101)))
  web.on('/empty', serving(Buffer.alloc(0)))
  web.on('/error', (_, response) => void response.writeHead(500).end())
  web.on('/redirect', (_, response) => void response.writeHead(302, { location: `${web.url}/ten` }).end())
  return web
}
