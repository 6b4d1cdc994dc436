/**
 * A store that stands still: its own requests wait, and nobody else does.
 *   STALL_SECONDS=60 npm run faults    how long it does at least
 */
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, it, type TestContext } from 'node:test'
import { freePort, startProduct, tail, until } from '../support/product.ts'
import { startServer } from '../support/server.ts'
import { serving, startWebServer } from '../support/servers/web.ts'
import { mountFreezableDisk, noFreezing } from '../support/small-disk.ts'
import { type Client, clientOf } from './client.ts'

const stallMs = Number(process.env['STALL_SECONDS'] ?? 0) * 1000
const DATA = randomBytes(3_000_000)

/** Milliseconds that each of so many lists and shows took. */
async function look(user: Client, id: string, count: number): Promise<readonly number[]> {
  const times: number[] = []
  for (let n = 0; n < count; n += 1) {
    const since = performance.now()
    const path = n % 2 === 0 ? '/v2/images?limit=20' : `/v2/images/${id}`
    const answer = await user.send('GET', path)
    await answer.arrayBuffer()
    assert.equal(answer.status, 200)
    times.push(performance.now() - since)
  }
  return times
}
const p99 = (times: readonly number[]) => times.toSorted((a, b) => a - b)[Math.floor(times.length * 0.99)] ?? 0

/** Goes on for at least as long as the stall is to last; says how much slower than before it was. */
async function lookMeanwhile(t: TestContext, user: Client, id: string, calm: readonly number[]): Promise<void> {
  const times: number[] = []
  const since = performance.now()
  do times.push(...(await look(user, id, 200)))
  while (performance.now() - since < stallMs)
  t.diagnostic(`p99 of ${times.length} lists and shows: ${(p99(times) / p99(calm)).toFixed(1)} times that of before`)
}

/** Requests that are not to end yet. */
function pending<T>(requests: readonly Promise<T>[]): { readonly ended: () => number; readonly all: Promise<T[]> } {
  let ended = 0
  for (const request of requests) {
    const count = () => {
      ended += 1
    }
    request.then(count, count)
  }
  return { ended: () => ended, all: Promise.all(requests) }
}

describe('a file store that stands still', { skip: noFreezing(), timeout: stallMs + 120_000 }, () => {
  it('keeps its uploads waiting, and neither other stores nor those who look', async (t) => {
    const disk = await mountFreezableDisk(t)
    const dir = await mkdtemp(join(tmpdir(), 'glimpse-stalled-'))
    const port = await freePort()
    const [config, log] = [join(dir, 'glance-api.conf'), join(dir, 'service.log')]
    await writeFile(config, glanceApiConf(dir, disk.dir, port))
    const product = await startProduct({ command: 'glance-api', args: ['--config-file', config], port, log })
    t.after(async () => {
      await disk.thaw()
      await product.kill()
      await rm(dir, { recursive: true })
    })
    const user = clientOf(product)
    const put = (id: string, store: string, body: AsyncIterable<Uint8Array> | Buffer) =>
      fetch(`${product.url}/v2/images/${id}/file`, {
        method: 'PUT',
        headers: { 'content-type': 'application/octet-stream', 'x-image-meta-store': store },
        body,
        duplex: 'half',
      } as RequestInit)
    const known = await user.create()
    assert.equal((await put(known, 'fast', DATA)).status, 204)
    const calm = await look(user, known, 200)

    const ids = await Promise.all(Array.from({ length: 24 }, () => user.create()))
    let go = () => {}
    const gate = new Promise<void>((resolve) => {
      go = resolve
    })
    async function* halves() {
      yield DATA.subarray(0, 1_000_000)
      await gate
      yield DATA.subarray(1_000_000)
    }
    // Some wait in the middle of their data, some before the first byte.
    const uploads = ids.map((id, index) => (index < 12 ? put(id, 'slow', halves()) : undefined))
    await until('the first bytes', async () =>
      (await Promise.all(ids.slice(0, 12).map(user.show))).every(({ status }) => status === 'saving'),
    )
    await disk.freeze()
    go()
    const stalled = pending(uploads.map((upload, index) => upload ?? put(ids[index] as string, 'slow', DATA)))
    await until('all of them', async () =>
      (await Promise.all(ids.map(user.show))).every(({ status }) => status === 'saving'),
    )
    await lookMeanwhile(t, user, known, calm)

    const others = await Promise.all(Array.from({ length: 12 }, () => user.create()))
    const work = Promise.all(
      others.map(async (id) => {
        assert.equal((await put(id, 'fast', DATA)).status, 204)
        assert.ok(DATA.equals(await user.data(id)))
        assert.equal((await user.send('DELETE', `/v2/images/${id}`)).status, 204)
        const staged = await user.create()
        assert.equal((await user.put(staged, 'stage', DATA)).status, 204)
        const task = await user.import(staged, { name: 'glance-direct' }, { stores: ['fast'] })
        assert.equal(task['status'], 'success', String(task['message']))
      }),
    )
    let done = false
    const end = work.then(() => {
      done = true
    })
    await Promise.race([end, until('the others', () => done, { seconds: 30 })])
    assert.equal((await fetch(`${product.url}/healthcheck`)).status, 200)
    assert.equal(stalled.ended(), 0, 'the store still stands')

    await disk.thaw()
    for (const answer of await stalled.all) assert.equal(answer.status, 204, tail(log))
    for (const id of ids) assert.ok(DATA.equals(await readFile(join(disk.dir, id))))
    await product.stop()
  })
})

