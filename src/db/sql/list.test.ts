import assert from 'node:assert/strict'
import { describe, it, type TestContext } from 'node:test'
import { hasKind } from '../../domain/errors.ts'
import type { ImageId, ProjectId } from '../../domain/ids.ts'
import { type ImageFilter, type ImageQuery, SORT_KEYS } from '../../domain/query.ts'
import { imageQuery } from '../conformance.ts'
import type { Database, Scope } from '../database.ts'
import { openDatabase } from './connect.ts'
import { isSlow } from './facts.ts'
import { newFile, openRaw } from './fixtures.ts'
import { pageFinder } from './page-finder.ts'
import { connect } from './session.ts'

const IMAGES = 2_600
const imageId = (n: number) => `00000000-0000-4000-8000-${String(n).padStart(12, '0')}` as ImageId

const TENANT: Scope = { admin: false, project: 'tenant' as ProjectId }
const ADMIN: Scope = { admin: true, project: undefined }

/** More images than are looked at one by one: each has the tag `all`, every tenth `tenth`; a third is the tenant's. */
const open = async (t: TestContext) => {
  const file = await newFile(t)
  const seen: { sql: string; parameters: readonly unknown[] }[] = []
  /** Of the statements that look at images, how many at most. */
  const limits: unknown[] = []
  const db = await openDatabase(`sqlite:///${file}`, {
    trace: (sql, parameters) => {
      seen.push({ sql, parameters })
      if (sql.includes(' as hit')) limits.push(parameters.at(-1))
    },
  })
  t.after(() => db.close())
  const raw = openRaw(t, file)
  const id = `printf('00000000-0000-4000-8000-%012d', i)`
  const numbers = `WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ${IMAGES})`
  raw.exec(`BEGIN;
    ${numbers} INSERT INTO images (id, name, status, created_at, deleted, owner, visibility, min_disk, min_ram, checksum)
      SELECT ${id}, 'name ' || (i % 7), 'active', printf('2024-01-01 00:00:00.%06d', i / 2), 0,
        CASE WHEN i % 3 = 0 THEN 'tenant' ELSE 'other' END,
        CASE i % 4 WHEN 0 THEN 'public' WHEN 1 THEN 'private' WHEN 2 THEN 'shared' ELSE 'community' END, 0, 0, 'c' || i FROM n;
    INSERT INTO image_tags (image_id, value, created_at, deleted) SELECT id, 'all', created_at, 0 FROM images;
    ${numbers} INSERT INTO image_tags (image_id, value, created_at, deleted)
      SELECT ${id}, 'tenth', '2024', 0 FROM n WHERE i % 10 = 0;
    INSERT INTO image_properties (image_id, name, value, created_at, deleted) SELECT id, 'p', 'all', created_at, 0 FROM images;
    INSERT INTO image_members (image_id, member, status, can_share, created_at, deleted)
      SELECT id, 'tenant', 'accepted', 0, created_at, 0 FROM images WHERE visibility = 'shared';
    COMMIT`)

  /** How the statements that look for the ids of a page are carried out. */
  const plans = async (query: ImageQuery, scope: Scope): Promise<readonly string[]> => {
    seen.length = 0
    await db.images.list(query, scope)
    return seen
      .filter(({ sql }) => /\blimit\b/.test(sql))
      .flatMap(({ sql, parameters }) =>
        raw
          .prepare(`explain query plan ${sql}`)
          .all(...parameters.map((value) => (typeof value === 'boolean' ? Number(value) : (value as string)))),
      )
      .map((row) => String(row['detail']))
  }
  return { db, file, plans, limits }
}

const assertRanges = (plan: readonly string[], about: string) => {
  assert.ok(plan.length > 0, about)
  for (const line of plan) {
    assert.doesNotMatch(line, /SCAN (images|image_|glimpse_)/, `${about}: ${line}`)
    assert.doesNotMatch(line, /TEMP B-TREE/, `${about}: ${line}`)
  }
}

const wholeList = async (db: Database, query: ImageQuery, scope: Scope): Promise<readonly ImageId[]> => {
  const seen: ImageId[] = []
  for (let marker: ImageId | undefined; ; marker = seen.at(-1)) {
    const page = await db.images.list({ ...query, marker }, scope)
    if (page.length === 0) return seen
    seen.push(...page.map(({ id }) => id))
  }
}

const tenants = (n: number) => n % 3 === 0
const visibleToTenant = (n: number) => tenants(n) || n % 4 === 0 || n % 4 === 2
const expected = (holds: (n: number) => boolean) =>
  Array.from({ length: IMAGES }, (_, n) => n)
    .filter(holds)
    .toReversed()
    .map(imageId)

