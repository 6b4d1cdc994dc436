import assert from 'node:assert/strict'
import { mkdir, mkdtemp, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, it, type TestContext } from 'node:test'
import { startConfigured } from '../support/node.ts'
import { type Product, until } from '../support/product.ts'

const skip = process.platform === 'linux' ? false : 'processes are found in /proc'
const DATA = Buffer.alloc(100_000, 'image data ')

interface Node extends Product {
  /** Its staging area; maybe also that of others. */
  readonly staging: string
}

/** Two services that share a database and a store, each with two workers; and a staging area where `shared` says so. */
async function twoNodes(t: TestContext, { shared }: { readonly shared: boolean }) {
  const dir = await mkdtemp(join(tmpdir(), 'glimpse-nodes-'))
  const images = join(dir, 'images')
  await mkdir(images)
  const start = async (name: string): Promise<Node> => {
    const staging = join(dir, shared ? 'staging' : `staging-${name}`)
    // Without a flavor everybody is an administrator: the test is not about who may do what.
    const { product } = await startConfigured(
      t,
      { home: dir, name },
      (port) => `[DEFAULT]
bind_host = 127.0.0.1
bind_port = ${port}
workers = 2
enabled_import_methods = [glance-direct]
node_staging_uri = file://${staging}
worker_self_reference_url = http://127.0.0.1:${port}
[database]
connection = sqlite:///${join(dir, 'glance.sqlite')}
[glance_store]
stores = file
default_store = file
filesystem_store_datadir = ${images}
[glimpse]
import_addresses = any
lease_ttl = 2
sweep_interval = 1
`,
    )
    return { ...product, staging }
  }
  const one = await start('one')
  const two = await start('two')
  t.after(() => rm(dir, { recursive: true }))
  return { one, two, images }
}

interface Image {
  readonly id: string
  readonly status: string
  readonly size: number | null
}

async function staged(node: Node, data: Buffer<ArrayBuffer> = DATA): Promise<string> {
  const body = JSON.stringify({ disk_format: 'raw', container_format: 'bare' })
  const created = await fetch(`${node.url}/v2/images`, { method: 'POST', body })
  const { id } = (await created.json()) as Image
  const headers = { 'content-type': 'application/octet-stream' }
  const answer = await fetch(`${node.url}/v2/images/${id}/stage`, { method: 'PUT', headers, body: data })
  assert.equal(answer.status, 204, await answer.text())
  return id
}

const importAt = (node: Node, id: string) =>
  fetch(`${node.url}/v2/images/${id}/import`, {
    method: 'POST',
    headers: { accept: 'text/plain' },
    body: JSON.stringify({ method: { name: 'glance-direct' } }),
  })
const show = async (node: Node, id: string) => (await (await fetch(`${node.url}/v2/images/${id}`)).json()) as Image
const becomes = (node: Node, id: string, status: string) =>
  until(`${id} to be ${status}`, async () => (await show(node, id)).status === status, { everyMs: 50 })
const lastTask = async (node: Node, id: string) => {
  const { tasks } = (await (await fetch(`${node.url}/v2/images/${id}/tasks`)).json()) as {
    tasks: { status: string; message: string; request_id: string }[]
  }
  return tasks.at(-1)
}
/** Files of an image in a folder, finished or not. */
const keptOf = async (folder: string, id: string) => (await readdir(folder)).filter((name) => name.includes(id)).length

async function assertImported(node: Node, id: string, data = DATA): Promise<void> {
  await becomes(node, id, 'active')
  const answer = await fetch(`${node.url}/v2/images/${id}/file`)
  assert.ok(data.equals(Buffer.from(await answer.arrayBuffer())), 'the same data')
}

/** Begins an import that takes some time, and kills the whole node in the middle of it. */
async function killWhileImporting(node: Node, other: Node, images: string, data: Buffer<ArrayBuffer>): Promise<string> {
  for (;;) {
    const id = await staged(node, data)
    assert.equal((await importAt(node, id)).status, 202)
    await until('bytes in the store', async () => (await keptOf(images, id)) > 0, { everyMs: 1 })
    process.kill(-node.pid, 'SIGSTOP')
    if ((await show(other, id)).status === 'importing') {
      await node.kill()
      return id
    }
    process.kill(-node.pid, 'SIGCONT')
  }
}

