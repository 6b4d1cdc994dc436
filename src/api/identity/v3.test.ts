import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, it, type TestContext } from 'node:test'
import { openStandalone } from '../../auth/standalone.ts'
import { type ErrorKind, hasKind } from '../../domain/errors.ts'
import type { ApiRequest, Method } from '../http/route.ts'
import { identityRoutes } from './v3.ts'

const BASE = 'http://cloud.example.org'

interface Call {
  readonly token?: string
  readonly subject?: string
  readonly body?: unknown
}
// biome-ignore lint/suspicious/noExplicitAny: answers are looked into as a client would
type Answer = { status: number; headers: Readonly<Record<string, string>>; json: any }

/** Calls the routes of a fresh service with the users admin and demo, whose passwords are their names. */
async function start(t: TestContext) {
  const directory = mkdtempSync(join(tmpdir(), 'identity-'))
  const standalone = openStandalone({ file: join(directory, 'identity.sqlite'), passwordCost: 4 })
  t.after(() => {
    standalone.close()
    rmSync(directory, { recursive: true })
  })
  await standalone.bootstrap({ adminPassword: 'admin', demoPassword: 'demo' })
  const routes = identityRoutes(standalone, { imageUrl: ({ baseUrl }) => baseUrl, region: 'RegionOne' })

  async function call(method: Method, target: string, { token, subject, body }: Call = {}): Promise<Answer> {
    const { pathname, searchParams } = new URL(target, BASE)
    for (const route of routes) {
      const pattern = new RegExp(`^${route.path.replaceAll(/:(\w+)/g, '(?<$1>[^/]+)')}$`)
      const match = route.method === method && pattern.exec(pathname)
      if (!match) continue
      const request: ApiRequest<undefined> = {
        method,
        path: pathname,
        params: { ...match.groups },
        query: [...searchParams],
        headers: { ...(token ? { 'x-auth-token': token } : {}), ...(subject ? { 'x-subject-token': subject } : {}) },
        baseUrl: BASE,
        context: undefined,
        signal: t.signal,
        hasBody: body !== undefined,
        body: () => assert.fail('nobody reads the bytes'),
        json: async () => body,
      }
      const { status, headers = {}, json } = await route.handle(request)
      return { status, headers, json: JSON.parse(JSON.stringify(json ?? null)) }
    }
    return assert.fail(`no route for ${method} ${target}`)
  }
  const logIn = async (name: string, scope?: unknown) => {
    const answer = await call('POST', '/v3/auth/tokens', { body: login(name, name, scope) })
    return answer.headers['X-Subject-Token'] as string
  }
  const id = (name: string) => standalone.users.find(name).id
  const admin = await logIn('admin', project('admin'))
  const demo = await logIn('demo', project('demo'))
  return { call, logIn, id, admin, demo, projectId: (name: string) => standalone.projects.find(name).id }
}

const project = (name: string) => ({ project: { name, domain: { id: 'default' } } })
const login = (name: string, password: string, scope?: unknown) => ({
  auth: {
    identity: { methods: ['password'], password: { user: { name, domain: { name: 'Default' }, password } } },
    ...(scope === undefined ? {} : { scope }),
  },
})
const is = (kind: ErrorKind) => (error: unknown) => hasKind(error, kind)

describe('discovery', () => {
  it('leads from the root to v3 with absolute links', async (t) => {
    const { call } = await start(t)
    const root = await call('GET', '/')
    assert.equal(root.status, 300)
    assert.equal(root.headers['Location'], `${BASE}/identity/v3/`)
    const [version] = root.json.versions.values
    assert.equal(version.links[0].href, `${BASE}/identity/v3/`)
    for (const path of ['/v3', '/v3/']) {
      const answer = await call('GET', path)
      assert.equal(answer.status, 200)
      assert.deepEqual(answer.json, { version })
    }
  })
})

