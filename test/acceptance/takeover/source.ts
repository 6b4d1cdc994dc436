import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'

export interface Web {
  readonly url: string
  readonly port: number
  /** Lets `/held` come to its end, now and from now on. */
  release(): void
  close(): Promise<void>
}

const IMAGE = Buffer.alloc(200_000, 'an image of the web. ')

/** A web server with an image at every path: `/gone…` is not there, and `/held…` stops in the middle until `release`. */
export async function startWeb(): Promise<Web> {
  let release = () => {}
  const released = new Promise<void>((resolve) => {
    release = resolve
  })
  const server = createServer(async (request, response) => {
    if (request.url?.startsWith('/gone')) return void response.writeHead(404).end()
    response.writeHead(200, { 'content-length': IMAGE.length, 'content-type': 'application/octet-stream' })
    if (request.method === 'HEAD') return void response.end()
    if (request.url?.startsWith('/held')) {
      response.write(IMAGE.subarray(0, 70_000))
      await released
      return void response.end(IMAGE.subarray(70_000))
    }
    response.end(IMAGE)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  return {
    url: `http://127.0.0.1:${port}`,
    port,
    release,
    close: async () => {
      server.closeAllConnections()
      server.close()
      await once(server, 'close')
    },
  }
}
