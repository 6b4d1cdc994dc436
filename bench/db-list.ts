/*
 * What lists and reads cost on a large SQLite database: node bench/db-list.ts [images] [file].
 * The first and a deep page must cost the same, for an admin, a tenant, and a tenant with 5,000 shared images.
 */
import { randomUUID } from 'node:crypto'
import { existsSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import type { NewImage, Scope } from '../src/db/database.ts'
import { openDatabase } from '../src/db/sql/connect.ts'
import type { ImageId, ProjectId } from '../src/domain/ids.ts'
import type { ImageFilter, ImageQuery } from '../src/domain/query.ts'

const count = Number(process.argv[2] ?? 100_000)
const dir = mkdtempSync(join(tmpdir(), 'glimpse-bench-'))
const file = process.argv[3] ?? join(dir, 'glance.sqlite')
const fresh = !existsSync(file)
const db = await openDatabase({ connection: `sqlite:///${file}`, sqlite_synchronous: false })

const project = (n: number) => `project-${n}` as ProjectId
if (fresh) {
  const raw = new DatabaseSync(file)
  const run = (sql: string) => raw.prepare(sql).run(count)
  // One image in ten is public, one in a hundred a community image; a project has a thousandth of the rest, the first has half.
  const numbers = `WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ?)`
  const id = `printf('%08x-%04x-4000-8000-%012x', i * 2654435761 % 4294967296, i % 65536, i)`
  const time = `strftime('%Y-%m-%d %H:%M:%f', 1700000000 + i, 'unixepoch') || '000'`
  console.time('fill')
  raw.exec('BEGIN')
  run(`${numbers} INSERT INTO images (id, name, size, status, created_at, updated_at, deleted, disk_format,
    container_format, owner, min_disk, min_ram, protected, visibility, os_hidden)
    SELECT ${id}, 'image-' || (i * 7919 % 100000), i * 1000, 'active', ${time}, ${time}, 0, 'qcow2', 'bare',
      CASE WHEN i % 2 = 0 THEN 'project-0' ELSE 'project-' || (i % 1000) END, 0, 0, 0,
      CASE WHEN i % 10 = 0 THEN 'public' WHEN i % 100 = 1 THEN 'community' WHEN i % 3 = 0 THEN 'private' ELSE 'shared' END, 0
    FROM n`)
  run(`${numbers}, k(name) AS (VALUES ('os_distro'), ('os_version'), ('hw_disk_bus'), ('build'))
    INSERT INTO image_properties (image_id, name, value, created_at, deleted)
    SELECT ${id}, name, CASE name WHEN 'build' THEN i ELSE i % 20 END, ${time}, 0 FROM n, k`)
  run(`${numbers}, k(j) AS (VALUES (0), (1)) INSERT INTO image_tags (image_id, value, created_at, deleted)
    SELECT ${id}, CASE j WHEN 0 THEN 'common' ELSE 'tag-' || (i % 1000) END, ${time}, 0 FROM n, k`)
  run(`${numbers} INSERT INTO image_locations (image_id, value, created_at, deleted, meta_data, status)
    SELECT ${id}, 'file:///images/' || i, ${time}, 0, '{"store": "fast"}', 'active' FROM n`)
  raw.exec(`INSERT INTO image_members (image_id, member, can_share, created_at, deleted, status)
    SELECT id, 'project-sharer', 0, created_at, 0, 'accepted' FROM images WHERE visibility = 'shared' AND owner = 'project-0'
    ORDER BY substr(id, 5) LIMIT 5000`)
  raw.exec('COMMIT')
  console.timeEnd('fill')
  raw.close()
}

const query = (change: Partial<ImageQuery>): ImageQuery => ({
  filters: [],
  visibility: undefined,
  memberStatus: 'accepted',
  hidden: false,
  sort: [],
  marker: undefined,
  limit: 25,
  ...change,
})

/** Microseconds of CPU per call. */
const cost = async (body: () => Promise<unknown>, budgetMs = 400): Promise<number> => {
  for (let n = 0; n < 5; n++) await body()
  const start = process.cpuUsage()
  const until = Date.now() + budgetMs
  let calls = 0
  for (; calls < 3 || Date.now() < until; calls++) await body()
  const { user, system } = process.cpuUsage(start)
  return (user + system) / calls
}

const show = (name: string, us: number) => console.log(`${name.padEnd(72)} ${us.toFixed(0).padStart(9)} µs`)

const scopes: Readonly<Record<string, Scope>> = {
  admin: { admin: true, project: project(1) },
  'tenant with half of the images': { admin: false, project: project(0) },
  'tenant with few images': { admin: false, project: project(7) },
  'tenant with 5,000 memberships': { admin: false, project: 'project-sharer' as ProjectId },
}

/** The image in the middle of the list, as a client gets there. */
const middle = async (scope: Scope, sort: ImageQuery['sort']): Promise<ImageId | undefined> => {
  const ends: (ImageId | undefined)[] = []
  for (let size = 1000; size === 1000; ) {
    const page = await db.images.list(query({ sort, marker: ends.at(-1), limit: 1000 }), scope)
    ends.push(page[page.length >> 1]?.id, page.at(-1)?.id)
    size = page.length
  }
  return ends[ends.length >> 1] ?? ends[0]
}

const first = await db.images.list(query({ limit: 1000 }), scopes['admin'] as Scope)
const some = first[500]?.id as ImageId
show('get, admin', await cost(() => db.images.get(some, scopes['admin'] as Scope)))

for (const [name, scope] of Object.entries(scopes)) {
  for (const [order, sort] of Object.entries({
    default: [],
    name: [{ key: 'name', descending: false }],
    size: [{ key: 'size', descending: true }],
    disk_format: [{ key: 'disk_format', descending: true }],
    'name and size': [
      { key: 'name', descending: false },
      { key: 'size', descending: true },
    ],
  } as const)) {
    const marker = await middle(scope, sort)
    for (const limit of order === 'default' ? [25, 1000] : [25]) {
      const deep = query({ sort, marker, limit })
      show(
        `list ${limit} by ${order}, ${name}, first page`,
        await cost(() => db.images.list(query({ sort, limit }), scope)),
      )
      show(`list ${limit} by ${order}, ${name}, deep page`, await cost(() => db.images.list(deep, scope)))
    }
  }
}

const filters: Readonly<Record<string, readonly ImageFilter[]>> = {
  'tag of every image': [{ by: 'tag', tag: 'common' }],
  'tag of one in a thousand': [{ by: 'tag', tag: 'tag-77' }],
  'property of one in twenty': [{ by: 'property', name: 'os_distro', value: '5' }],
  'property of one image': [{ by: 'property', name: 'build', value: '4242' }],
  'two properties': [
    { by: 'property', name: 'os_distro', value: '5' },
    { by: 'property', name: 'os_version', value: '5' },
  ],
  name: [{ by: 'column', column: 'name', values: ['image-4242'] }],
  'status of no image': [{ by: 'column', column: 'status', values: ['saving'] }],
  'status of every image': [{ by: 'column', column: 'status', values: ['active'] }],
  owner: [{ by: 'column', column: 'owner', values: ['project-7'] }],
}
for (const [name, list] of Object.entries(filters))
  for (const who of ['admin', 'tenant with 5,000 memberships'])
    show(`list 25, ${who}, ${name}`, await cost(() => db.images.list(query({ filters: list }), scopes[who] as Scope)))

const image = (): NewImage => ({
  id: randomUUID() as ImageId,
  name: 'bench',
  visibility: 'shared',
  owner: project(3),
  protected: false,
  hidden: false,
  minRam: 0,
  minDisk: 0,
  diskFormat: 'qcow2',
  containerFormat: 'bare',
  tags: ['bench'],
  properties: new Map([
    ['os_distro', 'debian'],
    ['os_version', '13'],
  ]),
})
const created: ImageId[] = []
show('insert', await cost(async () => created.push((await db.images.insert(image())).id)))
const one = created[0] as ImageId
show('update name', await cost(() => db.images.update(one, { name: randomUUID() }, ['queued'])))
show('update status', await cost(() => db.images.update(one, { status: 'queued' }, ['queued'])))
show(
  'add and remove a tag',
  await cost(async () => {
    await db.images.addTag(one, 'x', -1)
    await db.images.removeTag(one, 'x')
  }),
)
for (const id of created) await db.images.remove(id, ['queued'])
await db.close()
rmSync(dir, { recursive: true })