const big = Buffer.alloc(150_000_000, 'image data ')

describe('two nodes', { skip }, () => {
  it('with staging areas of their own: what is staged at one is imported and deleted there', async (t) => {
    const { one, two, images } = await twoNodes(t, { shared: false })
    const [id, lost, deleted, kept] = [await staged(one), await staged(one), await staged(one), await staged(one)]

    const answer = await importAt(two, id)
    assert.equal(answer.status, 202)
    await assertImported(two, id)
    assert.equal((await lastTask(two, id))?.request_id, answer.headers.get('x-openstack-request-id'))
    await until('the end of what was staged', async () => !(await readdir(one.staging)).includes(id))
    assert.deepEqual(await readdir(two.staging), [])

    // What the other node thinks of it is heard here.
    await rm(join(one.staging, lost))
    assert.equal((await importAt(two, lost)).status, 202)
    await becomes(two, lost, 'queued')
    const task = await lastTask(two, lost)
    assert.deepEqual([task?.status, task?.message], ['failure', 'The staged data is gone: stage it again'])

    assert.equal((await fetch(`${two.url}/v2/images/${deleted}`, { method: 'DELETE' })).status, 204)
    assert.deepEqual(await readdir(one.staging), [kept])

    // When that node dies, its import is undone, since nobody else has the data.
    const interrupted = await killWhileImporting(one, two, images, big)
    await becomes(two, interrupted, 'queued')
    const undone = await lastTask(two, interrupted)
    assert.equal(undone?.status, 'failure')
    assert.match(undone.message, /^The node that has the staged data stopped before the import was finished/)
    assert.equal(await keptOf(images, interrupted), 0)
    assert.equal((await show(two, interrupted)).size, null)

    const refused = await importAt(two, kept)
    assert.equal(refused.status, 504)
    assert.match(await refused.text(), /Stage host is unavailable/)
    assert.equal((await show(two, kept)).status, 'uploading')
    assert.equal((await fetch(`${two.url}/v2/images/${kept}`, { method: 'DELETE' })).status, 204)
    assert.equal((await fetch(`${two.url}/v2/images/${kept}`)).status, 404)
  })

  it('that share a staging area: any of them imports, deletes, and goes on where another one died', async (t) => {
    const { one, two, images } = await twoNodes(t, { shared: true })
    const [imported, deleted] = [await staged(one), await staged(one)]
    const interrupted = await killWhileImporting(one, two, images, big)
    await assertImported(two, interrupted, big)
    assert.equal(await keptOf(images, interrupted), 1)

    assert.equal((await importAt(two, imported)).status, 202)
    await assertImported(two, imported)
    assert.equal((await fetch(`${two.url}/v2/images/${deleted}`, { method: 'DELETE' })).status, 204)
    await until('an empty staging area', async () => (await readdir(two.staging)).length === 0)
  })

  it('of which one has lost its workers: others of the same node go on with the data on its disk', async (t) => {
    const { one, two, images } = await twoNodes(t, { shared: false })
    // What shares a machine counts as one node, but the second one here has another staging area.
    await two.stop()
    for (;;) {
      const id = await staged(one, big)
      assert.equal((await importAt(one, id)).status, 202)
      await until('bytes in the store', async () => (await keptOf(images, id)) > 0, { everyMs: 1 })
      for (const pid of one.processes().slice(1)) process.kill(pid, 'SIGKILL')
      await until(
        'new workers',
        async () => (await fetch(`${one.url}/healthcheck`).catch(() => undefined))?.ok === true,
      )
      const { status } = await show(one, id)
      await assertImported(one, id, big)
      await until('an empty staging area', async () => (await readdir(one.staging)).length === 0)
      if (status === 'importing') return
    }
  })
})
