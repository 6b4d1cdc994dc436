import assert from 'node:assert/strict'
import { join } from 'node:path'
import { after, before, describe, it, type TestContext } from 'node:test'
import { makeCertificates } from '../../../test/support/certificates.ts'
import { freePort } from '../../../test/support/product.ts'
import { emptyQueue, missing, type RabbitServer, startRabbitmq } from '../../../test/support/servers/rabbitmq.ts'
import { silentLog } from '../../log.ts'
import { exampleMessage } from '../conformance.ts'
import { amqpSender, type TlsFiles } from './amqp.ts'

describe('AMQP over TLS', { skip: missing(), timeout: 240_000 }, () => {
  let broker: RabbitServer
  let port: number
  let count = 0

  before(async () => {
    port = await freePort()
    broker = await startRabbitmq({
      prepare: (dir) => makeCertificates(dir, ['localhost', 'guest']),
      plugins: ['rabbitmq_auth_mechanism_ssl'],
      config: `
        listeners.ssl.1 = 127.0.0.1:${port}
        ssl_options.cacertfile = {dir}/ca.pem
        ssl_options.certfile = {dir}/localhost.pem
        ssl_options.keyfile = {dir}/localhost.key
        ssl_options.verify = verify_peer
        ssl_options.fail_if_no_peer_cert = false
        ssl_cert_login_from = common_name
        auth_mechanisms.1 = PLAIN
        auth_mechanisms.2 = AMQPLAIN
        auth_mechanisms.3 = EXTERNAL
      `,
    })
  })
  after(() => broker.stop())

  const publish = async (
    t: TestContext,
    tls: Partial<TlsFiles>,
    { hostname = 'localhost', login = 'AMQPLAIN' as 'AMQPLAIN' | 'EXTERNAL' } = {},
  ): Promise<number> => {
    count += 1
    const sender = amqpSender({
      broker: { hosts: [{ hostname, port, username: 'guest', password: 'guest' }], vhost: '/' },
      exchange: 'glance',
      topics: [`topic${count}`],
      envelope: true,
      durable: false,
      autoDelete: false,
      queueArguments: {},
      login,
      heartbeat: 10,
      compression: undefined,
      tls: { version: undefined, ca: undefined, cert: undefined, key: undefined, verifyHostname: true, ...tls },
      log: silentLog,
    })
    t.after(() => sender.close())
    await sender.send(exampleMessage())
    return (await emptyQueue(broker.url, `topic${count}.info`)).length
  }
  const file = (name: string) => join(broker.dir, name)

  it('knows the broker by its certificate', async (t) => {
    assert.equal(await publish(t, { ca: file('ca.pem') }), 1)
  })

  it('does not talk to a broker of another name, unless names do not matter', async (t) => {
    const elsewhere = { hostname: '127.0.0.1' }
    await assert.rejects(publish(t, { ca: file('ca.pem') }, elsewhere), (error: Error) =>
      /does not match certificate/.test((error.cause as Error).message),
    )
    assert.equal(await publish(t, { ca: file('ca.pem'), verifyHostname: false }, elsewhere), 1)
  })

  it('does not talk to a broker that another authority vouches for', async (t) => {
    await assert.rejects(publish(t, { ca: file('guest.pem') }), (error: Error) =>
      /certificate/.test((error.cause as Error).message),
    )
  })

  it('takes any certificate when there is nothing to check it by, as upstream does', async (t) => {
    assert.equal(await publish(t, {}), 1)
  })

  it('can be held to one version of TLS', async (t) => {
    assert.equal(await publish(t, { ca: file('ca.pem'), version: 'TLSv1.2' }), 1)
  })

  it('logs in by certificate', async (t) => {
    const tls = { ca: file('ca.pem'), cert: file('guest.pem'), key: file('guest.key') }
    assert.equal(await publish(t, tls, { login: 'EXTERNAL' }), 1)
    await assert.rejects(publish(t, { ca: file('ca.pem') }, { login: 'EXTERNAL' }))
  })
})
