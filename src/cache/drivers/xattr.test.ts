import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { it, type TestContext } from 'node:test'
import { cacheConformance } from '../conformance.ts'
import { download, newFolder, newImage, newStore, openCache, until } from '../fixtures.ts'
import { openXattrDriver } from './xattr.ts'

cacheConformance({ name: 'xattr', open: (_, dir) => openXattrDriver(dir) })

/** As Python's os module sees it, which upstream's library calls too. */
const python = (code: string, ...args: readonly string[]): string =>
  execFileSync('python3', ['-c', `import os,sys\n${code}`, ...args], { encoding: 'utf8' }).trim()

it('attributes are those of upstream', async (t: TestContext) => {
  const dir = await newFolder(t)
  const image = newImage(1000)
  const path = join(dir, image.id)
  await writeFile(path, image.data)
  python(`os.setxattr(sys.argv[1], 'user.hits', b'17')`, path)
  const cache = await openCache(t, dir, { driver: await openXattrDriver(dir) })
  const store = newStore(image)
  assert.deepEqual(await download(cache, image, store), image.data)
  assert.deepEqual(store.reads, [])
  await until(async () => (await cache.list())[0]?.hits === 18, 'the hit')
  assert.equal(python(`print(os.getxattr(sys.argv[1], 'user.hits').decode())`, path), '18')
})

it('a file system without attributes is refused', async () => {
  await assert.rejects(openXattrDriver('/proc/self'))
})
