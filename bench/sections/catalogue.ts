import { analyze, catalogue as catalogueOf, LARGE, SMALL } from '../../test/support/catalogue.ts'
import { asParameters } from '../../test/support/pages.ts'
import { ADMIN, type Bench, type Measured, otherwise, together } from '../bench.ts'
import { imageIds } from '../images.ts'
import { measureRequests } from '../requests.ts'

const OF_LARGE = `large:${LARGE}:member,reader`
const OF_SMALL = `small:${SMALL}:member,reader`

const PAGES: readonly (readonly [what: string, token: string, page: string])[] = [
  ['admin, first page', ADMIN, ''],
  ['tenant of 10 images, first page', OF_SMALL, ''],
  ['tenant of a tenth, first page', OF_LARGE, ''],
  ['tenant of a tenth, by name', OF_LARGE, 'name=name-7'],
  ['tenant of a tenth, by a tag of 50 images', OF_LARGE, 'tag=golden'],
  ['tenant of a tenth, by a property of half', OF_LARGE, 'hw_disk_bus=virtio'],
  ['tenant of a tenth, sorted by size', OF_LARGE, 'sort=size:asc'],
  ['tenant of a tenth, of the older half', OF_LARGE, 'created_at=lt:MIDDLE'],
]

/** Lists of a catalogue of so many images, in two databases of one MariaDB. */
export const catalogue =
  (images: number) =>
  async (bench: Bench): Promise<Measured> =>
    await otherwise(bench, `catalogue-${images}`, { mariadb: true }, async (sides) => {
      await fill(sides, images)
      const results: Measured[] = []
      for (const [what, token, page] of PAGES) {
        const path = `/v2/images?limit=25${page && `&${asParameters(page, images)}`}`
        const title = `${images.toLocaleString('en')} images: ${what}`
        results.push(await measureRequests(sides, title, token, ['get', path], { rounds: 2, seconds: 3 }))
        const same = (await imageIds(sides.glance, path, token)) === (await imageIds(sides.glimpse, path, token))
        if (!same) results.push({ rows: [], notes: [`${title}: the two servers answer different images`] })
      }
      return together(results)
    })

async function fill({ glimpse, mariadb }: Bench, images: number): Promise<void> {
  await mariadb?.('mysql', 'set global innodb_buffer_pool_size = 2 * 1024 * 1024 * 1024')
  await glimpse.stop()
  for (const database of ['glance', 'glimpse'] as const) {
    await mariadb?.(database, catalogueOf('mysql', images).join(';\n'))
    await mariadb?.(database, analyze('mysql'))
  }
  await glimpse.start()
}
