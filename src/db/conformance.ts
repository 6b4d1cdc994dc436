import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { describe, it, type TestContext } from 'node:test'
import fc from 'fast-check'
import { type ErrorKind, hasKind } from '../domain/errors.ts'
import type { AttemptId, ImageId, LocationUri, ProjectId, StoreId, WorkerId } from '../domain/ids.ts'
import {
  type Image,
  type ImageStatus,
  type Location,
  MEMBER_STATUSES,
  type MemberStatus,
  VISIBILITIES,
  type Visibility,
} from '../domain/image.ts'
import { type ImageFilter, type ImageQuery, SORT_KEYS, type SortKey } from '../domain/query.ts'
import type { Claim, Database, NewImage, Scope, Worker } from './database.ts'

export interface DatabaseHarness {
  readonly name: string
  /** An empty database, which the harness closes after the test. */
  open(t: TestContext): Promise<Database>
  /** The same database seen by two processes. */
  openTwice?(t: TestContext): Promise<readonly [Database, Database]>
  /** What times are cut to, in milliseconds; 1 by default. */
  readonly timeUnitMs?: number
  /** Texts are compared by a collation, and not by their bytes. */
  readonly collated?: boolean
  /** Title → reason. */
  readonly skip?: Readonly<Record<string, string>>
}

const project = (name: string) => name as ProjectId
const OWNER = project('owner')
const ADMIN: Scope = { admin: true, project: project('admins') }
const as = (name: string | undefined): Scope => ({
  admin: false,
  project: name === undefined ? undefined : project(name),
})

export const newImage = (change: Partial<NewImage> = {}): NewImage => ({
  id: randomUUID() as ImageId,
  name: 'cirros',
  visibility: 'shared',
  owner: OWNER,
  protected: false,
  hidden: false,
  minRam: 0,
  minDisk: 0,
  diskFormat: null,
  containerFormat: null,
  tags: [],
  properties: new Map(),
  ...change,
})

export const imageQuery = (change: Partial<ImageQuery> = {}): ImageQuery => ({
  filters: [],
  visibility: undefined,
  memberStatus: 'accepted',
  hidden: false,
  sort: [],
  marker: undefined,
  limit: 1000,
  ...change,
})

const location = (uri: string, metadata: Readonly<Record<string, unknown>> = {}): Location => ({
  uri: uri as LocationUri,
  store: 'fast' as StoreId,
  metadata,
})

const claimOf = (imageId: ImageId, worker = 'worker-1'): Claim => ({
  attempt: randomUUID() as AttemptId,
  imageId,
  worker: worker as WorkerId,
  store: 'fast' as StoreId,
})

const workerOf = (id: string): Worker => ({ id: id as WorkerId, node: 'node-1', pid: 4711, startedAt: 123_456 })

const rejectsWith = (promise: Promise<unknown>, kind: ErrorKind) =>
  assert.rejects(promise, (error) => {
    assert.ok(hasKind(error, kind), `expected ${kind}, got ${String(error)}`)
    return true
  })

/** Undefined when the database cannot hold what it was given. */
const orRefused = async <T>(promise: Promise<T>): Promise<T | undefined> => {
  try {
    return await promise
  } catch (error) {
    if (hasKind(error, 'invalid')) return undefined
    throw error
  }
}

const ids = (images: readonly { readonly id: ImageId }[]) => images.map(({ id }) => id)
const sorted = (texts: readonly string[]) => texts.toSorted((a, b) => (a < b ? -1 : 1))

const pagesOf = async (db: Database, query: ImageQuery, scope: Scope): Promise<readonly ImageId[]> => {
  const seen: ImageId[] = []
  for (let marker = query.marker; ; marker = seen.at(-1)) {
    const page = await db.images.list({ ...query, marker }, scope)
    seen.push(...ids(page))
    if (page.length < query.limit) return seen
    assert.ok(seen.length < 10_000, 'the pages do not end')
  }
}

const keyOf = (image: Image, key: SortKey): string | number => {
  switch (key) {
    case 'name':
      return image.name ?? ''
    case 'status':
      return image.status
    case 'container_format':
      return image.containerFormat ?? ''
    case 'disk_format':
      return image.diskFormat ?? ''
    case 'size':
      return image.size ?? 0
    case 'id':
      return image.id
    case 'created_at':
      return image.createdAt.getTime()
    case 'updated_at':
      return image.updatedAt.getTime()
  }
}

const compareKeys = (a: string | number, b: string | number): number =>
  typeof a === 'number' && typeof b === 'number' ? a - b : Buffer.compare(Buffer.from(`${a}`), Buffer.from(`${b}`))

/** The order as the contract has it. */
const inOrder = (images: readonly Image[], sort: ImageQuery['sort']): readonly Image[] => {
  const descending = !(sort.length > 0 && sort.every((by) => !by.descending))
  const order = [...sort, { key: 'created_at', descending }, { key: 'id', descending }] as const
  return images.toSorted((a, b) => {
    for (const { key, descending } of order) {
      const difference = compareKeys(keyOf(a, key), keyOf(b, key))
      if (difference !== 0) return descending ? -difference : difference
    }
    return 0
  })
}

