/** The disk is full, in each place where the service writes, and at each moment at which it may notice. */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { existsSync } from 'node:fs'
import { readdir, readFile, readlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, it, type TestContext } from 'node:test'
import { gzipSync } from 'node:zlib'
import { NOTIFICATIONS } from '../../src/notify/drivers/test.ts'
import { until } from '../support/product.ts'
import { startServer, type TestConfig, type TestServer } from '../support/server.ts'
import { serving, startWebServer } from '../support/servers/web.ts'
import { mountSmallDisk, noDisks, type SmallDisk } from '../support/small-disk.ts'
import { assertAtRest, type Client, clientOf, essence, filesIn } from './client.ts'

const skip = noDisks()
const DATA = randomBytes(4_194_304)
const PAGE = 4096
const hasQemu = existsSync('/usr/bin/qemu-img') || process.env['CI'] === 'true'
/** What is left when a step begins that writes `size` bytes: from nothing at all to just enough for some of its files. */
const leftovers = (size: number): readonly number[] => {
  const all = Math.ceil(size / PAGE) * PAGE
  return [0, PAGE, 1_048_576, all - PAGE, all, all + PAGE]
}
const FULL_STORE = /There is not enough disk space on the image storage media/
const FULL_STAGING = /There is no room left for the data of imports/

async function serve(t: TestContext, config: TestConfig = {}): Promise<{ server: TestServer; user: Client }> {
  const server = await startServer({
    config: { import_filtering_opts: { allowed_ports: '[]' }, ...config },
  })
  t.after(() => server.close())
  return { server, user: clientOf(server) }
}
const stagingAt = ({ dir }: SmallDisk): TestConfig => ({
  DEFAULT: { node_staging_uri: `file://${dir}` },
  import_filtering_opts: { allowed_ports: '[]' },
})

async function* inChunks(data: Buffer): AsyncGenerator<Buffer> {
  for (let at = 0; at < data.length; at += 65_536) yield data.subarray(at, at + 65_536)
}
const body = (announced: boolean, data = DATA) => (announced ? data : inChunks(data))

/** Data that comes in halves: the second one once `go` was called. */
function halves(data: Buffer): { body: AsyncIterable<Uint8Array>; go: () => void } {
  let go = () => {}
  const gate = new Promise<void>((resolve) => {
    go = resolve
  })
  async function* parts() {
    yield data.subarray(0, data.length / 2)
    await gate
    yield data.subarray(data.length / 2)
  }
  return { body: parts(), go }
}

