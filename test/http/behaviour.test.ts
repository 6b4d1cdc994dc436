import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { readdir, readlink, writeFile } from 'node:fs/promises'
import { connect, type Socket } from 'node:net'
import { join } from 'node:path'
import { describe, it, type TestContext } from 'node:test'
import { setTimeout as pause } from 'node:timers/promises'
import { NOBODY } from '../../src/auth/identity.ts'
import { selfSpokenTokens, startServer, type TestConfig, type TestServer } from '../support/server.ts'

const ALICE = 'alice:p1:member,reader'
const BOB = 'bob:p2:member,reader'

async function serve(t: TestContext, config: TestConfig = {}): Promise<TestServer> {
  const server = await startServer({ config })
  t.after(() => server.close())
  return server
}

const call = (server: TestServer, method: string, path: string, init: RequestInit = {}, token = ALICE) =>
  fetch(`${server.url}${path}`, {
    method,
    ...init,
    headers: { 'x-auth-token': token, ...(init.headers as Record<string, string>) },
  })

async function createImage(server: TestServer, attributes: object = {}): Promise<string> {
  const response = await call(server, 'POST', '/v2/images', {
    body: JSON.stringify({ disk_format: 'raw', container_format: 'bare', ...attributes }),
  })
  assert.equal(response.status, 201)
  return ((await response.json()) as { id: string }).id
}

const show = async (server: TestServer, id: string) =>
  (await (await call(server, 'GET', `/v2/images/${id}`)).json()) as { status: string; size: number | null }

const upload = (server: TestServer, id: string, body: RequestInit['body']) =>
  call(server, 'PUT', `/v2/images/${id}/file`, {
    body: body as never,
    headers: { 'content-type': 'application/octet-stream' },
  })

/** Waits until `holds` does; the runner's time limit ends a vain wait. */
async function until(holds: () => Promise<boolean>): Promise<void> {
  while (!(await holds())) await pause(20)
}

function open(server: TestServer): { socket: Socket; text: () => string; saw: (pattern: RegExp) => Promise<void> } {
  const { hostname, port } = new URL(server.url)
  const socket = connect(Number(port), hostname)
  let received = ''
  socket.on('data', (chunk) => {
    received += chunk.toString('latin1')
  })
  socket.on('error', () => undefined)
  return { socket, text: () => received, saw: (pattern) => until(async () => pattern.test(received)) }
}

const head = (method: string, path: string, headers: Record<string, string | number>) =>
  `${[`${method} ${path} HTTP/1.1`, 'Host: x', ...Object.entries(headers).map(([name, value]) => `${name}: ${value}`)].join('\r\n')}\r\n\r\n`

const storedFiles = (server: TestServer) => readdir(join(server.dir, 'images'))

describe('Expect: 100-continue', () => {
  const put = (id: string, token: string) =>
    head('PUT', `/v2/images/${id}/file`, {
      'X-Auth-Token': token,
      'Content-Type': 'application/octet-stream',
      'Content-Length': 5,
      Expect: '100-continue',
    })

  it('is answered once the upload is accepted', async (t) => {
    const server = await serve(t)
    const id = await createImage(server)
    const { socket, saw } = open(server)
    socket.write(put(id, ALICE))
    await saw(/^HTTP\/1\.1 100 Continue\r\n/)
    socket.write('12345')
    await saw(/HTTP\/1\.1 204 No Content/)
    socket.destroy()
    assert.equal((await show(server, id)).status, 'active')
  })

  for (const [title, token, status] of [
    ['an unknown caller', 'nobody', 401],
    ['a stranger', BOB, 404],
    ['a reader', 'rita:p1:reader', 403],
  ] as const) {
    it(`is not answered to ${title}`, async (t) => {
      const server = await serve(t)
      const { socket, text, saw } = open(server)
      socket.write(put(await createImage(server), token))
      await saw(new RegExp(`HTTP/1.1 ${status} `))
      assert.doesNotMatch(text(), /100 Continue/)
      assert.match(text(), /connection: close/i)
      socket.destroy()
    })
  }

  it('is not answered when the image would be too large', async (t) => {
    const server = await serve(t, { DEFAULT: { image_size_cap: '4' } })
    const { socket, text, saw } = open(server)
    socket.write(put(await createImage(server), ALICE))
    await saw(/HTTP\/1\.1 413 /)
    assert.doesNotMatch(text(), /100 Continue/)
    socket.destroy()
  })
})

