import type { IncomingHttpHeaders } from 'node:http'
import { hasKind, ServiceError } from '../domain/errors.ts'
import type { ProjectId, UserId } from '../domain/ids.ts'
import { type IdentityProvider, NOBODY } from './identity.ts'

/** No authentication: everybody is an admin of no project. */
export const noAuth = (): IdentityProvider => ({
  challenge: undefined,
  authenticate: async () => ({ ...NOBODY, roles: ['admin'], isAdmin: true }),
  close: async () => undefined,
})

/** Nobody is let in. */
export const nobody = (): IdentityProvider => ({
  challenge: undefined,
  authenticate: async () => {
    throw unauthenticated()
  },
  close: async () => undefined,
})

/** `allow_anonymous_access`: whom `provider` does not know may still read. */
export const anonymous = (provider: IdentityProvider): IdentityProvider => ({
  ...provider,
  authenticate: async (headers, signal, call) => {
    try {
      return await provider.authenticate(headers, signal, call)
    } catch (error) {
      if (hasKind(error, 'unauthenticated')) return { ...NOBODY, isAdmin: false, readOnly: true }
      throw error
    }
  },
})

/**
 * Believes the identity headers of a proxy in front, which has authenticated the caller
 * and removed such headers from the client's request.
 */
export const trustedHeaders = (challenge?: string): IdentityProvider => ({
  challenge,
  authenticate: async (headers) => {
    if (text(headers, 'x-identity-status') !== 'Confirmed') throw unauthenticated()
    return {
      ...NOBODY,
      userId: text(headers, 'x-user-id', 'x-user') as UserId | undefined,
      projectId: text(headers, 'x-project-id', 'x-tenant-id', 'x-tenant') as ProjectId | undefined,
      domainId: text(headers, 'x-domain-id'),
      userDomainId: text(headers, 'x-user-domain-id'),
      projectDomainId: text(headers, 'x-project-domain-id'),
      roles: words(text(headers, 'x-roles', 'x-role')),
      serviceRoles: words(text(headers, 'x-service-roles')),
      serviceUserId: text(headers, 'x-service-user-id'),
      serviceProjectId: text(headers, 'x-service-project-id'),
      systemScope: text(headers, 'openstack-system-scope'),
      isAdminProject: text(headers, 'x-is-admin-project')?.toLowerCase() !== 'false',
      token: text(headers, 'x-auth-token', 'x-storage-token'),
    }
  },
  close: async () => undefined,
})

/** The first of these headers that is not empty. */
export function text(headers: IncomingHttpHeaders, ...names: readonly string[]): string | undefined {
  for (const name of names) {
    const value = headers[name]
    const trimmed = (Array.isArray(value) ? value[0] : value)?.trim()
    if (trimmed !== undefined && trimmed !== '') return trimmed
  }
  return undefined
}

export const unauthenticated = (cause?: unknown): ServiceError =>
  new ServiceError('unauthenticated', 'The request you have made requires authentication', { cause })

const words = (list: string | undefined): readonly string[] =>
  (list ?? '')
    .split(',')
    .map((word) => word.trim().toLowerCase())
    .filter((word) => word !== '')