describe('a full disk', { skip }, () => {
  for (const announced of [true, false]) {
    const how = announced ? 'of known length' : 'in chunks'

    it(`under the store: an upload ${how} is refused with 413, told of, and leaves nothing`, async (t) => {
      const disk = await mountSmallDisk(t)
      const { server, user } = await serve(t, {
        glance_store: { filesystem_store_datadir: disk.dir },
        oslo_messaging_notifications: { driver: 'test' },
      })
      const id = await user.create()
      const before = essence(await user.show(id))
      for (const leave of [0, PAGE, 1_048_576, DATA.length - PAGE]) {
        await disk.fill(leave)
        const told = NOTIFICATIONS.length
        const answer = await user.put(id, 'file', body(announced))
        assert.equal(answer.status, 413)
        assert.match(await answer.text(), FULL_STORE)
        assert.deepEqual(essence(await user.show(id)), before)
        const errors = NOTIFICATIONS.slice(told).filter(({ priority }) => priority === 'ERROR')
        assert.match(JSON.stringify(errors), FULL_STORE)
        await assertAtRest(server, [disk.dir])
        await disk.makeRoom()
      }
      assert.equal((await user.put(id, 'file', body(announced))).status, 204)
      assert.ok(DATA.equals(await user.data(id)))
    })

    it(`under the staging area: data ${how} is refused with 413, and leaves nothing`, async (t) => {
      const disk = await mountSmallDisk(t)
      const { server, user } = await serve(t, stagingAt(disk))
      const id = await user.create()
      const before = essence(await user.show(id))
      for (const leave of [0, PAGE, 1_048_576, DATA.length - PAGE]) {
        await disk.fill(leave)
        const answer = await user.put(id, 'stage', body(announced))
        assert.equal(answer.status, 413)
        assert.match(await answer.text(), FULL_STORE)
        assert.deepEqual(essence(await user.show(id)), before)
        await assertAtRest(server, [disk.dir])
        await disk.makeRoom()
      }
      assert.equal((await user.put(id, 'stage', body(announced))).status, 204)
      assert.equal((await user.import(id, { name: 'glance-direct' }))['status'], 'success')
      assert.ok(DATA.equals(await user.data(id)))
    })
  }

  it('under the staging area: a web-download fails with a reason, and leaves nothing', async (t) => {
    const disk = await mountSmallDisk(t)
    const { server, user } = await serve(t, stagingAt(disk))
    const web = await startWebServer()
    t.after(() => web.close())
    const method = { name: 'web-download', uri: `${web.url}${web.serve(DATA)}` }
    const id = await user.create()
    const before = essence(await user.show(id))
    for (const leave of leftovers(DATA.length)) {
      await disk.fill(leave)
      const { status, message } = await user.import(id, method)
      assert.deepEqual([status, String(message).match(FULL_STAGING)?.length ?? message], ['failure', 1], `${leave}`)
      assert.deepEqual(essence(await user.show(id)), before)
      await assertAtRest(server, [disk.dir])
      await disk.makeRoom()
      if (leave === DATA.length) break // with a page more there is room for all
    }
    assert.equal((await user.import(id, method))['status'], 'success')
    assert.ok(DATA.equals(await user.data(id)))
    await assertAtRest(server, [disk.dir])
  })

  interface Plugin {
    readonly name: string
    /** What is staged; it becomes DATA. */
    make(dir: string): Promise<Buffer>
    readonly format: string
    readonly config: TestConfig
  }
  const plugins: readonly Plugin[] = [
    { name: 'image_decompression', make: async () => gzipSync(DATA), format: 'raw', config: {} },
    {
      name: 'image_conversion',
      make: async (dir) => {
        const [raw, qcow2] = [join(dir, 'raw'), join(dir, 'qcow2')]
        await writeFile(raw, DATA)
        execFileSync('qemu-img', ['convert', '-f', 'raw', '-O', 'qcow2', raw, qcow2])
        return readFile(qcow2)
      },
      format: 'qcow2',
      config: { image_conversion: { output_format: 'raw' } },
    },
  ]
  for (const { name, make, format, config } of plugins) {
    const withoutQemu = name === 'image_conversion' && !hasQemu && 'qemu-img is not installed'
    const options = { timeout: 120_000, skip: withoutQemu }
    it(`under the staging area: ${name} fails with a reason, and leaves nothing`, options, async (t) => {
      const disk = await mountSmallDisk(t)
      const plugin = { image_import_opts: { image_import_plugins: `[${name}]` }, ...config }
      const { server, user } = await serve(t, { ...stagingAt(disk), ...plugin })
      const data = await make(server.dir)
      const id = await user.create({ disk_format: format })
      const before = essence(await user.show(id))
      for (const leave of leftovers(DATA.length)) {
        assert.equal((await user.put(id, 'stage', data)).status, 204)
        await disk.fill(leave)
        const { status, message } = await user.import(id, { name: 'glance-direct' })
        assert.deepEqual([status, String(message).match(FULL_STAGING)?.length ?? message], ['failure', 1], `${leave}`)
        assert.deepEqual(essence(await user.show(id)), before)
        await assertAtRest(server, [disk.dir])
        await disk.makeRoom()
        if (leave === DATA.length) break
      }
      assert.equal((await user.put(id, 'stage', data)).status, 204)
      const task = await user.import(id, { name: 'glance-direct' })
      assert.equal(task['status'], 'success', String(task['message']))
      assert.ok(DATA.equals(await user.data(id)))
      await assertAtRest(server, [disk.dir])
    })
  }

  const twoStores = ({ dir }: SmallDisk): TestConfig => ({
    DEFAULT: { enabled_backends: 'large:file, small:file', enabled_import_methods: '[glance-direct,copy-image]' },
    glance_store: { default_backend: 'large' },
    small: { filesystem_store_datadir: dir },
  })

  it('under one of several stores: copy-image fails, and the image stays active as it was', async (t) => {
    const disk = await mountSmallDisk(t)
    const { server, user } = await serve(t, twoStores(disk))
    const id = await user.create()
    assert.equal((await user.put(id, 'file', DATA)).status, 204)
    const before = essence(await user.show(id))
    const copy = () => user.import(id, { name: 'copy-image' }, { stores: ['small'] })
    for (const leave of [0, PAGE, 1_048_576, DATA.length - PAGE]) {
      await disk.fill(leave)
      const { status, message } = await copy()
      assert.equal(status, 'failure')
      assert.match(String(message), FULL_STORE)
      const image = await user.show(id)
      assert.deepEqual(essence(image), before)
      assert.equal(image['os_glance_failed_import'], 'small')
      await assertAtRest(server, [disk.dir, join(server.dir, 'staging')])
      await disk.makeRoom()
    }
    assert.equal((await copy())['status'], 'success')
    const image = await user.show(id)
    assert.deepEqual([image['stores'], image['os_glance_failed_import']], ['large,small', ''])
    assert.ok(DATA.equals(await readFile(join(disk.dir, id))))
  })

  it('under one of several stores: an import fails, or goes on without it, as it was asked for', async (t) => {
    const disk = await mountSmallDisk(t)
    const { server, user } = await serve(t, twoStores(disk))
    await disk.fill(1_048_576)
    const stores = ['large', 'small']
    const id = await user.create()
    assert.equal((await user.put(id, 'stage', DATA)).status, 204)
    const failed = await user.import(id, { name: 'glance-direct' }, { stores })
    assert.equal(failed['status'], 'failure')
    assert.match(String(failed['message']), FULL_STORE)
    assert.equal((await user.show(id))['status'], 'queued')
    await assertAtRest(server, [disk.dir, join(server.dir, 'large'), join(server.dir, 'staging')])

    assert.equal((await user.put(id, 'stage', DATA)).status, 204)
    const done = await user.import(id, { name: 'glance-direct' }, { stores, all_stores_must_succeed: false })
    assert.equal(done['status'], 'success')
    const image = await user.show(id)
    assert.deepEqual([image['status'], image['stores'], image['os_glance_failed_import']], ['active', 'large', 'small'])
    await assertAtRest(server, [disk.dir, join(server.dir, 'staging')])
    await disk.makeRoom()
    assert.equal((await user.import(id, { name: 'copy-image' }, { stores: ['small'] }))['status'], 'success')
  })
})

