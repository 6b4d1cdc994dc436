import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { describe, it, type TestContext } from 'node:test'
import { fileURLToPath } from 'node:url'
import type { ErrorKind } from '../domain/errors.ts'
import { hasKind, ServiceError } from '../domain/errors.ts'
import type { Login } from './standalone/tokens.ts'
import { openStandalone, type Standalone, type StandaloneOptions } from './standalone.ts'

const DEMO = { kind: 'project', name: 'demo' } as const
const passwordLogin = (name: string, password: string, scope: Login['scope'] = DEMO): Login => ({
  password: { user: { name }, password },
  scope,
  address: '192.0.2.1',
})
const is = (kind: ErrorKind) => (error: unknown) => hasKind(error, kind)

function temporaryFile(t: TestContext): string {
  const directory = mkdtempSync(join(tmpdir(), 'identity-'))
  t.after(() => rmSync(directory, { recursive: true }))
  return join(directory, 'data', 'identity.sqlite')
}

function open(t: TestContext, file: string, options: Partial<StandaloneOptions> = {}): Standalone {
  const standalone = openStandalone({ file, passwordCost: 4, ...options })
  t.after(() => standalone.close())
  return standalone
}

/** With admin and demo, whose passwords are their names, and a clock to turn. */
async function start(t: TestContext) {
  const file = temporaryFile(t)
  const clock = { now: 1_800_000_000_000 }
  const standalone = open(t, file, { now: () => clock.now })
  await standalone.bootstrap({ adminPassword: 'admin', demoPassword: 'demo' })
  const logIn = (scope?: Login['scope']) => standalone.tokens.issue(passwordLogin('demo', 'demo', scope))
  return { ...standalone, file, clock, logIn, demo: standalone.users.find('demo') }
}

describe('bootstrap', () => {
  it('makes an admin of the system and of a project, and a member of the demo project', async (t) => {
    const { tokens, logIn } = await start(t)
    const roles = async (login: Login) => (await tokens.issue(login)).roles
    const all = ['admin', 'manager', 'member', 'reader']
    assert.deepEqual(await roles(passwordLogin('admin', 'admin', { kind: 'system' })), all)
    assert.deepEqual(await roles(passwordLogin('admin', 'admin', { kind: 'project', name: 'admin' })), all)
    assert.deepEqual((await logIn()).roles, ['member', 'reader'])
  })

  it('happens once: later changes and deletions stay', async (t) => {
    const { bootstrap, users, tokens, demo } = await start(t)
    users.delete(demo.id)
    await users.update(users.find('admin').id, { password: 'changed' })
    assert.equal(await bootstrap({ adminPassword: 'admin', demoPassword: 'demo' }), false)
    assert.throws(() => users.find('demo'), is('not-found'))
    await tokens.issue(passwordLogin('admin', 'changed', { kind: 'system' }))
  })

  it('happens once when several processes start together, and they accept one another’s tokens', async (t) => {
    const file = temporaryFile(t)
    const module = fileURLToPath(new URL('./standalone.ts', import.meta.url))
    const script = `
      const { openStandalone } = await import(${JSON.stringify(module)})
      const s = openStandalone({ file: ${JSON.stringify(file)}, passwordCost: 4 })
      const made = await s.bootstrap({ adminPassword: 'admin', demoPassword: 'demo' })
      const { text } = await s.tokens.issue(${JSON.stringify(passwordLogin('demo', 'demo'))})
      console.log(JSON.stringify({ made, text }))`
    const answers = await Promise.all(
      Array.from({ length: 4 }, async () => {
        const child = spawn(process.execPath, ['--input-type=module', '-e', script], {
          stdio: ['ignore', 'pipe', 'inherit'],
        })
        const [output] = await Promise.all([text(child.stdout), once(child, 'close')])
        return JSON.parse(output) as { made: boolean; text: string }
      }),
    )
    assert.equal(answers.filter(({ made }) => made).length, 1)
    const { tokens } = open(t, file)
    for (const answer of answers) assert.equal(tokens.validate(answer.text).user.name, 'demo')
  })

  it('keeps the file to its owner', async (t) => {
    const { file } = await start(t)
    for (const name of [file, `${file}-wal`, `${file}-shm`]) assert.equal(statSync(name).mode & 0o777, 0o600)
  })
})

