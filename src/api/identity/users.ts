import type { Standalone } from '../../auth/standalone.ts'
import type { UserId } from '../../domain/ids.ts'
import type { Route } from '../http/route.ts'
import { parseNewUser, parsePasswordChange, parseUserChanges } from './bodies.ts'
import { authorize, collection, json, type MakeRoute, NO_CONTENT, type Request } from './kit.ts'
import { userView } from './views.ts'

export function userRoutes(standalone: Standalone, route: MakeRoute): readonly Route<undefined>[] {
  const { users } = standalone
  const userId = (request: Request) => request.params['user_id'] as UserId
  return [
    route('GET', '/v3/users', (request, place) => {
      authorize(standalone, request, 'list_users')
      const views = users.list().map((user) => userView(place, user))
      return collection(request, place, 'users', views, ['name', 'enabled', 'domain_id'])
    }),
    route('POST', '/v3/users', async (request, place) => {
      authorize(standalone, request, 'create_user')
      return json({ user: userView(place, await users.create(parseNewUser(await request.json()))) }, 201)
    }),
    route('GET', '/v3/users/:user_id', (request, place) => {
      authorize(standalone, request, 'get_user', (token) => token.user.id === userId(request))
      return json({ user: userView(place, users.get(userId(request))) })
    }),
    route('PATCH', '/v3/users/:user_id', async (request, place) => {
      authorize(standalone, request, 'update_user')
      const changes = parseUserChanges(await request.json())
      return json({ user: userView(place, await users.update(userId(request), changes)) })
    }),
    route('DELETE', '/v3/users/:user_id', (request) => {
      authorize(standalone, request, 'delete_user')
      users.delete(userId(request))
      return NO_CONTENT
    }),
    // No token is needed, since the original password says who is asking.
    route('POST', '/v3/users/:user_id/password', async (request) => {
      const { original, password } = parsePasswordChange(await request.json())
      await standalone.changePassword(userId(request), original, password, request.remoteAddress ?? '')
      return NO_CONTENT
    }),
  ]
}