describe('an upload that breaks off', () => {
  for (const [title, headers, body] of [
    ['in the middle of its announced length', { 'Content-Length': 1_000_000 }, randomBytes(100_000)],
    ['between two chunks', { 'Transfer-Encoding': 'chunked' }, '5\r\n12345\r\n'],
    ['with a chunk that is none', { 'Transfer-Encoding': 'chunked' }, '5\r\n12345\r\nnonsense\r\n'],
  ] as const) {
    it(`${title} leaves the image queued and nothing on disk`, async (t) => {
      const server = await serve(t)
      const id = await createImage(server)
      const { socket } = open(server)
      socket.write(
        head('PUT', `/v2/images/${id}/file`, {
          'X-Auth-Token': ALICE,
          'Content-Type': 'application/octet-stream',
          ...headers,
        }),
      )
      socket.write(body)
      await until(async () => (await show(server, id)).status === 'saving' || /nonsense/.test(String(body)))
      socket.destroy()
      await until(async () => (await show(server, id)).status === 'queued')
      assert.deepEqual(await storedFiles(server), [])
      assert.equal((await upload(server, id, 'again')).status, 204)
    })
  }

  it('because nothing comes any more is cut after client_socket_timeout', async (t) => {
    const server = await serve(t, { DEFAULT: { client_socket_timeout: '1' } })
    const id = await createImage(server)
    const { socket } = open(server)
    const closed = once(socket, 'close')
    socket.write(
      head('PUT', `/v2/images/${id}/file`, {
        'X-Auth-Token': ALICE,
        'Content-Type': 'application/octet-stream',
        'Content-Length': 10,
      }),
    )
    socket.write('12345')
    await closed
    await until(async () => (await show(server, id)).status === 'queued')
    assert.deepEqual(await storedFiles(server), [])
  })

  it('is answered when its token expires in the middle', async (t) => {
    const server = await serve(t)
    const id = await createImage(server)
    const { socket, saw } = open(server)
    const expiry = Math.ceil(Date.now() / 1000) + 1
    socket.write(
      head('PUT', `/v2/images/${id}/file`, {
        'X-Auth-Token': `${ALICE}:exp=${expiry}`,
        'Content-Type': 'application/octet-stream',
        'Content-Length': 10,
      }),
    )
    socket.write('12345')
    await until(async () => Date.now() / 1000 > expiry)
    socket.write('67890')
    await saw(/HTTP\/1\.1 204 No Content/)
    socket.destroy()
    assert.equal((await show(server, id)).status, 'active')
  })
})

describe('a download', () => {
  const openFiles = async (server: TestServer) => {
    const links = await Promise.all(
      (await readdir('/proc/self/fd')).map((fd) => readlink(`/proc/self/fd/${fd}`).catch(() => '')),
    )
    return links.filter((link) => link.startsWith(join(server.dir, 'images')))
  }

  it('closes the file when the client vanishes', { skip: process.platform !== 'linux' && 'needs /proc' }, async (t) => {
    const server = await serve(t)
    const id = await createImage(server)
    const data = randomBytes(32 << 20)
    assert.equal((await upload(server, id, data)).status, 204)
    const { socket, saw } = open(server)
    socket.write(head('GET', `/v2/images/${id}/file`, { 'X-Auth-Token': ALICE }))
    await saw(/HTTP\/1\.1 200 OK/)
    socket.pause()
    assert.equal((await openFiles(server)).length, 1)
    socket.destroy()
    await until(async () => (await openFiles(server)).length === 0)
  })

  it('gives the bytes of every range', async (t) => {
    const server = await serve(t)
    const id = await createImage(server)
    const data = randomBytes(3_000_000)
    await upload(server, id, data)
    for (const [start, end] of [
      [0, 0],
      [1, 2_999_999],
      [2_999_999, 2_999_999],
      [65_535, 65_537],
      [1_048_576, 2_097_152],
    ] as const) {
      const response = await call(server, 'GET', `/v2/images/${id}/file`, {
        headers: { range: `bytes=${start}-${end}` },
      })
      assert.equal(response.status, 206)
      assert.ok(data.subarray(start, end + 1).equals(Buffer.from(await response.arrayBuffer())), `${start}-${end}`)
    }
  })
})

