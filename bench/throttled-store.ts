import { once } from 'node:events'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import { setTimeout as sleep } from 'node:timers/promises'

const PIECE = 65_536
/** A pause that lasted too long is made up for, as far as this. */
const LATE_MS = 50

/** Image data on a web server that is as fast as a slow store: what `http` locations lead to. */
export interface ThrottledStore {
  readonly url: string
  /** Bytes of data sent since the start, to all readers together. */
  sent(): number
  close(): Promise<void>
}

/** All readers together get `bytesPerSecond`, whoever comes first. */
export async function openThrottledStore(data: Buffer, bytesPerSecond: number): Promise<ThrottledStore> {
  let sent = 0
  let free = 0
  /** Waits for the turn of so many bytes. */
  const turn = async (bytes: number): Promise<void> => {
    free = Math.max(free, performance.now() - LATE_MS) + (bytes * 1000) / bytesPerSecond
    const wait = free - performance.now()
    if (wait >= 1) await sleep(wait)
  }

  const answer = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const range = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? '')
    const from = Number(range?.[1] ?? 0)
    const to = Math.min(Number(range?.[2] || data.length - 1), data.length - 1) + 1
    response.writeHead(range === null ? 200 : 206, {
      'content-type': 'application/octet-stream',
      'content-length': to - from,
      'accept-ranges': 'bytes',
      ...(range === null ? {} : { 'content-range': `bytes ${from}-${to - 1}/${data.length}` }),
    })
    const gone = once(response, 'close')
    for (let at = from; request.method === 'GET' && at < to; at += PIECE) {
      const piece = data.subarray(at, Math.min(at + PIECE, to))
      await turn(piece.length)
      if (response.destroyed) return
      sent += piece.length
      if (!response.write(piece)) await Promise.race([once(response, 'drain'), gone])
    }
    response.end()
  }

  const server = createServer((request, response) => void answer(request, response).catch(() => response.destroy()))
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('No port')
  return {
    url: `http://127.0.0.1:${address.port}/data.raw`,
    sent: () => sent,
    close: async () => {
      const closed = once(server, 'close')
      server.close()
      server.closeAllConnections()
      await closed
    },
  }
}
