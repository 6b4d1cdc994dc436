import { until } from '../../test/support/product.ts'
import { ADMIN, alternate, type Bench, type Measured, MIB, observed, otherwise, WRITER } from '../bench.ts'
import { createImages, get, removeImages, uploadOne } from '../images.ts'
import { startNginx } from '../nginx.ts'
import type { Row } from '../report.ts'
import type { Side } from '../sides.ts'
import { curl, dataFile } from '../transfers.ts'

interface Method {
  readonly name: string
  /** Of an image that is ready to be imported into; what comes before the clock runs. */
  prepare(side: Side): Promise<string>
  /** What the client does before the import, while the clock runs. */
  before?(side: Side, id: string): Promise<void>
  readonly token?: string
  /** The body of the import request. */
  readonly request: Readonly<Record<string, unknown>>
  readonly done: (image: Imported) => boolean
}

interface Imported {
  readonly status: string
  readonly stores?: string
  readonly os_glance_failed_import?: string
  readonly os_glance_importing_to_stores?: string
}

/** One image at a time, by each method, from the request of the client to the image that can be used. */
export async function imports(bench: Bench): Promise<Measured> {
  const web = await startNginx(bench.dir)
  const distant = await uploadOne(bench.glimpse, dataFile(bench))
  const create = async (side: Side): Promise<string> => (await createImages(side, 1))[0] ?? ''
  const isActive = ({ status }: Imported): boolean => status === 'active'
  const methods: readonly Method[] = [
    {
      name: 'glance-direct',
      prepare: create,
      before: (side, id) => curl(`${side.url}/v2/images/${id}/stage`, WRITER, ['-X', 'PUT', '-T', dataFile(bench)]),
      request: { method: { name: 'glance-direct' } },
      done: isActive,
    },
    {
      name: 'web-download',
      prepare: create,
      request: { method: { name: 'web-download', uri: `${web.url}/data.raw` } },
      done: isActive,
    },
    {
      name: 'copy-image',
      prepare: (side) => uploadOne(side, dataFile(bench)),
      token: ADMIN,
      request: { method: { name: 'copy-image' }, stores: ['cheap'] },
      done: (image) => !image.os_glance_importing_to_stores && image.stores?.split(',').includes('cheap') === true,
    },
    {
      name: 'glance-download',
      prepare: create,
      request: { method: { name: 'glance-download', glance_region: 'RegionTwo', glance_image_id: distant } },
      done: isActive,
    },
  ]
  try {
    return await otherwise(bench, 'imports', { imports: true, otherRegion: bench.glimpse.url }, async (other) => {
      const rows: Row[] = []
      for (const method of methods) rows.push(...(await measure(other, method)))
      return {
        rows,
        notes: [
          'glance-direct: with the time and the CPU of staging; glance-download: from a Glimpse, and Glimpse checks the ' +
            'digest of what came, which Glance does not',
        ],
      }
    })
  } finally {
    await web.stop()
    await removeImages(bench.glimpse, [distant])
  }
}

async function measure(bench: Bench, method: Method): Promise<readonly Row[]> {
  const { glance, glimpse } = await alternate(bench, 2, async (side) => {
    const id = await method.prepare(side)
    const found = await observed(side, async () => {
      await method.before?.(side, id)
      await importImage(side, id, method)
    })
    await removeImages(side, [id])
    return { rate: MIB / found.seconds, cpu: found.cpu / (MIB / 1024), memory: found.memory / 2 ** 20 }
  })
  const row = (what: string, unit: string, key: 'rate' | 'cpu' | 'memory'): Row => ({
    what: `import, ${method.name}${what}`,
    unit,
    lessIsBetter: key !== 'rate',
    glance: glance.map((one) => one[key]),
    glimpse: glimpse.map((one) => one[key]),
  })
  return [
    row('', 'MiB/s', 'rate'),
    row(': CPU', 's/GiB', 'cpu'),
    row(': memory of all processes at most', 'MiB', 'memory'),
  ]
}

/** Asks for the import and waits for its end. Throws when it fails. */
async function importImage(side: Side, id: string, { token = WRITER, request, done }: Method): Promise<void> {
  const response = await fetch(`${side.url}/v2/images/${id}/import`, {
    method: 'POST',
    headers: { 'x-auth-token': token, 'content-type': 'application/json' },
    body: JSON.stringify(request),
  })
  if (response.status !== 202) throw new Error(`${side.name}: import: ${response.status} ${await response.text()}`)
  await response.arrayBuffer()
  const isDone = async (): Promise<boolean> => {
    const image = JSON.parse(await get(side, `/v2/images/${id}`, token)) as Imported
    if (image.os_glance_failed_import) {
      throw new Error(`${side.name}: the import failed: ${await get(side, `/v2/images/${id}/tasks`, token)}`)
    }
    return done(image)
  }
  await until(`the end of the import by ${side.name}`, isDone, { seconds: 300, everyMs: 50 })
}
