import assert from 'node:assert/strict'
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, it, type TestContext } from 'node:test'
import { freePort, type Product, startProduct, until } from '../support/product.ts'
import { iniOf, SECRET } from '../support/registry.ts'
import type { TestConfig } from '../support/server.ts'

const skip = process.platform === 'linux' ? false : 'processes are found in /proc'
/** How often the registry is killed. */
const ROUNDS = Number(process.env['REGISTRY_ROUNDS'] ?? 2)
const DATA = Buffer.alloc(50_000, 'image data ')

interface Site {
  readonly dir: string
  readonly nodes: readonly Product[]
  /** kill -9. */
  killRegistry(): Promise<void>
  startRegistry(): Promise<void>
}

/** A registry with its database, and API nodes that know only the registry. */
async function startSite(t: TestContext, count: number): Promise<Site> {
  const dir = await mkdtemp(join(tmpdir(), 'glimpse-site-'))
  const running: Product[] = []
  t.after(async () => {
    for (const product of running) await product.kill()
    await rm(dir, { recursive: true, maxRetries: 5 })
  })
  const start = async (command: string, name: string, port: number, config: TestConfig): Promise<Product> => {
    const file = join(dir, `${name}.conf`)
    await writeFile(file, iniOf(config))
    const product = await startProduct({
      command,
      args: ['--config-file', file],
      port,
      log: join(dir, `${name}.log`),
    })
    running.push(product)
    return product
  }
  const registryPort = await freePort()
  const startRegistry = () =>
    start('glance-registry', 'registry', registryPort, {
      DEFAULT: { bind_host: '127.0.0.1', bind_port: String(registryPort), workers: '2' },
      database: { connection: `sqlite:///${join(dir, 'glance.sqlite')}` },
      glimpse: { registry_secret: SECRET },
    })
  let registry = await startRegistry()
  const nodes: Product[] = []
  for (let n = 0; n < count; n += 1) {
    const port = await freePort()
    nodes.push(
      await start('glance-api', `node-${n}`, port, {
        DEFAULT: {
          bind_host: '127.0.0.1',
          bind_port: String(port),
          workers: '1',
          data_api: 'glance.db.registry.api',
          registry_host: '127.0.0.1',
          registry_port: String(registryPort),
          enabled_import_methods: '[glance-direct]',
          node_staging_uri: `file://${join(dir, `staging-${n}`)}`,
          worker_self_reference_url: `http://127.0.0.1:${port}`,
          image_cache_dir: join(dir, `cache-${n}`),
          image_cache_driver: 'centralized_db',
        },
        paste_deploy: { flavor: 'cachemanagement' },
        glance_store: { stores: 'file', default_store: 'file', filesystem_store_datadir: join(dir, 'images') },
        // All leases run out while the registry is away; no node dies of that.
        glimpse: { registry_secret: SECRET, import_addresses: 'any', lease_ttl: '2', sweep_interval: '1' },
      }),
    )
  }
  return {
    dir,
    nodes,
    killRegistry: () => registry.kill(),
    startRegistry: async () => {
      registry = await startRegistry()
    },
  }
}

const json = (body: unknown): RequestInit => ({ method: 'POST', body: JSON.stringify(body) })
const put = (data: Buffer<ArrayBuffer>): RequestInit => ({
  method: 'PUT',
  headers: { 'content-type': 'application/octet-stream' },
  body: data,
})
const bytes = async (answer: Response): Promise<Buffer> => Buffer.from(await answer.arrayBuffer())

/** An answer that must have this status. */
async function ask(url: string, init: RequestInit | undefined, status: number): Promise<Response> {
  const answer = await fetch(url, init)
  if (answer.status !== status) assert.fail(`${init?.method ?? 'GET'} ${url}: ${answer.status} ${await answer.text()}`)
  return answer
}

interface Image {
  readonly id: string
  readonly name: string
  readonly status: string
}

const FORMATS = { disk_format: 'raw', container_format: 'bare' }

