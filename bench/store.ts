// Throughput and CPU of the byte path with the file driver: node bench/store.ts [GiB] [directory]
import { execFile, spawn } from 'node:child_process'
import { randomBytes, randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { createServer, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { promisify } from 'node:util'
import { defaults } from '../src/config/options.ts'
import type { AttemptId, ImageId, StoreId } from '../src/domain/ids.ts'
import type { ByteSource } from '../src/io/bytes.ts'
import { openPump } from '../src/io/pump.ts'
import { fileStore } from '../src/store/drivers/file.ts'
import { openStore } from '../src/store/store.ts'

const GIB = 1024 ** 3
const size = Number(process.argv[2] ?? 1) * GIB
const dir = await mkdtemp(join(process.argv[3] ?? tmpdir(), 'bench-store-'))
const signal = new AbortController().signal

interface Cost {
  readonly seconds: number
  readonly cpu: number
}

const report = (what: string, { seconds, cpu }: Cost) => {
  const speed = Math.round(size / 1024 ** 2 / seconds)
  console.log(`${what.padEnd(58)}${String(speed).padStart(8)}${((cpu * GIB) / size).toFixed(2).padStart(10)}`)
}

async function measure(what: string, work: () => Promise<unknown>): Promise<void> {
  const [start, before] = [performance.now(), process.cpuUsage()]
  await work()
  const { user, system } = process.cpuUsage(before)
  report(what, { seconds: (performance.now() - start) / 1000, cpu: (user + system) / 1e6 })
}

/** What a connection brings: 64 KiB at a time. */
function upload(): ByteSource {
  const chunk = randomBytes(65_536)
  const chunks = function* () {
    for (let sent = 0; sent < size; sent += chunk.length) yield chunk
  }
  return Readable.from(chunks(), { objectMode: false, highWaterMark: 65_536 })
}

const drain = async (bytes: ByteSource) => {
  for await (const _chunk of bytes);
}

/** Writes into a socket whose other end is a process of its own, so that its CPU is not counted. */
async function send(bytes: ByteSource): Promise<void> {
  const path = join(dir, 'socket')
  const server = createServer().listen(path)
  await once(server, 'listening')
  const reader = spawn(process.execPath, ['-e', `require('net').connect(${JSON.stringify(path)}).resume()`])
  const [socket] = (await once(server, 'connection')) as [Socket]
  for await (const chunk of bytes) {
    await new Promise<void>((resolve, reject) => {
      socket.write(chunk, (error) => (error ? reject(error) : resolve()))
    })
  }
  socket.end()
  server.close()
  await once(reader, 'exit')
}

/** The hashes alone, by the best there is: two processes, each on a core of its own. */
async function openssl(file: string): Promise<Cost> {
  const script = 'openssl dgst -md5 "$0" & openssl dgst -sha512 "$0" & wait; times'
  const start = performance.now()
  const { stdout } = await promisify(execFile)('sh', ['-c', script, file])
  const times = stdout.trim().split('\n').at(-1) ?? ''
  const cpu = [...times.matchAll(/(\d+)m([\d.]+)s/g)].reduce((sum, [, m, s]) => sum + Number(m) * 60 + Number(s), 0)
  return { seconds: (performance.now() - start) / 1000, cpu }
}

const pump = openPump()
const driver = await fileStore.open({ ...defaults(fileStore.options), filesystem_store_datadir: dir })
const store = openStore('bench' as StoreId, driver, { pump })
const put = () =>
  store.put(randomUUID() as ImageId, upload(), {
    size,
    attempt: randomUUID() as AttemptId,
    signal,
    hashAlgorithm: 'sha512',
  })

try {
  console.log(`${'one stream'.padEnd(58)}${'MiB/s'.padStart(8)}${'CPU s/GiB'.padStart(10)}`)
  await measure('upload: source alone', () => drain(upload()))
  await measure('upload: pump, counting sink', () => pump.copy(upload(), drain, { digests: ['md5', 'sha512'], signal }))
  await measure('upload: pump, counting sink, no digests', () => pump.copy(upload(), drain, { digests: [], signal }))
  let stored = await put()
  // Again, with memory that the page cache has touched before: the first time costs the machine, not the service.
  await store.discard(stored)
  await measure('upload: store.put() to a file, synced', async () => {
    stored = await put()
  })
  report('reference: openssl md5 and sha512 at once', await openssl(stored.location.uri.replace('file://', '')))
  const read = () => store.open(stored.location, { offset: 0, length: size }, signal)
  await measure('download: store.open(), thrown away', async () => drain(await read()))
  await measure('download: store.open() into a socket', async () => send(await read()))
} finally {
  await driver.close()
  await pump.close()
  await rm(dir, { recursive: true })
}
