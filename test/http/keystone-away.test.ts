import assert from 'node:assert/strict'
import { after, before, describe, it } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { keystoneIdentity } from '../../src/auth/keystone.ts'
import { startServer, type TestServer } from '../support/server.ts'
import { available, type KeystoneServer, PASSWORD, startKeystone } from '../support/servers/keystone.ts'

const installed = available()
const skip = !installed.ok && process.env['CI'] !== 'true' && installed.reason

describe('a service whose Keystone goes away', { skip }, () => {
  let keystone: KeystoneServer
  let server: TestServer

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
    while ((await imageOf(token, id)).status !== 'saving') await delay(10)
    return {
      end: () => {
        body?.enqueue(new Uint8Array(1))
        body?.close()
        return answer
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
    server = await startServer({ identity: keystoneIdentity(login, { warn: () => undefined }) })
  })
  after(async () => {
    await keystone.stop()
    await server.close()
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
    const unknown = await Promise.all(Array.from({ length: 60 }, () => keystone.token('alt_demo')))
    const last = await keystone.token('alt_demo')
    const id = await create(known)
    const upload = await beginUpload(known, id)
    const seen: { token: 'known' | 'unknown'; status: number; away: boolean }[] = []
    const halt = new AbortController()
    let away = false
    const ask = async (kind: 'known' | 'unknown', token: string) => {
      const before = away
      const { status } = await call(token, 'GET', '/images?limit=1')
      // Requests that were under way when Keystone went or came may end either way.
      if (before === away || status >= 500) seen.push({ token: kind, status, away: before })
    }
    const load = [
      ...Array.from({ length: 4 }, async () => {
        for (; !halt.signal.aborted; await delay(5)) await ask('known', known)
      }),
      (async () => {
        for (let n = 0; n < unknown.length && !halt.signal.aborted; n++, await delay(200)) {
          await ask('unknown', unknown[n] as string)
        }
      })(),
    ]
    await delay(1000)
    away = true
    await keystone.halt()
    await delay(2000)
    const began = await create(known)
    await keystone.start()
    away = false
    await delay(2000)
    halt.abort()
    await Promise.all(load)

    const statusesOf = (kind: 'known' | 'unknown', during: boolean) =>
      new Set(seen.filter((one) => one.token === kind && one.away === during).map(({ status }) => status))
    assert.deepEqual(statusesOf('known', true), new Set([200]))
    assert.deepEqual(statusesOf('known', false), new Set([200]))
    assert.deepEqual(statusesOf('unknown', true), new Set([503]))
    assert.ok(statusesOf('unknown', false).has(200))
    assert.ok(seen.every(({ status }) => status === 200 || status === 503))
    assert.deepEqual(seen.at(-1)?.status, 200)
    assert.equal((await upload.end()).status, 204)
    assert.equal((await imageOf(known, began)).status, 'queued')
    assert.equal((await call(last, 'GET', '/images')).status, 200)
  })
})
