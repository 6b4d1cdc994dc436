import assert from 'node:assert/strict'
import { describe, it, type TestContext } from 'node:test'
import fc from 'fast-check'
import type { ImageId, ProjectId } from '../../domain/ids.ts'
import { MEMBER_STATUSES, VISIBILITIES } from '../../domain/image.ts'
import { type ImageFilter, type ImageQuery, SORT_KEYS } from '../../domain/query.ts'
import { imageQuery } from '../conformance.ts'
import type { Scope } from '../database.ts'
import { openDatabase } from './connect.ts'
import { newFile, openRaw } from './fixtures.ts'
import { pageFinder } from './page-finder.ts'
import { type Connection, connect, type Session } from './session.ts'
import type { StretchSizes } from './sift.ts'

const imageId = (n: number) => `00000000-0000-4000-8000-${String(n).padStart(12, '0')}` as ImageId
const ADMIN: Scope = { admin: true, project: undefined }
const TENANT: Scope = { admin: false, project: 'me' as ProjectId }
const SCOPES: readonly Scope[] = [ADMIN, TENANT, { ...TENANT, admin: true }, { admin: false, project: undefined }]

interface Row {
  readonly name: string | null
  readonly status: string
  readonly size: number | null
  readonly diskFormat: string | null
  readonly created: number
  readonly updated: number | null
  readonly owner: string | null
  readonly visibility: string
  readonly hidden: boolean
  readonly tagged: boolean
  readonly member: string | null
}

const STATUS = { key: 'status', descending: false } as const
const NAME = { key: 'name', descending: false } as const

const ROW: Row = {
  ...{ name: null, status: 'active', size: null, diskFormat: null, created: 0, updated: null, owner: 'me' },
  ...{ visibility: 'public', hidden: false, tagged: false, member: null },
}

/** A database, emptied and filled again by `fill`. */
const open = async (t: TestContext) => {
  const file = await newFile(t)
  await (await openDatabase(`sqlite:///${file}`)).close()
  const raw = openRaw(t, file)
  const statements: { readonly sql: string; readonly parameters: readonly unknown[] }[] = []
  const connection = await connect(`sqlite:///${file}`, {
    trace: (sql, parameters) => statements.push({ sql, parameters }),
  })
  t.after(() => connection.close())
  const time = (n: number | null) => n && `2024-01-01 00:00:0${n}.000000`
  const image = raw.prepare(`insert into images (id, name, status, size, disk_format, created_at, updated_at, owner,
    visibility, os_hidden, deleted, min_disk, min_ram, protected) values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, 0, 0, 0)`)
  const tag = raw.prepare(`insert into image_tags (image_id, value, created_at, deleted) values (?, 't', '2024', 0)`)
  const member = raw.prepare(
    `insert into image_members (image_id, member, status, can_share, created_at, deleted) values (?, 'me', ?, 0, '2024', 0)`,
  )
  const fill = (rows: readonly Row[]) => {
    raw.exec('begin; delete from image_members; delete from image_tags; delete from images')
    for (const [n, row] of rows.entries()) {
      const { name, status, size, diskFormat, owner, visibility } = row
      const times = [time(row.created + 1), time(row.updated && row.updated + 1)] as const
      image.run(imageId(n), name, status, size, diskFormat, ...times, owner, visibility, Number(row.hidden))
      if (row.tagged) tag.run(imageId(n))
      if (row.member !== null) member.run(imageId(n), row.member)
    }
    raw.exec('commit')
  }
  return { raw, connection, statements, fill }
}

const find = (connection: Connection, query: ImageQuery, scope: Scope, stretch?: StretchSizes) =>
  pageFinder(connection, stretch && { stretch, few: 0 })(query, scope)

/** All of a search; `watch` sees the sessions of its steps. */
const pageOf = async (
  connection: Connection,
  search: ReturnType<typeof find>,
  watch: (session: Session) => Session = (session) => session,
): Promise<readonly string[]> => {
  for (;;) {
    const ids = await connection.read((session) => search(watch(session)))
    if (ids !== undefined) return ids
  }
}

/** As a database does it that is not in our process: one statement sorts them all. */
const atOnce = (connection: Connection): Connection => ({
  ...connection,
  facts: { ...connection.facts, inProcess: false },
})

