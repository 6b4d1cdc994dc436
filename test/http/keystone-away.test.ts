import assert from 'node:assert/strict'
import { after, before, describe, it } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { keystoneIdentity } from '../../src/auth/keystone.ts'
import { until } from '../support/product.ts'
import { startServer, type TestServer } from '../support/server.ts'
import { available, type KeystoneServer, PASSWORD, startKeystone } from '../support/servers/keystone.ts'
import { startWebServer, type WebServer } from '../support/servers/web.ts'

const installed = available()
const skip = !installed.ok && process.env['CI'] !== 'true' && installed.reason

describe('a service whose Keystone goes away', { skip }, () => {
  let keystone: KeystoneServer
  let server: TestServer
  let web: WebServer

  const call = (token: string, method: string, path: string, body?: string) =>
    fetch(`${server.url}/v2${path}`, {
      method,
      headers: { 'x-auth-token': token, 'content-type': 'application/json' },
      ...(body === undefined ? {} : { body }),
    })
  const create = async (token: string): Promise<string> => {
    const response = await call(token, 'POST', '/images', '{"disk_format":"raw","container_format":"bare"}')
    assert.equal(response.status, 201)
    return ((await response.json()) as { id: string }).id
  }
  const imageOf = async (token: string, id: string) =>
    (await (await call(token, 'GET', `/images/${id}`)).json()) as { status: string; size: number }
  /** An upload of which the first byte has arrived, and the last is sent by `end`. */
  const beginUpload = async (token: string, id: string) => {
    let body: ReadableStreamDefaultController | undefined
    const answer = fetch(`${server.url}/v2/images/${id}/file`, {
      method: 'PUT',
      headers: { 'x-auth-token': token, 'content-type': 'application/octet-stream' },
      body: new ReadableStream({
        start: (controller) => {
          body = controller
          controller.enqueue(new Uint8Array(100_000))
        },
      }),
      duplex: 'half',
    } as RequestInit)
    await until('the first byte', async () => (await imageOf(token, id)).status === 'saving')
    return {
      end: () => {
        body?.enqueue(new Uint8Array(1))
        body?.close()
        return answer
      },
    }
  }

  /** An import whose first half has arrived; `end` brings the other, and resolves when it has succeeded. */
  const beginImport = async (token: string) => {
    const id = await create(token)
    let go = () => {}
    const gate = new Promise<void>((resolve) => {
      go = resolve
    })
    web.on(`/${id}`, async (_, response) => {
      response.writeHead(200, { 'content-length': 200_000 }).write(Buffer.alloc(100_000))
      await gate
      response.end(Buffer.alloc(100_000))
    })
    const method = { name: 'web-download', uri: `${web.url}/${id}` }
    const answer = await call(token, 'POST', `/images/${id}/import`, JSON.stringify({ method }))
    assert.equal(answer.status, 202, await answer.text())
    await until('the first half', () => web.requests.some(({ url }) => url === `/${id}`))
    return {
      end: async () => {
        go()
        await until('the end of the import', async () => (await imageOf(token, id)).status === 'active')
      },
    }
  }

  before(async () => {
    keystone = await startKeystone()
    const login = {
      auth_url: keystone.url,
      username: 'glance',
      password: PASSWORD,
      project_name: 'service',
      http_request_max_retries: 1,
    }
    const identity = keystoneIdentity(login, { warn: () => undefined })
    web = await startWebServer()
    server = await startServer({ identity, config: { import_filtering_opts: { allowed_ports: '[]' } } })
  })
  after(async () => {
    await keystone.stop()
    await server.close()
    await web.close()
  })

  it('finishes an upload whose token has ended meanwhile', async () => {
    const [token, other] = [await keystone.token('demo'), await keystone.token('demo')]
    const id = await create(token)
    const upload = await beginUpload(token, id)
    await keystone.call(token, 'DELETE', '/auth/tokens', undefined, { 'x-subject-token': token })
    assert.equal((await upload.end()).status, 204)
    const image = await imageOf(other, id)
    assert.deepEqual([image.status, image.size], ['active', 100_001])
  })

  it('goes on for tokens that it knows, says 503 to others, and recovers by itself', async () => {
    const known = await keystone.token('demo')
    const unknown = await Promise.all(Array.from({ length: 12 }, () => keystone.token('alt_demo')))
    const list = async (token = unknown.pop() ?? '') => (await call(token, 'GET', '/images?limit=1')).status
    const id = await create(known)
    const upload = await beginUpload(known, id)
    const uploads = await Promise.all(Array.from({ length: 4 }, async () => beginUpload(known, await create(known))))
    const imports = await Promise.all(Array.from({ length: 4 }, () => beginImport(known)))
    const seen: number[] = []
    const end = new AbortController()
    const load = Array.from({ length: 4 }, async () => {
      for (; !end.signal.aborted; await delay(5)) seen.push(await list(known))
    })
    const more = (count: number) => {
      const before = seen.length
      return until(`${count} answers`, () => seen.length >= before + count)
    }

    await more(20)
    assert.deepEqual([await list(), await list()], [200, 200])
    await keystone.halt()
    await more(20)
    assert.deepEqual(await Promise.all(Array.from({ length: 6 }, () => list())), Array(6).fill(503))
    const made = await create(known)
    // What has begun needs no Keystone to come to its end.
    const [first, second, ...others] = uploads
    for (const one of [first, second]) assert.equal((await one?.end())?.status, 204)
    await imports[0]?.end()
    await imports[1]?.end()
    const late = await beginImport(known)
    await late.end()
    await more(20)
    await keystone.start()
    assert.deepEqual([await list(), await list()], [200, 200])
    await more(20)
    end.abort()
    await Promise.all(load)
    assert.deepEqual(new Set(seen), new Set([200]))
    for (const one of others) assert.equal((await one.end()).status, 204)
    await imports[2]?.end()
    await imports[3]?.end()
    assert.equal((await upload.end()).status, 204)
    assert.equal((await imageOf(known, made)).status, 'queued')
  })
})
