import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { type Check, type Compiled, compileCheck, parseCheck, printCheck } from './check.ts'

const credentials = {
  user_id: 'u1',
  project_id: 'p1',
  domain_id: null,
  is_admin: false,
  roles: ['member', 'reader'],
  token: { user: { id: 'u1', groups: [{ name: 'a' }, { name: 'b' }] } },
}
const target = {
  project_id: 'p1',
  owner: null,
  visibility: 'public',
  protected: true,
  size: 5,
  role: 'Member',
  odd: '50%',
}
const rules: Readonly<Record<string, Compiled>> = {
  yes: { test: () => true, remote: false },
  no: { test: () => false, remote: false },
}
const lookup = (name: string): Compiled => rules[name] ?? { test: () => false, remote: false }

const judge = (value: unknown, warnings: string[] = []): boolean =>
  compileCheck(
    parseCheck(value, (message) => warnings.push(message)),
    lookup,
  ).test(credentials, target)

const word = fc
  .stringMatching(/^[a-z_][a-z0-9_.]{0,8}$/)
  .filter((text) => !['rule', 'role', 'http', 'https'].includes(text))
const match = fc.oneof(
  word,
  word.map((key) => `%(${key})s`),
  fc.tuple(word, word).map(([before, key]) => `${before}%(${key})s%%`),
)
const { check: anyCheck } = fc.letrec<{ check: Check; atom: Check; not: Check; many: Check }>((tie) => ({
  check: fc.oneof({ maxDepth: 4 }, tie('atom'), tie('not'), tie('many')),
  atom: fc.oneof(
    fc.constantFrom<Check>({ kind: 'true' }, { kind: 'false' }),
    word.map((name): Check => ({ kind: 'rule', name })),
    match.map((text): Check => ({ kind: 'role', match: text })),
    fc
      .tuple(fc.oneof(word, fc.constantFrom("'public'", '"x"', 'True', 'None', '12')), match)
      .map(([left, text]): Check => ({ kind: 'generic', left, match: text })),
    word.map((host): Check => ({ kind: 'remote', url: `http://${host}/` })),
  ),
  not: tie('check').map((check): Check => ({ kind: 'not', check })),
  many: fc
    .tuple(fc.constantFrom('and' as const, 'or' as const), fc.array(tie('check'), { minLength: 2, maxLength: 4 }))
    .map(([kind, checks]): Check => ({ kind, checks })),
}))

describe('policy check language', () => {
  it('reads back what it prints', () => {
    fc.assert(
      fc.property(anyCheck, (check) => {
        const read = parseCheck(printCheck(check), (message) => assert.fail(message))
        assert.deepEqual(read, check)
      }),
    )
  })

  it('never throws on a text, whatever it is', () => {
    const piece = fc.constantFrom(
      '(',
      ')',
      'and',
      'or',
      'not',
      '@',
      '!',
      'a:b',
      "'a",
      '%(x)s',
      'x:%(y',
      ':',
      '"q"',
      'role:x',
    )
    fc.assert(
      fc.property(
        fc.oneof(
          fc.string(),
          fc.array(piece).map((words) => words.join(' ')),
        ),
        (text) => {
          assert.equal(typeof judge(text), 'boolean')
        },
      ),
    )
  })

  const cases: readonly (readonly [text: string, allowed: boolean])[] = [
    ['', true],
    ['@', true],
    ['!', false],
    ['role:member', true],
    ['role:MEMBER', true],
    ['role:admin', false],
    ['role:%(role)s', true],
    ['role:%(absent)s', false],
    ['rule:yes', true],
    ['rule:no', false],
    ['project_id:%(project_id)s', true],
    ['project_id:p1', true],
    ['project_id:%(absent)s', false],
    ['absent:%(project_id)s', false],
    ['domain_id:%(owner)s', true],
    ['project_id:%(owner)s', false],
    ["'public':%(visibility)s", true],
    ['"public":%(visibility)s', true],
    ["'private':%(visibility)s", false],
    ['True:%(protected)s', true],
    ['False:%(protected)s', false],
    ['5:%(size)s', true],
    ['5.0:%(size)s', false],
    ['None:%(owner)s', true],
    ['None:%(absent)s', false],
    ['is_admin:False', true],
    ['is_admin:false', false],
    ["'p1-public':%(project_id)s-%(visibility)s", true],
    ["'100%':100%%", true],
    ["'50%':%(odd)s", true],
    ['roles:reader', true],
    ['roles:admin', false],
    ['token.user.id:u1', true],
    ['token.user.groups.name:b', true],
    ['token.user.groups.name:c', false],
    ['user_id.length:2', false],
    ['constructor:%(project_id)s', false],
    ['@ and !', false],
    ['@ or !', true],
    ['not !', true],
    ['not not @', true],
    ['! and ! or @', true],
    ['@ or @ and !', true],
    ['(@ or @) and !', false],
    ['not ! and !', false],
    ['not (! and !)', true],
    ['@ AND NOT !', true],
    ['((@))', true],
    ['  @\n and\t@ ', true],
  ]
  for (const [text, allowed] of cases) {
    it(`${allowed ? 'allows' : 'denies'} ${JSON.stringify(text)}`, () => {
      const warnings: string[] = []
      assert.equal(judge(text, warnings), allowed)
      assert.deepEqual(warnings, [])
    })
  }

  for (const text of [
    ' ',
    '@ @',
    'and',
    '@ or',
    '(@',
    '@)',
    '()',
    'not',
    "'public'",
    'admin',
    ':x',
    "'a:b",
    'x:%(y',
    'x:%d',
  ]) {
    it(`denies ${JSON.stringify(text)}, which makes no sense, and warns`, () => {
      const warnings: string[] = []
      assert.equal(judge(text, warnings), false)
      assert.equal(warnings.length, 1)
    })
  }

  it('reads lists of lists as alternatives of conjunctions', () => {
    assert.equal(judge([]), true)
    assert.equal(judge(null), true)
    assert.equal(judge([[]]), false)
    assert.equal(judge([['role:admin'], ['role:member', 'project_id:p1']]), true)
    assert.equal(judge([['role:admin'], ['role:member', 'project_id:p2']]), false)
    assert.equal(judge(['role:admin', 'role:reader']), true)
  })

  it('throws on a value that is neither text nor lists of texts', () => {
    for (const value of [5, true, {}, [[5]]]) assert.throws(() => judge(value), /expected a check string/)
  })

  it('denies where the answer of another server would decide, even under `not`', () => {
    assert.equal(judge('http://127.0.0.1/'), false)
    assert.equal(judge('https://127.0.0.1/%(owner)s'), false)
    assert.equal(judge('not http://127.0.0.1/'), false)
    assert.equal(judge('not (role:admin or http://127.0.0.1/)'), false)
    assert.equal(judge('role:member or http://127.0.0.1/'), true)
  })
})
