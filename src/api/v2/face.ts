import { randomUUID } from 'node:crypto'
import type { IdentityProvider } from '../../auth/identity.ts'
import type { Core, RequestContext } from '../../core/core.ts'
import { ServiceError } from '../../domain/errors.ts'
import { failureOf, renderFailure } from '../http/errors.ts'
import type { Route } from '../http/route.ts'
import type { Face } from '../http/server.ts'

export interface FaceOptions {
  readonly identity: IdentityProvider
  readonly isAdmin: (identity: RequestContext['identity']) => boolean
  /** Characters of a request id that a client brings; 0 for any number. */
  readonly maxRequestIdLength: number
}

/** `req-` and a UUID, or the client's own with that prefix. */
function requestId(header: string | string[] | undefined, limit: number): string {
  if (typeof header !== 'string' || header === '') return `req-${randomUUID()}`
  if (limit > 0 && header.length > limit) {
    throw new ServiceError('header-too-large', `x-openstack-request-id is too long, max size ${limit}`)
  }
  return header.startsWith('req-') ? header : `req-${header}`
}

/** The v2 routes behind authentication. */
export function v2Face(
  core: Core,
  routes: readonly Route<RequestContext>[],
  options: FaceOptions,
): Face<RequestContext> {
  const { identity: provider, isAdmin, maxRequestIdLength } = options
  return {
    prefix: '/v2',
    routes,
    enter: async ({ method, path, headers, signal }) => {
      const identity = await provider.authenticate(headers, signal, { method, path })
      const admin = isAdmin(identity)
      return {
        requestId: requestId(headers['x-openstack-request-id'], maxRequestIdLength),
        identity,
        isAdmin: admin,
        scope: { admin, project: identity.projectId },
        signal,
        relayed: headers['x-glimpse-relayed'] !== undefined,
      }
    },
    headers: (context) => ({ 'x-openstack-request-id': context.requestId }),
    fail: (error, { headers }) =>
      renderFailure(failureOf(error, headers['content-type'], provider.challenge), headers.accept),
    refuse: (failure, { headers }) => renderFailure(failure, headers.accept),
    log: (context) =>
      core.log.with({
        requestId: context.requestId,
        userId: context.identity.userId,
        projectId: context.identity.projectId,
      }),
  }
}
