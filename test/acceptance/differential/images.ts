import type { Generator, World } from './generate.ts'
import { anyImage, type ImageModel, learnImage } from './model.ts'
import { type Asked, jsonBody, query, segment } from './request.ts'
import * as values from './values.ts'

/** Other characters in a path are taken for others there. */
const isAscii = (text: string): boolean => /^[\x20-\x7e]*$/.test(text)
const unlikely =
  ({ random }: World) =>
  () =>
    random.chance(0.6) ? random.uuid() : random.pick(values.IDS)
const anImage = (world: World, wanted?: (image: ImageModel) => boolean): string =>
  anyImage(world.model, world.random, unlikely(world), wanted)
const at = (id: string, rest = ''): string => `/v2/images/${segment(id)}${rest}`
/** Whoever owns the image, most of the time: other callers see little of it. */
const owner = (world: World, id: string) => {
  const image = world.model.images.get(id)
  const owns = { pa: 'alice', pb: 'bob', pc: 'carol' }[image?.owner ?? ''] as values.Caller | undefined
  return owns !== undefined && world.random.chance(0.6) ? owns : world.caller()
}

const create: Generator = (world) => {
  const { random, model } = world
  const draft: Record<string, unknown> = {}
  // Most ids are chosen here: so both servers call the image the same.
  if (random.chance(0.93)) draft['id'] = random.uuid()
  for (const field of random.some(values.WRITABLE, random.below(6))) draft[field] = values.imageValue(random, field)
  if (random.chance(0.3))
    draft[random.pick(values.PROPERTIES)] = random.chance(0.8) ? values.text(random) : random.pick(values.NO_TEXT)
  if (random.chance(0.08))
    draft[random.pick(values.GUARDED)] = values.imageValue(random, random.pick(['owner', 'name', 'min_disk']))
  if (random.chance(0.04)) draft['id'] = random.pick<unknown>([...values.IDS, ...model.images.keys(), 1])
  const touches: { image?: string } = typeof draft['id'] === 'string' ? { image: draft['id'] } : {}
  const hostile = random.chance(0.04)
  const message = hostile
    ? { headers: [['Content-Type', 'application/json']] as const, body: random.pick(values.BROKEN_BODIES) }
    : jsonBody(draft)
  return {
    as: random.weighted<values.Caller>([
      [4, 'alice'],
      [2, 'bob'],
      [1, 'carol'],
      [1, 'ada'],
      [1, 'admin'],
      [1, world.caller()],
    ]),
    route: 'POST /images',
    request: { method: 'POST', target: '/v2/images', ...message },
    touches,
    learn: (status, json) => {
      if (status !== 201) return
      learnImage(model, json as Record<string, unknown>)
      touches.image = (json as { id: string }).id
    },
  }
}

const show: Generator = (world) => {
  const id = anImage(world)
  return { as: world.caller(), route: 'GET /images/:image_id', request: { method: 'GET', target: at(id), headers: [] } }
}

const remove: Generator = (world) => {
  const id = anImage(world)
  return {
    as: owner(world, id),
    route: 'DELETE /images/:image_id',
    request: { method: 'DELETE', target: at(id), headers: [] },
    touches: { image: id },
    learn: (status) => void (status === 204 && world.model.images.delete(id)),
  }
}