describe('a full disk under the image cache', { skip }, () => {
  const cached = ({ dir }: SmallDisk): TestConfig => ({
    DEFAULT: {
      image_cache_dir: dir,
      image_cache_driver: 'sqlite',
      enabled_backends: 'fast:file, web:http',
      show_multiple_locations: 'True',
    },
    glance_store: { default_backend: 'fast' },
    paste_deploy: { flavor: 'keystone+cachemanagement' },
  })
  const partsIn = async ({ dir }: SmallDisk) => [
    ...(await filesIn(join(dir, 'incomplete'))),
    ...(await filesIn(join(dir, 'invalid'))),
    ...(await filesIn(join(dir, 'queue'))),
  ]
  const openFiles = async ({ dir }: SmallDisk): Promise<readonly string[]> => {
    const links = (await readdir('/proc/self/fd')).map((fd) => readlink(`/proc/self/fd/${fd}`).catch(() => ''))
    return (await Promise.all(links)).filter((link) => link.startsWith(join(dir, 'incomplete')))
  }

  it('costs no download, and leaves nothing', async (t) => {
    const disk = await mountSmallDisk(t)
    const { user } = await serve(t, cached(disk))
    for (const size of [0, 100, 5000, 1_000_000]) {
      const data = randomBytes(size)
      const id = await user.create()
      assert.equal((await user.put(id, 'file', data)).status, 204)
      const isCached = async () => JSON.stringify((await user.json('GET', '/v2/cache'))['cached_images']).includes(id)
      for (const leave of [0, PAGE, 2 * PAGE, 3 * PAGE, size, size + PAGE]) {
        await disk.fill(leave)
        assert.ok(data.equals(await user.data(id)), `${size} bytes, ${leave} left`)
        // There may have been room for it, though not for its record.
        await until('no unfinished file', async () => (await partsIn(disk)).length === 0, { seconds: 10 }).catch(
          () => undefined,
        )
        assert.deepEqual([await partsIn(disk), await openFiles(disk)], [[], []], `${size} bytes, ${leave} left`)
        if (await isCached()) assert.ok(data.equals(await readFile(join(disk.dir, id))))
        await disk.makeRoom()
        await user.send('DELETE', `/v2/cache/${id}`)
        assert.equal(await isCached(), false)
      }
      assert.ok(data.equals(await user.data(id)))
      await until('the copy', isCached)
    }
  })

  it('that fills while a copy grows costs none of its readers a byte', async (t) => {
    const disk = await mountSmallDisk(t)
    const { user } = await serve(t, cached(disk))
    const web = await startWebServer()
    t.after(() => web.close())
    let go = () => {}
    const gate = new Promise<void>((resolve) => {
      go = resolve
    })
    web.on('/image', async (request, response) => {
      if (request.method === 'HEAD' || request.headers.range !== undefined) return serving(DATA)(request, response)
      response.writeHead(200, { 'content-length': DATA.length }).write(DATA.subarray(0, 1_000_000))
      await gate
      response.end(DATA.subarray(1_000_000))
    })
    const id = await user.create()
    const location = [{ op: 'add', path: '/locations/-', value: { url: `${web.url}/image`, metadata: {} } }]
    const patched = await fetch(`${user.url}/v2/images/${id}`, {
      method: 'PATCH',
      headers: { 'x-auth-token': user.token, 'content-type': 'application/openstack-images-v2.1-json-patch' },
      body: JSON.stringify(location),
    })
    assert.equal(patched.status, 200, await patched.text())
    const readers = [user.data(id), user.data(id), user.data(id)]
    await until('a growing copy', async () => (await partsIn(disk)).length === 1)
    await disk.fill()
    go()
    for (const got of await Promise.all(readers)) assert.ok(DATA.equals(got))
    await until('no unfinished file', async () => (await partsIn(disk)).length === 0)
    await disk.makeRoom()
    assert.ok(DATA.equals(await user.data(id)))
    await until('the copy', async () => (await filesIn(disk.dir)).includes(id))
  })
})

