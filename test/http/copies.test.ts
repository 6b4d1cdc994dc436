import assert from 'node:assert/strict'
import { readdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, it, type TestContext } from 'node:test'
import { ServiceError } from '../../src/domain/errors.ts'
import type { ImageId, LocationUri, StoreId } from '../../src/domain/ids.ts'
import { startServer, type TestConfig, type TestServer } from '../support/server.ts'
import { startWebServer } from '../support/servers/web.ts'

const ALICE = 'alice:p1:member,reader'
const ADMIN = 'root:p0:admin,member,reader'
const TWO_STORES: TestConfig = {
  DEFAULT: { enabled_backends: 'fast:file, cheap:file, empty:file' },
  glance_store: { default_backend: 'fast' },
  fast: { weight: '10' },
}

async function serve(t: TestContext, config: TestConfig = TWO_STORES): Promise<TestServer> {
  const server = await startServer({ config })
  t.after(() => server.close())
  return server
}

const call = (server: TestServer, method: string, path: string, token = ALICE, body?: string) =>
  fetch(`${server.url}${path}`, {
    method,
    headers: { 'x-auth-token': token, 'content-type': 'application/octet-stream', accept: 'text/plain' },
    ...(body === undefined ? {} : { body }),
  })

const explanation = async (response: Response): Promise<string> => (await response.text()).split('\n')[2] ?? ''

/** An image whose data says in which store it lies. */
async function createImage(server: TestServer, data = 'fast!'): Promise<ImageId> {
  const created = await call(
    server,
    'POST',
    '/v2/images',
    ALICE,
    JSON.stringify({ disk_format: 'raw', container_format: 'bare' }),
  )
  const { id } = (await created.json()) as { id: ImageId }
  assert.equal((await call(server, 'PUT', `/v2/images/${id}/file`, ALICE, data)).status, 204)
  return id
}

/** As an import into a second store leaves it. */
async function copyTo(server: TestServer, id: ImageId, store: string, data: string): Promise<void> {
  const file = join(server.dir, store, id)
  await writeFile(file, data)
  const location = { uri: `file://${file}` as LocationUri, store: store as StoreId, metadata: {} }
  await server.app.core.db.images.update(id, { addLocations: [location] }, ['active'])
}

describe('downloads with ?prefer', () => {
  const download = async (server: TestServer, id: string, query: string, token = ALICE) => {
    const response = await call(server, 'GET', `/v2/images/${id}/file${query}`, token)
    return response.ok
      ? `${response.status} ${await response.text()}`
      : `${response.status} ${await explanation(response)}`
  }

  it('read the copy in the first store that has one, and another where none has', async (t) => {
    const server = await serve(t)
    const id = await createImage(server)
    await copyTo(server, id, 'cheap', 'cheap')
    for (const [query, answer] of [
      ['', '200 fast!'],
      ['?prefer=', '200 fast!'],
      ['?prefer=,%20,', '200 fast!'],
      ['?prefer=cheap', '200 cheap'],
      ['?prefer=empty,%20cheap%20', '200 cheap'],
      ['?prefer=cheap,fast', '200 fast!'],
      ['?prefer=empty', '200 fast!'],
      ['?prefer=slow', "400 Store 'slow' is not configured."],
      ['?prefer=cheap,slow', "400 Store 'slow' is not configured."],
    ] as const) {
      assert.equal(await download(server, id, query), answer, query)
    }
  })

  it('are for those whom policy allows them', async (t) => {
    const server = await serve(t)
    const id = await createImage(server)
    await writeFile(join(server.dir, 'policy.yaml'), 'download_from_store: "role:admin"\n')
    // The file is looked at again after a second.
    while ((await download(server, id, '?prefer=fast')).startsWith('200'))
      await new Promise((resolve) => setTimeout(resolve, 50))
    assert.equal(
      await download(server, id, '?prefer=fast'),
      '403 You are not authorized to complete download_from_store action.',
    )
    assert.equal(await download(server, id, '?prefer=fast', ADMIN), '200 fast!')
    assert.equal(await download(server, id, ''), '200 fast!')
  })

  it('are refused where there is only one store', async (t) => {
    const server = await serve(t, {})
    const id = await createImage(server)
    assert.equal(
      await download(server, id, '?prefer=file'),
      '400 Store selection for download is not available when multiple backends are not enabled.',
    )
  })
})