const FILTERS: Readonly<Record<string, (world: World) => string>> = {
  name: ({ random }) => random.pick(values.NAMES),
  id: ({ random, model }) => random.pick(['in:a,b', random.uuid(), ...model.images.keys()]),
  status: ({ random }) => random.pick([...values.IMAGE_STATUSES, 'in:queued,active', 'x']),
  visibility: ({ random }) => random.pick([...values.VISIBILITIES, 'all', 'x', '']),
  owner: ({ random }) => random.pick([...values.PROJECTS, 'x', '']),
  member_status: ({ random }) => random.pick(['pending', 'accepted', 'rejected', 'all', 'x']),
  tag: ({ random }) => random.pick(values.TAGS),
  size_min: ({ random }) => random.pick(['0', '1', '10', '-1', '9999999999999999999']),
  size_max: ({ random }) => random.pick(['0', '1', '10', '1000000']),
  min_ram: ({ random }) => random.pick(['0', '512', 'x', '-1']),
  min_disk: ({ random }) => random.pick(['0', '1', '1.5']),
  protected: ({ random }) => random.pick(['true', 'false', 'True', 'x', '1']),
  os_hidden: ({ random }) => random.pick(['true', 'false', 'TRUE', 'x', '']),
  disk_format: ({ random }) => random.pick([...values.DISK_FORMATS, 'in:raw,qcow2', 'x']),
  container_format: ({ random }) =>
    random.pick([...values.CONTAINER_FORMATS, 'in:bare,ovf', 'in:"bare",ovf', 'in:"bare']),
  created_at: ({ random }) =>
    random.pick([
      'gt:2000-01-01T00:00:00Z',
      'lt:2000-01-01T00:00:00Z',
      'gte:2100-01-01',
      'x:y',
      '2000-01-01T00:00:00Z',
      'neq:2000-01-01T00:00:00',
      'gt:',
    ]),
  updated_at: ({ random }) => random.pick(['lte:2100-01-01T00:00:00Z', 'eq:2000-01-01T00:00:00Z', 'gt:yesterday']),
  checksum: ({ random }) => random.pick(['900150983cd24fb0d6963f7d28e17f72', 'x', '']),
  os_hash_algo: ({ random }) => random.pick(['sha512', 'x']),
  os_hash_value: ({ random }) => random.pick(['x', '']),
  os_distro: ({ random }) => random.pick(values.NAMES),
  color: ({ random }) => random.pick(values.NAMES),
  is_public: () => 'true',
  'changes-since': () => '2000-01-01T00:00:00Z',
}
/** Without `id`: some are chosen by the servers, and sorted otherwise on each. */
const SORT_KEYS = [
  'name',
  'status',
  'container_format',
  'disk_format',
  'size',
  'created_at',
  'updated_at',
  'os_hidden',
  'min_disk',
  'owner',
  'visibility',
  'x',
  '',
  'protected',
  'checksum',
]
const DIRECTIONS = ['asc', 'desc', 'ASC', 'x', '']

const list: Generator = (world) => {
  const { random, model } = world
  const pairs: [string, string][] = random
    .some(
      Object.keys(FILTERS),
      random.weighted([
        [3, 0],
        [4, 1],
        [2, 2],
        [1, 3],
      ]),
    )
    .map((name) => [name, FILTERS[name]?.(world) ?? ''])
  if (random.chance(0.3)) pairs.push(['limit', random.pick(['0', '1', '2', '5', '1000', '1001', '-1', 'x', '', '1.5'])])
  if (random.chance(0.15)) pairs.push(['marker', anyImage(model, random, unlikely(world))])
  if (random.chance(0.2))
    pairs.push([
      'sort',
      random.pick([
        'name',
        'name:asc',
        'size:desc,name:asc',
        'name:asc,name',
        'x:asc',
        'name:x',
        ':',
        '',
        'created_at:asc,id:asc',
      ]),
    ])
  else if (random.chance(0.35)) {
    for (const key of random.some(SORT_KEYS, 1 + random.below(2))) pairs.push(['sort_key', key])
    for (const direction of random.some(DIRECTIONS, random.below(3))) pairs.push(['sort_dir', direction])
  }
  if (random.chance(0.03)) pairs.push(['sort', 'name'], ['sort_key', 'name'])
  if (random.chance(0.03)) pairs.push([random.pick(values.HOSTILE_TEXT), 'x'])
  return {
    as: world.caller(),
    route: 'GET /images',
    request: { method: 'GET', target: `/v2/images${query(pairs)}`, headers: [] },
  }
}

const PATCH_TYPES = [
  'application/openstack-images-v2.1-json-patch',
  'application/openstack-images-v2.0-json-patch',
  'application/json',
  'text/plain',
  'application/openstack-images-v2.2-json-patch',
  'application/json-patch+json',
]

function patchOperation(world: World, image: ImageModel | undefined): Record<string, unknown> {
  const { random } = world
  const field = random.weighted([
    [8, random.pick(values.WRITABLE)],
    [4, random.pick(values.PROPERTIES)],
    [1, random.pick(values.GUARDED)],
  ])
  const own = [...(image?.properties ?? [])]
  const name = own.length > 0 && random.chance(0.2) ? random.pick(own) : field
  const pointer = name.replaceAll('~', '~0').replaceAll('/', '~1')
  const path = random.chance(0.05)
    ? random.pick([
        '',
        '/',
        'name',
        '/a/b',
        '//',
        '/a~b',
        '/tags/0',
        '/tags/-',
        '/name/',
        '/~0',
        '/a~1b',
        '/locations/0',
      ])
    : `/${pointer}`
  const op = random.weighted([
    [10, 'replace'],
    [7, 'add'],
    [5, 'remove'],
    [1, random.pick(['test', 'move', 'copy', 'Replace', '', 'x'])],
  ])
  const change: Record<string, unknown> = { op, path, value: values.imageValue(random, name) }
  if (op === 'remove' && random.chance(0.8)) delete change['value']
  if (random.chance(0.04)) delete change[random.pick(['op', 'path', 'value'])]
  if (random.chance(0.02)) change['extra'] = 1
  return change
}