describe('a login', () => {
  it('is refused alike for a wrong password, an unknown, a disabled user and one without password', async (t) => {
    const { tokens, users } = await start(t)
    await users.create({ name: 'disabled', enabled: false, password: 'x' })
    await users.create({ name: 'without' })
    const unscoped = { kind: 'unscoped' } as const
    const refusal = async (name: string, password: string) => {
      const error = await tokens.issue(passwordLogin(name, password, unscoped)).catch((error: unknown) => error)
      assert.ok(hasKind(error, 'unauthenticated'))
      return error.message
    }
    const messages = [
      await refusal('demo', 'wrong'),
      await refusal('nobody', 'x'),
      await refusal('disabled', 'x'),
      await refusal('without', ''),
    ]
    assert.equal(new Set(messages).size, 1)
  })

  it('needs a role in the scope it asks for', async (t) => {
    const { logIn, projects } = await start(t)
    await assert.rejects(logIn({ kind: 'project', name: 'admin' }), is('unauthenticated'))
    await assert.rejects(logIn({ kind: 'project', name: 'nothing' }), is('unauthenticated'))
    await assert.rejects(logIn({ kind: 'project', id: `${projects.find('demo').id}00` }), is('unauthenticated'))
    await assert.rejects(logIn({ kind: 'system' }), is('unauthenticated'))
    assert.deepEqual((await logIn({ kind: 'unscoped' })).roles, [])
  })

  it('without a scope takes the default project where that works', async (t) => {
    const { logIn, users, projects, demo } = await start(t)
    assert.equal((await logIn({ kind: 'default' })).project, undefined)
    await users.update(demo.id, { extra: { default_project_id: projects.find('demo').id } })
    assert.equal((await logIn({ kind: 'default' })).project?.name, 'demo')
    await users.update(demo.id, { extra: { default_project_id: projects.find('admin').id } })
    assert.equal((await logIn({ kind: 'default' })).project, undefined)
  })

  it('is refused after five failures in a minute, for all processes, that user and that address only', async (t) => {
    const { file, tokens, clock, logIn } = await start(t)
    for (let i = 0; i < 5; i += 1) {
      await assert.rejects(tokens.issue(passwordLogin('demo', 'wrong')), is('unauthenticated'))
      clock.now += 1000
    }
    const other = open(t, file, { now: () => clock.now })
    await assert.rejects(other.tokens.issue(passwordLogin('demo', 'demo')), (error) => {
      assert.ok(error instanceof ServiceError)
      assert.equal(error.kind, 'too-many-requests')
      assert.deepEqual(error.detail['headers'], { 'retry-after': '55' })
      return true
    })
    await tokens.issue({ ...passwordLogin('demo', 'demo'), address: '192.0.2.2' })
    await tokens.issue(passwordLogin('admin', 'admin', { kind: 'system' }))
    clock.now += 55_000
    await logIn()
  })

  it('that succeeds makes earlier failures forgotten', async (t) => {
    const { tokens, logIn } = await start(t)
    for (let round = 0; round < 3; round += 1) {
      for (let i = 0; i < 4; i += 1) {
        await assert.rejects(tokens.issue(passwordLogin('demo', 'wrong')), is('unauthenticated'))
      }
      await logIn()
    }
  })

  it('tells nothing about guesses that run side by side beyond the limit', async (t) => {
    const { tokens } = await start(t)
    const guesses = [...Array.from({ length: 20 }, () => 'wrong'), 'demo']
    const results = await Promise.allSettled(guesses.map((guess) => tokens.issue(passwordLogin('demo', guess))))
    const last = results.at(-1)
    assert.ok(last?.status === 'rejected' && hasKind(last.reason, 'too-many-requests'))
  })
})

