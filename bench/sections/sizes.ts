import { readFile, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { openDatabase } from '../../src/db/sql/connect.ts'
import type { Kind } from '../../test/support/catalogue.ts'
import { asParameters, deepMarker, SCOPES, type Who } from '../../test/support/pages.ts'
import { freePort, type Product, startProduct } from '../../test/support/product.ts'
import { ADMIN, type Bench, chosenDatabases, type Measured } from '../bench.ts'
import { openCatalogues } from '../catalogues.ts'
import type { Row } from '../report.ts'
import { wrk } from '../requests.ts'
import type { Side } from '../sides.ts'

const SIZES = [1000, 1_000_000] as const
const ROUNDS = Number(process.env['BENCH_ROUNDS'] ?? 5)
const SECONDS = 1
const LIMIT = 25

const TOKENS: Readonly<Record<Who, string>> = {
  admin: ADMIN,
  large: `large:${SCOPES.large.project}:member,reader`,
  small: `small:${SCOPES.small.project}:member,reader`,
  stranger: `stranger:${SCOPES.stranger.project}:member,reader`,
}
const NAMES: Readonly<Record<Who, string>> = {
  admin: 'admin',
  large: 'tenant of a tenth',
  small: 'tenant of 10',
  stranger: 'tenant of none',
}

/** The default list, and each filter that a range of an index or a lookup serves. */
const PAGES: readonly (readonly [who: Who, page: string, deep?: 'deep'])[] = [
  ['admin', ''],
  ['admin', '', 'deep'],
  ['large', ''],
  ['large', '', 'deep'],
  ['small', ''],
  ['small', '', 'deep'],
  ['stranger', ''],
  ['admin', 'name=name-7'],
  ['large', 'name=name-7'],
  ['small', 'status=active'],
  ['admin', 'status=queued'],
  ['admin', 'disk_format=raw'],
  ['small', 'visibility=public'],
  ['large', 'visibility=private'],
  ['large', 'visibility=shared'],
  ['small', 'visibility=all'],
  ['admin', 'owner=project-large'],
  ['large', 'created_at=lt:MIDDLE'],
  ['small', 'sort=updated_at:desc&updated_at=gte:MIDDLE'],
  ['admin', 'sort=size:asc&size_min=5000000000'],
  ['small', 'sort=size:desc&size_min=1000000000&size_max=9000000000'],
  ['admin', 'sort=size:asc', 'deep'],
  ['small', 'sort=name:desc'],
  ['large', 'checksum=c400'],
  ['admin', 'tag=golden'],
  ['admin', 'tag=golden&hw_disk_bus=virtio'],
  ['admin', 'build=400'],
]

const KINDS: Readonly<Record<string, Kind>> = { SQLite: 'sqlite', PostgreSQL: 'postgresql', MariaDB: 'mysql' }

/** What a page takes with a thousand images, and with a million: the same requests to two services, in turns. */
export async function sizes(bench: Bench): Promise<Measured> {
  const rows: Row[] = []
  for (const [name, kind] of chosenDatabases(KINDS)) {
    const filled = process.env['BENCH_FILLED']?.split(',')
    const catalogues = filled ? undefined : await openCatalogues(kind, bench.dir)
    try {
      const urls: string[] = []
      for (const [n, images] of SIZES.entries()) urls.push((await catalogues?.filled(images)) ?? filled?.[n] ?? '')
      rows.push(...(await onDatabase(bench, name, urls)))
    } finally {
      await catalogues?.stop()
    }
  }
  return {
    rows,
    names: ['1k images', '1M images', '1M is better by'],
    notes: [
      `pages of ${LIMIT}, one request after the other; medians of ${ROUNDS} rounds' medians, in turns of ${SECONDS} s`,
      'a tenant of a tenth has 5,000 memberships as well (as many as there are images to share, of 1,000)',
    ],
  }
}

async function onDatabase(bench: Bench, name: string, urls: readonly string[]): Promise<readonly Row[]> {
  const services: { readonly side: Side; readonly product: Product; readonly url: string; readonly images: number }[] =
    []
  try {
    for (const [n, images] of SIZES.entries()) {
      const url = urls[n] ?? ''
      const product = await startOn(bench, `${name}-${images}`, url)
      services.push({
        side: { ...bench.glimpse, url: product.url, processes: product.processes },
        product,
        url,
        images,
      })
    }
    const rows: Row[] = []
    for (const [who, page, deep] of PAGES) {
      const paths: string[] = []
      for (const { url, images } of services) paths.push(await pathOf(url, images, who, page, deep !== undefined))
      const times: number[][] = services.map(() => [])
      for (let round = -1; round < ROUNDS; round += 1)
        for (const [n, { side }] of services.entries()) {
          const load = { connections: 1, seconds: SECONDS }
          const { p50, failed } = await wrk(side, TOKENS[who], ['get', paths[n] ?? ''], load)
          if (failed > 0) throw new Error(`${name}: ${paths[n]}: ${failed} requests failed`)
          if (round >= 0) times[n]?.push(p50)
        }
      const [glance = [], glimpse = []] = times
      const what = `${name}: ${NAMES[who]}${page && `, \`${page}\``}${deep ? ', deep' : ''}`
      rows.push({ what, unit: 'ms', lessIsBetter: true, glance, glimpse })
    }
    return rows
  } finally {
    for (const { product } of services) await product.stop()
  }
}

async function pathOf(url: string, images: number, who: Who, page: string, deep: boolean): Promise<string> {
  const path = [`/v2/images?limit=${LIMIT}`, asParameters(page, images)].filter((text) => text !== '').join('&')
  if (!deep) return path
  const db = await openDatabase(url)
  try {
    return `${path}&marker=${await deepMarker(db, who, page, images)}`
  } finally {
    await db.close()
  }
}

/** One more service as that of the bench, on another database. */
async function startOn({ glimpse, dir }: Bench, name: string, url: string): Promise<Product> {
  const port = await freePort()
  const own = await readFile(join(dirname(glimpse.database), 'glance-api.conf'), 'utf8')
  const file = join(dir, `${name}.conf`)
  await writeFile(
    file,
    `${own.replace(/^connection = .*$/m, `connection = ${url}`)}[DEFAULT]\nbind_port = ${port}\nworkers = 1\n`,
  )
  return startProduct({ command: 'glance-api', args: ['--config-file', file], port, log: join(dir, `${name}.log`) })
}
