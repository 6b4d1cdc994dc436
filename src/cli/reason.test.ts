import assert from 'node:assert/strict'
import { it } from 'node:test'
import { ServiceError } from '../domain/errors.ts'
import { reason } from './reason.ts'

it('the reason of a failure is one line, with causes that say more', () => {
  // As the library of PostgreSQL has its errors.
  const cause = Object.assign(new Error('database "g"\ndoes not exist'), { detail: undefined })
  assert.equal(reason(new ServiceError('unavailable', 'Away', { cause })), 'Away: database "g" does not exist')
  assert.equal(
    reason(new Error('Cannot read: no such file', { cause: new Error('no such file') })),
    'Cannot read: no such file',
  )
  assert.equal(reason(Object.assign(new AggregateError([]), { code: 'ECONNREFUSED' })), 'ECONNREFUSED')
  assert.equal(reason(new ServiceError('unavailable', 'Away', { detail: { status: 401 } })), 'Away: status 401')
})
