import { DOMAIN } from '../../auth/standalone/registry.ts'
import type { Token } from '../../auth/standalone/tokens.ts'
import type { Standalone } from '../../auth/standalone.ts'
import { ServiceError } from '../../domain/errors.ts'
import type { ProjectId } from '../../domain/ids.ts'
import type { Route } from '../http/route.ts'
import { parseNewProject, parseProjectChanges } from './bodies.ts'
import { authorize, caller, collection, json, type MakeRoute, NO_CONTENT, type Request } from './kit.ts'
import { domainView, projectView } from './views.ts'

/** Projects, and the one domain they are in. */
export function projectRoutes(standalone: Standalone, route: MakeRoute): readonly Route<undefined>[] {
  const { projects, assignments } = standalone
  const projectId = (request: Request) => request.params['project_id'] as ProjectId
  return [
    route('GET', '/v3/projects', (request, place) => {
      authorize(standalone, request, 'list_projects')
      const views = projects.list().map((project) => projectView(place, project))
      return collection(request, place, 'projects', views, ['name', 'enabled', 'domain_id', 'parent_id', 'is_domain'])
    }),
    route('POST', '/v3/projects', async (request, place) => {
      authorize(standalone, request, 'create_project')
      return json({ project: projectView(place, await projects.create(parseNewProject(await request.json()))) }, 201)
    }),
    route('GET', '/v3/projects/:project_id', (request, place) => {
      const id = projectId(request)
      const isMine = (token: Token) => assignments.list({ userId: token.user.id, projectId: id }).length > 0
      authorize(standalone, request, 'get_project', isMine)
      return json({ project: projectView(place, projects.get(id)) })
    }),
    route('PATCH', '/v3/projects/:project_id', async (request, place) => {
      authorize(standalone, request, 'update_project')
      const changes = parseProjectChanges(await request.json())
      return json({ project: projectView(place, await projects.update(projectId(request), changes)) })
    }),
    route('DELETE', '/v3/projects/:project_id', (request) => {
      authorize(standalone, request, 'delete_project')
      projects.delete(projectId(request))
      return NO_CONTENT
    }),
    route('GET', '/v3/domains', (request, place) => {
      authorize(standalone, request, 'list_domains')
      return collection(request, place, 'domains', [domainView(place)], ['name', 'enabled'])
    }),
    route('GET', '/v3/domains/:domain_id', (request, place) => {
      caller(standalone, request)
      const id = request.params['domain_id']
      if (id !== DOMAIN.id) throw new ServiceError('not-found', `Could not find domain: ${id}.`)
      return json({ domain: domainView(place) })
    }),
  ]
}