describe('POST /v3/auth/tokens', () => {
  it('answers with the token in a header and what it is good for in the body', async (t) => {
    const { call, id, projectId } = await start(t)
    const { status, headers, json } = await call('POST', '/v3/auth/tokens', {
      body: login('demo', 'demo', project('demo')),
    })
    assert.equal(status, 201)
    assert.match(headers['X-Subject-Token'] as string, /^[\w-]+$/)
    const { catalog, roles, audit_ids, issued_at, expires_at, ...rest } = json.token
    const domain = { id: 'default', name: 'Default' }
    assert.deepEqual(rest, {
      methods: ['password'],
      user: { domain, id: id('demo'), name: 'demo', password_expires_at: null },
      project: { domain, id: projectId('demo'), name: 'demo' },
      is_domain: false,
    })
    assert.deepEqual(
      roles.map((role: { name: string }) => role.name),
      ['member', 'reader'],
    )
    assert.equal(audit_ids.length, 1)
    assert.match(issued_at, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$/)
    assert.equal(Date.parse(expires_at) - Date.parse(issued_at), 3_600_000)
    const urls = catalog.map(
      ({ type, endpoints }: { type: string; endpoints: { interface: string; url: string }[] }) => [
        type,
        ...endpoints.map((endpoint) => `${endpoint.interface} ${endpoint.url}`),
      ],
    )
    assert.deepEqual(urls, [
      ['identity', ...['public', 'internal', 'admin'].map((side) => `${side} ${BASE}/identity/v3`)],
      ['image', ...['public', 'internal', 'admin'].map((side) => `${side} ${BASE}`)],
    ])
  })

  it('gives system-scoped and unscoped tokens, and leaves the catalog out on demand', async (t) => {
    const { call } = await start(t)
    const post = (target: string, scope: unknown) =>
      call('POST', target, { body: login('admin', 'admin', scope) }).then(({ json }) => json.token)
    const system = await post('/v3/auth/tokens', { system: { all: true } })
    assert.deepEqual(system.system, { all: true })
    assert.equal(system.catalog.length, 2)
    const unscoped = await post('/v3/auth/tokens', 'unscoped')
    assert.ok(!('catalog' in unscoped || 'roles' in unscoped || 'project' in unscoped))
    assert.ok(!('catalog' in (await post('/v3/auth/tokens?nocatalog', project('admin')))))
  })

  it('exchanges a token', async (t) => {
    const { call, logIn, projectId } = await start(t)
    const unscoped = await logIn('demo')
    const identity = { methods: ['token'], token: { id: unscoped } }
    const body = { auth: { identity, scope: { project: { id: projectId('demo') } } } }
    const { json } = await call('POST', '/v3/auth/tokens', { body })
    assert.deepEqual(json.token.methods, ['password', 'token'])
    assert.equal(json.token.audit_ids.length, 2)
  })

  const user = { name: 'demo', domain: { id: 'default' }, password: 'demo' }
  const identity = { methods: ['password'], password: { user } }
  const bad: readonly (readonly [what: string, body: unknown, kind: ErrorKind])[] = [
    ['no object', 7, 'invalid'],
    ['no auth', {}, 'invalid'],
    ['no identity', { auth: {} }, 'invalid'],
    ['no methods', { auth: { identity: {} } }, 'invalid'],
    ['no password', { auth: { identity: { methods: ['password'] } } }, 'invalid'],
    [
      'a name without domain',
      { auth: { identity: { ...identity, password: { user: { ...user, domain: undefined } } } } },
      'invalid',
    ],
    [
      'a password that is a number',
      { auth: { identity: { ...identity, password: { user: { ...user, password: 1 } } } } },
      'invalid',
    ],
    ['two scopes', { auth: { identity, scope: { ...project('demo'), system: { all: true } } } }, 'invalid'],
    ['a scope that is a number', { auth: { identity, scope: 1 } }, 'invalid'],
    ['an unknown method', { auth: { identity: { methods: ['totp'], totp: {} } } }, 'unauthenticated'],
    [
      'an unknown method beside a password',
      { auth: { identity: { ...identity, methods: ['password', 'totp'] } } },
      'unauthenticated',
    ],
    [
      'another domain',
      { auth: { identity: { ...identity, password: { user: { ...user, domain: { id: 'x' } } } } } },
      'unauthenticated',
    ],
    ['domain scope', { auth: { identity, scope: { domain: { id: 'default' } } } }, 'unauthenticated'],
    ['another password', login('demo', 'x'), 'unauthenticated'],
  ]
  for (const [what, body, kind] of bad) {
    it(`answers ${kind} to ${what}`, async (t) => {
      const { call } = await start(t)
      await assert.rejects(call('POST', '/v3/auth/tokens', { body }), is(kind))
    })
  }
})