describe('a token', () => {
  it('is safe in URLs, and no change of it is accepted', async (t) => {
    const { tokens, logIn } = await start(t)
    const { text } = await logIn()
    assert.match(text, /^[A-Za-z0-9_-]{100,255}$/)
    const bytes = Buffer.from(text, 'base64url')
    for (let at = 0; at < bytes.length; at += 1) {
      const changed = Buffer.from(bytes)
      changed[at] = (changed[at] ?? 0) ^ 1
      assert.throws(() => tokens.validate(changed.toString('base64url')), is('unauthenticated'))
    }
    for (const bad of ['', 'x', text.slice(0, -4), text + text]) {
      assert.throws(() => tokens.validate(bad), is('unauthenticated'))
    }
  })

  it('ends with its lifetime', async (t) => {
    const { tokens, logIn, clock } = await start(t)
    const { text, expiresAt } = await logIn()
    assert.equal(expiresAt.getTime(), clock.now + 3_600_000)
    clock.now += 3_599_999
    assert.equal(tokens.validate(text).user.name, 'demo')
    clock.now += 1
    assert.throws(() => tokens.validate(text), is('unauthenticated'))
    assert.equal(tokens.validate(text, { allowExpired: true }).user.name, 'demo')
    clock.now += 2 * 24 * 3_600_000
    assert.throws(() => tokens.validate(text, { allowExpired: true }), is('unauthenticated'))
  })

  it('made from another has its end, and can be for another scope', async (t) => {
    const { tokens, logIn, clock } = await start(t)
    const parent = await logIn({ kind: 'unscoped' })
    clock.now += 60_000
    const child = await tokens.issue({ token: parent.text, scope: DEMO, address: '' })
    assert.deepEqual(child.expiresAt, parent.expiresAt)
    assert.deepEqual(child.methods, ['password', 'token'])
    assert.deepEqual(child.auditIds.slice(1), parent.auditIds)
    assert.equal(child.project?.name, 'demo')
    await assert.rejects(tokens.issue({ token: 'bad', scope: DEMO, address: '' }), is('not-found'))
  })

  it('that is revoked takes along all that were made from it, and no others', async (t) => {
    const { file, tokens, logIn, clock } = await start(t)
    const derive = async (text: string) => (await tokens.issue({ token: text, scope: DEMO, address: '' })).text
    const first = (await logIn()).text
    const second = await derive(first)
    const third = await derive(second)
    const other = open(t, file, { now: () => clock.now })
    for (const text of [first, second, third]) other.tokens.validate(text)
    tokens.revoke(second)
    for (const { validate } of [tokens, other.tokens]) {
      validate(first)
      assert.throws(() => validate(second), is('unauthenticated'))
      assert.throws(() => validate(third), is('unauthenticated'))
    }
    tokens.revoke(first)
    assert.throws(() => other.tokens.validate(first), is('unauthenticated'))
  })

  it('can be made from tokens made from tokens, but not without end', async (t) => {
    const { tokens, logIn } = await start(t)
    let { text } = await logIn()
    for (let i = 0; i < 15; i += 1) text = (await tokens.issue({ token: text, scope: DEMO, address: '' })).text
    await assert.rejects(tokens.issue({ token: text, scope: DEMO, address: '' }), is('unauthenticated'))
  })

  const endings: Record<string, (standalone: Standalone) => unknown> = {
    'a new password': ({ users }) => users.update(users.find('demo').id, { password: 'new' }),
    'a password changed by the user': ({ users, changePassword }) =>
      changePassword(users.find('demo').id, 'demo', 'new', ''),
    'the end of the user': ({ users }) => users.delete(users.find('demo').id),
    'a disabled user, who stays logged out when enabled again': async ({ users }) => {
      await users.update(users.find('demo').id, { enabled: false })
      await users.update(users.find('demo').id, { enabled: true })
    },
    'a disabled project': ({ projects }) => projects.update(projects.find('demo').id, { enabled: false }),
    'the end of the project': ({ projects }) => projects.delete(projects.find('demo').id),
    'the loss of the last role': ({ assignments, users }) => {
      const userId = users.find('demo').id
      for (const assignment of assignments.list({ userId })) assignments.revoke(assignment)
    },
  }
  for (const [what, end] of Object.entries(endings)) {
    it(`ends at once with ${what}, whichever process does it`, async (t) => {
      const standalone = await start(t)
      const other = open(t, standalone.file, { now: () => standalone.clock.now })
      const here = await standalone.logIn()
      const there = await other.tokens.issue(passwordLogin('demo', 'demo'))
      for (const { tokens } of [standalone, other]) for (const { text } of [here, there]) tokens.validate(text)
      await end(other)
      for (const { tokens } of [standalone, other]) {
        for (const { text } of [here, there]) assert.throws(() => tokens.validate(text), is('unauthenticated'))
      }
    })
  }

  it('shows a role that its user gets or loses, without a new login', async (t) => {
    const { tokens, logIn, assignments, projects, demo } = await start(t)
    const { text } = await logIn()
    const assignment = { userId: demo.id, projectId: projects.find('demo').id, role: 'admin' } as const
    assignments.grant(assignment)
    assert.ok(tokens.validate(text).roles.includes('admin'))
    assignments.revoke(assignment)
    assert.ok(!tokens.validate(text).roles.includes('admin'))
  })
})

