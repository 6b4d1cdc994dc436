/** kill -9 of the service, or of the worker that does it, while the data of a new location is read. */
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import type { ServerResponse } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { it } from 'node:test'
import { freePort, startProduct, tail, until } from '../support/product.ts'
import { serving, startWebServer } from '../support/servers/web.ts'

const skip = process.platform === 'linux' ? false : 'processes are found in /proc'
const DATA = Buffer.from('ten bytes!')

for (const victim of ['the service', 'its workers'] as const)
  it(`a location import goes on after a kill -9 of ${victim}`, { skip }, async (t) => {
    const dir = await mkdtemp(join(tmpdir(), 'glimpse-crash-'))
    t.after(() => rm(dir, { recursive: true }))
    const web = await startWebServer()
    t.after(() => web.close())
    const port = await freePort()
    const config = join(dir, 'glance-api.conf')
    const log = join(dir, 'service.log')
    await writeFile(config, glanceApiConf(dir, port))
    const start = () => startProduct({ command: 'glance-api', args: ['--config-file', config], port, log })
    let product = await start()
    t.after(() => product.kill())

    let served = 0
    const hanging: ServerResponse[] = []
    web.on('/data', (request, response) => {
      if (request.method === 'HEAD') return serving(DATA)(request, response)
      served += 1
      if (hanging.length > 0) return serving(DATA)(request, response)
      response.writeHead(200, { 'content-length': DATA.length }).write(DATA.subarray(0, 3))
      hanging.push(response)
    })
    const post = async (path: string, body: unknown) =>
      fetch(`${product.url}${path}`, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify(body),
      })
    const get = async (path: string) =>
      (await fetch(`${product.url}${path}`)).json() as Promise<Record<string, unknown>>
    const created = await post('/v2/images', { disk_format: 'raw', container_format: 'bare' })
    const { id } = (await created.json()) as { id: string }
    const os_hash_value = createHash('sha256').update(DATA).digest('hex')
    const validation_data = { os_hash_algo: 'sha256', os_hash_value }
    assert.equal((await post(`/v2/images/${id}/locations`, { url: `${web.url}/data`, validation_data })).status, 202)
    await until('the first half', () => hanging.length > 0)

    if (victim === 'the service') {
      await product.kill()
      product = await start()
    } else for (const worker of product.processes().slice(1)) process.kill(worker, 'SIGKILL')
    await until('the image', async () => {
      const answer = await get(`/v2/images/${id}`).catch(() => undefined)
      return answer?.['status'] === 'active'
    }).catch((error: unknown) => assert.fail(`${error}\n${tail(log)}`))

    const image = await get(`/v2/images/${id}`)
    assert.deepEqual([image['size'], image['os_hash_value']], [DATA.length, os_hash_value])
    assert.equal(image['os_glance_import_task'], undefined)
    const { tasks } = (await get(`/v2/images/${id}/tasks`)) as { tasks?: Record<string, unknown>[] }
    assert.deepEqual(
      tasks?.map(({ status }) => status),
      ['success'],
    )
    assert.equal(served, 2)
    await product.stop()
  })

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
[glimpse]
sweep_interval = 1
`
