import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, it, type TestContext } from 'node:test'
import { type Identity, NOBODY } from '../auth/identity.ts'
import { hasKind } from '../domain/errors.ts'
import type { ProjectId, UserId } from '../domain/ids.ts'
import { isAdmin, openPolicy, type PolicyOptions } from './enforcer.ts'
import { RULES } from './rules.ts'

const identity = (fields: Partial<Identity> = {}): Identity => ({
  ...NOBODY,
  userId: 'u1' as UserId,
  projectId: 'p1' as ProjectId,
  userDomainId: 'default',
  projectDomainId: 'default',
  roles: ['member', 'reader'],
  ...fields,
})
const member = identity()
const admin = identity({ roles: ['admin', 'member', 'reader'] })

/** A directory with a policy file, a clock to turn, and what was warned about. */
const setUp = (t: TestContext, content?: string, fields: Partial<PolicyOptions> = {}) => {
  const dir = mkdtempSync(join(tmpdir(), 'glimpse-policy-'))
  t.after(() => rmSync(dir, { recursive: true }))
  const policyFile = join(dir, 'policy.yaml')
  const policyDir = join(dir, 'policy.d')
  if (content !== undefined) writeFileSync(policyFile, content)
  const warnings: string[] = []
  const clock = { now: 0 }
  const open = () =>
    openPolicy({
      policyFile,
      policyDirs: [policyDir],
      defaultRule: 'default',
      enforceNewDefaults: true,
      warn: (message) => warnings.push(message),
      now: () => clock.now,
      ...fields,
    })
  const writeDir = (name: string, text: string) => {
    mkdirSync(policyDir, { recursive: true })
    writeFileSync(join(policyDir, name), text)
  }
  const write = (text: string) => {
    writeFileSync(policyFile, text)
    clock.now += 1000
  }
  return { open, warnings, clock, write, writeDir, policyFile }
}