const aRow: fc.Arbitrary<Row> = fc.record({
  // Texts whose order in UTF-8 is not that of JavaScript.
  name: fc.constantFrom(null, '', 'a', 'b', '"', '\u{1f600}', '\uffee'),
  status: fc.constantFrom('active', 'active', 'queued', 'killed'),
  size: fc.constantFrom(null, 0, 1, 2),
  diskFormat: fc.constantFrom(null, 'raw', 'qcow2'),
  created: fc.integer({ min: 0, max: 3 }),
  updated: fc.constantFrom(null, 3, 4),
  owner: fc.constantFrom('me', 'another', null),
  visibility: fc.constantFrom(...VISIBILITIES),
  hidden: fc.constantFrom(false, false, false, true),
  tagged: fc.boolean(),
  member: fc.constantFrom(null, 'accepted', 'pending'),
})
const aFilter = fc.constantFrom<ImageFilter>(
  { by: 'tag', tag: 't' },
  { by: 'column', column: 'status', values: ['active'] },
  { by: 'column', column: 'status', values: ['active', 'queued'] },
  { by: 'column', column: 'name', values: ['a'] },
  { by: 'column', column: 'owner', values: ['me'] },
  { by: 'range', column: 'size', min: 0, max: 1 },
  { by: 'time', column: 'created_at', comparison: 'lte', value: new Date('2024-01-01T00:00:03Z') },
  { by: 'time', column: 'updated_at', comparison: 'neq', value: new Date('2024-01-01T00:00:04Z') },
)
const aQuery = fc.record({
  sort: fc.uniqueArray(fc.record({ key: fc.constantFrom(...SORT_KEYS), descending: fc.boolean() }), {
    ...{ minLength: 1, maxLength: 4, selector: ({ key }) => key },
  }),
  filters: fc.array(aFilter, { maxLength: 2 }),
  visibility: fc.constantFrom(undefined, 'all', ...VISIBILITIES),
  memberStatus: fc.constantFrom('all', ...MEMBER_STATUSES),
  hidden: fc.constantFrom(false, false, true),
  limit: fc.integer({ min: 1, max: 9 }),
})

