/**
 * Two nodes with one database and one set of stores, whose clients do everything to the same images at once.
 *   RACE_ROUNDS=200 npm run faults    more rounds than `npm test` has
 *   RACE_SEED=7                       another course of events
 */
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { it, type TestContext } from 'node:test'
import { fileURLToPath } from 'node:url'
import { randomFrom } from '../crash/content.ts'
import { type Node, startConfigured } from '../support/node.ts'
import { tail, until } from '../support/product.ts'
import { type Client, clientOf } from './client.ts'

const rounds = Number(process.env['RACE_ROUNDS'] ?? 12)
const seed = Number(process.env['RACE_SEED'] ?? 1)
const skip = process.platform === 'linux' ? false : 'processes are found in /proc'
const STORES = ['one', 'two'] as const

type Random = ReturnType<typeof randomFrom>
type Attempt = (user: Client, id: string, random: Random) => Promise<Response>

const body = (random: Random): Buffer => Buffer.alloc(1 + random.below(2_000_000), `data ${random.below(1_000_000)} `)
const ATTEMPTS: Readonly<Record<string, Attempt>> = {
  upload: (user, id, random) => user.put(id, 'file', body(random)),
  stage: (user, id, random) => user.put(id, 'stage', body(random)),
  import: (user, id, random) =>
    user.send('POST', `/v2/images/${id}/import`, {
      method: { name: 'glance-direct' },
      stores: random.below(2) === 0 ? ['one'] : STORES,
    }),
  copy: (user, id, random) =>
    user.send('POST', `/v2/images/${id}/import`, { method: { name: 'copy-image' }, stores: [random.pick(STORES)] }),
  drop: (user, id, random) => user.send('DELETE', `/v2/stores/${random.pick(STORES)}/${id}`),
  download: (user, id) => user.send('GET', `/v2/images/${id}/file`),
  tag: (user, id, random) => user.send('PUT', `/v2/images/${id}/tags/t${random.below(5)}`),
  delete: (user, id) => user.send('DELETE', `/v2/images/${id}`),
}
/** What is tried more often stands there more often. */
const CHOICES = ['upload', 'stage', 'stage', 'import', 'import', 'copy', 'copy', 'drop', 'download', 'tag'] as const
/** What an answer may be when others were faster; 504 says that the node with the staged data has lost it. */
const FAIR = [200, 202, 204, 400, 403, 404, 409, 410, 504]

it(`two nodes keep their promises in ${rounds} rounds of races (seed ${seed})`, {
  skip,
  timeout: 30_000 + rounds * 60_000,
}, async (t) => {
  for (const shared of [true, false]) {
    const home = await mkdtemp(join(tmpdir(), 'glimpse-race-'))
    t.after(() => rm(home, { recursive: true }))
    const nodes = [await start(t, home, 'a', shared), await start(t, home, 'b', shared)]
    const users = nodes.map(({ product }) => clientOf(product))
    const random = randomFrom(seed * 2 + Number(shared))
    const statuses = new Map<string, number>()
    for (let round = 1; round <= rounds; round += 1) {
      const ids = await Promise.all([0, 1].map(() => random.pick(users).create()))
      for (let wave = 0; wave < 4; wave += 1) {
        const attempts = Array.from({ length: 8 }, async () => {
          const last = wave === 3 && random.below(3) === 0
          const what = last ? 'delete' : random.pick(CHOICES)
          const answer = await (ATTEMPTS[what] as Attempt)(random.pick(users), random.pick(ids), random)
          const text = Buffer.from(await answer.arrayBuffer()).toString('latin1', 0, 300)
          assert.ok(FAIR.includes(answer.status), `${what}: ${answer.status} ${text}\n${logs(nodes)}`)
          const outcome = `${what} ${answer.ok ? 'done' : 'refused'}`
          statuses.set(outcome, (statuses.get(outcome) ?? 0) + 1)
        })
        await Promise.all(attempts)
      }
      // What is left over in vain is named by the assertion.
      await until('rest', () => wrongs(home).length === 0, { seconds: 30, everyMs: 50 }).catch(() => undefined)
      assert.deepEqual(wrongs(home), [], `round ${round}, ${shared ? 'one staging area' : 'two'}\n${logs(nodes)}`)
    }
    for (const what of ['upload done', 'stage done', 'import done', 'copy done', 'delete done', 'upload refused'])
      assert.ok((statuses.get(what) ?? 0) > 0 || rounds < 10, `${what} never happened: ${[...statuses]}`)
    for (const { product } of nodes) await product.stop()
  }
})

