// A process that fills half of a copy and is to be killed then: FOLDER IMAGE.
import { openImageCache } from '../../src/cache/cache.ts'
import { openSqliteDriver } from '../../src/cache/drivers/sqlite.ts'
import { newImage, newStore } from '../../src/cache/fixtures.ts'
import { openLayout } from '../../src/cache/layout.ts'
import { silentLog } from '../../src/log.ts'

const [dir = '', id] = process.argv.slice(2)
const layout = await openLayout(dir)
const driver = await openSqliteDriver(dir, 'cache.db')
const cache = await openImageCache({ dir, layout, driver, maxSize: 1e9, stallMs: 600_000, log: silentLog })
const image = newImage(1_000_000, { id: id as never, data: Buffer.alloc(1_000_000, 'data') })
const store = newStore(image, { held: true, chunk: 500_000 })
void cache.fill(image, store.fetch)
store.allow(500_000)
while ((await layout.part(image.id))?.size !== 500_000) await new Promise((resolve) => setTimeout(resolve, 5))
console.log('half')