describe('a full disk under the database', { skip }, () => {
  /** A service whose database can be filled up, so that nothing more can be written to it. */
  async function withDatabase(t: TestContext) {
    const disk = await mountSmallDisk(t)
    const { server, user } = await serve(t, { database: { connection: `sqlite:///${disk.dir}/glance.sqlite` } })
    const fill = async () => {
      await disk.fill()
      // What has been written to the log before is written over first.
      for (let status = 201; status !== 503; ) {
        assert.equal(status, 201)
        const answer = await user.send('POST', '/v2/images', { name: 'x'.repeat(200), description: 'x'.repeat(20_000) })
        status = answer.status
        await answer.body?.cancel()
      }
    }
    return { disk, server, user, fill, folders: [join(server.dir, 'images'), join(server.dir, 'staging')] }
  }

  it('is answered with 503 where something would change, and readers notice nothing', async (t) => {
    const { disk, server, user, fill, folders } = await withDatabase(t)
    const [active, queued, staged] = [await user.create(), await user.create(), await user.create()]
    assert.equal((await user.put(active, 'file', DATA)).status, 204)
    assert.equal((await user.put(staged, 'stage', DATA)).status, 204)
    const known = await filesIn(server.dir)
    const before = await Promise.all([active, queued, staged].map(user.show))
    await fill()
    for (const [what, answer] of [
      ['upload', user.put(queued, 'file', DATA)],
      ['stage', user.put(queued, 'stage', DATA)],
      ['import', user.send('POST', `/v2/images/${staged}/import`, { method: { name: 'glance-direct' } })],
      ['delete', user.send('DELETE', `/v2/images/${active}`)],
      ['deactivate', user.send('POST', `/v2/images/${active}/actions/deactivate`)],
      ['tag', user.send('PUT', `/v2/images/${active}/tags/new`)],
      ['member', user.send('POST', `/v2/images/${active}/members`, { member: 'p2' })],
    ] as const) {
      const { status } = await answer
      assert.ok(status === 503 || (what === 'member' && status === 403), `${what}: ${status}`)
    }
    assert.equal((await user.send('GET', '/v2/images')).status, 200)
    assert.deepEqual(await Promise.all([active, queued, staged].map(user.show)), before)
    assert.ok(DATA.equals(await user.data(active)))
    assert.deepEqual((await filesIn(server.dir)).toSorted(), known.toSorted())

    await disk.makeRoom()
    assert.equal((await user.put(queued, 'file', DATA)).status, 204)
    assert.equal((await user.import(staged, { name: 'glance-direct' }))['status'], 'success')
    for (const id of [active, queued, staged]) assert.equal((await user.send('DELETE', `/v2/images/${id}`)).status, 204)
    await assertAtRest(server, folders)
  })

  for (const to of ['file', 'stage'] as const) {
    it(`ends what is on its way to /${to} with 503, and the image is queued once there is room`, async (t) => {
      const { disk, server, user, fill, folders } = await withDatabase(t)
      const id = await user.create()
      const before = essence(await user.show(id))
      const { body, go } = halves(DATA)
      const answer = user.put(id, to, body)
      await until('the first half', async () => (await user.show(id))['status'] !== 'queued')
      await fill()
      go()
      assert.equal((await answer).status, 503)
      await disk.makeRoom()
      await assertAtRest(server, folders)
      assert.deepEqual(essence(await user.show(id)), before)
      assert.equal((await user.put(id, to, DATA)).status, 204)
      assert.equal((await user.show(id))['size'], DATA.length)
    })
  }

  it('makes an import wait, and it goes on once there is room', async (t) => {
    const { disk, server, user, fill } = await withDatabase(t)
    const web = await startWebServer()
    t.after(() => web.close())
    let go = () => {}
    const gate = new Promise<void>((resolve) => {
      go = resolve
    })
    web.on('/data', async (_, response) => {
      response.writeHead(200, { 'content-length': DATA.length }).write(DATA.subarray(0, 1_000_000))
      await gate
      response.end(DATA.subarray(1_000_000))
    })
    const id = await user.create()
    const task = await user.begin(id, { name: 'web-download', uri: `${web.url}/data` })
    await until('the first bytes', async () => (await filesIn(join(server.dir, 'staging'))).length > 0)
    await fill()
    go()
    const { runner } = server.app.core.imports
    await until('the end of the try', () => !runner.has(task as never))
    assert.equal((await user.show(id))['status'], 'importing')
    await disk.makeRoom()
    await assertAtRest(server, [join(server.dir, 'staging')])
    assert.equal((await user.ended(task))['status'], 'success')
    assert.ok(DATA.equals(await user.data(id)))
  })
})
