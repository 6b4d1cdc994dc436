import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { it } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { freePort, startProduct, tail, until } from '../support/product.ts'
import { startWebServer } from '../support/servers/web.ts'

const skip = process.platform === 'linux' ? false : 'processes are found in /proc'

it('a download goes on after kill -9, where it was', { skip }, async (t) => {
  const dir = await mkdtemp(join(tmpdir(), 'glimpse-crash-'))
  const [images, staging] = [join(dir, 'images'), join(dir, 'staging')]
  for (const folder of [images, staging]) await mkdir(folder)
  const port = await freePort()
  const log = join(dir, 'service.log')
  const config = join(dir, 'glance-api.conf')
  await writeFile(
    config,
    `[DEFAULT]
bind_host = 127.0.0.1
bind_port = ${port}
workers = 2
node_staging_uri = file://${staging}
[database]
connection = sqlite:///${join(dir, 'glance.sqlite')}
[glance_store]
filesystem_store_datadir = ${images}
[import_filtering_opts]
allowed_ports = []
[glimpse]
import_addresses = any
lease_ttl = 2
sweep_interval = 1
import_connections = 2
`,
  )
  // Some 2 MiB a second over each connection.
  const data = randomBytes(24 * 1_048_576)
  const web = await startWebServer()
  t.after(() => web.close())
  web.on('/disk', async (request, response) => {
    const [, from = 0, last = data.length - 1] = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? '') ?? []
    const part = data.subarray(Number(from), Number(last) + 1)
    response.writeHead(request.headers.range === undefined ? 200 : 206, {
      'accept-ranges': 'bytes',
      'content-length': part.length,
      etag: '"one"',
      ...(request.headers.range !== undefined && { 'content-range': `bytes ${from}-${last}/${data.length}` }),
    })
    for (let at = 0; at < part.length && !response.destroyed; at += 104_858) {
      response.write(part.subarray(at, at + 104_858))
      await delay(50)
    }
    response.end()
  })

  const start = () => startProduct({ command: 'glance-api', args: ['--config-file', config], port, log })
  let product = await start()
  t.after(() => product.kill())
  const send = async (method: string, path: string, body?: unknown) => {
    const response = await fetch(`${product.url}${path}`, {
      method,
      headers: { 'content-type': 'application/json' },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    })
    assert.ok(response.ok, `${method} ${path}: ${response.status}\n${tail(log)}`)
    return response
  }
  const created = await send('POST', '/v2/images', { disk_format: 'raw', container_format: 'bare' })
  const { id } = (await created.json()) as { id: string }
  await send('POST', `/v2/images/${id}/import`, { method: { name: 'web-download', uri: `${web.url}/disk` } })

  await until('a note of the download', async () => (await readdir(staging)).includes(`${id}.part-1.note`))
  await product.kill()
  const asked = web.requests.length
  product = await start()
  await until('the end of the import', async () => {
    const { status } = (await (await send('GET', `/v2/images/${id}`)).json()) as { status: string }
    assert.notEqual(status, 'queued', tail(log))
    return status === 'active'
  })
  assert.ok((await readFile(join(images, id))).equals(data))
  const fetched = web.requests.slice(asked).map(({ headers }) => headers.range)
  assert.ok(fetched.length > 0 && fetched.every((range) => range !== undefined), `asked for ${fetched}`)
  await until('an empty staging area', async () => (await readdir(staging)).length === 0)
  await product.stop()
  await rm(dir, { recursive: true })
})
