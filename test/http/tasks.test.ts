import assert from 'node:assert/strict'
import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, it, type TestContext } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { startServer, type TestConfig, type TestServer } from '../support/server.ts'
import { startWebServer, type WebServer } from '../support/servers/web.ts'

const ADMIN = 'root:p0:admin,member,reader'
const DATA = Buffer.from('ten bytes!')
const FORMATS = { disk_format: 'raw', container_format: 'bare' }

interface Setup {
  readonly server: TestServer
  readonly web: WebServer
}
type Json = Readonly<Record<string, unknown>>

async function setUp(t: TestContext, config: TestConfig = {}): Promise<Setup> {
  const server = await startServer({ config: { import_filtering_opts: { allowed_ports: '[]' }, ...config } })
  t.after(() => server.close())
  const web = await startWebServer()
  t.after(() => web.close())
  return { server, web }
}

const call = (server: TestServer, method: string, path: string, body?: unknown) =>
  fetch(`${server.url}${path}`, {
    method,
    headers: { 'x-auth-token': ADMIN, 'content-type': 'application/json' },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  })
const get = async (server: TestServer, path: string) => (await (await call(server, 'GET', path)).json()) as Json

const importing = (from: string, image_properties: unknown, more = {}) => ({
  type: 'import',
  input: { import_from: from, import_from_format: 'raw', image_properties, ...more },
})

/** The task as it is answered, and as it is when it has ended. */
async function run(server: TestServer, body: unknown): Promise<{ readonly asked: Json; readonly ended: Json }> {
  const answer = await call(server, 'POST', '/v2/tasks', body)
  assert.equal(answer.status, 201)
  const asked = (await answer.json()) as Json
  for (const end = Date.now() + 10_000; Date.now() < end; await delay(20)) {
    const ended = await get(server, `/v2/tasks/${asked['id']}`)
    if (ended['status'] === 'success' || ended['status'] === 'failure') return { asked, ended }
  }
  return assert.fail('the task does not end')
}
const images = async (server: TestServer) => (await get(server, '/v2/images'))['images'] as readonly Json[]

/** What a job staged goes after the end that clients see. */
async function empty(folder: string): Promise<void> {
  for (const end = Date.now() + 10_000; Date.now() < end && (await readdir(folder)).length > 0; ) await delay(10)
  assert.deepEqual(await readdir(folder), [])
}