/** `{ add: path, value }`, as the older media type has it. */
const inDraft4 = ({ op, path, ...rest }: Record<string, unknown>): Record<string, unknown> => ({
  [String(op)]: path,
  ...rest,
})

const patch: Generator = (world) => {
  const { random, model } = world
  const id = anImage(world)
  const image = model.images.get(id)
  const type = random.weighted([
    [12, PATCH_TYPES[0]],
    [3, PATCH_TYPES[1]],
    [1, random.pick(PATCH_TYPES)],
  ]) as string
  const changes = Array.from(
    {
      length: random.weighted([
        [6, 1],
        [3, 2],
        [1, 3],
        [0, 0],
      ]),
    },
    () => patchOperation(world, image),
  )
  const body = type === PATCH_TYPES[1] && random.chance(0.9) ? changes.map(inDraft4) : changes
  const message = random.chance(0.03)
    ? {
        headers: [['Content-Type', type]] as const,
        body: random.pick([...values.BROKEN_BODIES, '[]', '[1]', '[[]]', '{}']),
      }
    : jsonBody(body, type)
  return {
    as: owner(world, id),
    route: 'PATCH /images/:image_id',
    request: { method: 'PATCH', target: at(id), ...message },
    touches: { image: id },
    learn: (status, json) => {
      if (status === 200) learnImage(model, json as Record<string, unknown>)
    },
  }
}

/** Never none: an image of no bytes is sorted like one of no size here, and after it there. */
const DATA = ['abc', 'x', '{{a*300}}', 'Hello, world\n', '!hex 514649fb00000003', '!hex 00ff', '{{a*70000}}']

const upload: Generator = (world) => {
  const { random, model } = world
  const id = anImage(world, ({ status }) => status === 'queued')
  const type = random.weighted([
    [12, 'application/octet-stream'],
    [1, random.pick(['application/json', 'text/plain', 'application/octet-stream; charset=x', ''])],
  ])
  const headers: [string, string][] = type === '' ? [] : [['Content-Type', type]]
  if (random.chance(0.15))
    headers.push(['X-Image-Meta-Store', random.pick(['fast', 'cheap', 'nowhere', 'fast,cheap', ''])])
  if (random.chance(0.1)) headers.push(['x-openstack-image-size', random.pick(['3', '0', 'x', '-1', '1000000', '300'])])
  return {
    as: owner(world, id),
    route: 'PUT /images/:image_id/file',
    request: { method: 'PUT', target: at(id, '/file'), headers, body: random.pick(DATA) },
    touches: { image: id },
    // A rejected upload leaves its data behind there.
    spoils: (status) => status === 415,
    learn: (status) => {
      const image = model.images.get(id)
      if (status === 204 && image !== undefined) image.status = 'active'
    },
  }
}

const RANGES = [
  'bytes=0-1',
  'bytes=1-',
  'bytes=-1',
  'bytes=0-0',
  'bytes=5-2',
  'bytes=0-99999',
  'bytes=100000-',
  'bytes=0-1,2-3',
  'bytes=x',
  'chars=0-1',
  'bytes=',
  '',
]

const download: Generator = (world) => {
  const { random } = world
  const id = anImage(world, ({ status }) => status !== 'queued')
  const headers: [string, string][] = []
  if (random.chance(0.5)) headers.push(['Range', random.pick(RANGES)])
  else if (random.chance(0.15))
    headers.push(['Content-Range', random.pick(['bytes 0-1/3', 'bytes 0-1/*', 'bytes */3', 'x', 'bytes 5-1/3'])])
  const prefer = random.chance(0.1) ? query([['prefer', random.pick(['fast', 'cheap,fast', 'x', ''])]]) : ''
  return {
    as: owner(world, id),
    route: 'GET /images/:image_id/file',
    request: { method: 'GET', target: at(id, `/file${prefer}`), headers },
    // What is deactivated is kept in the cache by Glance alone.
    begins: (status) => (status === 200 && !world.model.images.get(id)?.deactivated ? { cached: id } : undefined),
  }
}

