import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { open } from 'node:fs/promises'
import { promisify } from 'node:util'
import { type Bench, type Measured, MIB, observed, otherwise, WRITER } from '../bench.ts'
import { createImages, removeImages } from '../images.ts'
import type { Row } from '../report.ts'
import type { Side } from '../sides.ts'
import { openThrottledStore, type ThrottledStore } from '../throttled-store.ts'
import { dataFile } from '../transfers.ts'

const exec = promisify(execFile)

const CLIENTS = Number(process.env['BENCH_CLIENTS'] ?? 500)
/** Glance sends all but the first of them to the store: so many are what 50 MiB/s can feed in about two minutes. */
const FEW_CLIENTS = 20
const STORE_RATE = 50 * 2 ** 20
const IMAGE_MIB = Math.min(256, MIB)

/** Many clients ask at once for an image that is not in the cache, whose store is slow. */
export async function storm(bench: Bench): Promise<Measured> {
  const data = await firstOf(dataFile(bench), IMAGE_MIB * 2 ** 20)
  const store = await openThrottledStore(data, STORE_RATE)
  const digests = {
    checksum: createHash('md5').update(data).digest('hex'),
    os_hash_algo: 'sha512',
    os_hash_value: createHash('sha512').update(data).digest('hex'),
  }
  const configured = (name: string, workers: number, act: (other: Bench) => Promise<readonly Row[]>) =>
    otherwise(bench, name, { workers, cache: true, options: { show_multiple_locations: 'True' } }, act)
  const run = (side: Side, clients: number) => boot(side, store, digests, clients)
  try {
    return {
      rows: [
        ...(await configured('storm', 2, async ({ glance, glimpse }) => [
          ...rowsOf(`${FEW_CLIENTS} clients`, await run(glimpse, FEW_CLIENTS), await run(glance, FEW_CLIENTS)),
          ...rowsOf(`${CLIENTS} clients`, await run(glimpse, CLIENTS)),
        ])),
        ...(await configured('storm-4', 4, async ({ glimpse }) =>
          rowsOf(`${CLIENTS} clients, 4 workers`, await run(glimpse, CLIENTS)),
        )),
      ],
      notes: [
        `one image of ${IMAGE_MIB} MiB from a store of ${STORE_RATE / 2 ** 20} MiB/s, which alone takes ${(IMAGE_MIB * 2 ** 20) / STORE_RATE} s`,
        `Glance would need the store for ${Math.round((CLIENTS * IMAGE_MIB * 2 ** 20) / STORE_RATE / 60)} minutes with ${CLIENTS} clients, and is asked by ${FEW_CLIENTS} only`,
      ],
    }
  } finally {
    await store.close()
  }
}

interface Booted {
  readonly seconds: number
  /** Seconds of the server's processes for each GiB that clients got. */
  readonly cpu: number
  /** Bytes at the most. */
  readonly memory: number
  /** How often the store sent the image. */
  readonly reads: number
}

async function boot(
  side: Side,
  store: ThrottledStore,
  digests: Readonly<Record<string, string>>,
  clients: number,
): Promise<Booted> {
  const [id = ''] = await createImages(side, 1)
  await locate(side, id, store.url, digests)
  const before = store.sent()
  const { seconds, cpu, memory } = await observed(side, () => everybody(`${side.url}/v2/images/${id}/file`, clients))
  const size = IMAGE_MIB * 2 ** 20
  const reads = (store.sent() - before) / size
  await removeImages(side, [id])
  return { seconds, cpu: cpu / ((clients * size) / 2 ** 30), memory, reads }
}

function rowsOf(who: string, glimpse: Booted, glance?: Booted): readonly Row[] {
  const row = (what: string, unit: string, of: (one: Booted) => number): Row => ({
    what: `boot storm, ${who}${what}`,
    unit,
    lessIsBetter: true,
    glance: glance === undefined ? [] : [of(glance)],
    glimpse: [of(glimpse)],
  })
  return [
    row(': all have it', 's', ({ seconds }) => seconds),
    row(': the store sends the image', 'times', ({ reads }) => reads),
    row(': CPU', 's/GiB', ({ cpu }) => cpu),
    row(': memory of all processes at most', 'MiB', ({ memory }) => memory / 2 ** 20),
  ]
}

/** The image's data is at this address; it becomes active. */
async function locate(side: Side, id: string, url: string, digests: Readonly<Record<string, string>>): Promise<void> {
  const location = { url, metadata: {}, validation_data: digests }
  const response = await fetch(`${side.url}/v2/images/${id}`, {
    method: 'PATCH',
    headers: { 'x-auth-token': WRITER, 'content-type': 'application/openstack-images-v2.1-json-patch' },
    body: JSON.stringify([{ op: 'add', path: '/locations/-', value: location }]),
  })
  if (!response.ok) throw new Error(`${side.name}: location: ${response.status} ${await response.text()}`)
  await response.arrayBuffer()
}

/** All clients at once, who throw the data away. Throws unless each of them gets the whole image. */
async function everybody(url: string, clients: number): Promise<void> {
  // One process of curl follows up to 300 transfers.
  const shares = clients > 250 ? [Math.ceil(clients / 2), Math.floor(clients / 2)] : [clients]
  const answers = await Promise.all(
    shares.map(async (share) => {
      const quiet = ['-s', '-S', '--fail', '-o', '/dev/null', '-H', `X-Auth-Token: ${WRITER}`]
      const parallel = ['-Z', '--parallel-immediate', '--parallel-max', String(share), '-w', '%{size_download}\\n']
      return (await exec('curl', [...quiet, ...parallel, `${url}#[1-${share}]`])).stdout.trim().split('\n')
    }),
  )
  const whole = answers.flat().filter((size) => Number(size) === IMAGE_MIB * 2 ** 20).length
  if (whole !== clients) throw new Error(`${whole} of ${clients} clients got the image`)
}

async function firstOf(path: string, bytes: number): Promise<Buffer> {
  const file = await open(path)
  try {
    return (await file.read({ buffer: Buffer.allocUnsafeSlow(bytes), length: bytes })).buffer
  } finally {
    await file.close()
  }
}
