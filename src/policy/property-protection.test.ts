import assert from 'node:assert/strict'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, it, type TestContext } from 'node:test'
import { type Identity, NOBODY } from '../auth/identity.ts'
import { hasKind } from '../domain/errors.ts'
import { openPropertyProtection, type PropertyOperation, type ProtectionOptions } from './property-protection.ts'

const who = (...roles: string[]): Identity => ({ ...NOBODY, roles })
const section = (name: string, rule: string | Partial<Record<PropertyOperation, string>>) =>
  `[${name}]\n${(['create', 'read', 'update', 'delete'] as const)
    .map((operation) => [operation, typeof rule === 'string' ? rule : rule[operation]])
    .filter(([, value]) => value !== undefined)
    .map(([operation, value]) => `${operation} = ${value}`)
    .join('\n')}\n`

async function open(t: TestContext, content: string, options: Partial<ProtectionOptions> = {}) {
  const dir = await mkdtemp(join(tmpdir(), 'protection-'))
  t.after(() => rm(dir, { recursive: true }))
  const file = join(dir, 'rules.conf')
  await writeFile(file, content)
  const policy = { allows: () => assert.fail('no policy is asked') }
  return openPropertyProtection({ file, format: 'roles', policy, warn: () => assert.fail('no warning'), ...options })
}

describe('property protection', () => {
  it('goes by the first section whose expression is found in the name', async (t) => {
    const rules = section('^x_', 'admin') + section('x_.*', 'member') + section('(?i)^CamelCase$', 'member')
    const protection = await open(t, rules)
    assert.equal(protection.allows('read', 'x_a', who('member')), false)
    assert.equal(protection.allows('read', 'x_a', who('admin')), true)
    assert.equal(protection.allows('read', 'my_x_a', who('member')), true)
    assert.equal(protection.allows('read', 'camelCASE', who('member')), true)
  })

  it('lets nobody at a property that no section names', async (t) => {
    const protection = await open(t, section('^x_', '@'))
    assert.equal(protection.allows('read', 'y', who('admin')), false)
  })

  it('lets everybody at the properties of the service itself, whatever the file says', async (t) => {
    const protection = await open(t, section('os_glance_.*', '!') + section('.*', '!'))
    assert.equal(protection.allows('read', 'os_glance_import_task', who()), true)
  })

  it('knows everybody, nobody, and roles in any case, of the user or of the service that asks', async (t) => {
    const protection = await open(
      t,
      section('.*', { create: 'Admin, Billing', read: '@', update: '!', delete: 'nobody,!' }),
    )
    const asked = (operation: PropertyOperation, identity: Identity) => protection.allows(operation, 'a', identity)
    assert.deepEqual(
      [who('billing'), who('member'), { ...NOBODY, serviceRoles: ['admin'] }].map((identity) =>
        asked('create', identity),
      ),
      [true, false, true],
    )
    assert.equal(asked('read', who()), true)
    assert.equal(asked('update', who('admin')), false)
    assert.equal(asked('delete', who('nobody')), false)
  })

  it('asks the policy that a section names', async (t) => {
    const asked: unknown[] = []
    const policy = {
      allows: (rule: string, identity: Identity) => {
        asked.push(rule)
        return identity.roles.includes('billing')
      },
    }
    const rules = section('^x_', { create: 'may_bill', read: '@', update: 'may_bill', delete: '!' })
    const protection = await open(t, rules, { format: 'policies', policy })
    assert.equal(protection.allows('create', 'x_a', who('billing')), true)
    assert.equal(protection.allows('update', 'x_a', who('member')), false)
    assert.equal(protection.allows('read', 'x_a', who('member')), true)
    assert.equal(protection.allows('delete', 'x_a', who('billing')), false)
    assert.deepEqual(asked, ['may_bill', 'may_bill'])
  })

  it('warns of an empty value, which lets nobody', async (t) => {
    const warnings: string[] = []
    const rules = section('a', { create: '@', read: '', update: '@', delete: '@' })
    const protection = await open(t, rules, { warn: (message) => void warnings.push(message) })
    assert.equal(protection.allows('read', 'a', who('admin')), false)
    assert.deepEqual(warnings, ['property_protection_file: [a] lets nobody read'])
  })

  for (const [title, content, format] of [
    ['an operation is missing', section('a', { create: '@', read: '@', update: '@' }), 'roles'],
    ['everybody and nobody are named at once', section('a', '@,!'), 'roles'],
    ['an expression is none', section('a(', '@'), 'roles'],
    ['several policies are named', section('a', 'one,two'), 'policies'],
    ['a line is no option', 'nonsense', 'roles'],
  ] as const) {
    it(`refuses a file where ${title}`, async (t) => {
      await assert.rejects(open(t, content, { format }), (error) => hasKind(error, 'invalid'))
    })
  }

  it('refuses a file that is not there', () => {
    assert.throws(
      () =>
        openPropertyProtection({
          file: '/nonexistent/rules.conf',
          format: 'roles',
          policy: { allows: () => false },
          warn: () => undefined,
        }),
      (error) => hasKind(error, 'invalid'),
    )
  })
})