describe('web servers that stand still', { timeout: stallMs + 120_000 }, () => {
  it('keep their own readers waiting, and nobody else', async (t) => {
    const server = await startServer({
      config: {
        DEFAULT: { enabled_backends: 'fast:file, web:http', show_multiple_locations: 'True' },
        glance_store: { default_backend: 'fast' },
        import_filtering_opts: { allowed_ports: '[]' },
        glimpse: { import_stall_timeout: '300' },
      },
    })
    t.after(() => server.close())
    const web = await startWebServer()
    t.after(() => web.close())
    let go = () => {}
    const gate = new Promise<void>((resolve) => {
      go = resolve
    })
    web.on('/image', async (request, response) => {
      if (request.method === 'HEAD') return serving(DATA)(request, response)
      response.writeHead(200, { 'content-length': DATA.length }).write(DATA.subarray(0, 100_000))
      await gate
      response.end(DATA.subarray(100_000))
    })
    const user = clientOf(server)
    const known = await user.create()
    assert.equal((await user.put(known, 'file', DATA)).status, 204)
    const calm = await look(user, known, 200)

    const uri = `${web.url}/image`
    const located = await user.create()
    const patch = [{ op: 'add', path: '/locations/-', value: { url: uri, metadata: {} } }]
    const patched = await fetch(`${user.url}/v2/images/${located}`, {
      method: 'PATCH',
      headers: { 'x-auth-token': user.token, 'content-type': 'application/openstack-images-v2.1-json-patch' },
      body: JSON.stringify(patch),
    })
    assert.equal(patched.status, 200)
    const importing = await Promise.all(Array.from({ length: 8 }, () => user.create()))
    const tasks = await Promise.all(importing.map((id) => user.begin(id, { name: 'web-download', uri })))
    const adding = await user.create()
    assert.equal((await user.send('POST', `/v2/images/${adding}/locations`, { url: uri })).status, 202)
    const stalled = pending(Array.from({ length: 40 }, () => user.data(located)))
    await until('all who wait', () => web.requests.filter(({ method }) => method === 'GET').length >= 49)

    await lookMeanwhile(t, user, known, calm)
    assert.ok(DATA.equals(await user.data(known)))
    const other = await user.create()
    assert.equal((await user.put(other, 'stage', DATA)).status, 204)
    assert.equal((await user.import(other, { name: 'glance-direct' }))['status'], 'success')
    assert.equal(stalled.ended(), 0)

    go()
    for (const data of await stalled.all) assert.ok(DATA.equals(data))
    for (const task of tasks) assert.equal((await user.ended(task))['status'], 'success')
    await until('the digest', async () => (await user.show(adding))['checksum'] !== null)
  })
})

/** Without a flavor everybody is an administrator: the test is not about who may do what. */
const glanceApiConf = (dir: string, slow: string, port: number): string => `[DEFAULT]
bind_host = 127.0.0.1
bind_port = ${port}
workers = 1
enabled_backends = fast:file, slow:file
[database]
connection = sqlite:///${dir}/glance.sqlite
[glance_store]
default_backend = fast
[fast]
filesystem_store_datadir = ${dir}/fast
[slow]
filesystem_store_datadir = ${slow}
[os_glance_staging_store]
filesystem_store_datadir = ${dir}/staging
`
