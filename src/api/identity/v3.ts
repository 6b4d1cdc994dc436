import type { Standalone } from '../../auth/standalone.ts'
import { ServiceError } from '../../domain/errors.ts'
import type { Route } from '../http/route.ts'
import { authorize, collection, type Handler, type Json, json, type MakeRoute, type Request } from './kit.ts'
import { projectRoutes } from './projects.ts'
import { roleRoutes } from './roles.ts'
import { tokenRoutes } from './tokens.ts'
import { userRoutes } from './users.ts'
import { endpointViews, type Place, regionView, serviceViews, versionView } from './views.ts'

export interface IdentityFace {
  /** The image endpoint of the catalog, as the client of `request` reaches it. */
  readonly imageUrl: (request: Request) => string
  readonly region: string
}

/** Where the face is mounted. */
const PREFIX = '/identity'

/**
 * The part of Keystone v3 that clients need to log in and to look after users, projects and roles. Users may read
 * themselves and their projects; the admin role, on whatever project or on the system, may do everything.
 */
export function identityRoutes(standalone: Standalone, face: IdentityFace): readonly Route<undefined>[] {
  const route: MakeRoute = (method, path, handler) => ({
    method,
    path,
    handle: async (request) => {
      const identityUrl = request.baseUrl + PREFIX
      return handler(request, { identityUrl, imageUrl: face.imageUrl(request), region: face.region })
    },
  })
  return [
    ...discoveryRoutes(route),
    ...tokenRoutes(standalone, route),
    ...userRoutes(standalone, route),
    ...projectRoutes(standalone, route),
    ...roleRoutes(standalone, route),
    ...catalogRoutes(standalone, route),
  ]
}

function discoveryRoutes(route: MakeRoute) {
  const version: Handler = (_request, place) => json({ version: versionView(place) })
  return [
    route('GET', '/', (_request, place) => ({
      status: 300,
      headers: { Location: `${place.identityUrl}/v3/` },
      json: { versions: { values: [versionView(place)] } },
    })),
    route('GET', '/v3', version),
    route('GET', '/v3/', version),
  ]
}

function catalogRoutes(standalone: Standalone, route: MakeRoute) {
  function readOnly(
    kind: string,
    views: (place: Place) => readonly Json[],
    filters: readonly string[],
    isPublic = false,
  ) {
    return [
      route('GET', `/v3/${kind}s`, (request, place) => {
        authorize(standalone, request, `list_${kind}s`, () => isPublic)
        return collection(request, place, `${kind}s`, views(place), filters)
      }),
      route('GET', `/v3/${kind}s/:id`, (request, place) => {
        authorize(standalone, request, `get_${kind}`, () => isPublic)
        const view = views(place).find(({ id }) => id === request.params['id'])
        if (!view) throw new ServiceError('not-found', `Could not find ${kind}: ${request.params['id']}.`)
        return json({ [kind]: view })
      }),
    ]
  }
  return [
    ...readOnly('service', serviceViews, ['name', 'type']),
    ...readOnly('endpoint', endpointViews, ['interface', 'service_id', 'region_id']),
    ...readOnly('region', (place) => [regionView(place)], [], true),
  ]
}