describe('API nodes without a database', { skip }, () => {
  it('do everything through the registry', async (t) => {
    const { nodes, killRegistry, startRegistry } = await startSite(t, 2)
    const [here, there] = nodes.map(({ url }) => `${url}/v2`) as [string, string]

    const created = await ask(`${here}/images`, json({ name: 'first', ...FORMATS, tags: ['a'], os: 'x' }), 201)
    const { id } = (await created.json()) as Image
    await ask(`${there}/images/${id}/file`, put(DATA), 204)
    const shown = (await (await ask(`${here}/images/${id}`, undefined, 200)).json()) as Record<string, unknown>
    assert.deepEqual([shown['status'], shown['size'], shown['os']], ['active', DATA.length, 'x'])
    const patch = { ...json([{ op: 'replace', path: '/name', value: 'renamed' }]), method: 'PATCH' }
    const headers = { 'content-type': 'application/openstack-images-v2.1-json-patch' }
    await ask(`${there}/images/${id}`, { ...patch, headers }, 200)
    await ask(`${here}/images/${id}/members`, json({ member: 'friend' }), 200)
    const list = (await (await ask(`${there}/images?name=renamed`, undefined, 200)).json()) as { images: Image[] }
    assert.deepEqual(
      list.images.map((image) => image.id),
      [id],
    )

    // Through the cache, whose index is in the database.
    for (let n = 0; n < 2; n += 1)
      assert.ok(DATA.equals(await bytes(await ask(`${here}/images/${id}/file`, undefined, 200))))
    await until('the image in the cache', async () => {
      const { cached_images } = (await (await fetch(`${here}/cache`)).json()) as {
        cached_images: { image_id: string; hits: number }[]
      }
      return cached_images.some((one) => one.image_id === id && one.hits > 0)
    })

    const second = (await (await ask(`${here}/images`, json(FORMATS), 201)).json()) as Image
    await ask(`${here}/images/${second.id}/stage`, put(DATA), 204)
    await ask(`${there}/images/${second.id}/import`, json({ method: { name: 'glance-direct' } }), 202)
    await until('the import', async () => {
      const answer = await fetch(`${there}/images/${second.id}`)
      return ((await answer.json()) as Image).status === 'active'
    })
    assert.ok(DATA.equals(await bytes(await ask(`${there}/images/${second.id}/file`, undefined, 200))))

    const namespace = {
      namespace: 'OS::Test',
      owner: 'somebody',
      visibility: 'public',
      properties: { size: { title: 'Size', type: 'integer', minimum: 1 } },
      tags: [{ name: 'one' }],
    }
    await ask(`${here}/metadefs/namespaces`, json(namespace), 201)
    const found = await ask(`${there}/metadefs/namespaces/OS::Test/properties/size`, undefined, 200)
    assert.equal(((await found.json()) as { minimum: number }).minimum, 1)
    await ask(`${there}/metadefs/namespaces/OS::Nothing`, undefined, 404)

    await ask(`${there}/images/${id}`, { method: 'DELETE' }, 204)
    await ask(`${here}/images/${id}`, undefined, 404)

    await killRegistry()
    const away = await ask(`${here}/images`, { headers: { accept: 'text/plain' } }, 503)
    assert.match(await away.text(), /The registry does not answer/)
    await ask(`${there}/images`, json(FORMATS), 503)
    await startRegistry()
    await ask(`${here}/images/${second.id}`, undefined, 200)
  })

  it('lose and double nothing when the registry is killed under load', async (t) => {
    const { nodes, dir, killRegistry, startRegistry } = await startSite(t, 2)
    const urls = nodes.map(({ url }) => `${url}/v2`)
    const load = new AbortController()
    const created = new Map<string, string>()
    const uploaded = new Set<string>()
    const members = new Map<string, string[]>()
    const refused: string[] = []
    const unexpected: string[] = []
    let number = 0

    const client = async (url: string): Promise<void> => {
      const call = async (path: string, init: RequestInit, good: number): Promise<Response | undefined> => {
        const answer = await fetch(`${url}${path}`, init)
        if (answer.status === good) return answer
        const text = await answer.text()
        if (answer.status !== 503) unexpected.push(`${init.method} ${path}: ${answer.status} ${text}`)
        return undefined
      }
      while (!load.signal.aborted) {
        const name = `image-${number++}`
        const answer = await call('/images', json({ name, ...FORMATS }), 201)
        if (answer === undefined) {
          refused.push(name)
          continue
        }
        const { id } = (await answer.json()) as Image
        created.set(id, name)
        for (const member of ['a', 'b'])
          if (await call(`/images/${id}/members`, json({ member }), 200))
            members.set(id, [...(members.get(id) ?? []), member])
        if (await call(`/images/${id}/file`, put(DATA), 204)) uploaded.add(id)
      }
    }
    const clients = [...urls, ...urls].map(client)
    for (let round = 0; round < ROUNDS; round += 1) {
      const before = created.size
      await until('images', () => created.size > before + 5)
      await killRegistry()
      await startRegistry()
    }
    const before = created.size
    await until('images again', () => created.size > before + 5)
    load.abort()
    await Promise.all(clients)

    assert.deepEqual(unexpected, [])
    const url = urls[0] as string
    const all = new Map<string, Image>()
    for (let marker = ''; ; ) {
      const page = await ask(`${url}/images?limit=500${marker}`, undefined, 200)
      const { images } = (await page.json()) as { images: Image[] }
      for (const image of images) all.set(image.id, image)
      if (images.length < 500) break
      marker = `&marker=${images.at(-1)?.id}`
    }
    for (const [id, name] of created) assert.equal(all.get(id)?.name, name, 'an image that was created is there')
    const names = [...all.values()].map(({ name }) => name)
    assert.equal(new Set(names).size, names.length, 'no image is there twice')
    for (const name of names)
      assert.ok(refused.includes(name) || [...created.values()].includes(name), `nobody asked for ${name}`)
    for (const id of uploaded) {
      assert.equal(all.get(id)?.status, 'active')
      assert.ok(DATA.equals(await bytes(await ask(`${url}/images/${id}/file`, undefined, 200))))
    }
    for (const [id, wanted] of members) {
      const answer = await ask(`${url}/images/${id}/members`, undefined, 200)
      const found = ((await answer.json()) as { members: { member_id: string }[] }).members.map((one) => one.member_id)
      for (const member of wanted)
        assert.equal(found.filter((one) => one === member).length, 1, 'each membership is there once')
    }
    // What the clients were not told of comes to an end too.
    await until('no image in saving', async () => {
      const { images } = (await (await fetch(`${url}/images?status=saving`)).json()) as { images: Image[] }
      return images.length === 0
    })
    await until('a file for each active image, and no other', async () => {
      const answer = await fetch(`${url}/images?status=active&limit=1000`)
      const active = ((await answer.json()) as { images: Image[] }).images.map(({ id }) => id)
      const files = await readdir(join(dir, 'images'))
      return files.length === active.length && active.every((id) => files.includes(id))
    })
    t.diagnostic(`${created.size} images, ${uploaded.size} with data, ${refused.length} refused, ${ROUNDS} kills`)
  })
})
