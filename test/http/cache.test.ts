import assert from 'node:assert/strict'
import { mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { describe, it, type TestContext } from 'node:test'
import type { Core } from '../../src/core/core.ts'
import type { Notification } from '../../src/notify/notifier.ts'
import type { Store } from '../../src/store/store.ts'
import { until } from '../support/product.ts'
import { startServer, type TestConfig, type TestServer } from '../support/server.ts'

const ALICE = 'alice:p1:member,reader'
const ADMIN = 'root:p0:admin,member,reader'
const CACHED: TestConfig = {
  DEFAULT: { image_cache_dir: 'cache', worker_self_reference_url: 'http://node-1:9292' },
  paste_deploy: { flavor: 'keystone+caching' },
}

async function serve(t: TestContext, config: TestConfig = CACHED): Promise<TestServer> {
  const server = await startServer({ config })
  t.after(() => server.close())
  return server
}

const call = (server: TestServer, method: string, path: string, token = ALICE, body?: string | Buffer) =>
  fetch(`${server.url}${path}`, {
    method,
    headers: { 'x-auth-token': token, 'content-type': 'application/octet-stream', accept: 'text/plain' },
    ...(body === undefined ? {} : { body }),
  })

async function createImage(server: TestServer, data: string | Buffer): Promise<string> {
  const formats = JSON.stringify({ disk_format: 'raw', container_format: 'bare' })
  const { id } = (await (await call(server, 'POST', '/v2/images', ALICE, formats)).json()) as { id: string }
  assert.equal((await call(server, 'PUT', `/v2/images/${id}/file`, ALICE, data)).status, 204)
  return id
}

const download = async (server: TestServer, id: string, token = ALICE): Promise<Buffer> => {
  const response = await call(server, 'GET', `/v2/images/${id}/file`, token)
  assert.equal(response.status, 200)
  return Buffer.from(await response.arrayBuffer())
}

interface CacheList {
  readonly cached_images: readonly { readonly image_id: string; readonly hits: number; readonly size: number }[]
  readonly queued_images: readonly string[]
}
const list = async (server: TestServer): Promise<CacheList> =>
  (await (await call(server, 'GET', '/v2/cache', ADMIN)).json()) as CacheList
const cachedIn = async (server: TestServer) => (await list(server)).cached_images.map(({ image_id }) => image_id)

/** Counts how often the store is read from now on. */
function countReads({ app }: TestServer): () => number {
  const store = app.core.stores.default as { -readonly [Name in keyof Store]: Store[Name] }
  const { open } = store
  let reads = 0
  store.open = (...args) => {
    reads += 1
    return open(...args)
  }
  return () => reads
}

function recordEvents({ app }: TestServer): readonly Notification[] {
  const events: Notification[] = []
  const core = app.core as { -readonly [Name in keyof Core]: Core[Name] }
  core.notifier = { notify: (event) => void events.push(event), close: async () => undefined }
  return events
}

describe('downloads through the cache', () => {
  it('read the store once, however many come', async (t) => {
    const server = await serve(t)
    const data = Buffer.alloc(5_000_000, 'cached')
    const id = await createImage(server, data)
    const reads = countReads(server)
    const bodies = await Promise.all(Array.from({ length: 50 }, () => download(server, id)))
    assert.ok(bodies.every((body) => body.equals(data)))
    assert.equal(reads(), 1)
    await download(server, id)
    assert.equal(reads(), 1)
    const { cached_images } = await list(server)
    assert.deepEqual(
      cached_images.map(({ image_id, size }) => [image_id, size]),
      [[id, 5_000_000]],
    )
    assert.deepEqual(await readdir(join(server.dir, 'cache', 'incomplete')), [])
  })

  it('are told of as the others are', async (t) => {
    const server = await serve(t)
    const id = await createImage(server, 'some data')
    const events = recordEvents(server)
    for (let i = 0; i < 3; i++) await download(server, id)
    await call(server, 'GET', `/v2/images/${id}/file`, 'bob:p2:member,reader')
    // A client has the last byte a moment before anybody is told.
    await until('the messages', async () => events.length >= 3)
    const sent = events.map((event) => event.type === 'image.send' && [event.image.id, event.bytes, event.to.userId])
    assert.deepEqual(
      sent,
      [1, 2, 3].map(() => [id, 9, 'alice']),
    )
  })

  it('go by the policies of each request', async (t) => {
    const server = await serve(t)
    const id = await createImage(server, 'some data')
    await download(server, id)
    assert.deepEqual(await cachedIn(server), [id])
    const status = async (token = ALICE) => (await call(server, 'GET', `/v2/images/${id}/file`, token)).status
    assert.equal(await status('bob:p2:member,reader'), 404)
    assert.equal(await status(), 200)
    await call(server, 'POST', `/v2/images/${id}/actions/deactivate`, ADMIN)
    assert.deepEqual([await status(), await status(ADMIN)], [403, 200])
    await call(server, 'POST', `/v2/images/${id}/actions/reactivate`, ADMIN)
    await writeFile(join(server.dir, 'policy.yaml'), 'download_image: "role:admin"\n')
    await until('the new policy', async () => (await status()) === 403)
    assert.equal(await status(ADMIN), 200)
  })

  it('of an image that is deleted end in nothing kept', async (t) => {
    const server = await serve(t)
    const id = await createImage(server, 'some data')
    await download(server, id)
    assert.deepEqual(await cachedIn(server), [id])
    assert.equal((await call(server, 'DELETE', `/v2/images/${id}`)).status, 204)
    assert.deepEqual(await cachedIn(server), [])
    assert.equal((await readdir(join(server.dir, 'cache'))).includes(id), false)
  })

  it('answer as without a cache when the data is in no store', async (t) => {
    const server = await serve(t)
    const id = await createImage(server, 'some data')
    await rm(join(server.dir, 'images', id))
    assert.equal((await call(server, 'GET', `/v2/images/${id}/file`)).status, 204)
    assert.deepEqual(await readdir(join(server.dir, 'cache', 'incomplete')), [])
  })

  it('of data that has changed in the store are cut, and nothing is kept', async (t) => {
    const server = await serve(t)
    const id = await createImage(server, 'some data')
    await writeFile(join(server.dir, 'images', id), 'evil data')
    await assert.rejects(download(server, id), (error: unknown) => error instanceof TypeError)
    await until('nothing left', async () => (await readdir(join(server.dir, 'cache', 'incomplete'))).length === 0)
    assert.deepEqual(await cachedIn(server), [])
  })

  it('are not cached in a pipeline without one', async (t) => {
    const server = await serve(t, { ...CACHED, paste_deploy: { flavor: 'keystone' } })
    const id = await createImage(server, 'some data')
    await download(server, id)
    assert.deepEqual(await cachedIn(server), [])
    assert.equal((await call(server, 'PUT', `/v2/cache/${id}`, ADMIN)).status, 202)
    await until('the copy', async () => (await cachedIn(server)).includes(id))
  })
})

describe('queued images', () => {
  it('are cached in the background', async (t) => {
    const server = await serve(t)
    const ids = [await createImage(server, 'one'), await createImage(server, 'two'), await createImage(server, 'three')]
    const events = recordEvents(server)
    for (const id of ids) assert.equal((await call(server, 'PUT', `/v2/cache/${id}`, ADMIN)).status, 202)
    await until('all of them', async () => (await cachedIn(server)).length === 3)
    await until('an empty queue', async () => (await list(server)).queued_images.length === 0)
    assert.deepEqual(events, [])
    const reads = countReads(server)
    assert.equal((await download(server, ids[2] as string)).toString(), 'three')
    assert.equal(reads(), 0)
  })

  it('of which there is no image leave the queue; others that fail stay', async (t) => {
    const server = await serve(t)
    const cache = server.app.core.cache
    const lost = await createImage(server, 'lost')
    await rm(join(server.dir, 'images', lost))
    await cache?.enqueue('55555555-5555-4555-8555-555555555555' as never)
    await cache?.enqueue(lost as never)
    const last = await createImage(server, 'last')
    await call(server, 'PUT', `/v2/cache/${last}`, ADMIN)
    await until('the last', async () => (await cachedIn(server)).includes(last))
    assert.deepEqual((await list(server)).queued_images, [lost])
  })
})

describe('the index of the cache', () => {
  const versions = async ({ url }: TestServer) =>
    ((await (await fetch(`${url}/versions`)).json()) as { versions: { id: string; status: string }[] }).versions

  it('brings the versions 2.14, 2.16 and 2.18', async (t) => {
    const found = await versions(await serve(t))
    assert.deepEqual(
      found.slice(0, 5).map(({ id, status }) => [id, status]),
      [
        ['v2.18', 'CURRENT'],
        ['v2.17', 'SUPPORTED'],
        ['v2.16', 'SUPPORTED'],
        ['v2.15', 'SUPPORTED'],
        ['v2.14', 'SUPPORTED'],
      ],
    )
  })

  it('shared by all nodes, shows who has an image', async (t) => {
    const server = await serve(t)
    const id = await createImage(server, 'some data')
    await download(server, id)
    const { cached_images } = await list(server)
    const members = ['id', 'image_id', 'hits', 'last_accessed', 'last_modified', 'size', 'checksum']
    assert.deepEqual(Object.keys(cached_images[0] ?? {}), members)
    const nodes = await call(server, 'GET', `/v2/cache/nodes/${id}`, ADMIN)
    assert.deepEqual([nodes.status, await nodes.json()], [200, ['http://node-1:9292']])
    const unknown = await call(server, 'GET', '/v2/cache/nodes/11111111-1111-4111-8111-111111111111', ADMIN)
    assert.equal(unknown.status, 404)
  })

  it('shared by all nodes, needs the address of this one', async () => {
    const config = { ...CACHED, DEFAULT: { image_cache_dir: 'cache' } }
    await assert.rejects(startServer({ config }), /worker_self_reference_url/)
  })

  it('is moved from a file to the service database', async (t) => {
    const dir = await mkdtemp(join(tmpdir(), 'glimpse-old-node-'))
    t.after(() => rm(dir, { recursive: true, force: true }))
    const id = '66666666-6666-4666-8666-666666666666'
    await mkdir(join(dir, 'queue'))
    await writeFile(join(dir, id), 'old data')
    const file = new DatabaseSync(join(dir, 'cache.db'))
    t.after(() => file.close())
    file.exec(`CREATE TABLE cached_images (image_id TEXT PRIMARY KEY, last_accessed REAL DEFAULT 0.0,
      last_modified REAL DEFAULT 0.0, size INTEGER DEFAULT 0, hits INTEGER DEFAULT 0, checksum TEXT);
      INSERT INTO cached_images VALUES ('${id}', 1700000000.5, 1600000000, 8, 12, NULL)`)
    const server = await serve(t, { ...CACHED, DEFAULT: { ...CACHED['DEFAULT'], image_cache_dir: dir } })
    const [row] = (await list(server)).cached_images
    assert.deepEqual([row?.image_id, row?.hits, row?.size], [id, 12, 8])
    assert.equal((row as { last_accessed?: number }).last_accessed, 1_700_000_000.5)
    assert.equal(file.prepare('SELECT count(*) AS n FROM cached_images').get()?.['n'], 0)
  })

  it('that cannot be used is replaced by the file', async (t) => {
    const server = await serve(t, {
      DEFAULT: { image_cache_dir: '/dev/shm/glimpse-cache-test', image_cache_driver: 'centralized_db' },
    })
    t.after(() => rm('/dev/shm/glimpse-cache-test', { recursive: true, force: true }))
    assert.equal(server.app.core.cache?.driver, 'sqlite')
  })

  it('whose folder cannot be made keeps the service from starting', async () => {
    const config = { ...CACHED, DEFAULT: { ...CACHED['DEFAULT'], image_cache_dir: '/dev/null/cache' } }
    await assert.rejects(startServer({ config }), /image_cache_dir/)
  })
})
