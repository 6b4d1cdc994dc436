import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { hasKind, ServiceError } from '../domain/errors.ts'
import { parse, parseResult, print, printResult } from './codec.ts'

const scalar = fc.oneof(
  fc.string({ unit: 'binary' }),
  fc.double(),
  fc.bigInt(),
  fc.boolean(),
  fc.constantFrom(null, undefined, -0),
  fc.date({ noInvalidDate: true }),
)
const data = fc.letrec((tie) => ({
  value: fc.oneof(
    { depthSize: 'small' },
    scalar,
    fc.array(tie('value')),
    fc.dictionary(fc.oneof(fc.string(), fc.constantFrom('$', 'v', '__proto__')), tie('value'), {
      noNullPrototype: true,
    }),
    fc.array(fc.tuple(scalar, tie('value'))).map((pairs) => new Map(pairs)),
    fc.array(scalar).map((items) => new Set(items)),
  ),
})).value

describe('the codec of a registry', () => {
  it('gives back what it was given', () => {
    fc.assert(fc.property(data, (value) => assert.deepStrictEqual(parse(print(value)), value)))
  })

  it('prints JSON, a list with one item in each line', async () => {
    const list = Array.from({ length: 250 }, (_, n) => ({ n, text: 'a,\n]', at: new Date(n) }))
    const text = await printResult(list)
    assert.equal(text.split('\n').length, list.length + 2)
    assert.equal((JSON.parse(text) as unknown[]).length, list.length)
    assert.deepStrictEqual(await parseResult(text), list)
    for (const short of [[], [1], null, [[]], undefined])
      assert.deepStrictEqual(await parseResult(await printResult(short)), short)
  })

  it('keeps kind, message, detail and transience of an error, and nothing of its cause', () => {
    const error = new ServiceError('too-large', 'No', { cause: new Error('secret'), detail: { n: 1 }, transient: true })
    const text = print(error)
    assert.ok(!text.includes('secret'))
    const back = parse(text) as ServiceError
    assert.ok(back instanceof ServiceError)
    assert.deepEqual([back.kind, back.message, back.detail, back.transient], ['too-large', 'No', { n: 1 }, true])
    const odd = parse(print(new ServiceError('conflict', 'No', { detail: { run: () => 1 } }))) as ServiceError
    assert.deepEqual([odd.kind, odd.detail], ['conflict', {}])
  })

  it('refuses what is no data', () => {
    for (const value of [() => 1, Symbol('a'), { when: new URL('http://a') }, [Buffer.from('a')]])
      assert.throws(() => print(value), TypeError)
  })

  it('refuses JSON that stands for nothing', () => {
    const deep = '['.repeat(100_000) + ']'.repeat(100_000)
    for (const text of ['', '{', '{"$":"file","v":1}', '{"$":"map","v":[1]}', '{"$":"bigint","v":"1e9"}', deep])
      assert.throws(
        () => parse(text),
        (error) => hasKind(error, 'invalid'),
      )
    assert.throws(() => parse('{"$":"error","v":{"kind":1}}'))
    fc.assert(
      fc.property(fc.json(), (text) => {
        try {
          parse(text)
        } catch (error) {
          assert.ok(hasKind(error, 'invalid'))
        }
      }),
    )
  })
})
