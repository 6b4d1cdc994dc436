import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { barOf, startProgress } from './progress.ts'

const collect = (isTTY: boolean, columns = 60) => {
  const written: string[] = []
  return { written, out: { isTTY, columns, write: (text: string) => written.push(text) } }
}

describe('progress', () => {
  it('is a bar that the last line replaces, on a terminal', () => {
    const { written, out } = collect(true)
    const progress = startProgress('rows', 10, out)
    progress.advance(5)
    progress.end('5 rows')
    assert.match(written[0] ?? '', /^\r\x1b\[Krows {2}50 % \[#+\.+\] 5 of 10, \d+:\d\d left$/)
    assert.equal(written.at(-1), '\r\x1b[K5 rows\n')
  })

  it('is one line elsewhere', () => {
    const { written, out } = collect(false)
    const progress = startProgress('rows', 10, out)
    progress.advance(5)
    progress.end('5 rows')
    assert.deepEqual(written, ['5 rows\n'])
  })

  it('is a bar on a terminal that does not know its width, as `script` makes them', () => {
    const { written, out } = collect(true, 0)
    startProgress('rows', 10, out).advance(5)
    assert.match(written[0] ?? '', /rows {2}50 % \[#+\.+\]/)
  })

  it('fits into every terminal', () => {
    fc.assert(
      fc.property(fc.nat(), fc.nat(), fc.nat(), fc.integer({ min: 1, max: 200 }), (done, total, ms, columns) => {
        assert.ok(barOf('image_properties', done, total, ms, columns).length < columns)
      }),
    )
  })
})
