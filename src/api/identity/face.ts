import type { Standalone } from '../../auth/standalone.ts'
import { ServiceError } from '../../domain/errors.ts'
import { type Failure, STATUS, TITLES } from '../http/errors.ts'
import type { ApiResponse } from '../http/route.ts'
import type { Face } from '../http/server.ts'
import { identityRoutes } from './v3.ts'

const REGION = 'RegionOne'

const keystoneError = (
  status: number,
  message: string,
  headers: Readonly<Record<string, string>> = {},
): ApiResponse => ({
  status,
  headers,
  json: { error: { code: status, message, title: TITLES[status] ?? 'Error' } },
})

/** The built-in Keystone v3 below /identity; its errors look as Keystone's do. */
export const identityFace = (standalone: Standalone, publicEndpoint: string | undefined): Face<undefined> => ({
  prefix: '/identity',
  routes: identityRoutes(standalone, { region: REGION, imageUrl: (request) => publicEndpoint ?? request.baseUrl }),
  enter: async () => undefined,
  headers: () => ({ vary: 'X-Auth-Token' }),
  fail: (error) => {
    if (!(error instanceof ServiceError) || error.kind === 'internal') {
      return keystoneError(500, 'An unexpected error prevented the server from fulfilling your request.')
    }
    const headers = (error.detail['headers'] as Readonly<Record<string, string>> | undefined) ?? {}
    const challenge = error.kind === 'unauthenticated' && standalone.provider.challenge !== undefined
    return keystoneError(STATUS[error.kind], error.message, {
      ...headers,
      ...(challenge ? { 'www-authenticate': standalone.provider.challenge ?? '' } : {}),
    })
  },
  refuse: (failure: Failure) => keystoneError(failure.status, TITLES[failure.status] ?? 'Error', failure.headers),
})