describe('the list of many images', () => {
  it('is read as ranges of indexes in the order of the list, on the first page and on a deep one', async (t) => {
    const { plans } = await open(t)
    for (const [who, scope] of Object.entries({ admin: ADMIN, tenant: TENANT }))
      for (const visibility of [undefined, 'all', 'public', 'private', 'shared', 'community'] as const)
        for (const memberStatus of ['accepted', 'all'] as const)
          for (const descending of [true, false])
            for (const marker of [undefined, imageId(600)]) {
              const sort = [{ key: 'created_at', descending }] as const
              const plan = await plans(imageQuery({ visibility, memberStatus, sort, marker, limit: 25 }), scope)
              assertRanges(plan, `${who}, ${visibility}, ${memberStatus}, descending ${descending}, ${marker}`)
            }
  })

  it('is read as ranges of indexes by every other key, too', async (t) => {
    const { plans } = await open(t)
    for (const key of SORT_KEYS)
      for (const descending of [true, false])
        for (const marker of [undefined, imageId(600)]) {
          const plan = await plans(imageQuery({ sort: [{ key, descending }], marker, limit: 25 }), ADMIN)
          // Rows with the marker's own key are a range, but SQLite does not see that an equal expression is in order.
          assertRanges(
            plan.filter((line) => marker === undefined || !line.includes('TEMP')),
            `${key} ${descending}`,
          )
        }
  })

  it('is looked through for a filter that many images satisfy, and looked up for one that few satisfy', async (t) => {
    const { plans } = await open(t)
    const common: readonly ImageFilter[] = [
      { by: 'tag', tag: 'all' },
      { by: 'property', name: 'p', value: 'all' },
    ]
    const few: readonly (readonly [ImageFilter, RegExp])[] = [
      [{ by: 'property', name: 'p', value: 'none' }, /glimpse_image_properties_value/],
      [{ by: 'column', column: 'status', values: ['queued'] }, /glimpse_images_visibility_status/],
      [{ by: 'column', column: 'checksum', values: ['c7', 'c8'] }, /checksum_image_idx/],
      [{ by: 'column', column: 'id', values: [imageId(7)] }, /sqlite_autoindex_images_1/],
    ]
    for (const filter of common) {
      const plan = await plans(imageQuery({ filters: [filter], limit: 25 }), TENANT)
      assertRanges(plan, JSON.stringify(filter))
      assert.ok(plan.some((line) => line.includes('glimpse_images_owner_created_at')))
    }
    for (const [filter, index] of few) {
      const plan = await plans(imageQuery({ filters: [filter, ...common], limit: 25 }), TENANT)
      const tables = plan.filter((line) => /(SCAN|SEARCH) (image|glimpse)/.test(line))
      assert.ok(
        tables.some((line) => index.test(line)),
        JSON.stringify(filter),
      )
      for (const line of tables) assert.match(line, /^SEARCH/)
      assert.ok(!plan.some((line) => line.includes('glimpse_images_owner_created_at')), JSON.stringify(filter))
    }
  })

  it('is walked by the index of a name, in the order of creation', async (t) => {
    const { plans } = await open(t)
    const filters: readonly ImageFilter[] = [{ by: 'column', column: 'name', values: ['name 3'] }]
    for (const marker of [undefined, imageId(600)]) {
      const plan = await plans(imageQuery({ filters, marker, limit: 25 }), ADMIN)
      assertRanges(plan, `${marker}`)
      assert.ok(plan.some((line) => line.includes('glimpse_images_visibility_name')))
    }
  })

  it('looks at a bounded number of images at once, however few of them satisfy the filters', async (t) => {
    const { db, limits } = await open(t)
    const filters: readonly ImageFilter[] = [
      { by: 'column', column: 'min_ram', values: [0] },
      { by: 'column', column: 'protected', values: [true] },
    ]
    limits.length = 0
    assert.deepEqual(await db.images.list(imageQuery({ filters, limit: 5, visibility: 'all' }), ADMIN), [])
    assert.deepEqual(limits, [100, 650, 2000])
  })

  it('is not looked for for ever', async (t) => {
    const { file } = await open(t)
    const connection = await connect(`sqlite:///${file}`)
    t.after(() => connection.close())
    const page = (filters: readonly ImageFilter[]) => {
      const search = pageFinder(connection, { searchMs: 0 })(imageQuery({ filters, limit: 5 }), ADMIN)
      return connection.read(search)
    }
    const all: ImageFilter = { by: 'column', column: 'min_ram', values: [0] }
    const none: ImageFilter = { by: 'column', column: 'min_ram', values: [1] }
    assert.equal((await page([all]))?.length, 5)
    await assert.rejects(page([none]), (error) => hasKind(error, 'unavailable') && isSlow(error))
  })

  it('is the same whether it is walked or looked up', async (t) => {
    const { db } = await open(t)
    const all: ImageFilter = { by: 'tag', tag: 'all' }
    const tenth: ImageFilter = { by: 'tag', tag: 'tenth' }
    for (const filters of [[], [all]])
      assert.deepEqual(await wholeList(db, imageQuery({ filters, limit: 333 }), TENANT), expected(visibleToTenant))
    for (const filters of [[tenth], [all, tenth]])
      assert.deepEqual(
        await wholeList(db, imageQuery({ filters, limit: 7 }), TENANT),
        expected((n) => n % 10 === 0 && visibleToTenant(n)),
      )
    assert.deepEqual(
      await wholeList(db, imageQuery({ limit: 500 }), ADMIN),
      expected((n) => n % 4 !== 3),
    )
    const scope = { admin: true, project: 'tenant' as ProjectId } as const
    assert.deepEqual(
      await wholeList(db, imageQuery({ limit: 500 }), scope),
      expected((n) => n % 4 !== 3 || tenants(n)),
    )
  })
})