describe('DELETE /v2/stores/{store}/{image}', () => {
  it('removes one of several copies, but never the last', async (t) => {
    const server = await serve(t)
    const id = await createImage(server)
    await copyTo(server, id, 'cheap', 'cheap')
    assert.equal((await call(server, 'DELETE', `/v2/stores/fast/${id}`, ADMIN)).status, 204)
    assert.deepEqual(await readdir(join(server.dir, 'fast')), [])
    assert.equal(await (await call(server, 'GET', `/v2/images/${id}/file`)).text(), 'cheap')
    const { stores } = (await (await call(server, 'GET', `/v2/images/${id}`)).json()) as { stores: string }
    assert.equal(stores, 'cheap')

    const last = await call(server, 'DELETE', `/v2/stores/cheap/${id}`, ADMIN)
    assert.equal(last.status, 403)
    assert.match(await explanation(last), /^Cannot delete image data from the only store containing it\./)
    assert.deepEqual(await readdir(join(server.dir, 'cheap')), [id])
  })

  it('removes the copy also where the data are gone already', async (t) => {
    const server = await serve(t)
    const id = await createImage(server)
    const location = {
      uri: `file://${join(server.dir, 'cheap', id)}` as LocationUri,
      store: 'cheap' as StoreId,
      metadata: {},
    }
    await server.app.core.db.images.update(id, { addLocations: [location] }, ['active'])
    assert.equal((await call(server, 'DELETE', `/v2/stores/cheap/${id}`, ADMIN)).status, 204)
    assert.deepEqual(await server.app.core.db.images.undropped(10), [])
  })

  it('leaves one copy when two are deleted at once', async (t) => {
    const server = await serve(t)
    const id = await createImage(server)
    await copyTo(server, id, 'cheap', 'cheap')
    const answers = await Promise.all(
      ['fast', 'cheap'].map((store) => call(server, 'DELETE', `/v2/stores/${store}/${id}`, ADMIN)),
    )
    assert.equal(answers.filter(({ status }) => status === 204).length, 1)
    for (const { status } of answers) assert.ok([204, 403, 409].includes(status), String(status))
    assert.equal((await call(server, 'GET', `/v2/images/${id}/file`)).status, 200)
  })

  it('keeps a copy that is in use', async (t) => {
    const server = await serve(t)
    const { core } = server.app
    const id = await createImage(server)
    await copyTo(server, id, 'cheap', 'cheap')
    const store = core.stores.byId('cheap' as StoreId)
    assert.ok(store)
    const { delete: unused } = store

    Object.assign(store, { delete: () => Promise.reject(new ServiceError('conflict', 'it has clones')) })
    const refused = await call(server, 'DELETE', `/v2/stores/cheap/${id}`, ADMIN)
    assert.equal(refused.status, 409)
    assert.equal(
      await explanation(refused),
      `The data for Image ${id} could not be deleted because it is in use: it has clones`,
    )
    assert.equal((await core.db.images.get(id, { admin: true, project: undefined })).locations.length, 2)
    Object.assign(store, { delete: unused })
    assert.equal((await call(server, 'DELETE', `/v2/stores/cheap/${id}`, ADMIN)).status, 204)
  })

  it('tells what is wrong', async (t) => {
    const server = await serve(t)
    const id = await createImage(server)
    await copyTo(server, id, 'cheap', 'cheap')
    for (const [store, image, token, answer] of [
      ['slow', id, ADMIN, '409 The selected store slow is not available on this node.'],
      [
        'fast',
        '11111111-1111-4111-8111-111111111111',
        ADMIN,
        '404 Failed to find image 11111111-1111-4111-8111-111111111111',
      ],
      ['empty', id, ADMIN, `404 Image ${id} is not stored in store empty.`],
      ['fast', id, ALICE, '403 You are not authorized to complete delete_image_location action.'],
      ['fast', id, 'bob:p2:member,reader', `404 Failed to find image ${id}`],
    ] as const) {
      const response = await call(server, 'DELETE', `/v2/stores/${store}/${image}`, token)
      assert.equal(`${response.status} ${await explanation(response)}`, answer)
    }
    await call(server, 'POST', `/v2/images/${id}/actions/deactivate`)
    const inactive = await call(server, 'DELETE', `/v2/stores/fast/${id}`, ADMIN)
    assert.equal(
      `${inactive.status} ${await explanation(inactive)}`,
      "409 It's not allowed to remove image data from store if image status is not 'active'",
    )
  })
})

