import { randomUUID } from 'node:crypto'
import type { Identity, IdentityProvider } from '../../auth/identity.ts'
import type { RowDatabase } from '../../db/rows.ts'
import { type ErrorKind, ServiceError } from '../../domain/errors.ts'
import type { Log } from '../../log.ts'
import { type Failure, failureOf, renderFailure } from '../http/errors.ts'
import type { Face } from '../http/server.ts'
import { type HistoricContext, noSuchResource } from './context.ts'
import { imageRoutes } from './images.ts'
import { memberRoutes } from './members.ts'
import { rpcRoutes } from './rpc.ts'

export interface HistoricOptions {
  readonly identity: IdentityProvider
  readonly isAdmin: (caller: Identity) => boolean
  readonly limits: { readonly pageDefault: number; readonly pageMax: number }
  /** Which of the two registries there are: that of API v1, and remote procedure calls. */
  readonly v1: boolean
  readonly v2: boolean
  /** Modules whose exceptions go to clients by name. */
  readonly modules: readonly string[]
  readonly maxRequestIdLength: number
  readonly log: Log
}

/** What WebOb says of a status. */
const GENERAL: Readonly<Partial<Record<ErrorKind, string>>> = {
  invalid: 'The server could not comply with the request since it is either malformed or otherwise incorrect.',
  forbidden: 'Access was denied to this resource.',
  'not-found': 'The resource could not be found.',
  conflict: 'There was a conflict when trying to complete your request.',
}

/** The failure with its general words first, where the error wants them. */
function inGeneral(error: unknown, failure: Failure): Failure {
  if (!(error instanceof ServiceError) || error.detail['general'] !== true) return failure
  const [explanation = ['', false] as const, line = ['', true] as const] = failure.parts
  const general = GENERAL[error.kind] ?? explanation[0]
  return { ...failure, parts: [[general, false], line, [error.message, false], ['\n\n', true]] }
}

/** What glance-registry answered until Ussuri. */
export function historicFace(rows: RowDatabase, options: HistoricOptions): Face<HistoricContext> {
  const { identity: provider, isAdmin, maxRequestIdLength, log } = options
  const requestId = (given: string | string[] | undefined): string => {
    if (typeof given !== 'string' || given === '') return `req-${randomUUID()}`
    if (maxRequestIdLength > 0 && given.length > maxRequestIdLength)
      throw new ServiceError('header-too-large', `x-openstack-request-id is too long, max size ${maxRequestIdLength}`)
    return given.startsWith('req-') ? given : `req-${given}`
  }
  return {
    prefix: '',
    routes: [
      ...(options.v1 ? [...imageRoutes(rows, options.limits), ...memberRoutes(rows)] : []),
      ...(options.v2 ? rpcRoutes(rows, options.modules) : []),
    ],
    enter: async ({ method, path, headers, signal }) => {
      const identity = await provider.authenticate(headers, signal, { method, path })
      return {
        rows: { admin: isAdmin(identity), owner: identity.projectId ?? null },
        readOnly: identity.readOnly,
        requestId: requestId(headers['x-openstack-request-id']),
      }
    },
    headers: (context) => ({ 'x-openstack-request-id': context.requestId }),
    fail: (error, { headers }) =>
      renderFailure(inGeneral(error, failureOf(error, headers['content-type'], provider.challenge)), headers.accept),
    // Its router knew no wrong methods, but for those which have routes of their own.
    refuse: ({ status, ...failure }, { headers }) =>
      status === 405
        ? renderFailure(failureOf(noSuchResource(), undefined, undefined), headers.accept)
        : renderFailure({ status, ...failure }, headers.accept),
    log: ({ requestId, rows: { owner } }) => log.with({ requestId, projectId: owner ?? undefined }),
  }
}