describe('openPolicy()', () => {
  it('has every rule, without a policy file and without a warning', (t) => {
    const { open, warnings } = setUp(t)
    const policy = open()
    for (const rule of Object.keys(RULES)) assert.equal(policy.allows(rule, admin, {}), true, rule)
    assert.equal(Object.keys(RULES).length, 67)
    assert.deepEqual(warnings, [])
  })

  it('lets a member work in its own project only', (t) => {
    const policy = setUp(t).open()
    const mine = { project_id: 'p1', owner: 'p1', visibility: 'private' }
    const theirs = { project_id: 'p2', owner: 'p2', visibility: 'private' }
    for (const rule of ['add_image', 'modify_image', 'delete_image', 'upload_image', 'download_image', 'get_image']) {
      assert.equal(policy.allows(rule, member, mine), true, rule)
      assert.equal(policy.allows(rule, member, theirs), false, rule)
    }
    assert.equal(policy.allows('get_image', member, { ...theirs, visibility: 'public' }), true)
    assert.equal(policy.allows('modify_image', member, { ...theirs, visibility: 'public' }), false)
    assert.equal(policy.allows('publicize_image', member, mine), false)
    assert.equal(policy.allows('download_image', identity({ roles: ['reader'] }), mine), false)
  })

  it('reads YAML, JSON with tabs, and the directory in the order of names; what comes later wins', (t) => {
    const { open, writeDir } = setUp(t, 'get_image: "!"\nadd_image: "!"\ndelete_image: "!"\n# end\n')
    writeDir('20.yaml', 'add_image: "@"\nextra: "@"\n')
    writeDir('10.json', '{\n\t"add_image": "role:nobody",\n\t"delete_image": [["role:member"]]\n}')
    writeDir('.hidden.yaml', 'get_image: "@"\n')
    const policy = open()
    assert.equal(policy.allows('get_image', admin, {}), false)
    assert.equal(policy.allows('add_image', member, {}), true)
    assert.equal(policy.allows('delete_image', member, {}), true)
    assert.equal(policy.allows('extra', member, {}), true)
  })

  it('asks the default rule about rules that it does not know', (t) => {
    const { open, warnings } = setUp(t, 'default: "role:admin"\nuses: "rule:unheard_of"\n')
    const policy = open()
    assert.equal(policy.allows('unheard_of', member, {}), false)
    assert.equal(policy.allows('unheard_of', admin, {}), true)
    assert.equal(policy.allows('uses', member, {}), false)
    assert.match(warnings.join(), /uses refers to unheard_of/)
    assert.equal(setUp(t).open().allows('unheard_of', member, {}), true)
    assert.equal(setUp(t, undefined, { defaultRule: 'nothing' }).open().allows('unheard_of', admin, {}), false)
  })

  it('denies by a check that it cannot understand, and warns with the name of the rule', (t) => {
    const { open, warnings } = setUp(t, 'get_image: "role:admin or or"\n')
    assert.equal(open().allows('get_image', admin, {}), false)
    assert.match(warnings.join(), /policy\.yaml: get_image: .*cannot be understood/)
  })

  it('warns that it asks no other server', (t) => {
    const { open, warnings } = setUp(t, 'get_image: "http://127.0.0.1/"\nget_images: "not rule:get_image"\n')
    const policy = open()
    assert.equal(policy.allows('get_image', admin, {}), false)
    assert.equal(policy.allows('get_images', admin, {}), false)
    assert.match(warnings.join(), /get_image asks another server/)
  })

  it('does not start with rules that refer to themselves', (t) => {
    for (const content of [
      'a: "rule:b"\nb: "not rule:a"\n',
      'get_image: "role:member and rule:get_image"\n',
      'default: "rule:unheard_of"\n',
    ]) {
      assert.throws(
        setUp(t, content).open,
        (error) => hasKind(error, 'invalid') && /refers to itself/.test(error.message),
      )
    }
  })

  it('does not start with a file that is no mapping of rules to checks', (t) => {
    for (const content of ['- a\n', 'a: [\n', 'a: 5\n', '"text"']) {
      assert.throws(setUp(t, content).open, (error) => hasKind(error, 'invalid'), content)
    }
  })

  it('looks at the files once a second, and follows their changes', (t) => {
    const { open, write, writeDir, clock, policyFile } = setUp(t, 'get_image: "!"\n')
    const policy = open()
    writeFileSync(policyFile, 'get_image: "@" # changed\n')
    assert.equal(policy.allows('get_image', member, {}), false, 'not yet looked')
    clock.now += 1000
    assert.equal(policy.allows('get_image', member, {}), true)
    writeDir('1.yaml', 'get_image: "!"')
    clock.now += 1000
    assert.equal(policy.allows('get_image', admin, {}), false)
    write('add_image: "@"\n')
    assert.equal(policy.allows('add_image', identity({ roles: [] }), {}), true)
  })

  it('keeps the last value of a rule that vanishes from the files', (t) => {
    const { open, write } = setUp(t, 'get_image: "!"\n')
    const policy = open()
    write('add_image: "@"\n')
    assert.equal(policy.allows('get_image', admin, {}), false)
    assert.equal(policy.allows('add_image', member, {}), true)
  })

  it('keeps the rules when a changed file cannot be used, warns once, and recovers', (t) => {
    const { open, write, warnings, clock } = setUp(t, 'get_image: "!"\n')
    const policy = open()
    write('get_image: [\n')
    assert.equal(policy.allows('get_image', admin, {}), false)
    clock.now += 5000
    assert.equal(policy.allows('get_image', admin, {}), false)
    assert.equal(warnings.length, 1)
    assert.match(warnings[0] ?? '', /Policy is unchanged/)
    write('get_image: "rule:get_image"\n')
    assert.equal(policy.allows('get_image', admin, {}), false)
    write('get_image: "@"   \n')
    assert.equal(policy.allows('get_image', member, {}), true)
  })

  it('stops looking when it is closed', (t) => {
    const { open, write } = setUp(t, 'get_image: "!"\n')
    const policy = open()
    policy.close()
    write('get_image: "@"  \n')
    assert.equal(policy.allows('get_image', member, {}), false)
  })

  it('denies whoever is scoped to the system or a domain, except by the rules that others are made of', (t) => {
    const system = identity({ roles: ['admin'], systemScope: 'all', projectId: undefined })
    const domain = identity({ roles: ['admin'], domainId: 'default', projectId: undefined })
    const policy = setUp(t).open()
    const lenient = setUp(t, undefined, { enforceScope: false }).open()
    for (const scoped of [system, domain]) {
      assert.equal(policy.allows('get_image', scoped, {}), false)
      assert.equal(policy.allows('context_is_admin', scoped, {}), true)
      assert.equal(policy.allows('unheard_of', scoped, {}), true)
      assert.equal(lenient.allows('get_image', scoped, {}), true)
    }
  })

  it('allows what the former defaults did when the new ones are not enforced, unless a file says otherwise', (t) => {
    const nobody = identity({ roles: [] })
    assert.equal(setUp(t).open().allows('modify_image', nobody, {}), false)
    const old = { enforceNewDefaults: false }
    const policy = setUp(t, 'delete_image: "role:admin"\n', old).open()
    assert.equal(policy.allows('modify_image', nobody, {}), true)
    assert.equal(policy.allows('delete_image', nobody, {}), false)
    assert.equal(policy.allows('publicize_image', nobody, {}), false)
    const strict = setUp(t, 'default: "role:admin"\n', old).open()
    assert.equal(strict.allows('modify_image', nobody, {}), false)
  })
})

describe('isAdmin()', () => {
  it('is what the rule context_is_admin says, or what needs no authentication', (t) => {
    const policy = setUp(t, 'context_is_admin: "role:boss and user_id:%(user_id)s"\n').open()
    assert.equal(isAdmin(policy, admin), false)
    assert.equal(isAdmin(policy, identity({ roles: ['boss'] })), true)
    const everybody = identity({ roles: [], isAdmin: true, projectId: undefined })
    assert.equal(isAdmin(policy, everybody), true)
    assert.equal(policy.allows('delete_image', everybody, { project_id: 'p2' }), true)
  })
})
