// What src/auth/standalone.ts knows → JSON as Keystone v3 writes it.
import {
  type Assignment,
  DOMAIN,
  fixedId,
  type Project,
  ROLES,
  type RoleName,
  type User,
} from '../../auth/standalone/registry.ts'
import type { Token } from '../../auth/standalone/tokens.ts'

type Json = Readonly<Record<string, unknown>>

/** What the answers say about where things are. */
export interface Place {
  /** Of this face, without `/v3`. */
  readonly identityUrl: string
  readonly imageUrl: string
  readonly region: string
}

const self = (place: Place, path: string) => ({ links: { self: `${place.identityUrl}/v3/${path}` } })

/** Microseconds, as Keystone writes them. */
const instant = (date: Date) => date.toISOString().replace('Z', '000Z')

export const versionView = (place: Place): Json => ({
  id: 'v3.14',
  status: 'stable',
  updated: '2020-04-07T00:00:00Z',
  links: [{ rel: 'self', href: `${place.identityUrl}/v3/` }],
  'media-types': [{ base: 'application/json', type: 'application/vnd.openstack.identity-v3+json' }],
})

export const userView = (place: Place, { id, name, enabled, extra }: User): Json => ({
  ...extra,
  id,
  name,
  domain_id: DOMAIN.id,
  enabled,
  password_expires_at: null,
  options: {},
  ...self(place, `users/${id}`),
})

export const projectView = (place: Place, { id, name, enabled, extra }: Project): Json => ({
  description: '',
  tags: [],
  ...extra,
  id,
  name,
  domain_id: DOMAIN.id,
  enabled,
  parent_id: DOMAIN.id,
  is_domain: false,
  options: {},
  ...self(place, `projects/${id}`),
})

export const domainView = (place: Place): Json => ({
  ...DOMAIN,
  description: 'The default domain',
  enabled: true,
  tags: [],
  options: {},
  ...self(place, `domains/${DOMAIN.id}`),
})

const roleId = (role: RoleName) => fixedId(`role ${role}`)

export const roleWithId = (id: string | undefined): RoleName | undefined => ROLES.find((role) => roleId(role) === id)

export const roleView = (place: Place, role: RoleName): Json => ({
  id: roleId(role),
  name: role,
  domain_id: null,
  description: null,
  options: { immutable: true },
  ...self(place, `roles/${roleId(role)}`),
})

export const regionView = (place: Place): Json => ({
  id: place.region,
  description: '',
  parent_region_id: null,
  ...self(place, `regions/${place.region}`),
})

const services = (place: Place) => [
  { id: fixedId('service identity'), type: 'identity', name: 'keystone', url: `${place.identityUrl}/v3` },
  { id: fixedId('service image'), type: 'image', name: 'glance', url: place.imageUrl },
]

const endpoints = (place: Place, type: string, url: string) =>
  ['public', 'internal', 'admin'].map((side) => ({
    id: fixedId(`endpoint ${type} ${side}`),
    interface: side,
    region_id: place.region,
    region: place.region,
    url,
  }))

export const catalogView = (place: Place): readonly Json[] =>
  services(place).map(({ url, ...service }) => ({ ...service, endpoints: endpoints(place, service.type, url) }))

export const serviceViews = (place: Place): readonly Json[] =>
  services(place).map(({ url: _, ...service }) => ({
    ...service,
    enabled: true,
    ...self(place, `services/${service.id}`),
  }))

export const endpointViews = (place: Place): readonly Json[] =>
  services(place).flatMap(({ id, type, url }) =>
    endpoints(place, type, url).map((endpoint) => ({
      ...endpoint,
      service_id: id,
      enabled: true,
      ...self(place, `endpoints/${endpoint.id}`),
    })),
  )

export function tokenView(place: Place, token: Token, withCatalog: boolean): Json {
  const [own, ...ancestors] = token.auditIds
  const root = ancestors.at(-1)
  const { project, scope } = token
  return {
    methods: token.methods,
    user: { domain: DOMAIN, id: token.user.id, name: token.user.name, password_expires_at: null },
    audit_ids: root === undefined ? [own] : [own, root],
    expires_at: instant(token.expiresAt),
    issued_at: instant(token.issuedAt),
    ...(project ? { project: { domain: DOMAIN, id: project.id, name: project.name }, is_domain: false } : {}),
    ...(scope.kind === 'system' ? { system: { all: true } } : {}),
    ...(scope.kind === 'unscoped' ? {} : { roles: token.roles.map((role) => ({ id: roleId(role), name: role })) }),
    ...(scope.kind !== 'unscoped' && withCatalog ? { catalog: catalogView(place) } : {}),
  }
}

/** `names` gives the name of a user or project id, or nothing when the client did not ask for names. */
export function assignmentView(
  place: Place,
  { userId, projectId, role }: Assignment,
  names: ((id: string) => string) | undefined,
): Json {
  const named = (id: string) => (names ? { id, name: names(id), domain: DOMAIN } : { id })
  const where = projectId === undefined ? 'system' : `projects/${projectId}`
  return {
    links: { assignment: `${place.identityUrl}/v3/${where}/users/${userId}/roles/${roleId(role)}` },
    scope: projectId === undefined ? { system: { all: true } } : { project: named(projectId) },
    user: named(userId),
    role: { id: roleId(role), ...(names ? { name: role } : {}) },
  }
}