describe('hostile requests', () => {
  it('are survived', async (t) => {
    const server = await serve(t)
    const id = await createImage(server)
    const json = { 'content-type': 'application/openstack-images-v2.1-json-patch' }
    const many = Array.from({ length: 10_000 }, (_, index) => ({ op: 'replace', path: '/name', value: `n${index}` }))
    assert.equal(
      (await call(server, 'PATCH', `/v2/images/${id}`, { headers: json, body: JSON.stringify(many) })).status,
      200,
    )
    assert.equal(((await show(server, id)) as unknown as { name: string }).name, 'n9999')

    const long = [{ op: 'add', path: `/${'x'.repeat(900_000)}`, value: '1' }]
    assert.equal(
      (await call(server, 'PATCH', `/v2/images/${id}`, { headers: json, body: JSON.stringify(long) })).status,
      400,
    )
    const huge = JSON.stringify({ name: 'x'.repeat(2 << 20) })
    assert.equal((await call(server, 'POST', '/v2/images', { body: huge })).status, 413)
    for (const body of ['{', '[', '"text"', '\xff', '{"name": 1}', '{"name": "a\\u0000b"}', `${'['.repeat(100_000)}`]) {
      assert.equal((await call(server, 'POST', '/v2/images', { body })).status, 400, body.slice(0, 20))
    }
    for (const name of ['__proto__', 'constructor', 'toString', 'hasOwnProperty']) {
      const made = await call(server, 'POST', '/v2/images', { body: `{"${name}": "odd"}` })
      assert.equal(made.status, 201, name)
      assert.ok((await made.text()).includes(`"${name}":"odd"`), name)
    }
    for (const path of [
      '/v2/images/%00',
      '/v2/images/%ff',
      '/v2/images/..%2f..%2fetc%2fpasswd',
      `/v2/images/${'x'.repeat(5000)}`,
    ]) {
      assert.ok([400, 404].includes((await call(server, 'GET', path)).status), path)
    }
  })

  it('with headers beyond all measure are refused', async (t) => {
    const server = await serve(t)
    const { socket, saw } = open(server)
    socket.write(head('GET', '/v2/images', { 'X-Auth-Token': 'x'.repeat(1 << 20) }))
    await saw(/HTTP\/1\.1 431 /)
    socket.destroy()
    assert.equal((await call(server, 'GET', '/v2/images')).status, 200)
  })

  it('learn nothing of the images of others', async (t) => {
    const server = await serve(t)
    const id = await createImage(server)
    for (const [method, path] of [
      ['GET', ''],
      ['DELETE', ''],
      ['GET', '/file'],
      ['PUT', '/tags/x'],
      ['GET', '/members'],
      ['POST', '/actions/deactivate'],
    ] as const) {
      assert.equal((await call(server, method, `/v2/images/${id}${path}`, {}, BOB)).status, 404, `${method} ${path}`)
    }
  })

  it('whose body nobody wanted get their answer', async (t) => {
    const server = await serve(t)
    const { socket, saw } = open(server)
    socket.write(
      head('PUT', '/v2/images/no-such-image/file', {
        'X-Auth-Token': ALICE,
        'Content-Type': 'application/octet-stream',
        'Content-Length': 50_000_000,
      }),
    )
    socket.write(randomBytes(1_000_000))
    await saw(/HTTP\/1\.1 404 /)
    socket.destroy()
  })
})

