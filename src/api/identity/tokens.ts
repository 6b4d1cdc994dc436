import type { Token } from '../../auth/standalone/tokens.ts'
import type { Standalone } from '../../auth/standalone.ts'
import { hasKind, ServiceError } from '../../domain/errors.ts'
import type { UserId } from '../../domain/ids.ts'
import type { ApiResponse, Route } from '../http/route.ts'
import { parseLogin } from './bodies.ts'
import { authorize, caller, collection, flag, header, json, type MakeRoute, NO_CONTENT, type Request } from './kit.ts'
import { catalogView, type Place, projectView, tokenView } from './views.ts'

/** Logging in, and what a user may know about the own login. */
export function tokenRoutes(standalone: Standalone, route: MakeRoute): readonly Route<undefined>[] {
  const { tokens, projects, assignments } = standalone

  /** The token that X-Subject-Token names, for its user, an admin or a service. Throws `not-found` for a bad one. */
  function subject(request: Request, action: string): Token {
    caller(standalone, request)
    const text = header(request, 'x-subject-token')
    if (text === undefined) throw new ServiceError('invalid', 'Expecting to find the header X-Subject-Token.')
    const token = readSubject(text, flag(request, 'allow_expired'))
    authorize(standalone, request, action, ({ roles, user }) => roles.includes('service') || user.id === token.user.id)
    return token
  }

  function readSubject(text: string, allowExpired: boolean): Token {
    try {
      return tokens.validate(text, { allowExpired })
    } catch (error) {
      if (!hasKind(error, 'unauthenticated')) throw error
      throw new ServiceError('not-found', 'Could not find the token.')
    }
  }

  const show = (request: Request, place: Place, token: Token, status: number): ApiResponse => ({
    status,
    headers: { 'X-Subject-Token': token.text },
    json: { token: tokenView(place, token, !flag(request, 'nocatalog')) },
  })

  const ownProjects = (userId: UserId) => {
    const ids = new Set(assignments.list({ userId }).map(({ projectId }) => projectId))
    return projects.list().filter(({ id, enabled }) => enabled && ids.has(id))
  }

  return [
    route('POST', '/v3/auth/tokens', async (request, place) => {
      const { unsupported, ...login } = parseLogin(await request.json())
      if (unsupported.length > 0) {
        throw new ServiceError('unauthenticated', 'Attempted to authenticate with an unsupported method.')
      }
      const token = await tokens.issue({ ...login, address: request.remoteAddress ?? '' })
      return show(request, place, token, 201)
    }),
    route('GET', '/v3/auth/tokens', (request, place) => show(request, place, subject(request, 'validate_token'), 200)),
    route('HEAD', '/v3/auth/tokens', (request) => ({
      status: 200,
      headers: { 'X-Subject-Token': subject(request, 'check_token').text },
    })),
    route('DELETE', '/v3/auth/tokens', (request) => {
      tokens.revoke(subject(request, 'revoke_token').text)
      return NO_CONTENT
    }),
    route('GET', '/v3/auth/projects', (request, place) => {
      const { user } = caller(standalone, request)
      return collection(
        request,
        place,
        'projects',
        ownProjects(user.id).map((project) => projectView(place, project)),
      )
    }),
    route('GET', '/v3/auth/domains', (request, place) => {
      caller(standalone, request)
      return collection(request, place, 'domains', [])
    }),
    route('GET', '/v3/auth/system', (request, place) => {
      const { user } = caller(standalone, request)
      const system = assignments.list({ userId: user.id, system: true }).length > 0 ? [{ all: true }] : []
      return json({ system, links: { self: `${place.identityUrl}/v3/auth/system` } })
    }),
    route('GET', '/v3/auth/catalog', (request, place) => {
      if (caller(standalone, request).scope.kind === 'unscoped') {
        throw new ServiceError('forbidden', 'You are not authorized to perform the requested action.')
      }
      return json({ catalog: catalogView(place), links: { self: `${place.identityUrl}/v3/auth/catalog` } })
    }),
    route('GET', '/v3/users/:user_id/projects', (request, place) => {
      const id = request.params['user_id'] as UserId
      authorize(standalone, request, 'list_user_projects', (token) => token.user.id === id)
      standalone.users.get(id)
      const views = ownProjects(id).map((project) => projectView(place, project))
      return collection(request, place, 'projects', views, ['name', 'enabled', 'domain_id'])
    }),
  ]
}