const logs = (nodes: readonly Node[]) => nodes.map(({ log }) => tail(log, 8)).join('\n')

const start = (t: TestContext, home: string, name: string, shared: boolean): Promise<Node> =>
  startConfigured(
    t,
    { home, name },
    (port) => `[DEFAULT]
bind_host = 127.0.0.1
bind_port = ${port}
workers = 1
enabled_backends = one:file, two:file
enabled_import_methods = [glance-direct,copy-image]
${shared ? '' : `worker_self_reference_url = http://127.0.0.1:${port}\n`}[database]
connection = sqlite:///${home}/glance.sqlite
[glance_store]
default_backend = one
[one]
filesystem_store_datadir = ${home}/one
[two]
filesystem_store_datadir = ${home}/two
[os_glance_staging_store]
filesystem_store_datadir = ${home}/staging-${shared ? 'all' : name}
[glimpse]
sweep_interval = 1
`,
  )

interface Row {
  readonly id: string
  readonly status: string
  readonly size: number | null
  readonly checksum: string | null
  readonly uri: string | null
}

/** What must not be once nobody asks for anything: half-done images, data of nobody, locks without a task. */
function wrongs(home: string): readonly string[] {
  const db = new DatabaseSync(join(home, 'glance.sqlite'), { readOnly: true, timeout: 5000 })
  const all = (sql: string) => db.prepare(sql).all()
  try {
    const rows = all(`SELECT i.id, i.status, i.size, i.checksum, l.value AS uri FROM images i
      LEFT JOIN image_locations l ON l.image_id = i.id AND l.status <> 'deleted' WHERE i.deleted = 0`) as unknown as Row[]
    const located = new Set(rows.flatMap(({ uri }) => (uri === null ? [] : [fileURLToPath(uri)])))
    const waiting = new Set(rows.filter(({ status }) => status === 'uploading').map(({ id }) => id))
    const filesOf = (folder: string) => (existsSync(folder) ? readdirSync(folder) : [])
    return [
      ...rows
        .filter(({ status, size }) => /saving|importing/.test(status) || (status === 'uploading' && size === null))
        .map(({ id, status }) => `image ${id} is ${status}`),
      ...rows.filter(({ status }) => status === 'active').flatMap(damage),
      ...rows.filter(({ status, uri }) => status === 'queued' && uri !== null).map(({ id }) => `queued ${id} has data`),
      ...STORES.flatMap((store) => filesOf(join(home, store)).map((name) => join(home, store, name)))
        .filter((file) => !located.has(file))
        .map((file) => `${file} is nobody's`),
      ...readdirSync(home)
        .filter((name) => name.startsWith('staging-'))
        .flatMap((folder) => filesOf(join(home, folder)))
        .filter((name) => !waiting.has(name))
        .map((name) => `${name} is staged, and no image waits for it`),
      ...[...waiting]
        .filter((id) => ['all', 'a', 'b'].every((name) => !existsSync(join(home, `staging-${name}`, id))))
        .map((id) => `image ${id} waits for data that is not staged`),
      ...all(`SELECT image_id FROM image_properties WHERE name = 'os_glance_import_task' AND deleted = 0`).map(
        (row) => `a lock on image ${row['image_id']}`,
      ),
      ...all('SELECT * FROM glimpse_jobs').map((job) => `job ${JSON.stringify(job)}`),
      ...all('SELECT * FROM glimpse_claims').map((claim) => `claim ${JSON.stringify(claim)}`),
      ...all(`SELECT id, status FROM tasks WHERE status IN ('pending', 'processing')`).map(
        (task) => `task ${task['id']} is ${task['status']}`,
      ),
    ]
  } finally {
    db.close()
  }
}

function damage({ id, size, checksum, uri }: Row): readonly string[] {
  if (uri === null) return [`image ${id} is active without a location`]
  if (!existsSync(fileURLToPath(uri))) return [`image ${id} is active without data at ${uri}`]
  const data = readFileSync(fileURLToPath(uri))
  const md5 = createHash('md5').update(data).digest('hex')
  return data.length === size && md5 === checksum ? [] : [`image ${id} is active with other data at ${uri}`]
}