describe('a caller without credentials', () => {
  it('may look where that is allowed, and change nothing', async (t) => {
    const anonymous = { authenticate: async () => ({ ...NOBODY, isAdmin: false, readOnly: true }) }
    const server = await startServer({ identity: { ...selfSpokenTokens(), ...anonymous } })
    t.after(() => server.close())
    assert.equal((await call(server, 'GET', '/v2/schemas/image')).status, 200)
    for (const [method, path] of [
      ['POST', ''],
      ['PATCH', '/x'],
      ['DELETE', '/x'],
      ['PUT', '/x/file'],
      ['PUT', '/x/tags/y'],
      ['DELETE', '/x/tags/y'],
      ['POST', '/x/actions/deactivate'],
      ['POST', '/x/members'],
      ['PUT', '/x/members/y'],
      ['DELETE', '/x/members/y'],
    ] as const) {
      const refused = await call(server, method, `/v2/images${path}`)
      assert.equal(refused.status, 403, `${method} ${path}`)
      assert.match(await refused.text(), /Read-only access/, `${method} ${path}`)
    }
  })
})

describe('the service', () => {
  it('reads policy.yaml again when it changes', async (t) => {
    const server = await serve(t)
    assert.equal((await call(server, 'GET', '/v2/images')).status, 200)
    await writeFile(join(server.dir, 'policy.yaml'), '"get_images": "!"\n')
    await until(async () => (await call(server, 'GET', '/v2/images')).status === 403)
    await writeFile(join(server.dir, 'policy.yaml'), '"get_images": "role:reader"\n')
    await until(async () => (await call(server, 'GET', '/v2/images')).status === 200)
  })

  it('lets a running download end while it stops, and takes no new ones', async () => {
    const server = await startServer()
    const id = await createImage(server)
    const data = randomBytes(32 << 20)
    await upload(server, id, data)
    const { socket, saw } = open(server)
    let bytes = 0
    socket.on('data', (chunk) => {
      bytes += chunk.length
    })
    socket.write(head('GET', `/v2/images/${id}/file`, { 'X-Auth-Token': ALICE, Connection: 'close' }))
    await saw(/HTTP\/1\.1 200 OK/)
    socket.pause()
    const closing = server.close()
    await assert.rejects(fetch(`${server.url}/healthcheck`))
    socket.resume()
    await once(socket, 'close')
    await closing
    assert.ok(bytes > data.length, `${bytes} bytes came`)
  })

  it('answers preflights as [cors] says', async (t) => {
    const server = await serve(t, { cors: { allowed_origin: 'http://console.example' } })
    const ask = (origin: string) =>
      fetch(`${server.url}/v2/images`, {
        method: 'OPTIONS',
        headers: { origin, 'access-control-request-method': 'PATCH', 'access-control-request-headers': 'x-auth-token' },
      })
    const allowed = await ask('http://console.example')
    assert.equal(allowed.headers.get('access-control-allow-origin'), 'http://console.example')
    assert.equal(allowed.headers.get('access-control-allow-methods'), 'PATCH')
    assert.equal((await ask('http://evil.example')).headers.get('access-control-allow-origin'), null)
    const answered = await call(server, 'GET', '/v2/images', { headers: { origin: 'http://console.example' } })
    assert.match(answered.headers.get('access-control-expose-headers') ?? '', /X-Subject-Token/)
  })

  it('says that it is well', async (t) => {
    const disabled = join((await serve(t)).dir, 'disabled')
    const server = await serve(t, { healthcheck: { backends: 'disable_by_file', disable_by_file_path: disabled } })
    assert.equal(await (await fetch(`${server.url}/healthcheck`)).text(), 'OK')
    await writeFile(disabled, '')
    const ill = await fetch(`${server.url}/healthcheck`)
    assert.deepEqual([ill.status, await ill.text()], [503, 'DISABLED BY FILE'])
  })
})