describe('a list that is sorted by several keys', () => {
  it('has the pages that one statement would find, in short stretches and when a step is repeated', async (t) => {
    const { connection, fill } = await open(t)
    const asked = { query: aQuery, scope: fc.constantFrom(...SCOPES), failing: fc.integer({ min: 0, max: 12 }) }
    const holds = fc.asyncProperty(
      fc.array(aRow, { minLength: 5, maxLength: 40 }),
      fc.array(fc.record({ ...asked, to: fc.integer({ min: 1, max: 8 }) }), { minLength: 5, maxLength: 5 }),
      async (rows, lists) => {
        fill(rows)
        for (const { query, scope, failing, to } of lists) {
          let marker: ImageId | undefined
          do {
            const paged = imageQuery({ ...query, marker })
            const expected = await pageOf(connection, find(atOnce(connection), paged, scope))
            let statements = 0
            const search = find(connection, paged, scope, { from: 1, to })
            const again: typeof search = (session) =>
              search({
                ...session,
                all: (...call) => (statements++ === failing ? Promise.reject(new Error('once')) : session.all(...call)),
              })
            const steps: typeof search = (session) => again(session).catch(() => again(session))
            assert.deepEqual(await pageOf(connection, steps), expected)
            marker = expected.at(-1) as ImageId | undefined
          } while (marker !== undefined)
        }
      },
    )
    await fc.assert(holds, { numRuns: Number(process.env['SIFT_RUNS'] ?? 40) })
  })

  it('is looked for in bounded steps, each of which sorts no more than it looks at', async (t) => {
    const { raw, connection, statements, fill } = await open(t)
    fill(Array.from({ length: 300 }, (_, n) => ({ ...ROW, name: `${(n * 7) % 300}`, created: n % 3 })))
    const query = imageQuery({ sort: [STATUS, NAME], limit: 5 })
    /** How many of the sorts of these statements stand directly over a table. */
    const sortsOfTables = (): number =>
      statements
        .filter(({ sql }) => /\blimit\b/.test(sql))
        .map(({ sql, parameters }) => {
          const plan = raw
            .prepare(`explain query plan ${sql}`)
            .all(...parameters.map((value) => value as string | number))
          const parents = plan.filter(({ detail }) => /^(SEARCH|SCAN) (images|glimpse)/.test(`${detail}`))
          assert.ok(parents.length > 0)
          const sorts = plan.filter(({ detail }) => `${detail}`.includes('TEMP B-TREE'))
          return sorts.filter(({ parent }) => parents.some((table) => table['parent'] === parent)).length
        })
        .reduce((sum, sorts) => sum + sorts, 0)

    statements.length = 0
    const expected = await pageOf(connection, find(atOnce(connection), query, ADMIN))
    assert.ok(sortsOfTables() > 0, 'one statement sorts all')

    statements.length = 0
    const steps: number[] = []
    const watch = (session: Session): Session => {
      const step = steps.push(0) - 1
      const all: Session['all'] = async (...call) => {
        const rows = await session.all(...call)
        steps[step] = (steps[step] ?? 0) + ((rows as readonly { images: number }[]).at(-1)?.images ?? 0)
        return rows
      }
      return { ...session, all }
    }
    assert.deepEqual(await pageOf(connection, find(connection, query, ADMIN, { from: 4, to: 20 }), watch), expected)
    assert.equal(sortsOfTables(), 0)
    assert.ok(Math.max(...steps) <= 20, `${steps}`)
    assert.equal(
      steps.reduce((sum, images) => sum + images, 0),
      300,
    )
  })

  it('is looked for no longer than its order needs', async (t) => {
    const { connection, fill } = await open(t)
    fill(Array.from({ length: 300 }, (_, n) => ({ ...ROW, status: n < 30 ? 'active' : 'queued', name: `${n}` })))
    let steps = 0
    const watch = (session: Session) => {
      steps += 1
      return session
    }
    const search = find(connection, imageQuery({ sort: [STATUS, NAME], limit: 5 }), ADMIN, { from: 20, to: 20 })
    const page = await pageOf(connection, search, watch)
    assert.deepEqual(page, [0, 1, 10, 11, 12].map(imageId))
    // The last of those that are active is in the second stretch; the third step finds none that are private or shared.
    assert.equal(steps, 3)
  })

  it('misses nothing that stays, when images of the page go meanwhile', async (t) => {
    const { raw, connection, fill } = await open(t)
    const names = ['c', 'b', 'a', 'e', 'd', 'f']
    fill(names.map((name, created) => ({ ...ROW, name, created })))
    const query = imageQuery({ sort: [STATUS, NAME], limit: 2, visibility: 'public' })
    const search = find(connection, query, ADMIN, { from: 2, to: 2 })
    let steps = 0
    const found = await pageOf(connection, search, (session) => {
      // It has driven out `c` then.
      if (steps++ === 2) raw.exec(`update images set deleted = 1, status = 'deleted' where name = 'b'`)
      return session
    })
    const list = found.filter((id) => id !== imageId(1))
    for (;;) {
      const marker = list.at(-1) as ImageId
      const page = await pageOf(connection, find(connection, { ...query, marker }, ADMIN, { from: 2, to: 2 }))
      if (page.length === 0) break
      list.push(...page)
    }
    assert.deepEqual(list, [2, 0, 4, 3, 5].map(imageId))
  })

  it('has an image once that changes meanwhile, and comes by again', async (t) => {
    const { raw, connection, fill } = await open(t)
    fill([1, 2, 3, 4, 5].map((updated) => ({ ...ROW, updated })))
    const sort = [{ key: 'updated_at', descending: false }, NAME] as const
    const query = imageQuery({ sort, limit: 9, visibility: 'public' })
    let steps = 0
    const page = await pageOf(connection, find(connection, query, ADMIN, { from: 2, to: 2 }), (session) => {
      if (steps++ === 1)
        raw.exec(`update images set updated_at = '2024-01-01 00:00:09.000000' where updated_at like '%:02.%'`)
      return session
    })
    assert.deepEqual(page, [0, 1, 2, 3, 4].map(imageId))
  })
})
