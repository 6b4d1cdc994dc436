/**
 * Holds uploads and downloads open at 64 KiB/s each, prints `ready` when all of them are under way, and goes on until
 * it is killed. A client that is turned away prints a line and comes back.
 *   node bench/slow-clients.ts URL TOKEN DOWNLOAD_ID UPLOAD_ID...
 */
import { once } from 'node:events'
import { Agent, type IncomingMessage, request } from 'node:http'
import { setTimeout as sleep } from 'node:timers/promises'

const PIECE = Buffer.alloc(65_536, 'glimpse')
const agent = new Agent({ maxSockets: Number.POSITIVE_INFINITY })
const [url = '', token = '', download = '', ...uploads] = process.argv.slice(2)

/** Ends when the server ends it: an upload of this length would take hours. */
async function slowUpload(id: string): Promise<void> {
  const headers = { 'x-auth-token': token, 'content-type': 'application/octet-stream', 'content-length': 2 ** 30 }
  const client = request(`${url}/v2/images/${id}/file`, { agent, method: 'PUT', headers })
  client.write(PIECE)
  const timer = setInterval(() => client.write(PIECE), 1000)
  try {
    const [response] = (await once(client, 'response')) as [IncomingMessage]
    throw new Error(`answered ${response.statusCode}`)
  } finally {
    clearInterval(timer)
    client.on('error', () => undefined).destroy()
  }
}

async function slowDownload(begun: () => void): Promise<void> {
  const client = request(`${url}/v2/images/${download}/file`, { agent, headers: { 'x-auth-token': token } }).end()
  const [response] = (await once(client, 'response')) as [IncomingMessage]
  if (response.statusCode !== 200) throw new Error(`answered ${response.statusCode}`)
  begun()
  const timer = setInterval(() => response.read(PIECE.length), 1000)
  try {
    await once(response, 'close')
  } finally {
    clearInterval(timer)
  }
}

async function forever(what: string, act: () => Promise<void>): Promise<never> {
  for (;;) {
    await act().catch((error: unknown) => console.log(`${what}: ${String(error)}`))
    await sleep(1000)
  }
}

let waiting = uploads.length
for (const id of uploads) {
  const begun = (): void => {
    waiting -= 1
    if (waiting === 0) console.log('ready')
  }
  void forever('upload', () => slowUpload(id))
  void forever('download', () => slowDownload(begun))
  await sleep(1000 / uploads.length) // Evenly spread over the second.
}