describe('tokens', () => {
  it('are shown to their user, to admins and to services', async (t) => {
    const { call, admin, demo } = await start(t)
    const own = await call('GET', '/v3/auth/tokens', { token: demo, subject: demo })
    assert.equal(own.headers['X-Subject-Token'], demo)
    assert.equal(own.json.token.user.name, 'demo')
    assert.equal((await call('GET', '/v3/auth/tokens', { token: admin, subject: demo })).json.token.user.name, 'demo')
    assert.equal((await call('HEAD', '/v3/auth/tokens', { token: demo, subject: demo })).status, 200)
    await assert.rejects(call('GET', '/v3/auth/tokens', { token: demo, subject: admin }), is('forbidden'))
    await assert.rejects(call('GET', '/v3/auth/tokens', { token: demo, subject: 'bad' }), is('not-found'))
    await assert.rejects(call('GET', '/v3/auth/tokens', { subject: demo }), is('unauthenticated'))
    await assert.rejects(call('GET', '/v3/auth/tokens', { token: demo }), is('invalid'))
  })

  it('are good for nothing once deleted', async (t) => {
    const { call, demo } = await start(t)
    assert.equal((await call('DELETE', '/v3/auth/tokens', { token: demo, subject: demo })).status, 204)
    await assert.rejects(call('GET', '/v3/auth/projects', { token: demo }), is('unauthenticated'))
  })
})

describe('users', () => {
  it('see themselves, their projects, the catalog, and nothing of others', async (t) => {
    const { call, id, demo: token, projectId } = await start(t)
    const get = (path: string) => call('GET', path, { token })
    assert.equal((await get(`/v3/users/${id('demo')}`)).json.user.name, 'demo')
    for (const path of [`/v3/users/${id('demo')}/projects`, '/v3/auth/projects']) {
      assert.deepEqual(
        (await get(path)).json.projects.map(({ name }: { name: string }) => name),
        ['demo'],
      )
    }
    assert.equal((await get(`/v3/projects/${projectId('demo')}`)).json.project.name, 'demo')
    assert.deepEqual((await get('/v3/auth/system')).json.system, [])
    assert.equal((await get('/v3/auth/catalog')).json.catalog.length, 2)
    assert.equal((await get('/v3/domains/default')).json.domain.name, 'Default')
    assert.equal((await get('/v3/regions')).json.regions[0].id, 'RegionOne')
    const closed = ['/v3/users', `/v3/users/${id('admin')}`, '/v3/users/nobody', '/v3/projects', '/v3/roles']
    const others = [`/v3/projects/${projectId('admin')}`, '/v3/role_assignments', '/v3/services', '/v3/endpoints']
    for (const path of [...closed, ...others]) await assert.rejects(get(path), is('forbidden'), path)
  })

  it('may change nothing but their own password', async (t) => {
    const { call, logIn, id, demo: token, projectId } = await start(t)
    const body = { user: { name: 'x' }, project: { name: 'x' } }
    const own = `/v3/users/${id('demo')}`
    const changes: readonly (readonly [Method, string])[] = [
      ['POST', '/v3/users'],
      ['PATCH', own],
      ['DELETE', own],
      ['POST', '/v3/projects'],
      ['PATCH', `/v3/projects/${projectId('demo')}`],
      ['DELETE', `/v3/projects/${projectId('demo')}`],
      ['PUT', `/v3/projects/${projectId('demo')}/users/${id('demo')}/roles/x`],
      ['PUT', `/v3/system/users/${id('demo')}/roles/x`],
    ]
    for (const [method, path] of changes)
      await assert.rejects(call(method, path, { token, body }), is('forbidden'), path)
    const change = (original_password: string) =>
      call('POST', `${own}/password`, { body: { user: { original_password, password: 'new' } } })
    await assert.rejects(change('wrong'), is('unauthenticated'))
    assert.equal((await change('demo')).status, 204)
    await assert.rejects(call('GET', own, { token }), is('unauthenticated'))
    await assert.rejects(logIn('demo'), is('unauthenticated'))
  })
})

