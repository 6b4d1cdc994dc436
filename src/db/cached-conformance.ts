import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { describe, it, type TestContext } from 'node:test'
import type { CachedImage } from '../domain/cached-image.ts'
import { hasKind } from '../domain/errors.ts'
import type { ImageId } from '../domain/ids.ts'
import type { CachedRepository, Database } from './database.ts'

export interface CachedHarness {
  readonly name: string
  /** An empty database, which the harness closes after the test. */
  open(t: TestContext): Promise<Database>
  /** What times are cut to, in milliseconds; 1 by default. */
  readonly timeUnitMs?: number
}

const HERE = 'http://10.0.0.1:9292'
const THERE = 'http://10.0.0.2:9292'

const withoutRow = ({ row: _, ...rest }: CachedImage): CachedImage => rest

/** What every implementation of `Database.cached` does. */
export function cachedConformance({ name, open, timeUnitMs = 1 }: CachedHarness): void {
  const newCached = (change: Partial<CachedImage> = {}): CachedImage => ({
    imageId: randomUUID() as ImageId,
    size: 5_000_000_000,
    hits: 0,
    lastAccessed: new Date(Math.floor(Date.parse('2026-01-02T03:04:05.678Z') / timeUnitMs) * timeUnitMs),
    lastModified: new Date('2026-01-01T00:00:00.000Z'),
    checksum: 'd41d8cd98f00b204e9800998ecf8427e',
    ...change,
  })

  describe(`cached images in ${name}`, () => {
    const test = (title: string, body: (cached: CachedRepository) => Promise<void>) =>
      it(title, async (t) => {
        const { cached } = await open(t)
        await cached.addNode(HERE)
        await cached.addNode(THERE)
        await body(cached)
      })

    test('list() has what put() recorded, in that order, of this node alone', async (cached) => {
      const [first, second, other] = [newCached(), newCached({ checksum: null, hits: 7 }), newCached()]
      await cached.put(HERE, first)
      await cached.put(HERE, second)
      await cached.put(THERE, other)
      const listed = await cached.list(HERE)
      assert.deepEqual(listed.map(withoutRow), [first, second])
      assert.ok(listed.every(({ row }) => typeof row === 'number'))
      assert.deepEqual((await cached.list(HERE, second.imageId)).map(withoutRow), [second])
      assert.deepEqual(await cached.list(HERE, other.imageId), [])
      assert.deepEqual(await cached.list('http://nobody'), [])
    })

    test('put() replaces', async (cached) => {
      const image = newCached()
      await cached.put(HERE, image)
      const again = { ...image, size: 1, hits: 3, checksum: null }
      await cached.put(HERE, again)
      assert.deepEqual((await cached.list(HERE)).map(withoutRow), [again])
    })

    test('touch() counts, and records what is not there', async (cached) => {
      const image = newCached({ hits: 1 })
      await cached.touch(HERE, image)
      const later = new Date('2026-03-01T00:00:00.000Z')
      await Promise.all([1, 2, 3].map(() => cached.touch(HERE, { ...image, lastAccessed: later, size: 9 })))
      assert.deepEqual((await cached.list(HERE)).map(withoutRow), [{ ...image, hits: 4, lastAccessed: later }])
    })

    test('remove() takes an image from one node', async (cached) => {
      const image = newCached()
      await cached.put(HERE, image)
      await cached.put(THERE, image)
      assert.deepEqual(await cached.nodes(image.imageId), [HERE, THERE])
      await cached.remove(HERE, image.imageId)
      await cached.remove(HERE, image.imageId)
      await cached.remove('http://nobody', image.imageId)
      assert.deepEqual(await cached.nodes(image.imageId), [THERE])
      assert.deepEqual(await cached.list(HERE), [])
    })

    test('a node is announced once and again, and must be before it has anything', async (cached) => {
      await cached.addNode(HERE)
      const refused = (error: unknown) => hasKind(error, 'not-found')
      await assert.rejects(cached.put('http://nobody', newCached()), refused)
      await assert.rejects(cached.touch('http://nobody', newCached()), refused)
    })
  })
}
