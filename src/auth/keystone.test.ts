import assert from 'node:assert/strict'
import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'
import { pipeline } from 'node:stream'
import { after, before, describe, it } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { available, type KeystoneServer, PASSWORD, startKeystone } from '../../test/support/servers/keystone.ts'
import { hasKind } from '../domain/errors.ts'
import type { Identity, IdentityProvider } from './identity.ts'
import { type KeystoneOptions, keystoneIdentity } from './keystone.ts'

const signal = new AbortController().signal
const is = (kind: 'unauthenticated' | 'unavailable' | 'invalid') => (error: unknown) => hasKind(error, kind)

const listen = async (serve: (socket: Socket) => void) => {
  const server = createServer(serve).listen(0, '127.0.0.1')
  await once(server, 'listening')
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, close: () => server.close() }
}

const installed = available()
const skip = !installed.ok && process.env['CI'] !== 'true' && installed.reason

describe('keystoneIdentity()', { skip }, () => {
  let keystone: KeystoneServer
  let clock = 0
  const now = () => Date.now() + clock
  const opened: IdentityProvider[] = []

  const open = (options: KeystoneOptions = {}, warnings: string[] = []): IdentityProvider => {
    const provider = keystoneIdentity(
      {
        auth_url: keystone.url,
        username: 'glance',
        password: PASSWORD,
        user_domain_name: 'Default',
        project_name: 'service',
        project_domain_name: 'Default',
        http_request_max_retries: 0,
        ...options,
      },
      { warn: (message) => warnings.push(message), now },
    )
    opened.push(provider)
    return provider
  }
  const who = (provider: IdentityProvider, token: string, serviceToken?: string): Promise<Identity> =>
    provider.authenticate(
      { 'x-auth-token': token, ...(serviceToken === undefined ? {} : { 'x-service-token': serviceToken }) },
      signal,
    )

  before(async () => {
    keystone = await startKeystone()
  })
  after(async () => {
    await Promise.all(opened.map((provider) => provider.close()))
    await keystone.stop()
  })

  it('tells user, project, domains, roles and expiry of a project-scoped token', async () => {
    const token = await keystone.token('demo')
    const { expiresAt, roles, ...identity } = await who(open(), token)
    assert.deepEqual(identity, {
      userId: keystone.users['demo'],
      projectId: keystone.projects['demo'],
      domainId: undefined,
      userDomainId: 'default',
      projectDomainId: 'default',
      serviceRoles: [],
      serviceUserId: undefined,
      serviceProjectId: undefined,
      systemScope: undefined,
      isAdminProject: true,
      readOnly: false,
      isAdmin: undefined,
      token,
    })
    assert.deepEqual(new Set(roles), new Set(['member', 'reader']))
    assert.ok(expiresAt !== undefined && expiresAt > new Date())
  })

  it('tells a system-scoped token by its scope, and that it has no project', async () => {
    const { systemScope, projectId, roles } = await who(open(), await keystone.token('admin', 'system'))
    assert.equal(systemScope, 'all')
    assert.equal(projectId, undefined)
    assert.ok(roles.includes('admin'))
  })

  it('accepts an unscoped token, which has no roles', async () => {
    const { projectId, roles } = await who(open(), await keystone.token('demo', 'unscoped'))
    assert.equal(projectId, undefined)
    assert.deepEqual(roles, [])
  })

  it('takes the token from X-Storage-Token when there is no X-Auth-Token', async () => {
    const token = await keystone.token('demo')
    const identity = await open().authenticate({ 'x-storage-token': token }, signal)
    assert.equal(identity.userId, keystone.users['demo'])
  })

  it('refuses a request without a token, and one with a token that Keystone does not know', async () => {
    await assert.rejects(open().authenticate({}, signal), is('unauthenticated'))
    await assert.rejects(who(open(), 'gAAAAABnope'), is('unauthenticated'))
  })

  it('names Keystone in its challenge', () => {
    assert.equal(open().challenge, `Keystone uri="${keystone.url}"`)
    assert.equal(open({ www_authenticate_uri: 'https://id.example/' }).challenge, 'Keystone uri="https://id.example/"')
  })

  it('works without a catalog, with an auth_url that ends in a slash or lacks /v3, and system-scoped itself', async () => {
    const token = await keystone.token('demo')
    const root = keystone.url.replace('/v3', '')
    for (const options of [
      { include_service_catalog: false },
      { auth_url: root },
      { auth_url: `${root}/` },
      { auth_url: `${keystone.url}/` },
      { project_name: '', system_scope: 'all' },
    ]) {
      assert.equal((await who(open(options), token)).userId, keystone.users['demo'], JSON.stringify(options))
    }
  })

  it('logs in with an application credential', async () => {
    const owner = await keystone.token('glance')
    const { application_credential: created } = (await keystone.call(
      owner,
      'POST',
      `/users/${keystone.users['glance']}/application_credentials`,
      { application_credential: { name: 'login', roles: [{ name: 'service' }] } },
    )) as { application_credential: { id: string; secret: string } }
    const provider = open({
      auth_type: 'v3applicationcredential',
      application_credential_id: created.id,
      application_credential_secret: created.secret,
      username: '',
      password: '',
    })
    assert.equal((await who(provider, await keystone.token('demo'))).userId, keystone.users['demo'])
  })

  it('refuses a token that Keystone has revoked', async () => {
    const token = await keystone.token('demo')
    await keystone.call(token, 'DELETE', '/auth/tokens', undefined, { 'x-subject-token': token })
    await assert.rejects(who(open(), token), is('unauthenticated'))
  })

  it('refuses the tokens of a project that is disabled', async () => {
    const { project } = (await keystone.admin('POST', '/projects', {
      project: { name: 'doomed', domain_id: 'default' },
    })) as { project: { id: string } }
    const { roles } = (await keystone.admin('GET', '/roles?name=member')) as { roles: [{ id: string }] }
    await keystone.admin('PUT', `/projects/${project.id}/users/${keystone.users['demo']}/roles/${roles[0].id}`)
    const token = await keystone.token('demo', { project: 'doomed' })
    assert.equal((await who(open(), token)).projectId, project.id)
    await keystone.admin('PATCH', `/projects/${project.id}`, { project: { enabled: false } })
    await assert.rejects(who(open(), token), is('unauthenticated'))
  })

  it('refuses an expired token, unless a service passes it on', async () => {
    const expired = await keystone.aged(await keystone.token('demo'))
    const provider = open()
    await assert.rejects(who(provider, expired), is('unauthenticated'))
    const identity = await who(provider, expired, await keystone.token('nova'))
    assert.equal(identity.userId, keystone.users['demo'])
    assert.deepEqual(identity.serviceRoles, ['service'])
    assert.equal(identity.serviceUserId, keystone.users['nova'])
    assert.equal(identity.serviceProjectId, keystone.projects['service'])
    // The answer about the expired token is remembered by now.
    await assert.rejects(who(provider, expired), is('unauthenticated'))
  })

  it('ignores a service token without a service role, or that is not valid', async () => {
    const provider = open()
    const token = await keystone.token('demo')
    for (const serviceToken of [await keystone.token('alt_demo'), 'nonsense']) {
      const identity = await who(provider, token, serviceToken)
      assert.deepEqual(identity.serviceRoles, [])
      assert.equal(identity.serviceUserId, undefined)
    }
    const expired = await keystone.aged(token)
    await assert.rejects(who(provider, expired, await keystone.token('alt_demo')), is('unauthenticated'))
  })

  it('takes any token for a service token when no role is required, and warns about it', async () => {
    const warnings: string[] = []
    const provider = open({ service_token_roles_required: false }, warnings)
    const identity = await who(provider, await keystone.token('demo'), await keystone.token('alt_demo'))
    assert.equal(identity.serviceUserId, keystone.users['alt_demo'])
    assert.match(warnings.join('\n'), /service_token_roles_required/)
  })

  it('admits an application credential with access rules to the requests that they name', async () => {
    await keystone.admin('POST', '/services', { service: { type: 'image', name: 'glance' } }).then(async (created) => {
      const { service } = created as { service: { id: string } }
      await keystone.admin('POST', '/endpoints', {
        endpoint: { service_id: service.id, interface: 'public', url: 'http://127.0.0.1:9292', region_id: 'RegionOne' },
      })
    })
    const owner = await keystone.token('demo')
    const { application_credential: created } = (await keystone.call(
      owner,
      'POST',
      `/users/${keystone.users['demo']}/application_credentials`,
      {
        application_credential: {
          name: 'narrow',
          access_rules: [{ service: 'image', method: 'GET', path: '/v2/images/{id}' }],
        },
      },
    )) as { application_credential: { id: string; secret: string } }
    const login = await fetch(`${keystone.url}/auth/tokens`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({
        auth: {
          identity: {
            methods: ['application_credential'],
            application_credential: { id: created.id, secret: created.secret },
          },
        },
      }),
    })
    const headers = { 'x-auth-token': login.headers.get('x-subject-token') ?? '' }
    const provider = open({ service_type: 'image' })
    const at = (method: string, path: string) => provider.authenticate(headers, signal, { method, path })

    assert.equal((await at('GET', '/v2/images/one')).userId, keystone.users['demo'])
    await assert.rejects(at('DELETE', '/v2/images/one'), is('unauthenticated'))
    await assert.rejects(at('GET', '/v2/images/one/file'), is('unauthenticated'))
    await assert.rejects(at('GET', '/v2/images'), is('unauthenticated'))
    await assert.rejects(provider.authenticate(headers, signal), is('unauthenticated'))
    await assert.rejects(who(provider, headers['x-auth-token'], 'nonsense'), is('unauthenticated'))
    assert.equal(
      (await who(provider, headers['x-auth-token'], await keystone.token('nova'))).userId,
      keystone.users['demo'],
    )

    const warnings: string[] = []
    await assert.rejects(
      open({}, warnings).authenticate(headers, signal, { method: 'GET', path: '/v2/images/one' }),
      is('unauthenticated'),
    )
    assert.match(warnings.join('\n'), /service_type/)
  })

  it('remembers a token for token_cache_time, and no longer than the token lives', async () => {
    const token = await keystone.token('demo')
    const provider = open({ token_cache_time: 100_000 })
    const forgetful = open({ token_cache_time: -1 })
    await who(provider, token)
    await who(forgetful, token)
    await keystone.call(token, 'DELETE', '/auth/tokens', undefined, { 'x-subject-token': token })
    assert.equal((await who(provider, token)).userId, keystone.users['demo'])
    await assert.rejects(who(forgetful, token), is('unauthenticated'))

    clock = 99_000_000
    try {
      await assert.rejects(who(provider, token), is('unauthenticated'), 'expired by now, though still remembered')
    } finally {
      clock = 0
    }
    const brief = open({ token_cache_time: 1 })
    const other = await keystone.token('demo')
    await who(brief, other)
    await keystone.call(other, 'DELETE', '/auth/tokens', undefined, { 'x-subject-token': other })
    clock = 1001
    try {
      await assert.rejects(who(brief, other), is('unauthenticated'))
    } finally {
      clock = 0
    }
  })

  it('logs in anew when its own token is revoked', async () => {
    const provider = open()
    await who(provider, await keystone.token('demo'))
    const { roles } = (await keystone.admin('GET', '/roles?name=admin')) as { roles: [{ id: string }] }
    const grant = `/projects/${keystone.projects['service']}/users/${keystone.users['glance']}/roles/${roles[0].id}`
    // Changing what a user may do revokes the tokens that the user has.
    await keystone.admin('DELETE', grant)
    await keystone.admin('PATCH', `/users/${keystone.users['glance']}`, { user: { enabled: false } })
    await keystone.admin('PATCH', `/users/${keystone.users['glance']}`, { user: { enabled: true } })
    await keystone.admin('PUT', grant)
    // For the rest of the second, Keystone takes new tokens for revoked ones.
    const accepted = async () => {
      const own = await keystone.token('glance')
      return keystone.call(own, 'GET', '/auth/tokens', undefined, { 'x-subject-token': own }).then(
        () => true,
        () => false,
      )
    }
    while (!(await accepted())) await delay(50)
    assert.equal((await who(provider, await keystone.token('reader'))).userId, keystone.users['reader'])
  })

  it('is unavailable, and says so to the operator, when Keystone refuses the service user', async () => {
    const warnings: string[] = []
    await assert.rejects(who(open({ password: 'wrong' }, warnings), await keystone.token('demo')), is('unavailable'))
    assert.match(warnings.join('\n'), /keystone_authtoken/)
  })

  it('rejects at once when the request is aborted', async () => {
    const gone = AbortSignal.abort(new Error('client went away'))
    const token = await keystone.token('demo')
    await assert.rejects(open().authenticate({ 'x-auth-token': token }, gone), /client went away/)
  })

  it('asks Keystone once when many requests bring the same token at the same time', async () => {
    let connections = 0
    // Keystone's server takes one request per connection.
    const proxy = await listen((socket) => {
      connections++
      pipeline(socket, connect(Number(new URL(keystone.url).port), '127.0.0.1'), socket, () => undefined)
    })
    try {
      const provider = open({ auth_url: proxy.url })
      const token = await keystone.token('demo')
      const identities = await Promise.all(Array.from({ length: 20 }, () => who(provider, token)))
      assert.ok(identities.every(({ userId }) => userId === keystone.users['demo']))
      assert.equal(connections, 2, 'one for the own token, one for the user’s')
    } finally {
      proxy.close()
    }
  })

  it('is unavailable while Keystone is away, except for remembered tokens, and recovers', async () => {
    const provider = open()
    const [seen, unseen] = [await keystone.token('demo'), await keystone.token('reader')]
    await who(provider, seen)
    await keystone.halt()
    try {
      await assert.rejects(who(provider, unseen), is('unavailable'))
      await assert.rejects(who(open(), seen), is('unavailable'))
      assert.equal((await who(provider, seen)).userId, keystone.users['demo'])
    } finally {
      await keystone.start()
    }
    assert.equal((await who(provider, unseen)).userId, keystone.users['reader'])
  })

  it('waits for a Keystone that is being restarted', async () => {
    const provider = open({ http_request_max_retries: 8 })
    const token = await keystone.token('demo')
    await keystone.halt()
    const answer = who(provider, token)
    await keystone.start()
    assert.equal((await answer).userId, keystone.users['demo'])
  })
})

describe('keystoneIdentity() options', () => {
  const open = (options: KeystoneOptions) => () => keystoneIdentity(options, { warn: () => undefined })

  it('give up on a Keystone that takes the request and never answers, or answers with an error of its own', async () => {
    const broken = 'HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n'
    const taken = new Set<Socket>()
    for (const server of [await listen((socket) => taken.add(socket)), await listen((socket) => socket.end(broken))]) {
      const provider = keystoneIdentity({ auth_url: server.url, http_connect_timeout: 1 }, { warn: () => undefined })
      try {
        await assert.rejects(provider.authenticate({ 'x-auth-token': 'a' }, signal), is('unavailable'))
      } finally {
        await provider.close()
        server.close()
        for (const socket of taken) socket.destroy()
      }
    }
  })

  it('must name Keystone, a known auth_type and readable files', () => {
    const auth_url = 'http://127.0.0.1:5000'
    assert.throws(open({}), is('invalid'))
    assert.throws(open({ auth_url: 'keystone' }), is('invalid'))
    assert.throws(open({ auth_url, auth_type: 'v3oidcpassword' }), is('invalid'))
    assert.throws(open({ auth_url, cafile: '/nowhere/ca.pem' }), is('invalid'))
  })
})
