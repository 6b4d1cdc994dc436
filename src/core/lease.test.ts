import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import type { WorkerId } from '../domain/ids.ts'
import { watchLeases } from './lease.ts'

const LEASE_MS = 15_000

/** A watch, whose own worker renews every second while the database is there, over a list of others. */
const setting = () => {
  let now = 0
  const watch = watchLeases(LEASE_MS, () => now)
  const renewals = new Map<string, number>()
  const expired = new Set<string>()
  const silent = () =>
    [
      ...watch.silent(
        [...renewals].map(([id, renewal]) => ({
          worker: { id: id as WorkerId, node: 'n', pid: 1, startedAt: 1 },
          renewal,
          expired: expired.has(id),
        })),
      ),
    ].map(String)
  return {
    renewals,
    expired,
    silent,
    pass: (seconds: number, { away = false } = {}) => {
      for (let n = 0; n < seconds; n++) {
        now += 1000
        watch.renewed(!away)
        if (!away) silent()
      }
    },
    sleep: (seconds: number) => {
      now += seconds * 1000
    },
  }
}

describe('a worker whose lease ran out', () => {
  it('is silent once nothing has come of it for as long as a lease lasts', () => {
    const { renewals, expired, silent, pass } = setting()
    renewals.set('dead', 1)
    pass(100)
    assert.deepEqual(silent(), [], 'its lease holds')
    expired.add('dead')
    assert.deepEqual(silent(), ['dead'])
  })

  it('is not silent when it renews after all, whatever the clock of the database says', () => {
    const { renewals, expired, silent, pass } = setting()
    expired.add('behind')
    for (let n = 0; n < 20; n++) {
      renewals.set('behind', n)
      pass(5)
      assert.deepEqual(silent(), [])
    }
  })

  it('gets its time after the database was away', () => {
    const { renewals, expired, silent, pass } = setting()
    renewals.set('other', 1)
    pass(100)
    pass(60, { away: true })
    expired.add('other')
    pass(15)
    assert.deepEqual(silent(), [])
    pass(1)
    assert.deepEqual(silent(), ['other'])
  })

  it('gets its time after this process stood still', () => {
    const { renewals, expired, silent, pass, sleep } = setting()
    renewals.set('other', 1)
    pass(100)
    sleep(60)
    expired.add('other')
    assert.deepEqual(silent(), [], 'not before the next renewal')
    pass(14)
    assert.deepEqual(silent(), [])
    pass(2)
    assert.deepEqual(silent(), ['other'])
  })
})
