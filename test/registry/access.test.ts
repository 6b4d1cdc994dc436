import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, it, type TestContext } from 'node:test'
import fc from 'fast-check'
import { openConfiguredDatabase } from '../../src/app.ts'
import { keystoneNode, noCredentials, sharedSecret, trustedNode } from '../../src/auth/registry.ts'
import { readConfig } from '../../src/config/config.ts'
import { newImage } from '../../src/db/conformance.ts'
import { METHODS } from '../../src/db/methods.ts'
import { openRemoteDatabase, type RemoteOptions } from '../../src/db/remote.ts'
import { hasKind } from '../../src/domain/errors.ts'
import { silentLog } from '../../src/log.ts'
import { makeCertificates } from '../support/certificates.ts'
import { iniOf, SECRET, startRegistry, type TestRegistry } from '../support/registry.ts'
import type { TestConfig } from '../support/server.ts'
import { available, PASSWORD, startKeystone } from '../support/servers/keystone.ts'

/** Without a secret, unless `config` says one. */
async function started(t: TestContext, config: TestConfig): Promise<TestRegistry> {
  const registry = await startRegistry('sqlite://', { glimpse: {}, ...config })
  t.after(() => registry.close())
  return registry
}

const call = (
  { url }: TestRegistry,
  headers: Readonly<Record<string, string>>,
  method = 'workers.list',
  body = '[]',
): Promise<Response> => fetch(`${url}/database/${method}`, { method: 'POST', headers, body })
const statusOf = async (...args: Parameters<typeof call>): Promise<number> => (await call(...args)).status

/** Whether a node with these credentials reads and writes. */
async function serves(options: RemoteOptions): Promise<boolean> {
  const db = openRemoteDatabase({ patienceMs: 0, lostPatienceMs: 0, ...options })
  try {
    const image = await db.images.insert(newImage())
    return (await db.images.list(listAll, { admin: true, project: undefined })).some(({ id }) => id === image.id)
  } catch (error) {
    if (hasKind(error, 'unavailable')) return false
    throw error
  } finally {
    await db.close()
  }
}
/** Whether glance-api with this configuration does. */
async function configuredServes(t: TestContext, { url }: TestRegistry, config: TestConfig): Promise<boolean> {
  const dir = await mkdtemp(join(tmpdir(), 'glimpse-node-'))
  t.after(() => rm(dir, { recursive: true }))
  const file = join(dir, 'glance-api.conf')
  const { hostname, port } = new URL(url)
  const client = { data_api: 'glance.db.registry.api', registry_host: hostname, registry_port: port }
  const never = { max_retries: '0' }
  await writeFile(file, iniOf({ database: never, ...config, DEFAULT: { ...client, ...config['DEFAULT'] } }))
  try {
    const db = await openConfiguredDatabase(readConfig({ program: 'glance-api', configs: [{ file }] }), silentLog)
    await db.images.insert(newImage())
    await db.close()
    return true
  } catch (error) {
    if (hasKind(error, 'unavailable')) return false
    throw error
  }
}

const listAll = {
  filters: [],
  visibility: 'all',
  memberStatus: 'all',
  hidden: false,
  sort: [],
  marker: undefined,
  limit: 10,
} as const

describe('what /rpc is asked', () => {
  const asked = async (t: TestContext, body: string) => {
    const registry = await started(t, { paste_deploy: { flavor: 'noauth' } })
    const headers = { 'content-type': 'application/json' }
    const answer = await fetch(`${registry.url}/rpc`, { method: 'POST', headers, body })
    return { status: answer.status, text: await answer.text() }
  }
  const nested = (depth: number) => `${'['.repeat(depth)}${']'.repeat(depth)}`
  const filtered = (depth: number) =>
    `[{"command":"image_get_all","kwargs":{"filters":${'{"a":'.repeat(depth)}1${'}'.repeat(depth)}}}]`

  it('may be nested, but not without end', async (t) => {
    for (const body of [nested(100_000), filtered(100_000)]) {
      const { status, text } = await asked(t, body)
      assert.equal(status, 400)
      assert.match(text, /nested too deeply/)
    }
    assert.doesNotMatch((await asked(t, filtered(400))).text, /nested too deeply/)
  })

  it('is at most a hundred commands at a time', async (t) => {
    const commands = (count: number) =>
      JSON.stringify(Array.from({ length: count }, () => ({ command: 'image_get_all', kwargs: {} })))
    assert.equal((await asked(t, commands(100))).status, 200)
    assert.equal((await asked(t, commands(101))).status, 413)
  })
})