/** What every implementation of `Database` does. */
export function databaseConformance(harness: DatabaseHarness): void {
  const check = (title: string, body: (db: Database) => Promise<void>) =>
    it(title, { skip: harness.skip?.[title] ?? false }, async (t) => body(await harness.open(t)))

  const checkTwo = (title: string, body: (one: Database, other: Database) => Promise<void>) => {
    const skip = harness.skip?.[title] ?? (harness.openTwice ? false : 'one connection only')
    it(title, { skip }, async (t) => {
      if (harness.openTwice) await body(...(await harness.openTwice(t)))
    })
  }

  describe(`${harness.name} database: images`, () => {
    check('insert() gives a queued image without data, and get() gives the same', async (db) => {
      const before = Date.now()
      const given = newImage({
        name: 'debian',
        visibility: 'community',
        protected: true,
        hidden: true,
        minRam: 512,
        minDisk: 10,
        diskFormat: 'qcow2',
        containerFormat: 'bare',
        tags: ['b', 'a', 'b'],
        properties: new Map<string, string | null>([
          ['os_distro', 'debian'],
          ['nothing', null],
        ]),
      })
      const image = await db.images.insert(given)
      assert.deepEqual(image, {
        ...given,
        tags: ['b', 'a'],
        status: 'queued',
        size: null,
        virtualSize: null,
        checksum: null,
        osHashAlgo: null,
        osHashValue: null,
        locations: [],
        createdAt: image.createdAt,
        updatedAt: image.createdAt,
      })
      assert.ok(
        image.createdAt.getTime() >= before - (harness.timeUnitMs ?? 1) + 1 && image.createdAt.getTime() <= Date.now(),
      )
      assert.deepEqual(await db.images.get(given.id, ADMIN), image)
    })

    check('insert() refuses an id that is taken, even by a deleted image', async (db) => {
      const { id } = await db.images.insert(newImage())
      await rejectsWith(db.images.insert(newImage({ id })), 'conflict')
      await db.images.remove(id, ['queued'])
      await rejectsWith(db.images.insert(newImage({ id })), 'conflict')
    })

    check('an insert() that fails leaves nothing behind', async (db) => {
      const taken = await db.images.insert(newImage({ tags: ['first'] }))
      await rejectsWith(db.images.insert(newImage({ id: taken.id, tags: ['second'] })), 'conflict')
      assert.deepEqual(await db.images.get(taken.id, ADMIN), taken)
    })

    check('unknown and deleted images are not-found for every method', async (db) => {
      const { id: deleted } = await db.images.insert(newImage({ tags: ['t'] }))
      await db.images.remove(deleted, ['queued'])
      for (const id of [deleted, randomUUID() as ImageId]) {
        await rejectsWith(db.images.get(id, ADMIN), 'not-found')
        await rejectsWith(db.images.update(id, { name: 'x' }, ['queued', 'deleted']), 'not-found')
        await rejectsWith(db.images.addTag(id, 't', -1), 'not-found')
        await rejectsWith(db.images.removeTag(id, 't'), 'not-found')
        await rejectsWith(db.images.remove(id, ['queued', 'deleted']), 'not-found')
        await rejectsWith(db.images.claim(claimOf(id)), 'not-found')
        await rejectsWith(db.members.add(id, project('m'), -1), 'not-found')
        await rejectsWith(db.members.list(id), 'not-found')
        await rejectsWith(db.members.get(id, project('m')), 'not-found')
        await rejectsWith(db.members.setStatus(id, project('m'), 'accepted'), 'not-found')
        await rejectsWith(db.members.remove(id, project('m')), 'not-found')
        await rejectsWith(db.images.list(imageQuery({ marker: id }), ADMIN), 'not-found')
      }
    })

    check('update() changes what is named, keeps the rest, and moves updatedAt', async (db) => {
      const image = await db.images.insert(newImage({ tags: ['a', 'b'], properties: new Map([['p', '1']]) }))
      const change = {
        name: null,
        status: 'active',
        visibility: 'public',
        owner: project('heir'),
        protected: true,
        hidden: true,
        size: 2 ** 53 - 1,
        virtualSize: 0,
        minRam: 2 ** 31 - 1,
        minDisk: 1,
        diskFormat: 'raw',
        containerFormat: 'ovf',
        checksum: 'c'.repeat(32),
        osHashAlgo: 'sha512',
        osHashValue: 'd'.repeat(128),
      } as const
      const updated = await db.images.update(image.id, change, ['queued'])
      assert.deepEqual(updated, { ...image, ...change, updatedAt: updated.updatedAt })
      assert.ok(updated.updatedAt >= image.updatedAt)
      assert.deepEqual(await db.images.get(image.id, ADMIN), updated)
      assert.deepEqual(await db.images.update(image.id, { size: null }, ['active']), {
        ...updated,
        size: null,
        updatedAt: (await db.images.get(image.id, ADMIN)).updatedAt,
      })
    })

    check('update() from another status is a conflict and changes nothing', async (db) => {
      const image = await db.images.insert(newImage())
      const change = {
        name: 'new',
        tags: ['t'],
        setProperties: new Map([['p', 'v']]),
        addLocations: [location('x://1')],
      }
      await rejectsWith(db.images.update(image.id, change, ['active', 'saving']), 'conflict')
      await rejectsWith(db.images.update(image.id, change, []), 'conflict')
      assert.deepEqual(await db.images.get(image.id, ADMIN), image)
    })

    check('update() sets, removes and brings back properties', async (db) => {
      const { id } = await db.images.insert(
        newImage({
          properties: new Map([
            ['a', '1'],
            ['b', '2'],
          ]),
        }),
      )
      const set = (properties: Readonly<Record<string, string | null>>) => new Map(Object.entries(properties))
      const first = await db.images.update(id, { setProperties: set({ a: '3', c: null }), unsetProperties: ['b'] }, [
        'queued',
      ])
      assert.deepEqual(first.properties, set({ a: '3', c: null }))
      const second = await db.images.update(id, { setProperties: set({ b: '4' }), unsetProperties: ['a', 'none'] }, [
        'queued',
      ])
      assert.deepEqual(second.properties, set({ b: '4', c: null }))
    })

    check('a property that is both unset and set is set', async (db) => {
      const { id } = await db.images.insert(newImage({ properties: new Map([['a', '1']]) }))
      const change = { unsetProperties: ['a'], setProperties: new Map([['a', '2']]) }
      assert.deepEqual((await db.images.update(id, change, ['queued'])).properties, new Map([['a', '2']]))
    })

    check('update() replaces the set of tags', async (db) => {
      const { id } = await db.images.insert(newImage({ tags: ['a', 'b'] }))
      assert.deepEqual(sorted((await db.images.update(id, { tags: ['b', 'c', 'c'] }, ['queued'])).tags), ['b', 'c'])
      assert.deepEqual((await db.images.update(id, { tags: [] }, ['queued'])).tags, [])
      assert.deepEqual((await db.images.update(id, { tags: ['a'] }, ['queued'])).tags, ['a'])
    })

    check('locations come back oldest first with store and metadata', async (db) => {
      const { id } = await db.images.insert(newImage())
      const one = location('file:///z', { weight: 3, nested: { deep: [1, null] } })
      const two = { uri: 'http://a/b' as LocationUri, store: undefined, metadata: {} }
      await db.images.update(id, { addLocations: [one] }, ['queued'])
      const image = await db.images.update(id, { addLocations: [two], status: 'active' }, ['queued'])
      assert.deepEqual(image.locations, [one, two])
      assert.deepEqual((await db.images.list(imageQuery(), as(OWNER)))[0]?.locations, [one, two])
    })

    check('nobody but an admin sees the locations of a deactivated image', async (db) => {
      const { id } = await db.images.insert(newImage())
      await db.images.update(id, { addLocations: [location('x://1')], status: 'active' }, ['queued'])
      await db.images.update(id, { status: 'deactivated' }, ['active'])
      assert.equal((await db.images.get(id, ADMIN)).locations.length, 1)
      assert.equal((await db.images.get(id, as(OWNER))).locations.length, 0)
      assert.equal((await db.images.list(imageQuery(), as(OWNER)))[0]?.locations.length, 0)
    })

    check('a thousand properties come back', async (db) => {
      const properties = new Map(Array.from({ length: 1000 }, (_, n) => [`property ${n}`, `value ${n}`]))
      const { id } = await db.images.insert(newImage({ properties }))
      assert.deepEqual((await db.images.get(id, ADMIN)).properties, properties)
      assert.deepEqual((await db.images.list(imageQuery(), ADMIN))[0]?.properties, properties)
    })

    check('names that mean something to JavaScript are names like others', async (db) => {
      const names = ['__proto__', 'constructor', 'toString', 'hasOwnProperty', '']
      const properties = new Map(names.map((name) => [name, `value of ${name}`]))
      const { id } = await db.images.insert(newImage({ properties, tags: names }))
      const metadata = JSON.parse('{"__proto__": {"polluted": true}, "constructor": 1}') as Record<string, unknown>
      await db.images.update(id, { addLocations: [location('x://1', metadata)] }, ['queued'])
      const image = await db.images.get(id, ADMIN)
      assert.deepEqual(image.properties, properties)
      assert.deepEqual(sorted(image.tags), sorted(names))
      assert.equal(JSON.stringify(image.locations[0]?.metadata), JSON.stringify(metadata))
      const filters: ImageFilter[] = [{ by: 'property', name: '__proto__', value: 'value of __proto__' }]
      assert.deepEqual(ids(await db.images.list(imageQuery({ filters }), ADMIN)), [id])
    })

    check(
      'names and tags that differ by case alone are kept apart, or refused: none takes the place of another',
      async (db) => {
        const two = new Map([
          ['Case', 'a'],
          ['case', 'b'],
        ])
        const made = await orRefused(db.images.insert(newImage({ properties: two })))
        if (made !== undefined) assert.deepEqual(made.properties, two)
        const { id } = await db.images.insert(newImage({ properties: new Map([['Case', 'a']]), tags: ['Red', 'red'] }))
        const change = { setProperties: new Map([['case', 'b']]) }
        const changed = await orRefused(db.images.update(id, change, ['queued']))
        assert.equal((await db.images.get(id, ADMIN)).properties.get('Case'), 'a')
        assert.equal(changed === undefined, made === undefined)
        // What is gone does not stand in the way.
        const renamed = await db.images.update(id, { ...change, unsetProperties: ['Case'] }, ['queued'])
        assert.deepEqual(renamed.properties, new Map([['case', 'b']]))
        assert.deepEqual(renamed.tags, ['Red', 'red'])
        assert.deepEqual((await db.images.update(id, { tags: ['Red', 'RED'] }, ['queued'])).tags, ['Red', 'RED'])
        await db.images.removeTag(id, 'RED')
        assert.deepEqual((await db.images.get(id, ADMIN)).tags, ['Red'])
        await rejectsWith(db.images.removeTag(id, 'red'), 'not-found')
      },
    )

    check('4-byte characters and combining marks survive, and letters differ by case', async (db) => {
      const text = '𝒢lance 🖼 e\u0301 é Ä'
      const { id } = await db.images.insert(
        newImage({
          name: text,
          tags: [text, 'Tag', 'tag'],
          properties: new Map([
            [text, text],
            ['Key', '1'],
            ['key', '2'],
          ]),
        }),
      )
      const image = await db.images.get(id, ADMIN)
      assert.equal(image.name, text)
      assert.deepEqual(image.tags, [text, 'Tag', 'tag'])
      assert.deepEqual(
        image.properties,
        new Map([
          [text, text],
          ['Key', '1'],
          ['key', '2'],
        ]),
      )
      const find = (filter: ImageFilter) => db.images.list(imageQuery({ filters: [filter] }), ADMIN)
      assert.equal((await find({ by: 'column', column: 'name', values: [text] })).length, 1)
      assert.equal((await find({ by: 'column', column: 'name', values: [text.toLowerCase()] })).length, 0)
      assert.equal((await find({ by: 'tag', tag: 'Tag' })).length, 1)
      assert.equal((await find({ by: 'tag', tag: 'TAG' })).length, 0)
      await db.images.removeTag(id, 'Tag')
      assert.deepEqual((await db.images.get(id, ADMIN)).tags, [text, 'tag'])
    })

    check('text that no client may send does no harm', async (db) => {
      for (const text of ['a\0b', '\ud800', 'x'.repeat(100_000)]) {
        const draft = newImage({ name: text, tags: [text], properties: new Map([[text, text]]) })
        const kept = await orRefused(db.images.insert(draft))
        if (kept === undefined) await rejectsWith(db.images.get(draft.id, ADMIN), 'not-found')
        else await db.images.get(draft.id, ADMIN)
        const sort = [{ key: 'name', descending: true }] as const
        const marker = kept?.id
        const named: ImageFilter = { by: 'column', column: 'name', values: [text, 'y'] }
        await orRefused(db.images.list(imageQuery({ sort, marker, filters: [named] }), ADMIN))
        const tagged: ImageFilter = { by: 'tag', tag: text }
        const valued: ImageFilter = { by: 'property', name: text, value: text }
        await orRefused(db.images.list(imageQuery({ filters: [tagged, valued] }), ADMIN))
      }
    })

    check('times are kept to the millisecond', async (db) => {
      const { id, createdAt } = await db.images.insert(newImage())
      const find = (comparison: 'eq' | 'gt' | 'lt', value: Date) =>
        db.images.list(imageQuery({ filters: [{ by: 'time', column: 'created_at', comparison, value }] }), ADMIN)
      assert.deepEqual(ids(await find('eq', createdAt)), [id])
      assert.deepEqual(ids(await find('gt', new Date(createdAt.getTime() - 1))), [id])
      assert.deepEqual(ids(await find('gt', createdAt)), [])
      assert.deepEqual(ids(await find('lt', new Date(createdAt.getTime() + 1))), [id])
    })
  })

  describe(`${harness.name} database: tags`, () => {
    check('addTag() adds once, removeTag() removes, and a removed tag can come back', async (db) => {
      const { id } = await db.images.insert(newImage())
      await db.images.addTag(id, 'a', -1)
      await db.images.addTag(id, 'a', -1)
      await db.images.addTag(id, 'b', -1)
      assert.deepEqual((await db.images.get(id, ADMIN)).tags, ['a', 'b'])
      await db.images.removeTag(id, 'a')
      await rejectsWith(db.images.removeTag(id, 'a'), 'not-found')
      assert.deepEqual((await db.images.get(id, ADMIN)).tags, ['b'])
      await db.images.addTag(id, 'a', -1)
      assert.deepEqual(sorted((await db.images.get(id, ADMIN)).tags), ['a', 'b'])
    })

    check('addTag() keeps to the limit, which a tag that is there does not exceed', async (db) => {
      const { id } = await db.images.insert(newImage({ tags: ['a'] }))
      await db.images.addTag(id, 'b', 2)
      await rejectsWith(db.images.addTag(id, 'c', 2), 'too-large')
      await db.images.addTag(id, 'b', 2)
      await db.images.addTag(id, 'b', 0)
      assert.deepEqual((await db.images.get(id, ADMIN)).tags, ['a', 'b'])
      await db.images.removeTag(id, 'a')
      await db.images.addTag(id, 'c', 2)
    })

    checkTwo('two processes that add tags at once do not exceed the limit', async (one, other) => {
      const { id } = await one.images.insert(newImage())
      const adds = Array.from({ length: 12 }, (_, n) => (n % 2 ? one : other).images.addTag(id, `t${n}`, 5))
      const results = await Promise.allSettled(adds)
      assert.equal(results.filter(({ status }) => status === 'fulfilled').length, 5)
      assert.equal((await one.images.get(id, ADMIN)).tags.length, 5)
    })
  })

  describe(`${harness.name} database: removal`, () => {
    check('remove() returns the image as it was, and takes it out of every list', async (db) => {
      const { id } = await db.images.insert(newImage({ tags: ['t'], properties: new Map([['p', 'v']]) }))
      await db.members.add(id, project('member'), -1)
      await db.members.setStatus(id, project('member'), 'accepted')
      const image = await db.images.update(id, { status: 'active', addLocations: [location('x://1')] }, ['queued'])
      await rejectsWith(db.images.remove(id, ['queued']), 'conflict')
      assert.deepEqual(await db.images.remove(id, ['queued', 'active']), image)
      const filters: (readonly ImageFilter[])[] = [
        [],
        [{ by: 'tag', tag: 't' }],
        [{ by: 'property', name: 'p', value: 'v' }],
      ]
      for (const list of filters)
        for (const scope of [ADMIN, as(OWNER), as('member')])
          assert.deepEqual(await db.images.list(imageQuery({ filters: list, visibility: 'all' }), scope), [])
    })

    check('locations of a deleted image are undropped until dropLocation()', async (db) => {
      const uris = ['x://1', 'x://2', 'x://3']
      const { id } = await db.images.insert(newImage())
      await db.images.update(id, { status: 'active', addLocations: uris.map((uri) => location(uri)) }, ['queued'])
      assert.deepEqual(await db.images.undropped(10), [])
      await db.images.dropLocation(id, 'x://1' as LocationUri)
      assert.equal((await db.images.get(id, ADMIN)).locations.length, 3)

      await db.images.remove(id, ['active'])
      assert.deepEqual(
        await db.images.undropped(10),
        uris.map((uri) => ({ id, location: location(uri) })),
      )
      assert.equal((await db.images.undropped(2)).length, 2)
      await db.images.dropLocation(id, 'x://2' as LocationUri)
      await db.images.dropLocation(id, 'x://2' as LocationUri)
      const left = (await db.images.undropped(10)).map((each) => each.location.uri)
      assert.deepEqual(left, ['x://1', 'x://3'])
    })

    check('what is deleted and kept for a while is gone, and nobody is to erase it', async (db) => {
      const [kept, empty] = [await db.images.insert(newImage()), await db.images.insert(newImage())]
      await db.images.update(kept.id, { status: 'active', addLocations: [location('x://1')] }, ['queued'])
      await db.images.remove(kept.id, ['active'], true)
      await db.images.remove(empty.id, ['queued'], true)
      assert.deepEqual(await db.images.undropped(10), [])
      for (const { id } of [kept, empty]) await rejectsWith(db.images.get(id, ADMIN), 'not-found')
      assert.deepEqual(await db.images.list(imageQuery({ visibility: 'all' }), ADMIN), [])
    })
  })

  describe(`${harness.name} database: locations`, () => {
    const withLocations = async (db: Database, ...uris: readonly string[]) => {
      const { id } = await db.images.insert(newImage())
      const addLocations = uris.map((uri) => location(uri))
      return db.images.update(id, { status: 'active', size: 5, addLocations }, ['queued'])
    }

    check('a new list adds, changes the metadata, and lets go', async (db) => {
      const { id, locations: from } = await withLocations(db, 'x://1', 'x://2')
      const to = [location('x://2', { new: true }), location('x://3')]
      assert.deepEqual((await db.images.update(id, { locations: { from, to } }, ['active'])).locations, to)
      assert.deepEqual(await db.images.undropped(10), [{ id, location: location('x://1') }])
      await db.images.dropLocation(id, 'x://1' as LocationUri)
      assert.deepEqual(await db.images.undropped(10), [])
      const again = [...to, location('x://1')]
      assert.deepEqual(
        (await db.images.update(id, { locations: { from: to, to: again } }, ['active'])).locations,
        again,
      )
    })

    check('a list that is not the present one any more is a conflict', async (db) => {
      const { id, locations: from } = await withLocations(db, 'x://1', 'x://2', 'x://3')
      for (const stale of [from.slice(1), [...from, location('x://4')], [location('x://4'), ...from.slice(1)]])
        await rejectsWith(db.images.update(id, { locations: { from: stale, to: [] } }, ['active']), 'conflict')
      assert.deepEqual((await db.images.get(id, ADMIN)).locations, from)
    })

    checkTwo('of two that let go of different locations at once exactly one wins', async (one, other) => {
      const { id, locations: from } = await withLocations(one, 'x://1', 'x://2')
      const results = await Promise.allSettled(
        from.map((kept, n) =>
          (n === 0 ? one : other).images.update(id, { locations: { from, to: [kept] } }, ['active']),
        ),
      )
      assert.equal(results.filter(({ status }) => status === 'fulfilled').length, 1)
      assert.equal((await one.images.get(id, ADMIN)).locations.length, 1)
    })

    check('a location that was let go can be restored, unless its image is gone', async (db) => {
      const { id, locations: from } = await withLocations(db, 'x://1', 'x://2')
      await db.images.update(id, { locations: { from, to: from.slice(1) } }, ['active'])
      await db.images.restoreLocation(id, 'x://1' as LocationUri)
      assert.deepEqual((await db.images.get(id, ADMIN)).locations, from)
      assert.deepEqual(await db.images.undropped(10), [])
      await db.images.remove(id, ['active'])
      await rejectsWith(db.images.restoreLocation(id, 'x://1' as LocationUri), 'not-found')
      assert.equal((await db.images.undropped(10)).length, 2)
    })
  })

  describe(`${harness.name} database: claims`, () => {
    check('claim() begins and settle() ends the writing of data', async (db) => {
      const { id } = await db.images.insert(newImage())
      const claim = claimOf(id)
      assert.equal((await db.images.claim(claim)).status, 'saving')
      assert.deepEqual(await db.workers.claims(claim.worker), [claim])
      const image = await db.images.settle(claim, { status: 'active', size: 7, addLocations: [location('x://1')] })
      assert.deepEqual([image.status, image.size, image.locations], ['active', 7, [location('x://1')]])
      assert.deepEqual(await db.workers.claims(claim.worker), [])
      await rejectsWith(db.images.settle(claim, { status: 'queued' }), 'conflict')
      assert.equal((await db.images.get(id, ADMIN)).status, 'active')
    })

    check('only a queued image can be claimed', async (db) => {
      for (const status of ['saving', 'active', 'importing', 'deactivated'] as const) {
        const { id } = await db.images.insert(newImage())
        await db.images.update(id, { status }, ['queued'])
        await rejectsWith(db.images.claim(claimOf(id)), 'conflict')
      }
      assert.deepEqual(await db.workers.claims('worker-1' as WorkerId), [])
    })

    check('a failed attempt is settled back to queued and can be made again', async (db) => {
      const { id } = await db.images.insert(newImage())
      const claim = claimOf(id)
      await db.images.claim(claim)
      assert.equal((await db.images.settle(claim, { status: 'queued' })).status, 'queued')
      await db.images.claim(claimOf(id))
    })

    check('of many claims at once exactly one wins', async (db) => {
      const { id } = await db.images.insert(newImage())
      const results = await Promise.allSettled(Array.from({ length: 8 }, () => db.images.claim(claimOf(id))))
      assert.equal(results.filter(({ status }) => status === 'fulfilled').length, 1)
      for (const result of results) assert.ok(result.status === 'fulfilled' || hasKind(result.reason, 'conflict'))
      assert.equal((await db.workers.claims('worker-1' as WorkerId)).length, 1)
    })

    checkTwo('of many claims of two processes at once exactly one wins', async (one, other) => {
      for (let round = 0; round < 5; round++) {
        const { id } = await one.images.insert(newImage())
        const results = await Promise.allSettled(
          Array.from({ length: 8 }, (_, n) => (n % 2 ? one : other).images.claim(claimOf(id, `worker-${round}`))),
        )
        assert.equal(results.filter(({ status }) => status === 'fulfilled').length, 1)
        assert.equal((await other.workers.claims(`worker-${round}` as WorkerId)).length, 1)
      }
    })

    checkTwo('of many changes from one status exactly one wins', async (one, other) => {
      const { id } = await one.images.insert(newImage())
      const changes = Array.from({ length: 8 }, (_, n) =>
        (n % 2 ? one : other).images.update(id, { status: 'active', name: `winner ${n}` }, ['queued']),
      )
      const results = await Promise.allSettled(changes)
      const won = results.flatMap((result) => (result.status === 'fulfilled' ? [result.value] : []))
      assert.equal(won.length, 1)
      assert.equal((await other.images.get(id, ADMIN)).name, won[0]?.name)
    })

    check('settle() of a deleted image is not-found, changes nothing, and forgets the claim', async (db) => {
      const { id } = await db.images.insert(newImage())
      const claim = claimOf(id)
      await db.images.claim(claim)
      await db.images.remove(id, ['saving'])
      assert.deepEqual(await db.workers.claims(claim.worker), [claim])
      await rejectsWith(db.images.settle(claim, { status: 'active', addLocations: [location('x://1')] }), 'not-found')
      assert.deepEqual(await db.workers.claims(claim.worker), [])
      assert.deepEqual(await db.images.undropped(10), [])
    })

    check('usage() counts the copies of what an owner has, and nothing that is gone', async (db) => {
      const store = async (size: number, uris: readonly string[], change: Parameters<typeof newImage>[0] = {}) => {
        const { id } = await db.images.insert(newImage(change))
        const addLocations = uris.map((uri) => location(uri))
        await db.images.update(id, { status: 'active', size, addLocations }, ['queued'])
        return id
      }
      const own = await store(10, ['x://1', 'x://2'])
      const other = await store(100, ['x://3'])
      await db.images.update(await store(1000, ['x://4']), { status: 'deactivated' }, ['active'])
      await store(7, ['x://5'], { owner: 'somebody' as ProjectId })
      await store(8, ['x://6'], { owner: null })
      await store(10_000, [])
      await db.images.remove(await store(100_000, ['x://7']), ['active'])
      const none = randomUUID() as ImageId
      assert.equal(await db.images.usage(OWNER, none), 1120)
      assert.equal(await db.images.usage(OWNER, own), 1100)
      assert.equal(await db.images.usage(OWNER, other), 1020)
      assert.equal(await db.images.usage(null, none), 8)
      assert.equal(await db.images.usage('nobody' as ProjectId, none), 0)
    })

    check('settle() above the limit changes nothing and keeps the claim', async (db) => {
      const { id } = await db.images.insert(newImage())
      const claim = claimOf(id)
      await db.images.claim(claim)
      const change = { status: 'active', size: 11, addLocations: [location('x://1')] } as const
      await rejectsWith(db.images.settle(claim, { ...change, storageLimit: 10 }), 'too-large')
      const image = await db.images.get(id, ADMIN)
      assert.deepEqual([image.status, image.size, image.locations], ['saving', null, []])
      assert.equal((await db.images.settle(claim, { ...change, storageLimit: 11 })).size, 11)
    })

    check('insert() and claim() refuse what would be too many of an owner, and change nothing', async (db) => {
      const first = await db.images.insert(newImage(), { countLimit: 2 })
      const second = await db.images.insert(newImage(), { countLimit: 2 })
      const third = newImage()
      await rejectsWith(db.images.insert(third, { countLimit: 2 }), 'too-large')
      await rejectsWith(db.images.get(third.id, ADMIN), 'not-found')
      await db.images.insert(newImage({ owner: 'somebody' as ProjectId }), { countLimit: 1 })
      await db.images.insert(newImage({ owner: null }), { countLimit: 1 })
      await rejectsWith(db.images.insert(newImage({ owner: null }), { countLimit: 1 }), 'too-large')
      await db.images.claim(claimOf(first.id), { uploadingLimit: 1 })
      const claim = claimOf(second.id)
      await rejectsWith(db.images.claim(claim, { uploadingLimit: 1 }), 'too-large')
      assert.equal((await db.images.get(second.id, ADMIN)).status, 'queued')
      await db.images.remove(first.id, ['saving'])
      await db.images.insert(third, { countLimit: 2 })
      await db.images.claim(claim, { uploadingLimit: 1 })
    })

    check('ownerUsage() counts data in stores, data on its way, and images', async (db) => {
      const add = async (change: Parameters<typeof db.images.update>[1]) => {
        const { id } = await db.images.insert(newImage())
        await db.images.update(id, change, ['queued'])
        return id
      }
      const copied = new Map([['os_glance_importing_to_stores', 'fast,slow']])
      await add({})
      await add({ status: 'saving' })
      const staged = await add({ status: 'uploading', size: 10 })
      await add({ status: 'importing', size: 100, setProperties: copied })
      await add({ status: 'active', size: 1000, addLocations: [location('x://1')], setProperties: copied })
      const done = new Map([['os_glance_importing_to_stores', '']])
      await add({
        status: 'active',
        size: 7,
        addLocations: [location('x://2'), location('x://3')],
        setProperties: done,
      })
      await db.images.remove(await add({ status: 'importing', size: 5, setProperties: copied }), ['importing'])
      assert.deepEqual(await db.images.ownerUsage(OWNER), { storage: 1014, staging: 1110, count: 6, uploading: 4 })
      const nothing = { storage: 0, staging: 0, count: 0, uploading: 0 }
      assert.deepEqual(await db.images.ownerUsage(null), nothing)
      const grow = (stagingLimit: number) => db.images.update(staged, { size: 20, stagingLimit }, ['uploading'])
      await rejectsWith(grow(1119), 'too-large')
      assert.equal((await grow(1120)).size, 20)
    })

    checkTwo('images made and uploads begun at once do not exceed the limits together', async (one, other) => {
      const of = (n: number) => (n % 2 ? one : other).images
      const made = await Promise.allSettled(
        Array.from({ length: 10 }, (_, n) => of(n).insert(newImage(), { countLimit: 6 })),
      )
      const images = made.flatMap((result) => (result.status === 'fulfilled' ? [result.value] : []))
      assert.equal(images.length, 6)
      const begun = await Promise.allSettled(images.map(({ id }, n) => of(n).claim(claimOf(id), { uploadingLimit: 2 })))
      assert.equal(begun.filter(({ status }) => status === 'fulfilled').length, 2)
      for (const result of [...made, ...begun])
        assert.ok(result.status === 'fulfilled' || hasKind(result.reason, 'too-large'))
    })

    checkTwo('uploads that end at once do not exceed the limit together', async (one, other) => {
      const claims = await Promise.all(
        Array.from({ length: 8 }, async () => {
          const claim = claimOf((await one.images.insert(newImage())).id)
          await one.images.claim(claim)
          return claim
        }),
      )
      const results = await Promise.allSettled(
        claims.map((claim, n) =>
          (n % 2 ? one : other).images.settle(claim, {
            status: 'active',
            size: 10,
            addLocations: [location(`x://${n}`)],
            storageLimit: 35,
          }),
        ),
      )
      assert.equal(results.filter(({ status }) => status === 'fulfilled').length, 3)
      for (const result of results) assert.ok(result.status === 'fulfilled' || hasKind(result.reason, 'too-large'))
      assert.equal(await one.images.usage(OWNER, randomUUID() as ImageId), 30)
    })

    check('a claim is taken over once, and its first holder can no longer settle it', async (db) => {
      const { id } = await db.images.insert(newImage())
      const claim = claimOf(id)
      await db.images.claim(claim)
      const heirs = ['heir-1', 'heir-2', 'heir-3'] as WorkerId[]
      const taken = await Promise.all(heirs.map((heir) => db.workers.takeOver(claim, heir)))
      assert.equal(taken.filter(Boolean).length, 1)
      await rejectsWith(db.images.settle(claim, { status: 'active' }), 'conflict')
      assert.equal((await db.images.get(id, ADMIN)).status, 'saving')

      const heir = heirs[taken.indexOf(true)] as WorkerId
      assert.deepEqual(await db.workers.claims(heir), [{ ...claim, worker: heir }])
      assert.equal((await db.images.settle({ ...claim, worker: heir }, { status: 'queued' })).status, 'queued')
      assert.equal(await db.workers.takeOver({ ...claim, worker: heir }, 'late' as WorkerId), false)
    })
  })

  describe(`${harness.name} database: workers`, () => {
    check('a lease runs by the clock of the database and can be renewed', async (db) => {
      const [alive, dead] = [workerOf('alive'), workerOf('dead')]
      await db.workers.renew(alive, 60_000)
      await db.workers.renew(dead, 0)
      const byId = async () =>
        new Map((await db.workers.list()).map(({ worker, expired }) => [worker.id, { worker, expired }]))
      assert.deepEqual((await byId()).get(alive.id), { worker: alive, expired: false })
      assert.deepEqual((await byId()).get(dead.id), { worker: dead, expired: true })
      await db.workers.renew({ ...dead, pid: 4712 }, 60_000)
      assert.deepEqual((await byId()).get(dead.id), { worker: { ...dead, pid: 4712 }, expired: false })
      assert.equal((await db.workers.list()).length, 2)
    })

    check('a worker is forgotten only when it has no claims', async (db) => {
      const worker = workerOf('worker-1')
      await db.workers.renew(worker, 0)
      const { id } = await db.images.insert(newImage())
      const claim = claimOf(id, worker.id)
      await db.images.claim(claim)
      await db.workers.remove(worker.id)
      assert.equal((await db.workers.list()).length, 1)
      await db.images.settle(claim, { status: 'queued' })
      await db.workers.remove(worker.id)
      await db.workers.remove(worker.id)
      assert.deepEqual(await db.workers.list(), [])
    })
  })

  describe(`${harness.name} database: members`, () => {
    check('a member is added as pending, found, changed and removed', async (db) => {
      const { id } = await db.images.insert(newImage())
      const added = await db.members.add(id, project('m'), -1)
      assert.deepEqual([added.imageId, added.member, added.status], [id, 'm', 'pending'])
      assert.deepEqual(await db.members.get(id, project('m')), added)
      await rejectsWith(db.members.add(id, project('m'), -1), 'conflict')
      const accepted = await db.members.setStatus(id, project('m'), 'accepted')
      assert.equal(accepted.status, 'accepted')
      assert.deepEqual(accepted.createdAt, added.createdAt)
      assert.deepEqual(await db.members.list(id), [accepted])
      await db.members.remove(id, project('m'))
      await rejectsWith(db.members.remove(id, project('m')), 'not-found')
      await rejectsWith(db.members.get(id, project('m')), 'not-found')
      await rejectsWith(db.members.setStatus(id, project('m'), 'accepted'), 'not-found')
      assert.deepEqual(await db.members.list(id), [])
    })

    check('a removed member that is added again is pending, as often as one likes', async (db) => {
      const { id } = await db.images.insert(newImage())
      for (let round = 0; round < 3; round++) {
        assert.equal((await db.members.add(id, project('m'), -1)).status, 'pending')
        await db.members.setStatus(id, project('m'), 'accepted')
        assert.equal((await db.images.list(imageQuery(), as('m'))).length, 1)
        await db.members.remove(id, project('m'))
        assert.equal((await db.images.list(imageQuery(), as('m'))).length, 0)
      }
    })

    check('members are listed in order of creation and kept to the limit', async (db) => {
      const { id } = await db.images.insert(newImage())
      for (const name of ['c', 'a', 'b']) await db.members.add(id, project(name), 3)
      assert.deepEqual(
        (await db.members.list(id)).map(({ member }) => member),
        ['c', 'a', 'b'],
      )
      await rejectsWith(db.members.add(id, project('d'), 3), 'too-large')
      await rejectsWith(db.members.add(id, project('a'), 3), 'conflict')
      await db.members.remove(id, project('a'))
      await db.members.add(id, project('d'), 3)
    })

    checkTwo('two processes that add one member at once add it once', async (one, other) => {
      const { id } = await one.images.insert(newImage())
      const adds = [one, other, one, other].map((db) => db.members.add(id, project('m'), -1))
      const results = await Promise.allSettled(adds)
      assert.equal(results.filter(({ status }) => status === 'fulfilled').length, 1)
      assert.equal((await one.members.list(id)).length, 1)
    })
  })

  describe(`${harness.name} database: who sees what`, () => {
    const viewers = ['owner', 'accepted', 'pending', 'rejected', 'stranger', undefined, 'admin'] as const
    type Viewer = (typeof viewers)[number]
    const scopeOf = (viewer: Viewer): Scope => (viewer === 'admin' ? ADMIN : as(viewer === 'owner' ? OWNER : viewer))
    const isMember = (viewer: Viewer): viewer is MemberStatus => MEMBER_STATUSES.some((status) => status === viewer)

    /** One image of each visibility, with a member of each status, all with the tag `t`; also foreign to everybody. */
    const populate = async (db: Database) => {
      const images = new Map<ImageId, { visibility: Visibility; owner: string; hidden: boolean }>()
      for (const visibility of VISIBILITIES)
        for (const owner of [OWNER, project('somebody else')])
          for (const hidden of [false, true]) {
            const { id } = await db.images.insert(newImage({ visibility, owner, hidden, tags: ['t'] }))
            images.set(id, { visibility, owner, hidden })
            if (owner !== OWNER) continue
            for (const status of MEMBER_STATUSES) {
              await db.members.add(id, project(status), -1)
              await db.members.setStatus(id, project(status), status)
            }
          }
      return images
    }

    check(
      'get() shows an image to its owner, any member of a shared one, and everybody if it is public',
      async (db) => {
        for (const [id, { visibility, owner }] of await populate(db))
          for (const viewer of viewers) {
            const open = visibility === 'public' || visibility === 'community' || viewer === 'admin'
            const close = owner === OWNER && (viewer === 'owner' || (visibility === 'shared' && isMember(viewer)))
            const shown = await db.images.get(id, scopeOf(viewer)).then(
              () => true,
              (error: unknown) => {
                assert.ok(hasKind(error, 'not-found'))
                return false
              },
            )
            assert.equal(shown, open || close, `${viewer} and the ${visibility} image of ${owner}`)
          }
      },
    )

    check(
      'list() has what the caller owns, was given and accepted, or is public; community images when asked',
      async (db) => {
        const images = await populate(db)
        for (const viewer of viewers)
          for (const wanted of [undefined, 'all', ...VISIBILITIES] as const)
            for (const memberStatus of [...MEMBER_STATUSES, 'all'] as const)
              for (const hidden of [false, true]) {
                const expected = [...images].flatMap(([id, image]) => {
                  const own = viewer === 'owner' && image.owner === OWNER
                  const member =
                    isMember(viewer) &&
                    image.owner === OWNER &&
                    image.visibility === 'shared' &&
                    (memberStatus === 'all' || memberStatus === viewer)
                  const reached =
                    wanted === undefined
                      ? own ||
                        member ||
                        image.visibility === 'public' ||
                        (viewer === 'admin' && image.visibility !== 'community')
                      : own ||
                        member ||
                        viewer === 'admin' ||
                        image.visibility === 'public' ||
                        image.visibility === 'community'
                  const asked = wanted === undefined || wanted === 'all' || wanted === image.visibility
                  return reached && asked && image.hidden === hidden ? [id] : []
                })
                for (const filters of [[], [{ by: 'tag', tag: 't' }]] as const) {
                  const query = imageQuery({ visibility: wanted, memberStatus, hidden, filters })
                  const listed = ids(await db.images.list(query, scopeOf(viewer)))
                  const words = `${viewer}, ${wanted}, ${memberStatus}, hidden ${hidden}, ${filters.length} filters`
                  assert.equal(new Set(listed).size, listed.length, words)
                  assert.deepEqual(sorted(listed), sorted(expected), words)
                }
              }
      },
    )

    check('an image that nobody owns is shown to everybody, and listed as its visibility says', async (db) => {
      const { id } = await db.images.insert(newImage({ owner: null, visibility: 'private' }))
      assert.equal((await db.images.get(id, as('anyone'))).id, id)
      assert.equal((await db.images.get(id, as(undefined))).id, id)
      assert.deepEqual(await db.images.list(imageQuery(), as('anyone')), [])
      assert.deepEqual(ids(await db.images.list(imageQuery(), ADMIN)), [id])
    })

    check('an owner who is also a member has the image once', async (db) => {
      const { id } = await db.images.insert(newImage())
      await db.members.add(id, OWNER, -1)
      await db.members.setStatus(id, OWNER, 'accepted')
      assert.deepEqual(ids(await db.images.list(imageQuery({ limit: 2 }), as(OWNER))), [id])
    })

    check('memberships of an image that is shared no more are kept but show nothing', async (db) => {
      const { id } = await db.images.insert(newImage())
      await db.members.add(id, project('m'), -1)
      await db.members.setStatus(id, project('m'), 'accepted')
      await db.images.update(id, { visibility: 'private' }, ['queued'])
      assert.deepEqual(await db.images.list(imageQuery({ visibility: 'all' }), as('m')), [])
      await rejectsWith(db.images.get(id, as('m')), 'not-found')
      assert.equal((await db.members.list(id)).length, 1)
      await db.images.update(id, { visibility: 'shared' }, ['queued'])
      assert.deepEqual(ids(await db.images.list(imageQuery(), as('m'))), [id])
    })

    check('killed images are never listed', async (db) => {
      const { id } = await db.images.insert(newImage({ tags: ['t'] }))
      await db.images.update(id, { status: 'killed' }, ['queued'])
      for (const filter of [
        undefined,
        { by: 'tag', tag: 't' },
        { by: 'column', column: 'status', values: ['killed'] },
      ] as const)
        assert.deepEqual(await db.images.list(imageQuery({ filters: filter ? [filter] : [] }), ADMIN), [])
      assert.equal((await db.images.get(id, ADMIN)).status, 'killed')
    })

    check('a marker that the caller may not see is forbidden', async (db) => {
      const { id } = await db.images.insert(newImage({ visibility: 'private' }))
      await rejectsWith(db.images.list(imageQuery({ marker: id }), as('stranger')), 'forbidden')
      await rejectsWith(db.images.list(imageQuery({ marker: id, limit: 0 }), as(undefined)), 'forbidden')
      assert.deepEqual(await db.images.list(imageQuery({ marker: id }), as(OWNER)), [])
    })
  })

  describe(`${harness.name} database: pages and filters`, () => {
    const plain = [null, '', 'a', 'z z', '0']
    const names = harness.collated ? plain : [...plain, 'A', 'é', '\u{fffd}', '𝒳']
    const anImage = fc.record({
      name: fc.constantFrom(...names),
      size: fc.constantFrom(null, 0, 1, 2 ** 40),
      status: fc.constantFrom<ImageStatus>('queued', 'active', 'saving'),
      diskFormat: fc.constantFrom(null, 'raw', 'qcow2'),
      containerFormat: fc.constantFrom(null, '', 'bare'),
      visibility: fc.constantFrom(...VISIBILITIES),
      mine: fc.constantFrom('own', 'member', 'foreign'),
      tagged: fc.boolean(),
    })
    const aSort = fc.uniqueArray(fc.record({ key: fc.constantFrom(...SORT_KEYS), descending: fc.boolean() }), {
      maxLength: 3,
      selector: ({ key }) => key,
    })

    check(
      'pages put together are the whole list, in order, under every sort key with duplicates and nulls',
      async (db) => {
        let round = 0
        const holds = fc.asyncProperty(
          fc.array(anImage, { minLength: 1, maxLength: 12 }),
          fc.array(aSort, { minLength: 4, maxLength: 4 }),
          fc.integer({ min: 1, max: 5 }),
          async (images, sorts, limit) => {
            const me = `tenant ${round++}`
            for (const { size, status, mine, tagged, ...image } of images) {
              const owner = project(mine === 'own' ? me : 'another')
              const { id } = await db.images.insert(newImage({ ...image, owner, tags: tagged ? ['t'] : [] }))
              await db.images.update(id, { size, status }, ['queued'])
              if (mine !== 'member') continue
              await db.members.add(id, project(me), -1)
              await db.members.setStatus(id, project(me), 'accepted')
            }
            const onlyTagged: readonly ImageFilter[] = [{ by: 'tag', tag: 't' }]
            for (const sort of sorts)
              for (const filters of [[], onlyTagged]) {
                const query = imageQuery({ sort, filters, visibility: 'all' })
                const whole = await db.images.list(query, as(me))
                assert.deepEqual(ids(whole), ids(inOrder(whole, sort)))
                assert.deepEqual(await pagesOf(db, { ...query, limit }, as(me)), ids(whole))
              }
            for (const { id, status } of await db.images.list(imageQuery({ visibility: 'all' }), ADMIN))
              await db.images.remove(id, [status])
          },
        )
        await fc.assert(holds, { numRuns: 25 })
      },
    )

    check('every sort key, both ways, pages for an admin', async (db) => {
      for (const name of names) {
        const { id } = await db.images.insert(newImage({ name, visibility: 'public', diskFormat: name }))
        await db.images.update(id, { size: name === null ? null : name.length }, ['queued'])
        await db.images.insert(newImage({ name, containerFormat: name }))
      }
      for (const key of SORT_KEYS)
        for (const descending of [false, true]) {
          const query = imageQuery({ sort: [{ key, descending }] })
          const whole = await db.images.list(query, ADMIN)
          assert.equal(whole.length, 2 * names.length)
          assert.deepEqual(ids(whole), ids(inOrder(whole, query.sort)))
          for (const limit of [1, 4]) assert.deepEqual(await pagesOf(db, { ...query, limit }, ADMIN), ids(whole))
        }
    })

    check('a page of no images is empty', async (db) => {
      await db.images.insert(newImage())
      assert.deepEqual(await db.images.list(imageQuery({ limit: 0 }), ADMIN), [])
    })

    check('every filter keeps what satisfies it, alone and together with others', async (db) => {
      const images: Image[] = []
      for (let n = 0; n < 12; n++) {
        const { id } = await db.images.insert(
          newImage({
            name: n % 4 === 0 ? null : `name ${n % 4}`,
            owner: project(`owner ${n % 2}`),
            protected: n % 3 === 0,
            minRam: n,
            minDisk: n % 5,
            diskFormat: n % 2 ? 'raw' : null,
            containerFormat: n % 3 ? 'bare' : 'ovf',
            tags: [`tag ${n % 2}`, `tag of ${n % 3}`],
            properties: new Map([
              ['p', `${n % 2}`],
              ['q', n % 3 ? 'x' : null],
            ]),
          }),
        )
        const change = {
          status: n % 2 ? 'active' : 'queued',
          size: n % 4 === 1 ? null : n * 1000,
          virtualSize: n % 4 === 2 ? null : n,
          checksum: `sum ${n % 3}`,
          osHashAlgo: n % 2 ? 'sha512' : null,
          osHashValue: `hash ${n % 4}`,
        } as const
        images.push(await db.images.update(id, change, ['queued']))
      }
      const one = images[5] as Image
      const time = one.createdAt
      const cases: readonly (readonly [ImageFilter, (image: Image) => boolean])[] = [
        [{ by: 'column', column: 'name', values: ['name 1'] }, ({ name }) => name === 'name 1'],
        [
          { by: 'column', column: 'name', values: ['name 1', 'name 2', ''] },
          ({ name }) => name === 'name 1' || name === 'name 2',
        ],
        [{ by: 'column', column: 'name', values: [] }, () => false],
        [{ by: 'column', column: 'status', values: ['active'] }, ({ status }) => status === 'active'],
        [{ by: 'column', column: 'id', values: [one.id] }, ({ id }) => id === one.id],
        [{ by: 'column', column: 'id', values: [one.id, 'none'] }, ({ id }) => id === one.id],
        [{ by: 'column', column: 'disk_format', values: ['raw'] }, ({ diskFormat }) => diskFormat === 'raw'],
        [
          { by: 'column', column: 'container_format', values: ['ovf', 'ova'] },
          ({ containerFormat }) => containerFormat === 'ovf',
        ],
        [{ by: 'column', column: 'owner', values: ['owner 1'] }, ({ owner }) => owner === 'owner 1'],
        [{ by: 'column', column: 'owner', values: ['owner 1', 'owner 2'] }, ({ owner }) => owner === 'owner 1'],
        [{ by: 'column', column: 'checksum', values: ['sum 2'] }, ({ checksum }) => checksum === 'sum 2'],
        [{ by: 'column', column: 'os_hash_algo', values: ['sha512'] }, ({ osHashAlgo }) => osHashAlgo === 'sha512'],
        [
          { by: 'column', column: 'os_hash_value', values: ['hash 3', 'hash 0'] },
          ({ osHashValue }) => osHashValue === 'hash 3' || osHashValue === 'hash 0',
        ],
        [{ by: 'column', column: 'size', values: [0] }, ({ size }) => size === 0],
        [{ by: 'column', column: 'size', values: [2000, 3000] }, ({ size }) => size === 2000 || size === 3000],
        [{ by: 'column', column: 'virtual_size', values: [3] }, ({ virtualSize }) => virtualSize === 3],
        [{ by: 'column', column: 'min_ram', values: [7] }, ({ minRam }) => minRam === 7],
        [{ by: 'column', column: 'min_disk', values: [1] }, ({ minDisk }) => minDisk === 1],
        [{ by: 'column', column: 'protected', values: [true] }, (image) => image.protected],
        [{ by: 'column', column: 'protected', values: [false] }, (image) => !image.protected],
        [{ by: 'range', column: 'size', min: 2000 }, ({ size }) => size !== null && size >= 2000],
        [{ by: 'range', column: 'size', max: 3000 }, ({ size }) => size !== null && size <= 3000],
        [
          { by: 'range', column: 'virtual_size', min: 1, max: 4 },
          ({ virtualSize }) => virtualSize !== null && virtualSize >= 1 && virtualSize <= 4,
        ],
        [{ by: 'range', column: 'min_ram', min: 3, max: 3 }, ({ minRam }) => minRam === 3],
        [{ by: 'range', column: 'min_disk', min: 4 }, ({ minDisk }) => minDisk >= 4],
        [{ by: 'tag', tag: 'tag 1' }, ({ tags }) => tags.includes('tag 1')],
        [{ by: 'tag', tag: 'tag of 2' }, ({ tags }) => tags.includes('tag of 2')],
        [{ by: 'tag', tag: 'no such tag' }, () => false],
        [{ by: 'property', name: 'p', value: '0' }, ({ properties }) => properties.get('p') === '0'],
        [{ by: 'property', name: 'q', value: 'x' }, ({ properties }) => properties.get('q') === 'x'],
        [{ by: 'property', name: 'q', value: '' }, () => false],
      ]
      const comparisons = {
        gt: (a: number, b: number) => a > b,
        gte: (a: number, b: number) => a >= b,
        eq: (a: number, b: number) => a === b,
        neq: (a: number, b: number) => a !== b,
        lt: (a: number, b: number) => a < b,
        lte: (a: number, b: number) => a <= b,
      }
      const times = Object.entries(comparisons).flatMap(([comparison, holds]) =>
        (['created_at', 'updated_at'] as const).map(
          (column) =>
            [
              { by: 'time', column, comparison: comparison as keyof typeof comparisons, value: time },
              (image: Image) =>
                holds((column === 'created_at' ? image.createdAt : image.updatedAt).getTime(), time.getTime()),
            ] as const,
        ),
      )
      const all = [...cases, ...times]
      const expect = async (some: typeof all) => {
        const filters = some.map(([filter]) => filter)
        const listed = await db.images.list(imageQuery({ filters }), ADMIN)
        const expected = images.filter((image) => some.every(([, holds]) => holds(image)))
        assert.deepEqual(sorted(ids(listed)), sorted(ids(expected)), JSON.stringify(filters))
      }
      for (const each of all) await expect([each])
      await fc.assert(fc.asyncProperty(fc.shuffledSubarray([...all], { minLength: 2, maxLength: 4 }), expect), {
        numRuns: 60,
      })
    })

    check('an owner filter narrows what the caller sees, and shows nothing more', async (db) => {
      const mine = await db.images.insert(newImage({ owner: project('me'), visibility: 'private' }))
      const theirs = await db.images.insert(newImage({ owner: project('them'), visibility: 'public' }))
      await db.images.insert(newImage({ owner: project('them'), visibility: 'private' }))
      const list = async (owner: string) =>
        ids(
          await db.images.list(imageQuery({ filters: [{ by: 'column', column: 'owner', values: [owner] }] }), as('me')),
        )
      assert.deepEqual(await list('me'), [mine.id])
      assert.deepEqual(await list('them'), [theirs.id])
    })
  })

  describe(`${harness.name} database: closing`, () => {
    check('a closed database refuses work as unavailable, and can be closed again', async (db) => {
      const { id } = await db.images.insert(newImage())
      await db.close()
      await db.close()
      await rejectsWith(db.images.get(id, ADMIN), 'unavailable')
    })
  })
}
