import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { hasKind } from '../../domain/errors.ts'
import { headsOf, levelOf, NEWEST_LEVEL, RELEASES, targetOf } from './upstream-revisions.ts'

describe('revisions of the schema', () => {
  it('say how far both branches are, and back', () => {
    const levels = fc
      .tuple(fc.nat(RELEASES.length - 1), fc.nat(RELEASES.length))
      .map(([expand, contract]) => ({ expand, contract: Math.min(contract - 1, expand) }))
    fc.assert(fc.property(levels, (level) => assert.deepEqual(levelOf(headsOf(level)), level)))
  })

  it('name the last release of either branch only', () => {
    assert.deepEqual(headsOf(NEWEST_LEVEL), ['2024_1_contract01'])
    assert.deepEqual(headsOf({ expand: 7, contract: 5 }), ['zed_contract01', '2024_1_expand01'])
    assert.deepEqual(levelOf(['2024_1_expand01', 'zed_contract01']), { expand: 7, contract: 5 })
    assert.deepEqual(levelOf(['rocky_contract02', 'train_expand01']), { expand: 0, contract: -1 })
  })

  for (const heads of [['rocky_contract02'], ['liberty'], ['pike_contract01'], []])
    it(`are too old at ${heads.join() || 'none'}`, () => {
      assert.throws(
        () => levelOf(heads),
        (error) => hasKind(error, 'unavailable') && /older than Train/.test(error.message),
      )
    })

  it('that Glance has not contracted yet are left to it', () => {
    assert.throws(() => levelOf(['2024_1_expand01']), /half made by Glance/)
  })

  it('of a later Glance are not guessed at', () => {
    assert.throws(() => levelOf(['2031_2_contract01']), /newer than this service knows/)
    assert.equal(targetOf('2031_2_contract01'), undefined)
  })
})