const tag: Generator = (world) => {
  const { random, model } = world
  const id = anImage(world)
  const known = [...(model.images.get(id)?.tags ?? [])]
  const adds = random.chance(0.6)
  const value =
    !adds && known.length > 0 && random.chance(0.7)
      ? random.pick(known)
      : random.chance(0.9)
        ? random.pick(values.TAGS)
        : random.pick(values.HOSTILE_TEXT)
  return {
    as: owner(world, id),
    route: `${adds ? 'PUT' : 'DELETE'} /images/:image_id/tags/:tag_value`,
    request: { method: adds ? 'PUT' : 'DELETE', target: at(id, `/tags/${segment(value)}`), headers: [] },
    touches: { image: id },
    spoils: (status) => status === 204 && !isAscii(value),
    learn: (status) => {
      if (status !== 204) return
      if (adds) model.images.get(id)?.tags.add(value)
      else model.images.get(id)?.tags.delete(value)
    },
  }
}

const act: Generator = (world) => {
  const { random, model } = world
  const id = anImage(world, ({ status }) => status !== 'queued')
  const action = random.weighted([
    [4, 'deactivate'],
    [5, 'reactivate'],
  ])
  const body = random.chance(0.05) ? jsonBody({}) : { headers: [] }
  return {
    as: owner(world, id),
    route: `POST /images/:image_id/actions/${action}`,
    request: { method: 'POST', target: at(id, `/actions/${random.chance(0.05) ? 'explode' : action}`), ...body },
    touches: { image: id },
    learn: (status) => {
      const image = model.images.get(id)
      if (status === 204 && image !== undefined) image.deactivated = action === 'deactivate'
    },
  }
}

const MEMBERS = [...values.PROJECTS, 'pd', 'a b', 'x'.repeat(255)]

const member: Generator = (world) => {
  const { random, model } = world
  const id = anImage(world, ({ visibility }) => visibility === 'shared')
  const known = [...(model.images.get(id)?.members ?? [])]
  const who =
    known.length > 0 && random.chance(0.7)
      ? random.pick(known)
      : random.chance(0.93)
        ? random.pick(MEMBERS)
        : random.pick(values.HOSTILE_TEXT.filter(isAscii))
  const one = at(id, `/members/${segment(who)}`)
  const asMember = ({ pa: 'alice', pb: 'bob', pc: 'carol' } as const)[who]
  const common = { touches: { image: id } }
  return random.weighted<() => Asked>([
    [
      5,
      () => {
        const body = random.chance(0.9)
          ? { member: who }
          : random.pick<unknown>([
              {},
              { member: '' },
              { member: null },
              { members: [who] },
              [who],
              { member: who, x: 1 },
            ])
        return {
          ...common,
          as: owner(world, id),
          route: 'POST /images/:image_id/members',
          request: { method: 'POST', target: at(id, '/members'), ...jsonBody(body) },
          learn: (status) => void (status === 200 && model.images.get(id)?.members.add(who)),
        }
      },
    ],
    [
      4,
      () => {
        const body = random.chance(0.9)
          ? { status: random.pick(['pending', 'accepted', 'rejected']) }
          : random.pick<unknown>([{}, { status: 'x' }, { status: null }, ['accepted'], { status: 'Accepted' }])
        const as = asMember !== undefined && random.chance(0.7) ? asMember : world.caller()
        return {
          ...common,
          as,
          route: 'PUT /images/:image_id/members/:member_id',
          request: { method: 'PUT', target: one, ...jsonBody(body) },
        }
      },
    ],
    [
      3,
      () => ({
        as: world.caller(),
        route: 'GET /images/:image_id/members',
        request: { method: 'GET', target: at(id, '/members'), headers: [] },
      }),
    ],
    [
      3,
      () => ({
        as: random.chance(0.5) && asMember !== undefined ? asMember : world.caller(),
        route: 'GET /images/:image_id/members/:member_id',
        request: { method: 'GET', target: one, headers: [] },
      }),
    ],
    [
      2,
      () => ({
        ...common,
        as: owner(world, id),
        route: 'DELETE /images/:image_id/members/:member_id',
        request: { method: 'DELETE', target: one, headers: [] },
        learn: (status) => void (status === 204 && model.images.get(id)?.members.delete(who)),
      }),
    ],
  ])()
}

export const imageGenerators: readonly (readonly [weight: number, generator: Generator])[] = [
  [16, create],
  [8, show],
  [14, list],
  [16, patch],
  [4, remove],
  [9, upload],
  [7, download],
  [7, tag],
  [4, act],
  [10, member],
]
