import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { hasKind, ServiceError } from '../domain/errors.ts'
import { anonymous, noAuth, trustedHeaders } from './headers.ts'

const signal = new AbortController().signal

describe('noAuth()', () => {
  it('makes everybody an admin of no project', async () => {
    const identity = await noAuth().authenticate({}, signal)
    assert.equal(identity.isAdmin, true)
    assert.equal(identity.projectId, undefined)
    assert.equal(identity.readOnly, false)
  })
})

describe('trustedHeaders()', () => {
  const provider = trustedHeaders('Keystone uri="http://127.0.0.1:5000"')

  it('believes the headers of a confirmed identity, with roles in lower case', async () => {
    const identity = await provider.authenticate(
      {
        'x-identity-status': 'Confirmed',
        'x-user-id': 'u',
        'x-project-id': 'p',
        'x-roles': 'Member, reader ,',
        'x-service-roles': 'Service',
        'x-is-admin-project': 'False',
      },
      signal,
    )
    assert.equal(identity.userId, 'u')
    assert.equal(identity.projectId, 'p')
    assert.deepEqual(identity.roles, ['member', 'reader'])
    assert.deepEqual(identity.serviceRoles, ['service'])
    assert.equal(identity.isAdminProject, false)
    assert.equal(identity.isAdmin, undefined)
  })

  it('understands the names of old', async () => {
    const headers = { 'x-identity-status': 'Confirmed', 'x-user': 'u', 'x-tenant': 'p', 'x-role': 'admin' }
    const { userId, projectId, roles } = await provider.authenticate(headers, signal)
    assert.deepEqual([userId, projectId, roles], ['u', 'p', ['admin']])
  })

  it('refuses what is not confirmed', async () => {
    for (const status of [{}, { 'x-identity-status': 'Invalid' }]) {
      await assert.rejects(
        provider.authenticate({ ...status, 'x-user-id': 'u', 'x-roles': 'admin' }, signal),
        (error) => hasKind(error, 'unauthenticated'),
      )
    }
  })
})

describe('anonymous()', () => {
  it('lets those read whom the provider does not know, as nobody', async () => {
    const identity = await anonymous(trustedHeaders()).authenticate({}, signal)
    assert.equal(identity.readOnly, true)
    assert.equal(identity.isAdmin, false)
    assert.deepEqual(identity.roles, [])
  })

  it('leaves those alone whom the provider knows, and its challenge', async () => {
    const provider = anonymous(trustedHeaders('Keystone'))
    assert.equal(provider.challenge, 'Keystone')
    const identity = await provider.authenticate({ 'x-identity-status': 'Confirmed', 'x-user-id': 'u' }, signal)
    assert.equal(identity.userId, 'u')
    assert.equal(identity.readOnly, false)
  })

  it('takes nobody for anonymous while the identity service is away', async () => {
    const away = { ...noAuth(), authenticate: () => Promise.reject(new ServiceError('unavailable', 'away')) }
    await assert.rejects(anonymous(away).authenticate({}, signal), (error) => hasKind(error, 'unavailable'))
  })
})