describe('GET /v2/images/{image}/locations', () => {
  it('shows other services where the data are, the heaviest store first', async (t) => {
    const server = await serve(t)
    const id = await createImage(server)
    await copyTo(server, id, 'cheap', 'cheap')
    // Images of others are hidden from a service as from anybody.
    assert.equal((await call(server, 'GET', `/v2/images/${id}/locations`, 'nova:services:service')).status, 404)
    for (const token of [ADMIN, 'nova:p1:service,reader']) {
      assert.deepEqual(await (await call(server, 'GET', `/v2/images/${id}/locations`, token)).json(), [
        { url: `file://${join(server.dir, 'fast', id)}`, metadata: { store: 'fast' } },
        { url: `file://${join(server.dir, 'cheap', id)}`, metadata: { store: 'cheap' } },
      ])
    }
  })

  it('shows an empty list while there are none, and is not for users', async (t) => {
    const server = await serve(t)
    const created = await call(server, 'POST', '/v2/images', ALICE, '{}')
    const { id } = (await created.json()) as { id: string }
    assert.deepEqual(await (await call(server, 'GET', `/v2/images/${id}/locations`, ADMIN)).json(), [])
    const refused = await call(server, 'GET', `/v2/images/${id}/locations`)
    assert.equal(refused.status, 403)
    assert.equal(await explanation(refused), 'You are not authorized to complete fetch_image_location action.')
  })
})

describe('locations that clients set', () => {
  const patch = (server: TestServer, id: string, value: object, token = ALICE) =>
    fetch(`${server.url}/v2/images/${id}`, {
      method: 'PATCH',
      headers: {
        'x-auth-token': token,
        accept: 'text/plain',
        'content-type': 'application/openstack-images-v2.1-json-patch',
      },
      body: JSON.stringify([{ op: 'add', path: '/locations/-', value }]),
    })
  const queued = async (server: TestServer) => {
    const created = await call(server, 'POST', '/v2/images', ALICE, '{"disk_format":"raw","container_format":"bare"}')
    return ((await created.json()) as { id: string }).id
  }

  it('are served beside the files of a single store', async (t) => {
    const server = await serve(t, { DEFAULT: { show_multiple_locations: 'true' } })
    const web = await startWebServer()
    t.after(() => web.close())
    const id = await queued(server)
    const url = `http://user:s3cret@127.0.0.1:${web.port}${web.serve(Buffer.from('from afar'))}`
    const patched = (await (await patch(server, id, { url, metadata: {} })).json()) as object
    assert.partialDeepStrictEqual(patched, { status: 'active', size: 9, locations: [{ url, metadata: {} }] })
    assert.equal(await (await call(server, 'GET', `/v2/images/${id}/file`)).text(), 'from afar')
    assert.equal((await call(server, 'DELETE', `/v2/images/${id}`)).status, 204)
    assert.deepEqual(await server.app.core.db.images.undropped(10), [])
    assert.equal(
      (await call(server, 'PUT', `/v2/images/${await queued(server)}/file`, ALICE, 'of our own')).status,
      204,
    )
  })

  it('can never be files of the server', async (t) => {
    const server = await serve(t, { DEFAULT: { show_multiple_locations: 'true' } })
    const other = await createImage(server, 'secret')
    const id = await queued(server)
    for (const scheme of ['file', 'FILE', 'filesystem', 'FileSystem', 'swift+config']) {
      const refused = await patch(server, id, { url: `${scheme}://${join(server.dir, 'images', other)}`, metadata: {} })
      assert.equal(`${refused.status} ${await explanation(refused)}`, '400 Invalid location', scheme)
    }
  })

  it('of one owner do not exceed its quota when they are set at once', async (t) => {
    const server = await serve(t, { DEFAULT: { show_multiple_locations: 'true', user_storage_quota: '25B' } })
    const web = await startWebServer()
    t.after(() => web.close())
    const url = `${web.url}${web.serve(Buffer.from('ten bytes!'))}`
    const images = await Promise.all([1, 2, 3, 4].map(() => queued(server)))
    const answers = await Promise.all(images.map((id) => patch(server, id, { url, metadata: {} })))
    assert.deepEqual(answers.map(({ status }) => status).sort(), [200, 200, 413, 413])
  })
})
