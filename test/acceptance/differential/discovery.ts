import type { Generator, World } from './generate.ts'
import type { Asked } from './request.ts'
import type { Caller } from './values.ts'

const SCHEMAS = [
  'image',
  'images',
  'member',
  'members',
  ...[
    'namespace',
    'namespaces',
    'object',
    'objects',
    'property',
    'properties',
    'tag',
    'tags',
    'resource_type',
    'resource_types',
  ].map((name) => `metadefs/${name}`),
]
const INFO = ['/info/import', '/info/stores', '/info/stores/detail', '/info/usage']

const read: Generator = (world) => {
  const { random } = world
  const path = random.chance(0.7) ? `/schemas/${random.pick(SCHEMAS)}` : random.pick(INFO)
  return { as: world.caller(), route: `GET ${path}`, request: { method: 'GET', target: `/v2${path}`, headers: [] } }
}

const PATHS = [
  '/v2',
  '/v2/images',
  '/v2/images/x',
  '/v2/images/x/file',
  '/v2/images/x/members',
  '/v2/metadefs/namespaces',
  '/v2/metadefs/namespaces/x/tags',
  '/v2/schemas/image',
  '/v2/info/usage',
  '/v2/nothing',
  '/v2/images/x/nothing',
  '/v2/images/',
  '/v2//images',
  '/v2.9/images',
  '/v2.99/images',
  '/v3/images',
  '/versions',
  '/',
  '/v2/schemas',
  '/v2/metadefs',
  '/v2/info',
  '/v2/stores/fast/x',
  '/v2/images/x/tags/y',
  '/v2/images/x/actions/deactivate',
  '/v2/images/x/members/y',
]
const METHODS = ['GET', 'POST', 'PUT', 'PATCH', 'DELETE', 'HEAD', 'OPTIONS']

/** Methods and paths as they come; `route` says that they are of none. */
const odd: Generator = (world) => {
  const { random } = world
  const accept = random.chance(0.4)
    ? [
        [
          'Accept',
          random.pick([
            'application/json',
            'text/html',
            'text/plain',
            '*/*',
            'application/vnd.openstack.images-v2.9',
            'application/vnd.openstack.images-v99',
            'image/png',
          ]),
        ] as const,
      ]
    : []
  return {
    as: world.caller(),
    route: 'none',
    request: { method: random.pick(METHODS), target: random.pick(PATHS), headers: accept },
  }
}

/** What comes by too rarely: each of these shows a difference that is known. */
const QUIRKS: readonly ((world: World) => Asked)[] = [
  ({ random }) => asking('alice', 'PUT /images/:image_id/file', 'PUT', `/v2/images/${random.uuid()}/file`, 'abc'),
  () => asking('norole', 'GET /images', 'GET', '/v2/images?created_at=gt%3Ayesterday'),
  () => asking('alice', 'GET /images', 'GET', `/v2/images?size_min=${'9'.repeat(19)}`),
  () => asking('alice', 'GET /images', 'GET', '/v2/images?visibility='),
  () => asking('alice', 'GET /images', 'GET', '/v2/images?sort_key=name&sort_key=size&sort_dir=asc'),
  () => asking('alice', 'none', 'PATCH', '/v2/info/usage'),
  () => asking('alice', 'none', 'GET', '/v2//images'),
  () => asking('alice', 'none', 'OPTIONS', '/versions'),
  ({ random }) => {
    const namespace = `ns-${random.below(1e6)}`
    const resource_type_associations = [{ name: 'mine', properties_target: 'x'.repeat(81) }]
    const body = JSON.stringify({ namespace, resource_type_associations })
    const route = 'POST /metadefs/namespaces'
    return { ...asking('admin', route, 'POST', '/v2/metadefs/namespaces', body), touches: { namespaces: [namespace] } }
  },
  ({ random, model }) => {
    const known = [...model.namespaces.keys()]
    const name = known.length === 0 ? 'plain' : random.pick(known)
    return asking(
      'bea',
      'GET /metadefs/namespaces',
      'GET',
      `/v2/metadefs/namespaces?marker=${encodeURIComponent(name)}`,
    )
  },
]
const asking = (as: Caller, route: string, method: string, target: string, body?: string): Asked => ({
  as,
  route,
  request: { method, target, headers: [], ...(body === undefined ? {} : { body }) },
})
const quirk: Generator = (world) => world.random.pick(QUIRKS)(world)

export const discoveryGenerators: readonly (readonly [weight: number, generator: Generator])[] = [
  [9, read],
  [6, odd],
  [8, quirk],
]
