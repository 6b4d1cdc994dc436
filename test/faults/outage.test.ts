/**
 * The database server stops, in order or by kill -9, while clients write through two nodes; and starts again.
 *   OUTAGE_SECONDS=10 npm run faults    how long it is away
 *   OUTAGE_ROUNDS=5                     how often each way; `npm test` has one kill -9
 *   OUTAGE_SEED=7                       another course of events
 */
import assert from 'node:assert/strict'
import { readdirSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { it, type TestContext } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { randomFrom } from '../crash/content.ts'
import { type Node, startNode } from '../support/node.ts'
import { onServer } from '../support/on-server.ts'
import { tail, until } from '../support/product.ts'
import {
  mariadbAvailable,
  postgresAvailable,
  type SqlServer,
  startMariadb,
  startPostgres,
} from '../support/servers/sql.ts'
import { type Client, clientOf } from './client.ts'
import { load, openLedger } from './ledger.ts'

const seconds = Number(process.env['OUTAGE_SECONDS'] ?? 2)
const rounds = Number(process.env['OUTAGE_ROUNDS'] ?? 0)
const seed = Number(process.env['OUTAGE_SEED'] ?? 1)
const skip = process.platform === 'linux' ? false : 'processes are found in /proc'
/** So short that every lease runs out in every outage. */
const LEASE_S = 2

const suite = (server: () => SqlServer) => {
  for (const signal of rounds === 0 ? (['SIGKILL'] as const) : (['in order', 'SIGKILL'] as const)) {
    it(`nothing is lost, doubled or left over when it stops ${signal === 'SIGKILL' ? 'by kill -9' : signal} for ${seconds} s (seed ${seed})`, {
      skip,
      timeout: 120_000 + rounds * (seconds + 60) * 1000,
    }, async (t) => {
      const home = await mkdtemp(join(tmpdir(), 'glimpse-outage-'))
      t.after(() => rm(home, { recursive: true }))
      const url = await server().database()
      const nodes = [await start(t, home, url, 'a'), await start(t, home, url, 'b')]
      const logs = () => nodes.map(({ log }) => tail(log, 15)).join('\n')
      const users = nodes.map(({ product }) => clientOf(product))
      const random = randomFrom(seed)
      const ledger = openLedger()

      for (let round = 1; round <= Math.max(1, rounds); round += 1) {
        const stop = new AbortController()
        const before = ledger.answered()
        const clients = load(users, seed * 100 + round, `${round}`, ledger, stop.signal)
        await Promise.race([clients, until('the load', () => ledger.answered() > before + 40)])
        // What began before the outage and ends after it: its worker was never dead.
        const slow = slowUpload(users[round % 2] as Client)
        await Promise.race([clients, until('the slow upload', () => slow.begun())])
        await delay(random.below(300))
        await (signal === 'SIGKILL' ? server().halt('SIGKILL') : server().halt())
        const failed = ledger.refused()
        await Promise.race([clients, delay(seconds * 1000)])
        assert.ok(ledger.refused() > failed, 'clients were told')
        await server().start()
        const after = ledger.answered()
        await Promise.race([clients, until('the load after the outage', () => ledger.answered() > after + 40)])
        // Time for another worker to take the slow one for dead, if it wanted to.
        await until('two leases', async () => (await renewals(server(), url)) >= 4, { everyMs: LEASE_S * 500 })
        slow.finish()
        assert.equal(await slow.status(), 204, `the slow upload\n${logs()}`)
        stop.abort()
        await clients
        // What is left over in vain is named by the assertion.
        await until('rest', async () => (await leftovers(server(), url, home)).length === 0).catch(() => undefined)
        assert.deepEqual(await leftovers(server(), url, home), [], logs())
        assert.deepEqual(await ledger.wrongs(users), [], logs())
      }
      for (const { product } of nodes) await product.stop()
    })
  }
}

const start = (t: TestContext, home: string, url: string, name: string): Promise<Node> =>
  startNode(t, { home, name, url, leaseSeconds: LEASE_S, database: 'max_retries = -1\nretry_interval = 1\n' })

/** An upload that goes on until it is told to finish. */
function slowUpload(user: Client) {
  let pieces = 0
  let finish = () => {}
  const finished = new Promise<void>((resolve) => {
    finish = resolve
  })
  const body = async function* () {
    for (let over = false; !over; ) {
      pieces += 1
      yield Buffer.alloc(1000, `piece ${pieces}`)
      over = await Promise.race([finished.then(() => true), delay(50).then(() => false)])
    }
  }
  const answer = user.create({ name: 'slow' }).then((id) => user.put(id, 'file', body()))
  return { begun: () => pieces > 3, finish, status: async () => (await answer).status }
}

/** How many times the workers have renewed their leases since this was first asked. */
const known = new WeakMap<SqlServer, { seen: Set<string> }>()
async function renewals(server: SqlServer, url: string): Promise<number> {
  const { seen } = known.get(server) ?? { seen: new Set<string>() }
  known.set(server, { seen })
  for (const row of await server.query(url, 'select id, expires_at from glimpse_workers')) seen.add(row)
  return seen.size
}

/** What must not be once nobody asks for anything. */
async function leftovers(server: SqlServer, url: string, home: string): Promise<readonly string[]> {
  const found = async (what: string, query: string) =>
    (await server.query(url, query)).map((row) => `${what}: ${row.replaceAll('\t', ' ')}`)
  const living = server.kind === 'postgresql' ? 'not deleted' : 'deleted = 0'
  const used = new Set(
    (await server.query(url, `select value from image_locations where status <> 'deleted'`)).map((uri) =>
      uri.slice(uri.lastIndexOf('/') + 1),
    ),
  )
  const staged = new Set(await server.query(url, `select id from images where status = 'uploading'`))
  return [
    ...(await found(
      'half done',
      `select id, status from images where status in ('saving', 'importing') or (status = 'uploading' and size is null)`,
    )),
    ...(await found('claim', 'select attempt from glimpse_claims')),
    ...(await found('job', 'select task from glimpse_jobs')),
    ...(await found('task', `select id, status from tasks where status in ('pending', 'processing')`)),
    ...(await found(
      'lock',
      `select image_id from image_properties where name = 'os_glance_import_task' and ${living}`,
    )),
    ...(await found('not erased', `select value from image_locations where status = 'pending_delete'`)),
    ...(await found(
      'doubled tag',
      `select image_id, value from image_tags where ${living} group by image_id, value having count(*) > 1`,
    )),
    ...(await found(
      'doubled member',
      `select image_id, member from image_members where ${living} group by image_id, member having count(*) > 1`,
    )),
    ...(await found(
      'doubled location',
      `select image_id from image_locations where ${living} group by image_id having count(*) > 1`,
    )),
    ...readdirSync(join(home, 'images'))
      .filter((name) => !used.has(name))
      .map((name) => `data of nobody: ${name}`),
    ...readdirSync(join(home, 'staging'))
      .filter((name) => !staged.has(name))
      .map((name) => `staged for nobody: ${name}`),
  ]
}

onServer('a PostgreSQL that is away', postgresAvailable(), () => startPostgres({ durable: true }), suite)
onServer(
  'a MariaDB that is away',
  mariadbAvailable(),
  () => startMariadb({ durable: true, settings: ['--innodb-flush-log-at-trx-commit=1'] }),
  suite,
)
