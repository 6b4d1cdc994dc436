import assert from 'node:assert/strict'
import { it } from 'node:test'
import { hasKind } from '../../domain/errors.ts'
import type { JsonSchema } from '../http/route.ts'
import { assertSchema, validator } from './validation.ts'

it('validator() says what is wrong in the words of Python’s jsonschema', () => {
  const validate = validator('thing', { properties: { size: { type: 'integer', maximum: 3 } } })
  validate({ size: 3 })
  for (const [value, reason] of [
    [{ size: 4 }, '4 is greater than the maximum of 3'],
    [{ size: 'x' }, "'x' is not of type 'integer'"],
    [[], "[] is not of type 'object'"],
  ] as const)
    assert.throws(() => validate(value), {
      kind: 'invalid',
      message: `Provided object does not match schema 'thing': ${reason}`,
    })
})

it('assertSchema() refuses what no value can be checked against', () => {
  assertSchema({ properties: { build: { type: 'string', pattern: '^[a-z]+$' } }, required: ['build'] })
  for (const properties of [
    { a: { type: 'strin' } },
    { a: { type: 'string', pattern: '(' } },
    { a: { enum: 'x' } },
    [],
  ])
    assert.throws(
      () => assertSchema({ properties } as unknown as JsonSchema),
      (error) => hasKind(error, 'invalid'),
      JSON.stringify(properties),
    )
})
