/**
 * Holds uploads and downloads open at 64 KiB/s each, prints `ready` when all of them are under way, and goes on until
 * it is killed.   node bench/slow-clients.ts URL TOKEN DOWNLOAD_ID UPLOAD_ID...
 */
import { once } from 'node:events'
import { Agent, type IncomingMessage, request } from 'node:http'

const PIECE = Buffer.alloc(65_536, 'glimpse')
const agent = new Agent({ maxSockets: Number.POSITIVE_INFINITY })
const [url = '', token = '', download = '', ...uploads] = process.argv.slice(2)

/** Once a second, the clients evenly spread over it. */
function everySecond(number: number, act: () => void): void {
  setTimeout(() => setInterval(act, 1000), (number * 1000) / uploads.length)
}

function slowUpload(id: string, number: number): void {
  const client = request(`${url}/v2/images/${id}/file`, {
    agent,
    method: 'PUT',
    headers: { 'x-auth-token': token, 'content-type': 'application/octet-stream', 'content-length': 2 ** 30 },
  })
  client.on('response', (response) => fail(`upload answered ${response.statusCode}`))
  client.on('error', (error) => fail(`upload: ${error.message}`))
  client.write(PIECE)
  everySecond(number, () => client.write(PIECE))
}

async function slowDownload(number: number): Promise<void> {
  const client = request(`${url}/v2/images/${download}/file`, { agent, headers: { 'x-auth-token': token } }).end()
  client.on('error', (error) => fail(`download: ${error.message}`))
  const [response] = (await once(client, 'response')) as [IncomingMessage]
  if (response.statusCode !== 200) fail(`download answered ${response.statusCode}`)
  response.on('aborted', () => fail('a download was cut'))
  everySecond(number, () => response.read(PIECE.length))
}

function fail(message: string): never {
  console.error(`slow-clients: ${message}`)
  process.exit(1)
}

uploads.forEach(slowUpload)
await Promise.all(uploads.map((_, number) => slowDownload(number)))
console.log('ready')
