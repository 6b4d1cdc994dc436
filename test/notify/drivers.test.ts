import assert from 'node:assert/strict'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, it, type TestContext } from 'node:test'
import { hasKind } from '../../src/domain/errors.ts'
import { NOTIFICATIONS } from '../../src/notify/drivers/test.ts'
import { until } from '../support/product.ts'
import { startServer, type TestConfig } from '../support/server.ts'
import { startWebServer } from '../support/servers/web.ts'

/** A service with these drivers, and an image made there. */
async function told(t: TestContext, config: TestConfig): Promise<string> {
  const server = await startServer({ config })
  t.after(server.close)
  const answer = await fetch(`${server.url}/v2/images`, {
    method: 'POST',
    headers: { 'X-Auth-Token': 'alice:p:member,reader', 'Content-Type': 'application/json' },
    body: '{}',
  })
  return ((await answer.json()) as { id: string }).id
}

const heard = (): readonly string[] => NOTIFICATIONS.map(({ payload }) => (payload as { id: string }).id)

describe('[oslo_messaging_notifications]', () => {
  it('driver may be given several times; one that is not known is passed over', async (t) => {
    const web = await startWebServer()
    t.after(web.close)
    const ids: string[] = []
    web.on('/hook', (request, response) => {
      ids.push(String(request.headers['ce-subject']))
      request.resume()
      response.writeHead(204).end()
    })
    const id = await told(t, {
      oslo_messaging_notifications: { driver: 'test\ndriver = carrier-pigeon\ndriver = noop\ndriver = webhook' },
      glimpse_webhook: { urls: `${web.url}/hook`, mode: 'binary' },
    })
    assert.equal(heard().at(-1), id)
    await until('the webhook', () => ids.length > 0)
    assert.deepEqual(ids, [id])
  })

  it('routing_config says which driver gets what', async (t) => {
    const dir = await mkdtemp(join(tmpdir(), 'glimpse-routing-'))
    t.after(() => rm(dir, { recursive: true }))
    const file = join(dir, 'routing.yaml')
    const config = { oslo_messaging_notifications: { driver: 'routing', routing_config: file } }
    await writeFile(file, 'group:\n  test:\n    accepted_events: [image.create]\n  carrier-pigeon:\n  routing:\n')
    const first = await told(t, config)
    assert.equal(heard().at(-1), first)
    await writeFile(file, 'group:\n  test:\n    accepted_events: [image.delete]\n')
    await told(t, config)
    assert.equal(heard().at(-1), first)
  })

  it('disabled_notifications are not told', async (t) => {
    const id = await told(t, {
      DEFAULT: { disabled_notifications: 'image.create, task' },
      oslo_messaging_notifications: { driver: 'test' },
    })
    assert.ok(!heard().includes(id))
  })

  it('transport_url is not looked at as long as no driver needs it', async (t) => {
    await told(t, { DEFAULT: { transport_url: 'kafka://h' } })
  })

  for (const [what, config] of Object.entries<TestConfig>({
    'a broker of another kind': { DEFAULT: { transport_url: 'kafka://u:hunter2@h' } },
    'a URL that is none': { oslo_messaging_notifications: { driver: 'messaging', transport_url: 'u:hunter2@h' } },
    'a wrong option in the URL': { DEFAULT: { transport_url: 'rabbit://u:hunter2@h/?ssl=perhaps' } },
    'a webhook that is no URL': {
      oslo_messaging_notifications: { driver: 'webhook' },
      glimpse_webhook: { urls: 'ftp://u:hunter2@h' },
    },
    'a routing_config that is not there': {
      oslo_messaging_notifications: { driver: 'routing', routing_config: '/nonexistent' },
    },
    'queues of two kinds': { oslo_messaging_rabbit: { rabbit_quorum_queue: 'true', rabbit_ha_queues: 'true' } },
    'a routing_config that is none': {
      oslo_messaging_notifications: { driver: 'routing', routing_config: import.meta.filename },
    },
  })) {
    it(`${what} keeps the service from starting`, async () => {
      await assert.rejects(
        startServer({ config: { oslo_messaging_notifications: { driver: 'messagingv2' }, ...config } }),
        (error: Error) => hasKind(error, 'invalid') && !error.message.includes('hunter2'),
      )
    })
  }
})
