/** Clients that vanish, lie about lengths, or come all at once. */
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { readdir, readlink } from 'node:fs/promises'
import { connect, type Socket } from 'node:net'
import { join } from 'node:path'
import { describe, it, type TestContext } from 'node:test'
import { until } from '../support/product.ts'
import { startServer, type TestConfig, type TestServer } from '../support/server.ts'
import { startWebServer } from '../support/servers/web.ts'
import { assertAtRest, type Client, clientOf, essence, filesIn } from './client.ts'

const DATA = randomBytes(3_000_000)
const onLinux = process.platform === 'linux' ? {} : { skip: 'needs /proc' }

async function serve(t: TestContext, config: TestConfig = {}): Promise<{ server: TestServer; user: Client }> {
  const server = await startServer({ config: { import_filtering_opts: { allowed_ports: '[]' }, ...config } })
  t.after(() => server.close())
  return { server, user: clientOf(server) }
}
const folders = ({ dir }: TestServer) => [join(dir, 'images'), join(dir, 'staging')]

/** A request written by hand. */
function raw(user: Client, line: string, headers: Readonly<Record<string, string | number>>): Socket {
  const { hostname, port } = new URL(user.url)
  const socket = connect(Number(port), hostname).on('error', () => undefined)
  const fields = { Host: 'x', 'X-Auth-Token': user.token, 'Content-Type': 'application/octet-stream', ...headers }
  socket.write(
    `${line} HTTP/1.1\r\n${Object.entries(fields)
      .map(([name, value]) => `${name}: ${value}\r\n`)
      .join('')}\r\n`,
  )
  return socket
}
/** What comes until the other end closes, or until `enough` says so. */
async function received(socket: Socket, enough: (text: string) => boolean = () => false): Promise<string> {
  let text = ''
  for await (const chunk of socket) {
    text += (chunk as Buffer).toString('latin1')
    if (enough(text)) break
  }
  return text
}
const statusOf = async (socket: Socket) =>
  Number(/^HTTP\/1\.1 (\d+)/.exec(await received(socket, (text) => text.includes('\r\n\r\n')))?.[1])

