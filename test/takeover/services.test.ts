import assert from 'node:assert/strict'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, it, type TestContext } from 'node:test'
import type { TestConfig } from '../support/server.ts'
import {
  available as hasKeystone,
  type KeystoneServer,
  PASSWORD,
  registerLimits,
  startKeystone,
} from '../support/servers/keystone.ts'
import { available as hasMemcached, startMemcached } from '../support/servers/memcached.ts'
import { listen, missing, startRabbitmq } from '../support/servers/rabbitmq.ts'
import { sectionsOf, told } from './deployment.ts'

/** What is told of a configuration with an empty database, by section. */
async function findings(t: TestContext, config: TestConfig, title: string) {
  const dir = await mkdtemp(join(tmpdir(), 'takeover-'))
  t.after(() => rm(dir, { recursive: true, force: true }))
  const file = join(dir, 'glance-api.conf')
  const text = Object.entries(config).map(([group, values]) =>
    [`[${group}]`, ...Object.entries(values ?? {}).map(([name, value]) => `${name} = ${value}`)].join('\n'),
  )
  await writeFile(file, `${text.join('\n')}\n`)
  const sections = (await sectionsOf(file)).filter((section) => section.title === title)
  return {
    good: told(sections, 'ok').join('\n'),
    notes: told(sections, 'note').join('\n'),
    problems: told(sections, 'problem'),
  }
}

const needed = (found: { readonly ok: true } | { readonly ok: false; readonly reason: string }): string | false => {
  if (found.ok) return false
  if (process.env['CI'] === 'true') throw new Error(found.reason)
  return found.reason
}

describe('glimpse takeover check with a real Keystone', { skip: needed(hasKeystone()) }, () => {
  let keystone: KeystoneServer
  before(async () => {
    keystone = await startKeystone()
  })
  after(() => keystone.stop())

  const login = (user: string, project: string, password = PASSWORD) => ({
    auth_url: keystone.url,
    username: user,
    password,
    project_name: project,
    user_domain_id: 'default',
    project_domain_id: 'default',
  })
  const identity = (t: TestContext, config: TestConfig) =>
    findings(t, { paste_deploy: { flavor: 'keystone' }, ...config }, 'Identity')

  it('logs in as the service', async (t) => {
    const { good, problems } = await identity(t, { keystone_authtoken: login('glance', 'service') })
    assert.deepEqual(problems, [])
    assert.match(good, /Keystone at .* lets the service log in \(roles .*service.*\)/)
  })

  it('is told of a wrong password, without showing it, and of a user without the role', async (t) => {
    const wrong = await identity(t, { keystone_authtoken: login('glance', 'service', 'pa55word') })
    assert.match(wrong.problems.join('\n'), /cannot log in to Keystone.*status 401/)
    assert.doesNotMatch(wrong.problems.join('\n'), /pa55word/)
    const demo = await identity(t, { keystone_authtoken: login('demo', 'demo') })
    assert.deepEqual(demo.problems, [])
    assert.match(demo.notes, /neither the role service nor admin/)
  })

  it('reaches memcached, or does not', { skip: needed(hasMemcached()) }, async (t) => {
    const memcached = await startMemcached()
    t.after(() => memcached.halt())
    const config = { keystone_authtoken: { ...login('glance', 'service'), memcached_servers: memcached.address } }
    assert.match((await identity(t, config)).good, new RegExp(`memcached at ${memcached.address} can be reached`))
    await memcached.halt()
    assert.match((await identity(t, config)).notes, /cannot be reached: .*ECONNREFUSED/)
  })

  it('finds the registered limits, and those that are missing', async (t) => {
    const { endpoint } = await registerLimits(keystone, { image_size_total: 1000, image_stage_total: 1000 })
    const config: TestConfig = {
      DEFAULT: { use_keystone_limits: 'true' },
      keystone_authtoken: login('glance', 'service'),
      oslo_limit: { ...login('glance', 'service'), endpoint_id: endpoint },
    }
    const { good, problems } = await identity(t, config)
    assert.match(good, /Limits registered in Keystone.*image_size_total: 1000/)
    assert.equal(problems.length, 2, problems.join('\n'))
    assert.match(problems.join('\n'), /no registered limit image_count_total/)
    const nowhere = await identity(t, { ...config, oslo_limit: { ...config['oslo_limit'], endpoint_id: 'nowhere' } })
    assert.match(nowhere.problems.join('\n'), /Keystone does not tell the limits/)
  })
})

describe('glimpse takeover check with a real RabbitMQ', { skip: missing() }, () => {
  it('logs in and sends nothing', async (t) => {
    const rabbit = await startRabbitmq()
    t.after(() => rabbit.stop())
    const notifications = (transport_url: string) =>
      findings(
        t,
        { oslo_messaging_notifications: { driver: 'messagingv2', topics: 'images', transport_url } },
        'Notifications',
      )
    const listener = await listen(rabbit.url)

    const right = await notifications(`rabbit://guest:guest@127.0.0.1:${rabbit.port}/`)
    assert.deepEqual(right.problems, [])
    assert.match(right.good, /lets the service log in to \/; no message was sent/)
    assert.match(right.good, /exchange glance, topics images/)
    assert.deepEqual(listener.received, [])
    await listener.close()

    const wrong = await notifications(`rabbit://guest:pa55word@127.0.0.1:${rabbit.port}/`)
    assert.equal(wrong.problems.length, 1)
    assert.match(wrong.problems[0] ?? '', /rabbit:\/\/127\.0\.0\.1:\d+ cannot be used: .*(ACCESS_REFUSED|403)/)
    assert.doesNotMatch(wrong.problems[0] ?? '', /pa55word/)
    assert.match(
      (await notifications('kafka://127.0.0.1/')).problems[0] ?? '',
      /would not start.*kafka:\/\/ is not supported/,
    )
  })
})