describe('the identity provider', () => {
  const { signal } = new AbortController()

  it('says who is calling', async (t) => {
    const { provider, logIn, demo, projects } = await start(t)
    const { text, expiresAt } = await logIn()
    assert.deepEqual(await provider.authenticate({ 'x-auth-token': text }, signal), {
      userId: demo.id,
      projectId: projects.find('demo').id,
      domainId: undefined,
      userDomainId: 'default',
      projectDomainId: 'default',
      roles: ['member', 'reader'],
      serviceRoles: [],
      serviceUserId: undefined,
      serviceProjectId: undefined,
      systemScope: undefined,
      isAdminProject: true,
      readOnly: false,
      isAdmin: undefined,
      expiresAt,
      token: text,
    })
    await assert.rejects(provider.authenticate({}, signal), is('unauthenticated'))
    await assert.rejects(provider.authenticate({ 'x-auth-token': 'x' }, signal), is('unauthenticated'))
  })

  it('lets a service finish with an expired token what its user began', async (t) => {
    const { provider, tokens, users, projects, assignments, logIn, clock } = await start(t)
    const nova = await users.create({ name: 'nova', password: 'nova' })
    const projectId = projects.find('service').id
    assignments.grant({ userId: nova.id, projectId, role: 'service' })
    const { text } = await logIn()
    clock.now += 3_600_000
    const service = await tokens.issue(passwordLogin('nova', 'nova', { kind: 'project', id: projectId }))
    const member = await logIn()
    const identity = await provider.authenticate({ 'x-auth-token': text, 'x-service-token': service.text }, signal)
    assert.deepEqual(identity.roles, ['member', 'reader'])
    assert.deepEqual(identity.serviceRoles, ['service'])
    assert.equal(identity.serviceUserId, nova.id)
    for (const other of [member.text, 'bad']) {
      const headers = { 'x-auth-token': text, 'x-service-token': other }
      await assert.rejects(provider.authenticate(headers, signal), is('unauthenticated'))
    }
    const badService = { 'x-auth-token': member.text, 'x-service-token': 'bad' }
    await assert.rejects(provider.authenticate(badService, signal), is('unauthenticated'))
  })
})

describe('the registry', () => {
  it('has every name once, and needs one', async (t) => {
    const { users, projects, demo } = await start(t)
    await assert.rejects(users.create({ name: 'demo' }), is('conflict'))
    await assert.rejects(users.update(demo.id, { name: 'admin' }), is('conflict'))
    await assert.rejects(projects.create({ name: 'demo' }), is('conflict'))
    await assert.rejects(users.create({ name: '  ' }), is('invalid'))
    await assert.rejects(projects.create({ name: 'x'.repeat(65) }), is('invalid'))
    await assert.rejects(users.create({ name: 'x', password: '' }), is('invalid'))
  })

  it('keeps what clients store with a user, and forgets what they set to null', async (t) => {
    const { users } = await start(t)
    const { id } = await users.create({ name: 'ann', extra: { email: 'ann@example.org', description: 'Ann' } })
    await users.update(id, { extra: { email: null, tags: ['a'] } })
    assert.deepEqual(users.get(id).extra, { description: 'Ann', tags: ['a'] })
  })

  it('says what is missing', async (t) => {
    const { users, projects, assignments, demo } = await start(t)
    const unknown = 'f'.repeat(32) as typeof demo.id & ReturnType<typeof projects.get>['id']
    assert.throws(() => users.get(unknown), is('not-found'))
    assert.throws(() => users.delete(unknown), is('not-found'))
    await assert.rejects(projects.update(unknown, {}), is('not-found'))
    assert.throws(() => assignments.grant({ userId: unknown, projectId: undefined, role: 'admin' }), is('not-found'))
    assert.throws(() => assignments.grant({ userId: demo.id, projectId: unknown, role: 'admin' }), is('not-found'))
    assert.throws(() => assignments.revoke({ userId: demo.id, projectId: undefined, role: 'admin' }), is('not-found'))
  })
})