describe('a client that vanishes', () => {
  for (const to of ['file', 'stage'] as const) {
    const phases = {
      'before the first byte': 0,
      'in the middle': DATA.length / 2,
      'before the last byte': DATA.length - 1,
      'right after the last byte': DATA.length,
    }
    for (const [phase, sent] of Object.entries(phases)) {
      for (const chunked of [false, true]) {
        it(`while it sends data to /${to}, ${phase}, ${chunked ? 'in chunks' : 'of known length'}`, async (t) => {
          const { server, user } = await serve(t)
          const id = await user.create()
          const before = essence(await user.show(id))
          const length = chunked ? { 'Transfer-Encoding': 'chunked' } : { 'Content-Length': DATA.length }
          const over = new Promise<void>((resolve) => {
            server.app.http.server.on('request', ({ method }, response) => {
              if (method === 'PUT') response.once('close', resolve)
            })
          })
          const socket = raw(user, `PUT /v2/images/${id}/${to}`, length)
          if (chunked && sent > 0) socket.write(`${sent.toString(16)}\r\n`)
          if (sent > 0) await new Promise<void>((resolve) => socket.write(DATA.subarray(0, sent), () => resolve()))
          // When all of it has come, only the end of the chunks is missing, or the answer is.
          if (chunked || sent < DATA.length)
            await until('the claim', async () => (await user.show(id))['status'] !== 'queued')
          socket.destroy()
          await over
          await until('the end', async () => {
            const { status, size } = await user.show(id)
            return server.app.core.attempts.size === 0 && (status === 'queued' || size !== null)
          })
          const image = await user.show(id)
          if (image['status'] === 'queued') {
            assert.deepEqual(essence(image), before)
            await assertAtRest(server, folders(server))
            assert.equal((await user.put(id, to, DATA)).status, 204)
          } else {
            assert.ok(sent === DATA.length && !chunked, 'only what came whole is kept')
            assert.equal(image['size'], DATA.length)
            await assertAtRest(server)
          }
          if (to === 'stage') assert.equal((await user.import(id, { name: 'glance-direct' }))['status'], 'success')
          assert.ok(DATA.equals(await user.data(id)))
        })
      }
    }
  }

  it('while it reads a copy that grows, costs the others nothing, and no file stays open', onLinux, async (t) => {
    const { server, user } = await serve(t, {
      DEFAULT: {
        image_cache_dir: 'cache',
        image_cache_driver: 'sqlite',
        enabled_backends: 'fast:file, web:http',
        show_multiple_locations: 'True',
      },
      glance_store: { default_backend: 'fast' },
      paste_deploy: { flavor: 'keystone+cachemanagement' },
    })
    const web = await startWebServer()
    t.after(() => web.close())
    let go = () => {}
    const gate = new Promise<void>((resolve) => {
      go = resolve
    })
    web.on('/image', async (request, response) => {
      response.writeHead(200, { 'content-length': DATA.length })
      if (request.method === 'HEAD') return void response.end()
      response.write(DATA.subarray(0, 1_000_000))
      await gate
      response.end(DATA.subarray(1_000_000))
    })
    const id = await user.create()
    const patched = await fetch(`${user.url}/v2/images/${id}`, {
      method: 'PATCH',
      headers: { 'x-auth-token': user.token, 'content-type': 'application/openstack-images-v2.1-json-patch' },
      body: JSON.stringify([{ op: 'add', path: '/locations/-', value: { url: `${web.url}/image`, metadata: {} } }]),
    })
    assert.equal(patched.status, 200)
    const openFiles = async () => {
      const fds = await readdir('/proc/self/fd')
      const links = await Promise.all(fds.map((fd) => readlink(`/proc/self/fd/${fd}`).catch(() => '')))
      return links.filter((link) => link.startsWith(join(server.dir, 'cache')) && link.includes(id)).length
    }
    // The first one, for whom the copy is made, goes too.
    const vanishing = Array.from({ length: 10 }, () => raw(user, `GET /v2/images/${id}/file`, {}))
    await Promise.all(vanishing.map((socket) => new Promise((resolve) => socket.once('data', resolve))))
    const staying = [user.data(id), user.data(id)]
    await until('all readers', async () => (await openFiles()) >= 13)
    for (const socket of vanishing) socket.destroy()
    await until('the readers who stay', async () => (await openFiles()) <= 3)
    go()
    for (const data of await Promise.all(staying)) assert.ok(DATA.equals(data))
    await until('no open file', async () => (await openFiles()) === 0)
    assert.deepEqual(await filesIn(join(server.dir, 'cache', 'incomplete')), [])
    assert.equal(web.requests.filter(({ method }) => method === 'GET').length, 1)
  })
})

describe('a length that is a lie', () => {
  for (const to of ['file', 'stage'] as const) {
    it(`Content-Length of /${to}, too large: nothing is kept when the rest does not come`, async (t) => {
      const { server, user } = await serve(t)
      const id = await user.create()
      const before = essence(await user.show(id))
      const socket = raw(user, `PUT /v2/images/${id}/${to}`, { 'Content-Length': DATA.length + 1 })
      socket.write(DATA)
      await until('the claim', async () => (await user.show(id))['status'] !== 'queued')
      socket.end()
      await until('the end', async () => (await user.show(id))['status'] === 'queued')
      assert.deepEqual(essence(await user.show(id)), before)
      await assertAtRest(server, folders(server))
    })

    it(`Content-Length of /${to}, too small: no byte beyond it is taken`, async (t) => {
      const { server, user } = await serve(t)
      const id = await user.create()
      const socket = raw(user, `PUT /v2/images/${id}/${to}`, { 'Content-Length': 1000, Connection: 'close' })
      socket.write(DATA)
      // What comes behind the image is no request: whether the client hears of that or of its image is a race.
      const status = await statusOf(socket)
      assert.ok([204, 400].includes(status), String(status))
      await until('the end', async () => {
        const { status, size } = await user.show(id)
        return server.app.core.attempts.size === 0 && (status === 'queued' || size !== null)
      })
      const image = await user.show(id)
      assert.deepEqual(image['status'] === 'queued' ? null : 1000, image['size'])
      await assertAtRest(server, image['status'] === 'queued' ? folders(server) : [])
    })

    for (const off of [-1, 1]) {
      it(`x-openstack-image-size of /${to}, off by ${off}: 400, and nothing is kept`, async (t) => {
        const { server, user } = await serve(t)
        const id = await user.create()
        const before = essence(await user.show(id))
        const answer = await fetch(`${user.url}/v2/images/${id}/${to}`, {
          method: 'PUT',
          headers: {
            'x-auth-token': user.token,
            'content-type': 'application/octet-stream',
            'x-openstack-image-size': String(DATA.length + off),
          },
          body: DATA,
        })
        assert.equal(answer.status, 400)
        assert.deepEqual(essence(await user.show(id)), before)
        await assertAtRest(server, folders(server))
        assert.equal((await user.put(id, to, DATA)).status, 204)
      })
    }
  }
})

