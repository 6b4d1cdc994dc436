import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { ServiceError } from '../../domain/errors.ts'
import { reason } from '../reason.ts'
import { few, gather, note, ok, printSection, printVerdict, problem, type Section } from './report.ts'

const plain = (_: string, text: string) => text
const SECTION: Section = {
  title: 'Stores',
  findings: [
    ok('All is well.'),
    note('A sentence that is longer than what fits into one line of the terminal of an operator.', 'read it', ['one']),
    problem(`A word that cannot be broken: /${'x'.repeat(40)}`),
  ],
}

describe('the report of the takeover check', () => {
  it('is wrapped, with what to do below what was found', () => {
    assert.equal(
      printSection(SECTION, 60, plain),
      `Stores
  ok       All is well.
  note     A sentence that is longer than what fits into one
           line of the terminal of an operator.
             one
           -> read it
  problem  A word that cannot be broken:
           /${'x'.repeat(40)}
`,
    )
  })

  it('ends with whether something stops the switch', () => {
    assert.equal(printVerdict([SECTION], plain), '1 problem to solve before the switch. 1 note to read.')
    assert.equal(printVerdict([{ title: '', findings: [ok('x')] }], plain), 'Nothing stops the switch.')
  })

  it('has what a section found before it failed', async () => {
    const { findings } = await gather(
      'x',
      (function* () {
        yield ok('first')
        throw new Error('too bad')
      })(),
    )
    assert.deepEqual(
      findings.map(({ level }) => level),
      ['ok', 'problem'],
    )
  })

  it('gives the reasons of an error in one line', () => {
    const cause = new Error('connect ECONNREFUSED\n127.0.0.1:1')
    const error = new ServiceError('unavailable', 'It does not answer', { cause, detail: { status: 500 } })
    assert.equal(reason(error), 'It does not answer: status 500: connect ECONNREFUSED 127.0.0.1:1')
    assert.equal(reason(new AggregateError([new Error('a')], '')), 'AggregateError')
  })

  it('cuts long lists', () => {
    assert.deepEqual(few(['a', 'b', 'c', 'd'], 2), ['a', 'b', 'and 2 more'])
    assert.deepEqual(few(['a'], 2), ['a'])
  })
})