describe('who may use a registry', () => {
  it('does not start without an answer to that', async () => {
    for (const config of [
      { glimpse: {} },
      { glimpse: {}, paste_deploy: { flavor: 'caching' } },
      { DEFAULT: { data_api: 'glance.db.registry.api' } },
      { DEFAULT: { cert_file: '/nowhere' } },
      { DEFAULT: { cert_file: '/nowhere', key_file: '/nowhere' } },
      { database: {} },
    ] satisfies TestConfig[])
      await assert.rejects(startRegistry('sqlite://', config), (error) => hasKind(error, 'invalid'))
  })

  it('is whoever knows the secret', async (t) => {
    const registry = await started(t, { glimpse: { registry_secret: SECRET } })
    assert.equal(await statusOf(registry, {}), 401)
    assert.equal(await statusOf(registry, { 'x-glimpse-secret': `${SECRET}!` }), 401)
    assert.equal(await statusOf(registry, { 'x-identity-status': 'Confirmed', 'x-roles': 'admin' }), 401)
    assert.ok(await serves({ url: registry.url, credentials: sharedSecret(SECRET) }))
    // Clients of old have no secret.
    assert.equal((await fetch(`${registry.url}/images`)).status, 401)
    assert.equal((await fetch(`${registry.url}/rpc`, { method: 'POST', body: '[]' })).status, 401)
    assert.equal((await fetch(`${registry.url}/healthcheck`)).status, 200)
  })

  it('is a service or an admin, in headers that are believed', async (t) => {
    const registry = await started(t, { paste_deploy: { flavor: 'trusted-auth' } })
    const as = (roles: string) => ({ 'x-identity-status': 'Confirmed', 'x-user-id': 'u', 'x-roles': roles })
    assert.equal(await statusOf(registry, {}), 401)
    assert.equal(await statusOf(registry, as('member,reader')), 403)
    assert.equal(await statusOf(registry, as('admin')), 200)
    assert.ok(await serves({ url: registry.url, credentials: trustedNode }))
    assert.ok(await configuredServes(t, registry, { DEFAULT: { send_identity_headers: 'true' } }))
    assert.equal(await configuredServes(t, registry, {}), false)
    assert.equal(await serves({ url: registry.url, credentials: noCredentials }), false)
  })

  it('is everybody where that is said', async (t) => {
    const registry = await started(t, { paste_deploy: { flavor: 'noauth' } })
    assert.ok(await serves({ url: registry.url, credentials: noCredentials }))
    assert.equal((await fetch(`${registry.url}/images`)).status, 200)
  })

  it('is nobody who only came by', async (t) => {
    const registry = await started(t, {
      DEFAULT: { allow_anonymous_access: 'true' },
      paste_deploy: { flavor: 'trusted-auth' },
    })
    assert.equal(await statusOf(registry, {}), 403)
    assert.equal((await fetch(`${registry.url}/images`)).status, 200)
    const body = JSON.stringify({ image: { name: 'x' } })
    assert.equal((await fetch(`${registry.url}/images`, { method: 'POST', body })).status, 403)
    assert.equal((await fetch(`${registry.url}/rpc`, { method: 'POST', body: '[]' })).status, 403)
  })

  const keystoneThere = available()
  const skip = !keystoneThere.ok && process.env['CI'] !== 'true' && keystoneThere.reason
  it('is who Keystone says is a service', { skip }, async (t) => {
    const keystone = await startKeystone()
    t.after(() => keystone.stop())
    const login = { auth_url: keystone.url, username: 'glance', password: PASSWORD, project_name: 'service' }
    const registry = await started(t, { paste_deploy: { flavor: 'keystone' }, keystone_authtoken: login })
    const token = async (user: 'demo' | 'nova' | 'admin') => ({ 'x-auth-token': await keystone.token(user) })
    assert.equal(await statusOf(registry, {}), 401)
    assert.equal(await statusOf(registry, { 'x-auth-token': 'x' }), 401)
    assert.equal(await statusOf(registry, await token('demo')), 403)
    assert.equal(await statusOf(registry, await token('nova')), 200)
    assert.equal(await statusOf(registry, await token('admin')), 200)

    assert.ok(await configuredServes(t, registry, { keystone_authtoken: login }))
    const { auth_url, username: admin_user, password: admin_password, project_name: admin_tenant_name } = login
    const admin = { use_user_token: 'false', auth_url, admin_user, admin_password, admin_tenant_name }
    assert.ok(await configuredServes(t, registry, { DEFAULT: admin }))
    const demo = { ...login, username: 'demo', project_name: 'demo' }
    assert.equal(await configuredServes(t, registry, { keystone_authtoken: demo }), false)

    const node = keystoneNode(login, { warn: () => undefined, group: 'DEFAULT' })
    const { 'x-auth-token': first = '' } = await node.headers(false)
    assert.ok(await serves({ url: registry.url, credentials: { ...node, close: async () => undefined } }))
    // One that is not taken is replaced by another.
    const { 'x-auth-token': second = '' } = await node.headers(true)
    assert.notEqual(second, first)
    await node.close()
    const body = JSON.stringify({ image: { name: 'of demo' } })
    const created = await fetch(`${registry.url}/images`, { method: 'POST', headers: await token('demo'), body })
    assert.equal(((await created.json()) as { image: { owner: string } }).image.owner, keystone.projects['demo'])
  })

  it('has a certificate, where there is TLS', async (t) => {
    const dir = await mkdtemp(join(tmpdir(), 'glimpse-tls-'))
    t.after(() => rm(dir, { recursive: true }))
    await makeCertificates(dir, ['127.0.0.1', 'node'])
    const file = (name: string) => join(dir, name)
    const registry = await started(t, {
      DEFAULT: { cert_file: file('127.0.0.1.pem'), key_file: file('127.0.0.1.key'), ca_file: file('ca.pem') },
      glimpse: { registry_secret: SECRET },
    })
    const node = { url: registry.url, credentials: sharedSecret(SECRET) }
    const tls = { cafile: file('ca.pem'), certfile: file('node.pem'), keyfile: file('node.key') }
    assert.ok(await serves({ ...node, ...tls }))
    assert.equal(await serves({ ...node, cafile: file('ca.pem') }), false, 'without a certificate')
    assert.equal(await serves({ ...node, certfile: tls.certfile, keyfile: tls.keyfile }), false, 'unknown authority')
    assert.ok(await serves({ ...node, certfile: tls.certfile, keyfile: tls.keyfile, insecure: true }))
  })
})