describe('a hundred at once', () => {
  const outcomes = async (answers: readonly Promise<Response>[]) => {
    const counts = new Map<number, number>()
    for (const answer of answers) {
      const { status, body } = await answer
      await body?.cancel()
      counts.set(status, (counts.get(status) ?? 0) + 1)
    }
    return Object.fromEntries(counts)
  }
  const hundred = (one: (index: number) => Promise<Response>) => Array.from({ length: 100 }, (_, index) => one(index))
  const own = (index: number) => Buffer.alloc(200_000, `data of client ${index} `)

  for (const to of ['file', 'stage'] as const) {
    it(`who send data of one image to /${to}: exactly one wins, and its data is kept`, async (t) => {
      const { server, user } = await serve(t)
      const id = await user.create()
      const answers = hundred((index) => user.put(id, to, own(index)))
      const winner = (await Promise.all(answers)).findIndex(({ status }) => status === 204)
      assert.deepEqual(await outcomes(answers), { 204: 1, 409: 99 })
      if (to === 'stage') {
        assert.equal((await user.import(id, { name: 'glance-direct' }))['status'], 'success')
        await assertAtRest(server, [join(server.dir, 'staging')])
      }
      assert.ok(own(winner).equals(await user.data(id)))
      assert.deepEqual(await filesIn(join(server.dir, 'images')), [id])
      await assertAtRest(server)
    })
  }

  for (const method of ['glance-direct', 'web-download', 'copy-image'] as const) {
    it(`who import one image by ${method}: exactly one wins`, async (t) => {
      const { server, user } = await serve(t, {
        DEFAULT: { enabled_backends: 'one:file, two:file', enabled_import_methods: `[${method}]` },
        glance_store: { default_backend: 'one' },
      })
      const web = await startWebServer()
      t.after(() => web.close())
      const id = await user.create()
      if (method === 'glance-direct') assert.equal((await user.put(id, 'stage', DATA)).status, 204)
      if (method === 'copy-image') assert.equal((await user.put(id, 'file', DATA)).status, 204)
      const uri = `${web.url}${web.serve(DATA)}`
      const body = { method: { name: method, ...(method === 'web-download' && { uri }) }, stores: ['two'] }
      const answers = hundred(() => user.send('POST', `/v2/images/${id}/import`, body))
      const counts = await outcomes(answers)
      // Who comes after the copy was made is told so.
      assert.deepEqual([counts[202], (counts[409] ?? 0) + (counts[400] ?? 0)], [1, 99])
      const { tasks } = (await user.json('GET', `/v2/images/${id}/tasks`)) as { tasks?: { id: string }[] }
      assert.equal(tasks?.length, 1)
      assert.equal((await user.ended(String(tasks?.[0]?.id)))['status'], 'success')
      assert.ok(DATA.equals(await user.data(id)))
      await assertAtRest(server, [join(server.dir, 'staging')])
    })
  }

  it('who add the location of one image: exactly one wins', async (t) => {
    const { server, user } = await serve(t, {
      DEFAULT: { enabled_backends: 'one:file, web:http', show_multiple_locations: 'True' },
      glance_store: { default_backend: 'one' },
    })
    const web = await startWebServer()
    t.after(() => web.close())
    const url = `${web.url}${web.serve(DATA)}`
    const id = await user.create()
    const answers = hundred(() => user.send('POST', `/v2/images/${id}/locations`, { url }))
    assert.deepEqual(await outcomes(answers), { 202: 1, 409: 99 })
    await until('the digest', async () => (await user.show(id))['checksum'] !== null)
    assert.equal(((await user.show(id))['locations'] as unknown[]).length, 1)
    await assertAtRest(server)
  })
})
