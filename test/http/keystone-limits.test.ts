import assert from 'node:assert/strict'
import { after, before, describe, it } from 'node:test'
import { keystoneIdentity } from '../../src/auth/keystone.ts'
import { until } from '../support/product.ts'
import { startServer, type TestServer } from '../support/server.ts'
import {
  available,
  type KeystoneServer,
  limitProject,
  PASSWORD,
  registerLimits,
  startKeystone,
  type UserName,
} from '../support/servers/keystone.ts'

const MiB = 1_048_576
const installed = available()
const skip = !installed.ok && process.env['CI'] !== 'true' && installed.reason

describe("Keystone's limits", { skip }, () => {
  let keystone: KeystoneServer
  let server: TestServer
  const tokens = new Map<UserName, string>()

  const call = (user: UserName, method: string, path: string, body?: string | Uint8Array<ArrayBuffer>) =>
    fetch(`${server.url}/v2${path}`, {
      method,
      headers: {
        'x-auth-token': tokens.get(user) ?? '',
        'content-type': typeof body === 'string' ? 'application/json' : 'application/octet-stream',
      },
      ...(body === undefined ? {} : { body }),
    })
  const draft = JSON.stringify({ disk_format: 'raw', container_format: 'bare' })
  const create = async (user: UserName): Promise<string> => {
    const response = await call(user, 'POST', '/images', draft)
    assert.equal(response.status, 201)
    return ((await response.json()) as { id: string }).id
  }
  const upload = (user: UserName, id: string, size: number) =>
    call(user, 'PUT', `/images/${id}/file`, new Uint8Array(size))
  const usage = async (user: UserName) =>
    ((await (await call(user, 'GET', '/info/usage')).json()) as { usage: Record<string, unknown> }).usage
  const countOf = (statuses: readonly number[]) =>
    Object.fromEntries([...new Set(statuses)].sort().map((one) => [one, statuses.filter((s) => s === one).length]))

  before(async () => {
    keystone = await startKeystone()
    const { service, endpoint } = await registerLimits(keystone, {
      image_size_total: 10,
      image_stage_total: -1,
      image_count_total: -1,
      image_count_uploading: -1,
    })
    const own = { image_count_total: 3, image_count_uploading: 1 }
    await limitProject(keystone, service, keystone.projects['alt_demo'] as string, own)
    for (const user of ['demo', 'alt_demo', 'admin', 'nova'] as const) tokens.set(user, await keystone.token(user))
    const login = { auth_url: keystone.url, username: 'glance', password: PASSWORD, user_domain_id: 'default' }
    server = await startServer({
      config: {
        DEFAULT: { use_keystone_limits: 'true', user_storage_quota: '1' },
        oslo_limit: { ...login, auth_type: 'password', system_scope: 'all', endpoint_id: endpoint },
      },
      identity: keystoneIdentity(
        { ...login, project_name: 'service', project_domain_id: 'default' },
        { warn: () => undefined },
      ),
    })
  })
  after(async () => {
    await keystone.stop()
    await server.close()
  })

  it('hold for a hundred uploads at once that come to more together', async () => {
    const ids = await Promise.all(Array.from({ length: 100 }, () => create('demo')))
    const size = Math.ceil((10 * MiB * 1.1) / 100)
    const watching = new AbortController()
    let most = 0
    const watch = (async () => {
      for (; !watching.signal.aborted; await new Promise(setImmediate)) {
        const { storage } = await server.app.core.db.images.ownerUsage(keystone.projects['demo'] as never)
        most = Math.max(most, storage)
      }
    })()
    const answers = await Promise.all(ids.map((id) => upload('demo', id, size)))
    watching.abort()
    await watch
    const fitting = Math.floor((10 * MiB) / size)
    assert.deepEqual(countOf(answers.map(({ status }) => status)), { 204: fitting, 413: 100 - fitting })
    assert.equal(most, fitting * size)
    const { images } = (await (await call('demo', 'GET', '/images?limit=200')).json()) as {
      images: readonly { status: string }[]
    }
    assert.equal(images.filter(({ status }) => status === 'active').length, fitting)
    assert.equal(images.filter(({ status }) => status === 'queued').length, 100 - fitting)
  })

  it('refuse with 413 in the words of upstream, whether or not the size is known', async () => {
    const id = await create('demo')
    const refused = await upload('demo', id, 2 * MiB)
    assert.equal(refused.status, 413)
    const project = keystone.projects['demo']
    assert.match(
      await refused.text(),
      new RegExp(
        `Project ${project} is over a limit for \\[Resource image_size_total is over limit of 10 due to current usage 10 and delta 2\\]`,
      ),
    )
    const chunked = await fetch(`${server.url}/v2/images/${id}/file`, {
      method: 'PUT',
      headers: { 'x-auth-token': tokens.get('demo') ?? '', 'content-type': 'application/octet-stream' },
      body: new Blob([new Uint8Array(2 * MiB)]).stream(),
      duplex: 'half',
    } as RequestInit)
    assert.equal(chunked.status, 413)
    assert.match(await chunked.text(), /Resource image_size_total is over limit of 10/)
  })

  it('count images and uploads of the project, at once as well', async () => {
    const made = await Promise.all(Array.from({ length: 10 }, () => call('alt_demo', 'POST', '/images', draft)))
    assert.deepEqual(countOf(made.map(({ status }) => status)), { 201: 3, 413: 7 })
    const refused = made.find(({ status }) => status === 413)
    assert.match(
      (await refused?.text()) ?? '',
      /Resource image_count_total is over limit of 3 due to current usage 3 and delta 1/,
    )
    const ids = await Promise.all(
      made.filter(({ status }) => status === 201).map(async (one) => ((await one.json()) as { id: string }).id),
    )
    let send: ReadableStreamDefaultController | undefined
    const slow = fetch(`${server.url}/v2/images/${ids[0]}/file`, {
      method: 'PUT',
      headers: { 'x-auth-token': tokens.get('alt_demo') ?? '', 'content-type': 'application/octet-stream' },
      body: new ReadableStream({
        start: (controller) => {
          send = controller
          controller.enqueue(new Uint8Array(1))
        },
      }),
      duplex: 'half',
    } as RequestInit)
    const statusOf = async (id: string | undefined) =>
      ((await (await call('alt_demo', 'GET', `/images/${id}`)).json()) as { status: string }).status
    await until('the first byte', async () => (await statusOf(ids[0])) === 'saving')
    const second = await upload('alt_demo', ids[1] ?? '', 10)
    assert.equal(second.status, 413)
    assert.match(
      await second.text(),
      /Resource image_count_uploading is over limit of 1 due to current usage 2 and delta 0/,
    )
    assert.equal(await statusOf(ids[1]), 'queued')
    send?.close()
    assert.equal((await slow).status, 204)
    assert.equal((await upload('alt_demo', ids[1] ?? '', 10)).status, 204)
  })

  it('are shown with what is used of them', async () => {
    assert.deepEqual(await usage('alt_demo'), {
      image_size_total: { usage: 0, limit: 10 },
      image_stage_total: { usage: 0, limit: -1 },
      image_count_total: { usage: 3, limit: 3 },
      image_count_uploading: { usage: 0, limit: 1 },
    })
  })

  it('refuse nothing wrongly while Keystone is away: what is known holds, the rest is 503', async () => {
    const id = await create('demo')
    await server.app.core.projectLimits?.of(keystone.projects['demo'] as never)
    await call('admin', 'GET', '/images')
    await keystone.halt()
    assert.equal((await upload('demo', id, 100)).status, 204)
    // Whose token is known, but not the limits.
    assert.equal((await call('admin', 'POST', '/images', draft)).status, 503)
    await keystone.start()
    assert.equal((await call('admin', 'POST', '/images', draft)).status, 201)
  })
})
