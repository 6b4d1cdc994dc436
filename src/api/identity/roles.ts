import { type Assignment, expandRoles, ROLES, type RoleName } from '../../auth/standalone/registry.ts'
import type { Standalone } from '../../auth/standalone.ts'
import { ServiceError } from '../../domain/errors.ts'
import type { Route } from '../http/route.ts'
import {
  authorize,
  caller,
  collection,
  flag,
  json,
  type MakeRoute,
  NO_CONTENT,
  parameter,
  type Request,
} from './kit.ts'
import { assignmentView, roleView, roleWithId } from './views.ts'

/** Roles and who has them where. */
export function roleRoutes(standalone: Standalone, route: MakeRoute): readonly Route<undefined>[] {
  const { users, projects, assignments } = standalone

  /** Whom and what a grant's path names. Throws `not-found`. */
  function target({ params }: Request): Omit<Assignment, 'role'> {
    const projectId = params['project_id'] as string | undefined
    return {
      userId: users.get(params['user_id'] as string).id,
      projectId: projectId === undefined ? undefined : projects.get(projectId).id,
    }
  }

  function namedRole({ params }: Request): RoleName {
    const role = roleWithId(params['role_id'])
    if (!role) throw new ServiceError('not-found', `Could not find role: ${params['role_id']}.`)
    return role
  }

  function granted(request: Request): readonly RoleName[] {
    const { userId, projectId } = target(request)
    const where = projectId === undefined ? { system: true } : { projectId }
    return assignments.list({ userId, ...where }).map(({ role }) => role)
  }

  function grants(path: string): readonly Route<undefined>[] {
    return [
      route('GET', path, (request, place) => {
        authorize(standalone, request, 'list_grants')
        const views = granted(request).map((role) => roleView(place, role))
        return collection(request, place, 'roles', views)
      }),
      ...(['GET', 'HEAD'] as const).map((method) =>
        route(method, `${path}/:role_id`, (request) => {
          authorize(standalone, request, 'check_grant')
          const role = namedRole(request)
          if (granted(request).includes(role)) return NO_CONTENT
          throw new ServiceError('not-found', `Could not find role assignment with role: ${role}.`)
        }),
      ),
      route('PUT', `${path}/:role_id`, (request) => {
        authorize(standalone, request, 'create_grant')
        assignments.grant({ ...target(request), role: namedRole(request) })
        return NO_CONTENT
      }),
      route('DELETE', `${path}/:role_id`, (request) => {
        authorize(standalone, request, 'revoke_grant')
        assignments.revoke({ ...target(request), role: namedRole(request) })
        return NO_CONTENT
      }),
    ]
  }

  function nameOf(): (id: string) => string {
    const names = new Map<string, string>([...users.list(), ...projects.list()].map(({ id, name }) => [id, name]))
    return (id) => names.get(id) ?? ''
  }

  /** Each given role with all that it implies. */
  const effective = (given: readonly Assignment[]): readonly Assignment[] =>
    given.flatMap((assignment) => expandRoles([assignment.role]).map((role) => ({ ...assignment, role })))

  return [
    route('GET', '/v3/roles', (request, place) => {
      authorize(standalone, request, 'list_roles')
      return collection(
        request,
        place,
        'roles',
        ROLES.map((role) => roleView(place, role)),
        ['name', 'domain_id'],
      )
    }),
    route('GET', '/v3/roles/:role_id', (request, place) => {
      caller(standalone, request)
      return json({ role: roleView(place, namedRole(request)) })
    }),
    ...grants('/v3/projects/:project_id/users/:user_id/roles'),
    ...grants('/v3/system/users/:user_id/roles'),
    route('GET', '/v3/role_assignments', (request, place) => {
      authorize(standalone, request, 'list_role_assignments')
      const [userId, projectId] = [parameter(request, 'user.id'), parameter(request, 'scope.project.id')]
      const given = assignments.list({
        ...(userId === undefined ? {} : { userId }),
        ...(projectId === undefined ? {} : { projectId }),
        ...(parameter(request, 'scope.system') === undefined ? {} : { system: true }),
      })
      const nobody = ['group.id', 'scope.domain.id'].some((name) => parameter(request, name) !== undefined)
      const roleId = parameter(request, 'role.id')
      const listed = (flag(request, 'effective') ? effective(given) : given).filter(
        ({ role }) => !nobody && (roleId === undefined || role === roleWithId(roleId)),
      )
      const names = flag(request, 'include_names') ? nameOf() : undefined
      return collection(
        request,
        place,
        'role_assignments',
        listed.map((one) => assignmentView(place, one, names)),
      )
    }),
  ]
}
