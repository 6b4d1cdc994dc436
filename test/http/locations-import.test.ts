import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { describe, it, type TestContext } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import type { ImageId } from '../../src/domain/ids.ts'
import { startServer, type TestConfig, type TestServer } from '../support/server.ts'
import { serving, startWebServer, type WebServer } from '../support/servers/web.ts'

const ALICE = 'alice:p1:member,reader'
const BOB = 'bob:p2:member,reader'
const NOVA = 'nova:service:service'
const ADMIN = 'root:p0:admin,member,reader'
const DATA = Buffer.from('ten bytes!')
const digest = (algorithm: string, data = DATA) => createHash(algorithm).update(data).digest('hex')
const stated = (os_hash_algo = 'sha256', os_hash_value = digest(os_hash_algo)) => ({
  validation_data: { os_hash_algo, os_hash_value },
})

interface Setup {
  readonly server: TestServer
  readonly web: WebServer
}

async function setUp(t: TestContext, config: TestConfig = {}): Promise<Setup> {
  const { DEFAULT, ...groups } = config
  const server = await startServer({
    config: {
      DEFAULT: {
        enabled_backends: 'fast:file, web:http',
        show_multiple_locations: 'True',
        http_retries: '0',
        ...DEFAULT,
      },
      glance_store: { default_backend: 'fast' },
      ...groups,
    },
  })
  t.after(() => server.close())
  const web = await startWebServer()
  t.after(() => web.close())
  return { server, web }
}

const call = (server: TestServer, method: string, path: string, token = ALICE, body?: unknown, headers = {}) =>
  fetch(`${server.url}${path}`, {
    method,
    headers: { 'x-auth-token': token, 'content-type': 'application/json', accept: 'text/plain', ...headers },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  })
const explanation = async (answer: Response) => `${answer.status} ${(await answer.text()).split('\n')[2] ?? ''}`

async function createImage(server: TestServer, attributes = {}): Promise<ImageId> {
  const body = { disk_format: 'raw', container_format: 'bare', ...attributes }
  return ((await (await call(server, 'POST', '/v2/images', ALICE, body)).json()) as { id: ImageId }).id
}

type Json = Readonly<Record<string, unknown>>
const show = async (server: TestServer, id: ImageId) =>
  (await (await call(server, 'GET', `/v2/images/${id}`)).json()) as Json
const tasksOf = async (server: TestServer, id: ImageId) =>
  ((await (await call(server, 'GET', `/v2/images/${id}/tasks`)).json()) as { tasks: readonly Json[] }).tasks

async function until<T>(what: string, look: () => Promise<T | undefined | false>): Promise<T> {
  for (const end = Date.now() + 10_000; Date.now() < end; await delay(20)) {
    const found = await look()
    if (found !== undefined && found !== false) return found
  }
  return assert.fail(`not within ten seconds: ${what}`)
}
const ended = (server: TestServer, id: ImageId): Promise<Json> =>
  until('the task has ended', async () =>
    (await tasksOf(server, id)).find(({ status }) => status === 'success' || status === 'failure'),
  )
const add = (server: TestServer, id: ImageId, body: unknown, token = ALICE, headers = {}) =>
  call(server, 'POST', `/v2/images/${id}/locations`, token, body, headers)