describe('tasks of type import', () => {
  it('make an image of what is at an address', async (t) => {
    const { server, web } = await setUp(t)
    const body = importing(`${web.url}${web.serve(DATA)}`, { name: 'n', foo: 'bar', tags: ['a'], ...FORMATS })
    const { asked, ended } = await run(server, body)
    assert.deepEqual(
      [asked['status'], asked['message'], asked['result'], asked['expires_at']],
      ['pending', '', null, undefined],
    )
    assert.deepEqual(asked['input'], body.input)
    assert.equal(asked['image_id'], undefined)
    assert.deepEqual([ended['status'], typeof ended['expires_at']], ['success', 'string'])
    const { image_id: id } = ended['result'] as { image_id: string }
    const { name, foo, tags, status, size, owner, ...image } = await get(server, `/v2/images/${id}`)
    assert.deepEqual([name, foo, tags, status, size, owner], ['n', 'bar', ['a'], 'active', 10, 'p0'])
    assert.ok(Object.keys(image).every((key) => !key.startsWith('os_glance_')))
    assert.equal(await (await call(server, 'GET', `/v2/images/${id}/file`)).text(), DATA.toString())
    await empty(join(server.dir, 'staging'))
  })

  it('leave no image behind when they fail', async (t) => {
    const { server, web } = await setUp(t)
    const good = `${web.url}${web.serve(DATA)}`
    for (const [body, message] of [
      [importing(`${web.url}/nothing`, FORMATS), /404/],
      [importing(good, {}), /^Properties disk_format, container_format must be set prior to saving data\.$/],
      [importing(good, 'x'), /^Image must be a JSON object\.$/],
      [
        importing(good, { ...FORMATS, min_ram: 'x' }),
        /^Provided object does not match schema 'image': 'x' is not of type/,
      ],
      [importing(good, { ...FORMATS, status: 'active' }), /^Attribute 'status' is read-only\.$/],
      [importing(good, { ...FORMATS, os_glance_x: '1' }), /os_glance/],
      [importing(good, { ...FORMATS, disk_format: 'qcow2' }), /qcow2/],
    ] as const) {
      const { asked, ended } = await run(server, body)
      assert.deepEqual([asked['status'], ended['status'], ended['result']], ['pending', 'failure', null])
      assert.match(String(ended['message']), message)
      assert.deepEqual(await images(server), [])
    }
    for (const folder of ['staging', 'images']) await empty(join(server.dir, folder))
    assert.deepEqual(await server.app.core.db.jobs.list(server.app.core.worker.id), [])
  })

  it('do not take the id of another image', async (t) => {
    const { server, web } = await setUp(t)
    const id = '00000000-0000-4000-8000-0000000000aa'
    const body = importing(`${web.url}${web.serve(DATA)}`, { ...FORMATS, id })
    assert.equal((await run(server, body)).ended['status'], 'success')
    const { ended } = await run(server, body)
    assert.deepEqual([ended['status'], ended['message']], ['failure', `Image ID ${id} already exists!`])
    assert.equal((await images(server)).length, 1)
  })

  it('do not show credentials', async (t) => {
    const { server, web } = await setUp(t)
    const url = `${web.url.replace('://', '://user:secret@')}${web.serve(DATA)}?key=secret`
    const { asked, ended } = await run(server, importing(url, FORMATS))
    assert.equal(ended['status'], 'success')
    assert.ok(!JSON.stringify([asked, ended]).includes('secret'))
    assert.match(web.requests.at(-1)?.headers.authorization ?? '', /^Basic /)
  })

  it('go into the default one of several stores', async (t) => {
    const { server, web } = await setUp(t, {
      DEFAULT: { enabled_backends: 'fast:file, cheap:file' },
      glance_store: { default_backend: 'cheap' },
      import_filtering_opts: { allowed_ports: '[]' },
    })
    const { ended } = await run(server, importing(`${web.url}${web.serve(DATA)}`, FORMATS))
    assert.equal(ended['status'], 'success', String(ended['message']))
    const [image] = await images(server)
    assert.deepEqual([image?.['stores'], image?.['status']], ['cheap', 'active'])
  })
})

describe('tasks', () => {
  it('that are over are gone when their time is', async (t) => {
    const { server } = await setUp(t, { task: { task_time_to_live: '0' } })
    const answer = await call(server, 'POST', '/v2/tasks', { type: 'api_image_import', input: {} })
    const { id } = (await answer.json()) as Json
    assert.equal((await call(server, 'GET', `/v2/tasks/${id}`)).status, 404)
    assert.deepEqual((await get(server, '/v2/tasks'))['tasks'], [])
  })

  it('are told of', async (t) => {
    const { server, web } = await setUp(t)
    const told: string[] = []
    const { notifier } = server.app.core
    const before = notifier.notify
    t.after(() => Object.assign(notifier, { notify: before }))
    Object.assign(notifier, { notify: ({ type }: { type: string }) => void told.push(type) })
    await run(server, importing(`${web.url}${web.serve(DATA)}`, FORMATS))
    for (const end = Date.now() + 10_000; Date.now() < end && !told.includes('task.run'); ) await delay(10)
    await run(server, { type: 'location_import', input: {} })
    const good = ['task.create', 'task.processing', 'task.success', 'task.run']
    const all = [...good, 'task.create', 'task.failure', 'image.create', 'image.activate']
    // The last words come after the end that clients see.
    for (const end = Date.now() + 10_000; Date.now() < end && !all.every((type) => told.includes(type)); )
      await delay(10)
    assert.deepEqual(
      told.filter((type) => type.startsWith('task.')),
      [...good, 'task.create', 'task.failure'],
    )
    assert.ok(told.includes('image.create') && told.includes('image.activate') && !told.includes('image.delete'))
  })
})
