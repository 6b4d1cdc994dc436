/** kill -9 of the service, or of its workers, while a job of theirs reads data. */
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { it, type TestContext } from 'node:test'
import { freePort, type Product, startProduct, tail, until } from '../support/product.ts'
import { serving, startWebServer, type WebServer } from '../support/servers/web.ts'

const skip = process.platform === 'linux' ? false : 'processes are found in /proc'
const DATA = Buffer.from('ten bytes!')

interface Scene {
  readonly web: WebServer
  readonly log: string
  product: Product
}

async function setUp(t: TestContext): Promise<Scene & { restart(): Promise<void> }> {
  const dir = await mkdtemp(join(tmpdir(), 'glimpse-crash-'))
  t.after(() => rm(dir, { recursive: true }))
  const web = await startWebServer()
  t.after(() => web.close())
  const port = await freePort()
  const config = join(dir, 'glance-api.conf')
  const log = join(dir, 'service.log')
  await writeFile(config, glanceApiConf(dir, port))
  const start = () => startProduct({ command: 'glance-api', args: ['--config-file', config], port, log })
  const scene = {
    web,
    log,
    product: await start(),
    restart: async () => {
      scene.product = await start()
    },
  }
  t.after(() => scene.product.kill())
  return scene
}

/** Sends the first half to whoever asks first, and everything to those who come after. */
function serveHalf(web: WebServer): { readonly requests: () => number } {
  let requests = 0
  web.on('/data', (request, response) => {
    if (request.method === 'HEAD') return serving(DATA)(request, response)
    requests += 1
    if (requests > 1) return serving(DATA)(request, response)
    response.writeHead(200, { 'content-length': DATA.length }).write(DATA.subarray(0, 3))
  })
  return { requests: () => requests }
}

type Json = Readonly<Record<string, unknown>>
const post = ({ product }: Scene, path: string, body: unknown) =>
  fetch(`${product.url}${path}`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(body),
  })
/** A client gives up: a connection that was on its way to a worker when it was killed is never answered. */
const PATIENCE_MS = 5000
const get = async ({ product }: Scene, path: string) =>
  (await (await fetch(`${product.url}${path}`, { signal: AbortSignal.timeout(PATIENCE_MS) })).json()) as Json
const eventually = (scene: Scene, path: string, what: (answer: Json) => boolean) =>
  until(path, async () => {
    const answer = await get(scene, path).catch(() => undefined)
    return answer !== undefined && what(answer)
  }).catch((error: unknown) => assert.fail(`${error}\n${tail(scene.log)}`))

for (const victim of ['the service', 'its workers'] as const) {
  const crash = async (scene: Awaited<ReturnType<typeof setUp>>) => {
    if (victim === 'the service') {
      await scene.product.kill()
      await scene.restart()
    } else for (const worker of scene.product.processes().slice(1)) process.kill(worker, 'SIGKILL')
  }

  it(`a location import goes on after a kill -9 of ${victim}`, { skip }, async (t) => {
    const scene = await setUp(t)
    const { requests } = serveHalf(scene.web)
    const created = await post(scene, '/v2/images', { disk_format: 'raw', container_format: 'bare' })
    const { id } = (await created.json()) as { id: string }
    const os_hash_value = createHash('sha256').update(DATA).digest('hex')
    const location = { url: `${scene.web.url}/data`, validation_data: { os_hash_algo: 'sha256', os_hash_value } }
    assert.equal((await post(scene, `/v2/images/${id}/locations`, location)).status, 202)
    await until('the first half', () => requests() > 0)
    await crash(scene)
    await eventually(scene, `/v2/images/${id}`, ({ status }) => status === 'active')

    const image = await get(scene, `/v2/images/${id}`)
    assert.deepEqual([image['size'], image['os_hash_value']], [DATA.length, os_hash_value])
    assert.equal(image['os_glance_import_task'], undefined)
    const { tasks } = (await get(scene, `/v2/images/${id}/tasks`)) as { tasks?: Json[] }
    assert.deepEqual(
      tasks?.map(({ status }) => status),
      ['success'],
    )
    assert.equal(requests(), 2)
    await scene.product.stop()
  })

  it(`a task of type import goes on after a kill -9 of ${victim}`, { skip }, async (t) => {
    const scene = await setUp(t)
    const { requests } = serveHalf(scene.web)
    const image_properties = { disk_format: 'raw', container_format: 'bare' }
    const input = { import_from: `${scene.web.url}/data`, import_from_format: 'raw', image_properties }
    const { id } = (await (await post(scene, '/v2/tasks', { type: 'import', input })).json()) as { id: string }
    await until('the first half', () => requests() > 0)
    await crash(scene)
    await eventually(scene, `/v2/tasks/${id}`, ({ status }) => status === 'success')

    const { images } = (await get(scene, '/v2/images')) as { images?: Json[] }
    assert.deepEqual(
      images?.map(({ status, size }) => [status, size]),
      [['active', DATA.length]],
    )
    await scene.product.stop()
  })
}

const glanceApiConf = (dir: string, port: number): string => `[DEFAULT]
bind_host = 127.0.0.1
bind_port = ${port}
workers = 2
node_staging_uri = file://${dir}/staging
[database]
connection = sqlite:///${dir}/glance.sqlite
[glance_store]
stores = file, http
default_store = file
filesystem_store_datadir = ${dir}/images
[import_filtering_opts]
allowed_ports = []
[glimpse]
import_addresses = any
sweep_interval = 1
`
