/** Two nodes, of which one is five minutes ahead, on one database whose clock is right. */
import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { globSync } from 'node:fs'
import { mkdir, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { it, type TestContext } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { type Client, clientOf } from '../faults/client.ts'
import { type Node, startNode } from '../support/node.ts'
import { onServer } from '../support/on-server.ts'
import { freeze, tail, until } from '../support/product.ts'
import {
  type Availability,
  mariadbAvailable,
  postgresAvailable,
  type SqlServer,
  startMariadb,
  startPostgres,
} from '../support/servers/sql.ts'

const AHEAD_S = 300
/** Debian's libfaketime: what a process asks the kernel about the time of day is moved, its monotonic clock is not. */
const [FAKETIME] = globSync('/usr/lib/*/faketime/libfaketimeMT.so.1')
const LEASE_S = 2

const both = (database: Availability): Availability =>
  FAKETIME === undefined ? { ok: false, reason: 'libfaketime is not installed' } : database

type AskedNode = Node & Client

async function start(t: TestContext, home: string, url: string, name: string, aheadS: number): Promise<AskedNode> {
  const env = aheadS === 0 ? {} : { LD_PRELOAD: FAKETIME, FAKETIME: `+${aheadS}s`, FAKETIME_DONT_FAKE_MONOTONIC: '1' }
  const node = await startNode(t, { home, name, url, leaseSeconds: LEASE_S, env })
  return { ...clientOf(node.product), ...node }
}

/** Data that goes on until it is told to end. */
function endless() {
  let over = false
  let pieces = 0
  const data = async function* () {
    while (!over) {
      pieces += 1
      yield Buffer.alloc(1000, 'piece ')
      await delay(50)
    }
  }
  return {
    data,
    begun: () => pieces > 2,
    end: () => {
      over = true
    },
  }
}

const leases = (server: SqlServer, url: string) => server.query(url, 'select id, expires_at from glimpse_workers')
/** Waits until each worker has renewed its lease so often. */
async function renewed(server: SqlServer, url: string, times: number): Promise<void> {
  const seen = new Set<string>()
  const workers = (await leases(server, url)).length
  await until('renewals', async () => {
    for (const row of await leases(server, url)) seen.add(row)
    return seen.size >= workers * times
  })
}

const suite = (server: () => SqlServer) =>
  it('serve as one: times, uploads, takeovers and locks are right on both', async (t) => {
    const dir = await mkdtemp(join(tmpdir(), 'glimpse-clocks-'))
    t.after(() => rm(dir, { recursive: true }))
    await mkdir(join(dir, 'staging'))
    const url = await server().database()
    const right = await start(t, dir, url, 'right', 0)
    const ahead = await start(t, dir, url, 'ahead', AHEAD_S)
    const logs = () => [right, ahead].map(({ log }) => tail(log, 10)).join('\n')

    // The node is ahead indeed, and the times of what it makes are not.
    const [made, madeAhead] = [await right.create({ name: 'right' }), await ahead.create({ name: 'ahead' })]
    const date = (await ahead.send('GET', '/v2/images')).headers.get('date')
    assert.ok(Date.parse(String(date)) - Date.now() > (AHEAD_S - 60) * 1000, `Date: ${date}`)
    for (const id of [made, madeAhead]) {
      const created = Date.parse(String((await right.show(id))['created_at']))
      assert.ok(Math.abs(Date.now() - created) < (AHEAD_S / 2) * 1000)
    }

    // Uploads that last for several leases are left alone, on both.
    const uploads = [
      { node: right, id: made, body: endless() },
      { node: ahead, id: madeAhead, body: endless() },
    ]
    const answers = uploads.map(({ node, id, body }) => node.put(id, 'file', body.data()))
    await until('both uploads', () => uploads.every(({ body }) => body.begun()))
    await renewed(server(), url, 8)
    for (const { body } of uploads) body.end()
    assert.deepEqual(
      (await Promise.all(answers)).map(({ status }) => status),
      [204, 204],
      logs(),
    )

    // A node that falls silent is taken over by the other, and not five minutes early or late.
    for (const [silent, other] of [
      [right, ahead],
      [ahead, right],
    ] as const) {
      const id = await silent.create()
      const body = endless()
      const answer = silent.put(id, 'file', body.data()).catch(() => undefined)
      await until('the upload', () => body.begun())
      await until('the claim', async () => (await other.show(id))['status'] === 'saving')
      const [, worker] = silent.product.processes()
      await freeze(worker as number)
      await until('the takeover', async () => (await other.show(id))['status'] === 'queued')
      process.kill(worker as number, 'SIGCONT')
      body.end()
      assert.notEqual((await answer)?.status, 204)
      await until('it is back', async () => (await silent.send('GET', '/v2/images')).ok)
    }

    // Tasks expire after the same time wherever they ended.
    for (const node of [right, ahead]) {
      const id = await node.create()
      assert.equal((await node.put(id, 'stage', Buffer.from('data'))).status, 204)
      const task = await node.import(id, { name: 'glance-direct' })
      assert.equal(task['status'], 'success', String(task['message']))
      const kept = Date.parse(String(task['expires_at'])) - Date.now()
      assert.ok(Math.abs(kept - 48 * 3_600_000) < (AHEAD_S / 2) * 1000, `expires in ${kept} ms`)
    }

    // What somebody else has held for 58 minutes is held; for 62 minutes it is not.
    for (const node of [right, ahead]) {
      for (const [minutes, status] of [
        [58, 409],
        [62, 202],
      ] as const) {
        const id = await node.create()
        assert.equal((await node.put(id, 'stage', Buffer.from('data'))).status, 204)
        await lockByAnother(server(), url, id, minutes)
        const answer = await node.send('POST', `/v2/images/${id}/import`, { method: { name: 'glance-direct' } })
        assert.equal(answer.status, status, `${minutes} minutes: ${await answer.text()}`)
      }
    }
    for (const { product } of [right, ahead]) await product.stop()
  })

/** As upstream's Glance would have left it: a task that has the image, and that was last touched so long ago. */
async function lockByAnother(server: SqlServer, url: string, image: string, minutes: number): Promise<void> {
  const task = randomUUID()
  const then =
    server.kind === 'postgresql'
      ? `timezone('UTC', now()) - interval '${minutes} minutes'`
      : `utc_timestamp() - interval ${minutes} minute`
  for (const text of [
    `insert into tasks (id, type, status, owner, created_at, updated_at, deleted, image_id)
      values ('${task}', 'api_image_import', 'processing', 'p1', ${then}, ${then}, false, '${image}')`,
    `insert into task_info (task_id, input) values ('${task}', '{}')`,
    `insert into image_properties (image_id, name, value, created_at, deleted)
      values ('${image}', 'os_glance_import_task', '${task}', ${then}, false)`,
  ])
    await server.query(url, text)
}

onServer('two nodes and their clocks, on PostgreSQL', both(postgresAvailable()), startPostgres, suite)
if (process.env['CLOCKS'] === 'all')
  onServer('two nodes and their clocks, on MariaDB', both(mariadbAvailable()), startMariadb, suite)