describe('an admin', () => {
  it('creates, changes, finds and deletes users', async (t) => {
    const { call, logIn, admin: token } = await start(t)
    const body = { user: { name: 'ann', password: 'ann', email: 'ann@example.org', domain_id: 'default' } }
    const created = await call('POST', '/v3/users', { token, body })
    assert.equal(created.status, 201)
    const { id, links, ...user } = created.json.user
    assert.equal(links.self, `${BASE}/identity/v3/users/${id}`)
    const expected = { name: 'ann', email: 'ann@example.org', domain_id: 'default', enabled: true }
    assert.deepEqual(user, { ...expected, password_expires_at: null, options: {} })
    await logIn('ann')

    const found = await call('GET', '/v3/users?name=ann', { token })
    assert.deepEqual(found.json.users, [created.json.user])
    assert.equal(found.json.links.self, `${BASE}/identity/v3/users?name=ann`)
    const patch = { user: { enabled: false, email: null } }
    const changed = await call('PATCH', `/v3/users/${id}`, { token, body: patch })
    assert.equal(changed.json.user.enabled, false)
    assert.ok(!('email' in changed.json.user || 'password' in changed.json.user))
    await assert.rejects(logIn('ann'), is('unauthenticated'))
    assert.deepEqual((await call('GET', '/v3/users?enabled=False', { token })).json.users, [changed.json.user])

    assert.equal((await call('DELETE', `/v3/users/${id}`, { token })).status, 204)
    await assert.rejects(call('GET', `/v3/users/${id}`, { token }), is('not-found'))
  })

  it('creates, changes, finds and deletes projects', async (t) => {
    const { call, admin: token } = await start(t)
    const created = await call('POST', '/v3/projects', { token, body: { project: { name: 'lab' } } })
    assert.equal(created.status, 201)
    const { id, links, ...rest } = created.json.project
    assert.equal(links.self, `${BASE}/identity/v3/projects/${id}`)
    const fixed = { domain_id: 'default', parent_id: 'default', is_domain: false, options: {} }
    assert.deepEqual(rest, { name: 'lab', description: '', enabled: true, tags: [], ...fixed })
    const body = { project: { description: 'Laboratory', tags: ['a'] } }
    const { project: changed } = (await call('PATCH', `/v3/projects/${id}`, { token, body })).json
    assert.deepEqual(changed, { ...created.json.project, description: 'Laboratory', tags: ['a'] })
    assert.deepEqual((await call('GET', '/v3/projects?name=lab', { token })).json.projects, [changed])
    assert.equal((await call('DELETE', `/v3/projects/${id}`, { token })).status, 204)
    await assert.rejects(call('GET', `/v3/projects/${id}`, { token }), is('not-found'))
  })

  const refused: readonly (readonly [path: string, body: unknown, kind: ErrorKind])[] = [
    ['/v3/users', { user: {} }, 'invalid'],
    ['/v3/users', { usr: { name: 'x' } }, 'invalid'],
    ['/v3/users', { user: { name: 1 } }, 'invalid'],
    ['/v3/users', { user: { name: 'x', enabled: 'yes' } }, 'invalid'],
    ['/v3/users', { user: { name: 'x', password: 1 } }, 'invalid'],
    ['/v3/users', { user: { name: 'x', options: { lock_password: true } } }, 'invalid'],
    ['/v3/users', { user: { name: 'x', domain_id: 'y' } }, 'not-found'],
    ['/v3/users', { user: { name: 'demo' } }, 'conflict'],
    ['/v3/projects', { project: {} }, 'invalid'],
    ['/v3/projects', { project: { name: 'x', parent_id: 'y' } }, 'invalid'],
    ['/v3/projects', { project: { name: 'x', is_domain: true } }, 'invalid'],
    ['/v3/projects', { project: { name: 'x', tags: 'y' } }, 'invalid'],
    ['/v3/projects', { project: { name: 'demo' } }, 'conflict'],
  ]
  for (const [path, body, kind] of refused) {
    it(`gets ${kind} for ${JSON.stringify(body)}`, async (t) => {
      const { call, admin: token } = await start(t)
      await assert.rejects(call('POST', path, { token, body }), is(kind))
    })
  }

  it('gives roles on a project and on the system, looks at them, and takes them away', async (t) => {
    const { call, logIn, id, projectId } = await start(t)
    const token = await logIn('admin', { system: { all: true } })
    const { roles } = (await call('GET', '/v3/roles?name=manager', { token })).json
    assert.equal(roles.length, 1)
    const [{ id: role }] = roles
    for (const where of [`projects/${projectId('service')}`, 'system']) {
      const list = `/v3/${where}/users/${id('demo')}/roles`
      const path = `${list}/${role}`
      await assert.rejects(call('HEAD', path, { token }), is('not-found'))
      for (let twice = 0; twice < 2; twice += 1) assert.equal((await call('PUT', path, { token })).status, 204)
      assert.equal((await call('HEAD', path, { token })).status, 204)
      assert.deepEqual((await call('GET', list, { token })).json.roles, roles)
      assert.equal((await call('DELETE', path, { token })).status, 204)
      await assert.rejects(call('DELETE', path, { token }), is('not-found'))
    }
    const unknown = [`projects/x/users/${id('demo')}`, `projects/${projectId('demo')}/users/x`, 'system/users/x']
    for (const where of unknown)
      await assert.rejects(call('PUT', `/v3/${where}/roles/${role}`, { token }), is('not-found'))
  })

  it('lists who has which role, by name, filtered, and with what the roles imply', async (t) => {
    const { call, admin: token, id } = await start(t)
    const get = async (query: string) =>
      (await call('GET', `/v3/role_assignments?${query}`, { token })).json.role_assignments
    const named = await get(`include_names=True&user.id=${id('demo')}`)
    const domain = { id: 'default', name: 'Default' }
    assert.deepEqual(named[0].user, { id: id('demo'), name: 'demo', domain })
    assert.equal(named[0].scope.project.name, 'demo')
    const roles = (rows: { role: { name: string } }[]) => rows.map((row) => row.role.name)
    assert.deepEqual(roles(named), ['member', 'reader'])
    assert.deepEqual(roles(await get('scope.system=all&include_names=1')), ['admin'])
    const effective = await get('scope.system=all&include_names=1&effective')
    assert.deepEqual(roles(effective), ['admin', 'manager', 'member', 'reader'])
    assert.deepEqual(Object.keys((await get(`role.id=${named[1].role.id}`))[0].user), ['id'])
    assert.deepEqual(await get('group.id=x'), [])
  })

  it('sees the services and endpoints of the catalog', async (t) => {
    const { call, admin: token } = await start(t)
    const { services } = (await call('GET', '/v3/services?type=image', { token })).json
    assert.deepEqual(
      services.map(({ name }: { name: string }) => name),
      ['glance'],
    )
    assert.deepEqual((await call('GET', `/v3/services/${services[0].id}`, { token })).json.service, services[0])
    const { endpoints } = (await call('GET', `/v3/endpoints?service_id=${services[0].id}`, { token })).json
    assert.equal(endpoints.length, 3)
    await assert.rejects(call('GET', '/v3/endpoints/x', { token }), is('not-found'))
  })
})
