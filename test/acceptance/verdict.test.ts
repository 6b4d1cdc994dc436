import assert from 'node:assert/strict'
import { it } from 'node:test'
import { judge, parseSkips } from './verdict.ts'

const passed = (name: string) => ({ name, outcome: 'passed' }) as const
const failed = (name: string) => ({ name, outcome: 'failed' }) as const

it('parseSkips() gives the expressions of one section, without comments', () => {
  const text = '# all\n[tempest]\n^a\\.b$   # not built\n\n[clients]\n^c$\n'
  assert.deepEqual(parseSkips(text, 'tempest'), [/^a\.b$/])
  assert.deepEqual(parseSkips(text, 'clients'), [/^c$/])
})

it('judge() has nothing to say where exactly the listed tests do not pass', () => {
  const verdict = judge('t', [passed('a'), failed('b'), { name: 'c', outcome: 'skipped' }], [/^b$/, /^c$/])
  assert.deepEqual(verdict, { title: 't', passed: 1, notCovered: 2, problems: [] })
})

it('judge() names a test that fails or is skipped without being listed', () => {
  const tests = [passed('a'), failed('b'), { name: 'c', outcome: 'skipped', reason: 'no web' } as const]
  assert.deepEqual(judge('t', tests, []).problems, ['failed: b', 'skipped: c (no web)'])
})

it('judge() names a listed test that passes', () => {
  assert.deepEqual(judge('t', [passed('a')], [/^a$/]).problems, ['on the list of skips, but passes: a'])
})

it('judge() names a line of the list that fits no test', () => {
  assert.deepEqual(judge('t', [passed('a')], [/^z$/]).problems, ['on the list of skips, but names no test: ^z$'])
})

it('judge() does not take a run without tests for a good one', () => {
  assert.deepEqual(judge('t', [], []).problems, ['no test ran'])
})
