import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer } from 'node:net'
import { describe, it, type TestContext } from 'node:test'
import { freePort } from '../../test/support/product.ts'
import { type Behaviour, startWebServer } from '../../test/support/servers/web.ts'
import { hasKind } from '../domain/errors.ts'
import { openRelay } from './relay.ts'

async function setUp(t: TestContext, behave: Behaviour) {
  const web = await startWebServer()
  const { relay, close } = openRelay()
  web.on('/v2/images/1/import', behave)
  t.after(async () => {
    await close()
    await web.close()
  })
  return {
    web,
    send: () => relay({ method: 'POST', url: `${web.url}/v2/images/1/import`, token: 'secret', body: { a: 1 } }),
  }
}

describe('relay', () => {
  it("sends the same request in the name of the user, and gives the id of the other node's", async (t) => {
    const bodies: string[] = []
    const { web, send } = await setUp(t, (request, response) => {
      request.on('data', (chunk: Buffer) => bodies.push(chunk.toString()))
      request.on('end', () => response.writeHead(202, { 'x-openstack-request-id': 'req-other' }).end())
    })
    assert.deepEqual(await send(), { requestId: 'req-other' })
    const [request] = web.requests
    assert.equal(request?.method, 'POST')
    assert.equal(request.headers['x-auth-token'], 'secret')
    assert.equal(request.headers['x-glimpse-relayed'], '1')
    assert.deepEqual(JSON.parse(bodies.join('')), { a: 1 })
  })

  it('throws what the other node answers', async (t) => {
    const { send } = await setUp(t, (_, response) => {
      const message = 'Image has active task<br /><br />\n\n\n'
      response.writeHead(409, { 'x-openstack-request-id': 'req-other', 'content-type': 'application/json' })
      response.end(JSON.stringify({ message, code: '409 Conflict', title: 'Conflict' }))
    })
    await assert.rejects(send(), (error) => {
      assert.ok(hasKind(error, 'conflict'))
      assert.equal(error.message, 'Image has active task')
      assert.deepEqual(error.detail['headers'], { 'x-openstack-request-id': 'req-other' })
      return !error.transient
    })
  })

  it('says that the other node is unavailable when nobody listens, or hangs up', async (t) => {
    const { relay, close } = openRelay()
    const rude = createServer((socket) => socket.destroy()).listen(0, '127.0.0.1')
    await once(rude, 'listening')
    t.after(async () => {
      rude.close()
      await close()
    })
    const address = rude.address()
    const ports = [await freePort(), typeof address === 'object' ? address?.port : 0]
    for (const port of ports) {
      const sent = relay({ method: 'DELETE', url: `http://127.0.0.1:${port}/v2/images/1`, token: undefined })
      await assert.rejects(sent, (error) => {
        return hasKind(error, 'timeout') && error.transient && error.message === 'Stage host is unavailable'
      })
    }
  })
})
