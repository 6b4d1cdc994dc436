import assert from 'node:assert/strict'
import { it } from 'node:test'
import { judge, parseSkips, print } from './verdict.ts'

const passed = (name: string) => ({ name, outcome: 'passed' }) as const
const failed = (name: string) => ({ name, outcome: 'failed' }) as const
const skip = (pattern: RegExp) => ({ pattern, reason: 'not built' })

it('parseSkips() gives the lines of the sections that are asked for', () => {
  const text = '# all\n[tempest]\n^a\\.b$   # not built\n\n[tempest multi]\n^b$ # one node\n[clients]\n^c$ # no\n'
  assert.deepEqual(parseSkips(text, ['tempest']), [{ pattern: /^a\.b$/, reason: 'not built' }])
  assert.deepEqual(
    parseSkips(text, ['tempest', 'tempest multi']).map(({ reason }) => reason),
    ['not built', 'one node'],
  )
})

it('parseSkips() takes no line without a reason', () => {
  assert.throws(() => parseSkips('[tempest]\n^a$\n', ['tempest']), /without a reason: \^a\$/)
})

it('judge() has nothing to say where exactly the listed tests do not pass', () => {
  const tests = [passed('a'), failed('b'), { name: 'c', outcome: 'skipped' } as const]
  const verdict = judge('t', tests, [skip(/^b$/), skip(/^c$/)])
  assert.deepEqual(verdict.problems, [])
  assert.equal(
    print(verdict),
    't: 1 passed, 0 failed, 2 skipped\n  skipped 1: not built (^b$)\n  skipped 1: not built (^c$)',
  )
})

it('judge() names a test that fails or is skipped without being listed', () => {
  const tests = [passed('a'), failed('b'), { name: 'c', outcome: 'skipped', reason: 'no web' } as const]
  assert.deepEqual(judge('t', tests, []).problems, ['failed: b', 'skipped: c (no web)'])
})

it('judge() names a listed test that passes', () => {
  assert.deepEqual(judge('t', [passed('a')], [skip(/^a$/)]).problems, ['on the list of skips, but passes: a'])
})

it('judge() names a line of the list that fits no test, or only tests of lines before it', () => {
  const name = 'on the list of skips, but names no test: '
  assert.deepEqual(judge('t', [passed('a')], [skip(/^z$/)]).problems, [`${name}^z$`])
  assert.deepEqual(judge('t', [failed('a')], [skip(/a/), skip(/^a$/)]).problems, [`${name}^a$`])
})

it('judge() does not take a run without tests for a good one', () => {
  assert.deepEqual(judge('t', [], []).problems, ['no test ran'])
})