describe('POST /v2/images/{id}/locations', () => {
  it('compares the data with the stated digest before the image is active', async (t) => {
    const { server, web } = await setUp(t)
    for (const algorithm of ['md5', 'sha1', 'sha256', 'sha512']) {
      const id = await createImage(server)
      const url = `${web.url}${web.serve(DATA)}`
      const answer = await add(server, id, {
        url,
        ...stated(algorithm, digest(algorithm).toUpperCase()),
        more: 'ignored',
      })
      assert.deepEqual([answer.status, await answer.text()], [202, ''])
      const { status, type, message, result, input, request_id: requestId } = await ended(server, id)
      assert.deepEqual(
        [status, type, message, result],
        ['success', 'location_import', 'Copied 0 MiB', { image_id: id }],
      )
      assert.deepEqual(input, { image_id: id, loc_url: url, ...stated(algorithm, digest(algorithm).toUpperCase()) })
      assert.equal(requestId, answer.headers.get('x-openstack-request-id'))
      const image = await show(server, id)
      assert.deepEqual(
        [image['status'], image['size'], image['checksum'], image['os_hash_algo'], image['os_hash_value']],
        ['active', 10, digest('md5'), algorithm, digest(algorithm)],
      )
      assert.deepEqual(image['locations'], [{ url, metadata: { store: 'web' } }])
      assert.equal(image['os_glance_import_task'], undefined)
      assert.equal(await (await call(server, 'GET', `/v2/images/${id}/file`)).text(), DATA.toString())
    }
  })

  it('leaves the image queued when the data has another digest, or is not there', async (t) => {
    const { server, web } = await setUp(t)
    web.on('/broken', (_, response) => void response.writeHead(200, { 'content-length': 10 }).end('ten'))
    web.on('/empty', serving(Buffer.alloc(0)))
    for (const [path, words] of [
      [web.serve(Buffer.from('ten other!')), /^os_hash_value: \(.*\) not matched with actual os_hash_value: \(/],
      ['/nothing', /^Invalid location$/],
      ['/empty', /^Invalid location$/],
    ] as const) {
      const id = await createImage(server)
      assert.equal((await add(server, id, { url: `${web.url}${path}`, ...stated() })).status, 202)
      const { status, message } = await ended(server, id)
      assert.equal(status, 'failure')
      assert.match(String(message), words)
      const image = await show(server, id)
      assert.deepEqual(
        [image['status'], image['size'], image['checksum'], image['os_hash_algo'], image['os_hash_value']],
        ['queued', null, null, null, null],
      )
      const refused = words.source.startsWith('^os_hash_value')
      const url = `${web.url}${path}`
      assert.deepEqual(image['locations'], refused ? [{ url, metadata: { store: 'web' } }] : [])
      assert.equal(image['stores'], refused ? 'web' : undefined)
      assert.equal((await call(server, 'GET', `/v2/images/${id}/file`)).status, 204)
      // And it can be had another way.
      assert.equal((await add(server, id, { url: `${web.url}${web.serve(DATA)}`, ...stated() })).status, 202)
      const active = await until('it is active', async () => {
        const now = await show(server, id)
        return now['status'] === 'active' && now
      })
      assert.equal((active['locations'] as readonly unknown[]).length, 1)
    }
  })

  it('puts the next data in the place of what had another digest', async (t) => {
    const { server, web } = await setUp(t)
    const other = `${web.url}${web.serve(Buffer.from('ten other!'))}`
    const right = `${web.url}${web.serve(DATA)}`
    const raw = { 'content-type': 'application/octet-stream' }
    const put = (path: string) =>
      fetch(`${server.url}${path}`, { method: 'PUT', headers: { 'x-auth-token': ALICE, ...raw }, body: DATA })
    const located = [{ op: 'add', path: '/locations/-', value: { url: right, metadata: {} } }]
    const patched = [{ op: 'replace', path: '/locations', value: [{ url: right, metadata: {} }] }]
    const patch = { 'content-type': 'application/openstack-images-v2.1-json-patch' }
    for (const bring of [
      (id: ImageId) => put(`/v2/images/${id}/file`),
      async (id: ImageId) => {
        await put(`/v2/images/${id}/stage`)
        return call(server, 'POST', `/v2/images/${id}/import`, ALICE, { method: { name: 'glance-direct' } })
      },
      (id: ImageId) => add(server, id, { url: right }),
      (id: ImageId) => call(server, 'PATCH', `/v2/images/${id}`, ALICE, located, patch),
      (id: ImageId) => call(server, 'PATCH', `/v2/images/${id}`, ALICE, patched, patch),
    ]) {
      const id = await createImage(server)
      assert.equal((await add(server, id, { url: other, ...stated() })).status, 202)
      assert.equal((await ended(server, id))['status'], 'failure')
      const answer = await bring(id)
      assert.ok(answer.ok, `${answer.status} ${await answer.text()}`)
      const image = await until('it is active', async () => {
        const now = await show(server, id)
        return now['status'] === 'active' && now
      })
      const [location, ...more] = image['locations'] as readonly { readonly url: string }[]
      assert.deepEqual(more, [])
      assert.notEqual(location?.url, other)
      assert.equal(await (await call(server, 'GET', `/v2/images/${id}/file`)).text(), DATA.toString())
    }
  })

  it('makes the image active at once when no digest is stated, and finds the digests out', async (t) => {
    const { server, web } = await setUp(t)
    let release: (() => void) | undefined
    web.on('/slow', (request, response) => {
      if (request.method === 'HEAD') return serving(DATA)(request, response)
      response.writeHead(200, { 'content-length': 10 }).write('ten b')
      release = () => response.end('ytes!')
    })
    const id = await createImage(server)
    assert.equal((await add(server, id, { url: `${web.url}/slow` })).status, 202)
    const early = await until('it is active', async () => {
      const image = await show(server, id)
      return image['status'] === 'active' && release !== undefined && image
    })
    assert.deepEqual([early['size'], early['os_hash_value']], [10, null])
    assert.equal((await tasksOf(server, id))[0]?.['status'], 'processing')
    release?.()
    assert.equal((await ended(server, id))['status'], 'success')
    const image = await show(server, id)
    assert.deepEqual(
      [image['status'], image['checksum'], image['os_hash_algo'], image['os_hash_value']],
      ['active', digest('md5'), 'sha512', digest('sha512')],
    )
  })

  it('tries again what may pass, and leaves the image active without digests when it does not', async (t) => {
    const { server, web } = await setUp(t, { DEFAULT: { http_retries: '1' } })
    for (const failures of [1, 2]) {
      let asked = 0
      web.on(`/flaky${failures}`, (request, response) => {
        if (request.method === 'GET' && asked++ < failures) return void response.writeHead(503).end()
        serving(DATA)(request, response)
      })
      const id = await createImage(server)
      assert.equal((await add(server, id, { url: `${web.url}/flaky${failures}` })).status, 202)
      assert.equal((await ended(server, id))['status'], 'success')
      const { status, os_hash_value: value } = await show(server, id)
      assert.deepEqual([status, value, asked], ['active', failures === 1 ? digest('sha512') : null, 2])
    }
  })

  it('believes what is stated when do_secure_hash is off', async (t) => {
    const { server, web } = await setUp(t, { DEFAULT: { do_secure_hash: 'False' } })
    const lie = digest('sha256', Buffer.from('a lie'))
    for (const [body, algorithm, value] of [
      [stated('sha256', lie), 'sha256', lie],
      [{}, null, null],
      [{ validation_data: {} }, null, null],
    ] as const) {
      const id = await createImage(server)
      const path = web.serve(DATA)
      assert.equal((await add(server, id, { url: `${web.url}${path}`, ...body })).status, 202)
      assert.equal((await ended(server, id))['status'], 'success')
      const image = await show(server, id)
      assert.deepEqual(
        [image['status'], image['size'], image['checksum'], image['os_hash_algo'], image['os_hash_value']],
        ['active', 10, null, algorithm, value],
      )
      assert.deepEqual(
        web.requests.filter(({ url }) => url === path).map(({ method }) => method),
        ['HEAD'],
      )
    }
  })

  it('refuses what cannot be right while the client waits', async (t) => {
    const { server, web } = await setUp(t)
    const id = await createImage(server)
    const url = `${web.url}${web.serve(DATA)}`
    for (const [body, answer] of [
      [undefined, '400 Body expected in request.'],
      [{}, "400 Provided object does not match schema 'location': 'url' is a required property"],
      [[], "400 Provided object does not match schema 'location': [] is not of type 'object'"],
      [{ url: 5 }, "400 Provided object does not match schema 'location': 5 is not of type 'string'"],
      [
        { url, validation_data: null },
        "400 Provided object does not match schema 'location': None is not of type 'object'",
      ],
      [
        { url, validation_data: { os_hash_algo: 'sha256' } },
        "400 Provided object does not match schema 'location': 'os_hash_value' is a dependency of 'os_hash_algo'",
      ],
      [
        { url, validation_data: { checksum: 'x' } },
        "400 Provided object does not match schema 'location': Additional properties are not allowed ('checksum' was unexpected)",
      ],
      [
        { url, ...stated('sha224') },
        "400 Provided object does not match schema 'location': 'sha224' is not one of ['sha1', 'sha256', 'sha512', 'md5']",
      ],
      [{ url, ...stated('sha256', 'xyz') }, '400 os_hash_value (xyz) is not a valid hexadecimal value'],
      [
        { url, ...stated('sha256', 'abcd') },
        '400 os_hash_value: (abcd) is not the correct size for (sha256) (should be (32) bytes)',
      ],
      [{ url: 'rbd://a/b/c/d' }, '403 http store must be enabled to use location API by normal user.'],
      [{ url: 'file:///etc/passwd' }, '403 http store must be enabled to use location API by normal user.'],
    ] as const) {
      assert.equal(await explanation(await add(server, id, body)), answer)
    }
    assert.deepEqual(await tasksOf(server, id), [])
    assert.equal(await explanation(await add(server, id, { url }, BOB)), `404 No image found with ID ${id}`)
    const rita = await add(server, id, { url }, 'rita:p1:reader')
    assert.equal(await explanation(rita), '403 You are not authorized to complete add_image_location action.')
    const full = await createImage(server)
    await server.app.core.db.images.update(full, { status: 'active' }, ['queued'])
    assert.equal(
      await explanation(await add(server, full, { url })),
      "409 It's not allowed to add locations if image status is active.",
    )
  })

  it('is for users where there is an http store, and for services everywhere', async (t) => {
    const { server } = await setUp(t, { DEFAULT: { enabled_backends: 'fast:file' } })
    const id = await createImage(server, { visibility: 'shared' })
    const url = 'http://127.0.0.1:9/x'
    const refused = '403 http store must be enabled to use location API by normal user.'
    assert.equal(await explanation(await add(server, id, { url })), refused)
    assert.equal(await explanation(await add(server, id, { url }, ADMIN)), refused)
    // The service's word, beside the user's token.
    assert.equal((await add(server, id, { url }, ALICE, { 'x-service-token': NOVA })).status, 202)
    const { status, message } = await ended(server, id)
    assert.deepEqual([status, message], ['failure', 'Invalid location'])
    // Not even services lead to the files of this machine.
    const local = await createImage(server)
    const file = { url: `file://${server.dir}/fast/${id}` }
    assert.equal((await add(server, local, file, ALICE, { 'x-service-token': NOVA })).status, 202)
    assert.equal((await ended(server, local))['message'], 'Invalid location')
  })

  it('fails when the image has no formats', async (t) => {
    const { server, web } = await setUp(t)
    const id = await createImage(server, { disk_format: null })
    assert.equal((await add(server, id, { url: `${web.url}${web.serve(DATA)}`, ...stated() })).status, 202)
    const { status, message } = await ended(server, id)
    assert.deepEqual([status, message], ['failure', 'Property disk_format must be set prior to saving data.'])
    assert.equal((await show(server, id))['status'], 'queued')
  })

  it('goes to nobody else while it is under way', async (t) => {
    const { server, web } = await setUp(t)
    web.on('/never', (request, response) => {
      if (request.method === 'HEAD') serving(DATA)(request, response)
    })
    const id = await createImage(server)
    const url = `${web.url}/never`
    const answers = await Promise.all([1, 2, 3].map(() => add(server, id, { url, ...stated() })))
    assert.deepEqual(answers.map(({ status }) => status).toSorted(), [202, 409, 409])
    assert.equal(
      await explanation(await add(server, id, { url })),
      "409 It's not allowed to add locations if image status is importing.",
    )
    const upload = await fetch(`${server.url}/v2/images/${id}/file`, {
      method: 'PUT',
      headers: { 'x-auth-token': ALICE, 'content-type': 'application/octet-stream' },
      body: 'data',
    })
    assert.equal(upload.status, 409)
    const patch = [{ op: 'replace', path: '/name', value: 'renamed' }]
    const patched = await call(server, 'PATCH', `/v2/images/${id}`, ALICE, patch, {
      'content-type': 'application/openstack-images-v2.1-json-patch',
    })
    assert.equal(patched.status, 200)
    assert.equal((await call(server, 'DELETE', `/v2/images/${id}`)).status, 204)
  })

  it('ends at once when the image is deleted', async (t) => {
    for (const body of [stated(), {}]) {
      const { server, web } = await setUp(t)
      let closed = false
      web.on('/endless', (request, response) => {
        if (request.method === 'HEAD') return serving(DATA)(request, response)
        response.writeHead(200, { 'content-length': 10 }).write('ten')
        response.on('close', () => (closed = true))
      })
      const id = await createImage(server)
      assert.equal((await add(server, id, { url: `${web.url}/endless`, ...body })).status, 202)
      await until('it is read', async () => web.requests.some(({ method }) => method === 'GET'))
      const began = Date.now()
      assert.equal((await call(server, 'DELETE', `/v2/images/${id}`)).status, 204)
      await until('the connection is closed', async () => closed)
      assert.ok(Date.now() - began < 2000)
      const { db, worker } = server.app.core
      await until('the job is gone', async () => (await db.jobs.list(worker.id)).length === 0)
      const [task] = await db.tasks.ofImage(id, { admin: true, project: undefined })
      assert.equal(task?.status, 'failure')
    }
  })

  it('does not show credentials of locations', async (t) => {
    const { server, web } = await setUp(t)
    const id = await createImage(server)
    const path = web.serve(DATA)
    const url = `${web.url.replace('://', '://user:secret@')}${path}`
    assert.equal((await add(server, id, { url, ...stated() })).status, 202)
    const task = await ended(server, id)
    assert.equal(task['status'], 'success')
    assert.ok(!JSON.stringify(task).includes('secret'))
    assert.match(web.requests.at(-1)?.headers.authorization ?? '', /^Basic /)
  })

  it('does not reach hosts that the operator forbids, by PATCH neither', async (t) => {
    const { server, web } = await setUp(t, { import_filtering_opts: { disallowed_hosts: '[127.0.0.1]' } })
    const url = `${web.url}${web.serve(DATA)}`
    const id = await createImage(server)
    assert.equal((await add(server, id, { url })).status, 202)
    const { status, message } = await ended(server, id)
    assert.deepEqual([status, message], ['failure', 'The Store URI was malformed.'])
    const patch = [{ op: 'add', path: '/locations/-', value: { url, metadata: {} } }]
    const patched = await call(server, 'PATCH', `/v2/images/${id}`, ALICE, patch, {
      'content-type': 'application/openstack-images-v2.1-json-patch',
    })
    assert.equal(await explanation(patched), '400 The Store URI was malformed.')
    assert.deepEqual(web.requests, [])
  })

  it('does not follow redirects to such hosts', async (t) => {
    const { server, web } = await setUp(t, { import_filtering_opts: { disallowed_hosts: '[localhost]' } })
    const path = web.serve(DATA)
    const inside = `http://localhost:${web.port}${path}`
    web.on('/away', (_, response) => void response.writeHead(302, { location: inside }).end())
    for (const [url, status] of [
      [`${web.url}${path}`, 'success'],
      [`${web.url}/away`, 'failure'],
      [inside, 'failure'],
    ] as const) {
      const id = await createImage(server)
      assert.equal((await add(server, id, { url, ...stated() })).status, 202)
      assert.equal((await ended(server, id))['status'], status, url)
    }
    assert.ok(web.requests.every(({ headers }) => !headers.host?.startsWith('localhost')))
  })

  it('reaches public addresses only where the operator says so, whatever name leads there', async (t) => {
    const { server, web } = await setUp(t, { glimpse: { import_addresses: 'public' } })
    const path = web.serve(DATA)
    for (const host of ['127.0.0.1', 'localhost', '[::1]', '2130706433']) {
      const id = await createImage(server)
      assert.equal((await add(server, id, { url: `http://${host}:${web.port}${path}`, ...stated() })).status, 202)
      assert.equal((await ended(server, id))['status'], 'failure', host)
    }
    assert.deepEqual(web.requests, [])
  })
})