const names = (tree: object, prefix = ''): readonly string[] =>
  Object.entries(tree).flatMap(([name, below]) =>
    typeof below === 'string' ? [prefix + name] : names(below as object, `${prefix}${name}.`),
  )

describe('what a registry is asked', () => {
  it('must be a method with arguments', async (t) => {
    const registry = await started(t, { glimpse: { registry_secret: SECRET } })
    const node = { 'x-glimpse-secret': SECRET }
    for (const method of [
      'images',
      'close',
      'images.frobnicate',
      'images.get.constructor',
      'metadefs',
      '__proto__',
      '',
    ])
      assert.equal(await statusOf(registry, node, method), 404, method)
    for (const body of ['', '{', '{}', '1', '[{"$":"odd"}]'])
      assert.equal(await statusOf(registry, node, 'images.get', body), 400, body.slice(0, 20))
    const bad = { ...node, 'x-glimpse-request': 'x'.repeat(100) }
    assert.equal(await statusOf(registry, bad, 'images.undropped', '[1]'), 400)
    assert.equal((await fetch(`${registry.url}/database/images.get`, { headers: node })).status, 405)
    const lies = await call(registry, node, 'images.get', `["${randomUUID()}", {"admin": true}]`)
    assert.equal(lies.status, 404)
    assert.match(await lies.text(), /"kind":"not-found"/)
  })

  it('does not end it, whatever it is', async (t) => {
    const registry = await started(t, { glimpse: { registry_secret: SECRET } })
    const node = { 'x-glimpse-secret': SECRET }
    const body = fc.oneof(
      fc.json(),
      fc.array(fc.jsonValue()).map((args) => JSON.stringify(args)),
    )
    await fc.assert(
      fc.asyncProperty(fc.constantFrom(...names(METHODS)), body, async (method, args) => {
        const answer = await call(registry, node, method, args)
        const text = await answer.text()
        assert.doesNotThrow(() => JSON.parse(text), text)
        if (answer.status !== 200) assert.match(text, /^\{"\$":"error","v":/)
        // What fails here is no stack trace there.
        assert.doesNotMatch(text, /\n {4}at /)
      }),
      { numRuns: 300 },
    )
    const rpc = fc.oneof(
      fc.json(),
      fc.record({ command: fc.string(), kwargs: fc.jsonValue() }).map((one) => JSON.stringify([one])),
    )
    const trusted = await started(t, { paste_deploy: { flavor: 'noauth' } })
    await fc.assert(
      fc.asyncProperty(rpc, async (text) => {
        const { status } = await fetch(`${trusted.url}/rpc`, { method: 'POST', body: text })
        assert.ok([200, 400, 404].includes(status), `${status} for ${text}`)
      }),
      { numRuns: 100 },
    )
    assert.ok(await serves({ url: registry.url, credentials: sharedSecret(SECRET) }))
  })
})
