import { createHash } from 'node:crypto'
import type { Generator, World } from './generate.ts'
import { anyImage, type ImageModel, learnImage } from './model.ts'
import { type Asked, jsonBody, query, segment } from './request.ts'
import { CONTENTS } from './source.ts'
import type * as values from './values.ts'

/** What only some servers have: each kind takes part when the route table has the route it needs. */
interface Later {
  readonly needs: string
  readonly weight: number
  readonly generator: Generator
}

const anImage = (world: World, wanted?: (image: ImageModel) => boolean): string =>
  anyImage(world.model, world.random, () => world.random.uuid(), wanted)
const at = (id: string, rest = ''): string => `/v2/images/${segment(id)}${rest}`

/** A project's member where there is one, so that most requests are allowed. */
function owner({ random, model, caller }: World, id: string): values.Caller {
  const likely = { pa: 'alice', pb: 'bob', pc: 'carol' } as const
  const project = model.images.get(id)?.owner
  return project !== undefined && project in likely && random.chance(0.8)
    ? likely[project as keyof typeof likely]
    : caller()
}

/** What has become of an image, and what its tasks say of it. */
const outcome = ({ model }: World, id: string): readonly Asked[] => [
  {
    as: 'admin',
    route: 'GET /images/:image_id',
    request: { method: 'GET', target: at(id), headers: [] },
    touches: { image: id },
    learn: (status, json) => {
      if (status === 200) learnImage(model, json as Record<string, unknown>)
    },
  },
  {
    as: 'admin',
    route: 'GET /images/:image_id/tasks',
    request: { method: 'GET', target: at(id, '/tasks'), headers: [] },
    touches: { image: id },
  },
]

const stage: Generator = (world) => {
  const { random, model } = world
  const id = anImage(world, ({ status }) => status === 'queued')
  return {
    as: owner(world, id),
    route: 'PUT /images/:image_id/stage',
    request: {
      method: 'PUT',
      target: at(id, '/stage'),
      headers: [
        [
          'Content-Type',
          random.weighted([
            [12, 'application/octet-stream'],
            [1, 'text/plain'],
          ]),
        ],
      ],
      body: random.pick(['abc', 'Hello, world\n', '{{a*70000}}']),
    },
    touches: { image: id },
    learn: (status) => {
      const image = model.images.get(id)
      if (status === 204 && image !== undefined) image.status = 'uploading'
    },
  }
}

const STORES: readonly Readonly<Record<string, unknown>>[] = [
  {},
  {},
  {},
  { stores: ['fast'] },
  { stores: ['cheap', 'fast'] },
  { stores: ['cheap'], all_stores_must_succeed: false },
  { stores: ['x'] },
  { stores: 'fast' },
  { all_stores: true, stores: ['fast'] },
  { all_stores: 'yes' },
  { all_stores_must_succeed: 1 },
]

/** Ways to import into images of a status. */
const METHODS: Readonly<Record<string, (world: World) => unknown>> = {
  queued: ({ random, source }) => ({
    name: 'web-download',
    uri: `${source}${random.pick([...Object.keys(CONTENTS), ...Object.keys(CONTENTS), '/none'])}`,
  }),
  uploading: () => ({ name: 'glance-direct' }),
  active: () => ({ name: 'copy-image' }),
}
const NO_METHODS: readonly unknown[] = [
  undefined,
  {},
  'x',
  { name: 'x' },
  { name: 'web-download' },
  { name: 'web-download', uri: 'x' },
  { name: 'web-download', uri: 'file:///etc/passwd' },
  { name: 'web-download', uri: 'http://127.0.0.1:1/x' },
  { name: 'glance-direct' },
]

const imports: Generator = (world) => {
  const { random } = world
  const wanted = random.pick(Object.keys(METHODS))
  const id = random.chance(0.04) ? random.uuid() : anImage(world, ({ status }) => status === wanted)
  const method = random.chance(0.2) ? random.pick(NO_METHODS) : METHODS[wanted]?.(world)
  const body = random.chance(0.04) ? [] : { method, ...random.pick(STORES) }
  const copies = wanted === 'active' && random.chance(0.7)
  const touches = { image: id }
  return {
    as: copies ? 'admin' : owner(world, id),
    route: 'POST /images/:image_id/import',
    request: {
      method: 'POST',
      target: at(id, '/import'),
      ...jsonBody(copies ? { method, stores: [random.pick(['cheap', 'fast'])] } : body),
    },
    touches,
    begins: (status) => (status === 202 ? { image: id, follow: outcome(world, id) } : undefined),
  }
}

/** An image that is ready to be imported into: others are refused mostly for their formats. */
const ready: Generator = (world) => {
  const { random, model } = world
  const id = random.uuid()
  const body = { id, disk_format: 'raw', container_format: 'bare', name: 'ready' }
  return {
    as: random.pick<values.Caller>(['alice', 'bob']),
    route: 'POST /images',
    request: { method: 'POST', target: '/v2/images', ...jsonBody(body) },
    touches: { image: id },
    learn: (status, json) => {
      if (status === 201) learnImage(model, json as Record<string, unknown>)
    },
  }
}

const tasksOf: Generator = (world) => ({
  as: world.caller(),
  route: 'GET /images/:image_id/tasks',
  request: { method: 'GET', target: at(anImage(world), '/tasks'), headers: [] },
})

const TASK_FILTERS: Readonly<Record<string, readonly string[]>> = {
  status: ['pending', 'success', 'failure', 'x', ''],
  type: ['import', 'api_image_import', 'x'],
  limit: ['0', '1', '3', '-1', 'x'],
  sort_key: ['created_at', 'status', 'type', 'x'],
  sort_dir: ['asc', 'desc', 'x'],
  owner: ['pa', 'x'],
  x: ['y'],
}

const readTasks: Generator = (world) => {
  const { random, model } = world
  const as = random.weighted<values.Caller>([
    [3, 'admin'],
    [2, 'ada'],
    [1, world.caller()],
  ])
  const id = () =>
    random.weighted([
      [6, random.pick([...model.tasks, random.uuid()])],
      [1, random.uuid()],
      [1, 'x'],
    ])
  return random.weighted<() => Asked>([
    [
      4,
      () => {
        const names = random.some(Object.keys(TASK_FILTERS), random.below(3))
        const pairs = names.map((name) => [name, random.pick(TASK_FILTERS[name] ?? [])] as const)
        const target = `/v2/tasks${query(random.chance(0.2) ? [...pairs, ['marker', id()]] : pairs)}`
        return { as, route: 'GET /tasks', request: { method: 'GET', target, headers: [] } }
      },
    ],
    [
      3,
      () => ({
        as,
        route: 'GET /tasks/:task_id',
        request: { method: 'GET', target: `/v2/tasks/${id()}`, headers: [] },
      }),
    ],
    [
      1,
      () => ({
        as,
        route: 'DELETE /tasks/:task_id',
        request: { method: 'DELETE', target: `/v2/tasks/${id()}`, headers: [] },
      }),
    ],
  ])()
}

const createTask: Generator = (world) => {
  const { random, source, model } = world
  // Without an owner, only administrators see it there.
  const properties = { name: 'of a task', disk_format: 'raw', container_format: 'bare', owner: 'pa' }
  const input = { import_from: `${source}/abc`, import_from_format: 'raw', image_properties: properties }
  const bodies: readonly (readonly [number, unknown])[] = [
    [6, { type: 'import', input }],
    [1, { type: 'import', input: { ...input, import_from: `${source}/none` } }],
    [1, { type: 'import', input: { ...input, import_from: 'file:///etc/passwd' } }],
    [1, { type: 'import', input: { ...input, import_from: 'ftp://127.0.0.1/x' } }],
    [1, { type: 'import', input: { ...input, import_from: 1 } }],
    [1, { type: 'import', input: { import_from: `${source}/abc` } }],
    [1, { type: 'import', input: {} }],
    [1, { type: 'import' }],
    [1, { type: 'x', input }],
    [1, { type: 'api_image_import', input: {} }],
    [1, { type: 'import', input, status: 'success' }],
    [1, { input }],
    [1, []],
    [1, {}],
  ]
  let id = ''
  return {
    as: random.weighted<values.Caller>([
      [4, 'admin'],
      [2, 'ada'],
      [1, world.caller()],
    ]),
    route: 'POST /tasks',
    request: { method: 'POST', target: '/v2/tasks', ...jsonBody(random.weighted(bodies)) },
    learn: (status, json) => {
      if (status !== 201) return
      id = (json as { id: string }).id
      model.tasks.push(id)
    },
    begins: (status) =>
      status === 201
        ? {
            task: id,
            follow: [
              {
                as: 'admin',
                route: 'GET /tasks/:task_id',
                request: { method: 'GET', target: `/v2/tasks/${id}`, headers: [] },
              },
            ],
          }
        : undefined,
  }
}

const schemas: Generator = (world) => {
  const path = world.random.pick(['/schemas/task', '/schemas/tasks'])
  return { as: world.caller(), route: `GET ${path}`, request: { method: 'GET', target: `/v2${path}`, headers: [] } }
}

const digest = (algorithm: string, text: string): string => createHash(algorithm).update(text).digest('hex')
const stated = (algorithm: string, text: string) => ({
  os_hash_algo: algorithm,
  os_hash_value: digest(algorithm, text),
})

const addLocation: Generator = (world) => {
  const { random, source } = world
  const id = anImage(world, ({ status }) => status === 'queued')
  const url = `${source}/abc`
  const bodies: readonly (readonly [number, unknown])[] = [
    [3, { url }],
    [3, { url, validation_data: stated('sha512', 'abc') }],
    [1, { url, validation_data: stated('sha256', 'abc') }],
    [1, { url, validation_data: stated('sha512', 'abd') }],
    [1, { url, validation_data: { os_hash_algo: 'sha512', os_hash_value: 'x' } }],
    [1, { url, validation_data: { os_hash_algo: 'sha512', os_hash_value: 'ab' } }],
    [1, { url: `${source}/none` }],
    [1, {}],
    [1, { url: 1 }],
    [1, { url: 'file:///etc/passwd' }],
    [1, { url: 'x' }],
    [1, { url, validation_data: { os_hash_algo: 'x' } }],
    [1, { url, validation_data: {} }],
    [1, []],
  ]
  return {
    as: random.chance(0.5) ? owner(world, id) : random.pick<values.Caller>(['alice', 'rita', 'bob', 'service']),
    route: 'POST /images/:image_id/locations',
    request: { method: 'POST', target: at(id, '/locations'), ...jsonBody(random.weighted(bodies)) },
    touches: { image: id },
    begins: (status) => (status === 202 ? { image: id, follow: outcome(world, id) } : undefined),
  }
}

/** Both servers are without a cache: it is the rules and the words that are compared. */
const cache: Generator = (world) => {
  const { random } = world
  const id = anImage(world)
  const [method, path, route] = random.pick([
    ['GET', '/cache', '/cache'],
    ['DELETE', '/cache', '/cache'],
    ['PUT', `/cache/${id}`, '/cache/:image_id'],
    ['DELETE', `/cache/${id}`, '/cache/:image_id'],
    ['GET', `/cache/nodes/${id}`, '/cache/nodes/:image_id'],
    ['POST', '/cache/clean', '/cache/clean'],
    ['POST', '/cache/prune', '/cache/prune'],
  ] as const)
  return {
    as: world.caller(),
    route: `${method} ${route}`,
    request: { method, target: `/v2${path.replaceAll(' ', '%20').replaceAll('ü', '%C3%BC')}`, headers: [] },
  }
}

export const laterGenerators: readonly Later[] = [
  { needs: 'POST /images/:image_id/import', weight: 5, generator: ready },
  { needs: 'PUT /images/:image_id/stage', weight: 4, generator: stage },
  { needs: 'POST /images/:image_id/import', weight: 7, generator: imports },
  { needs: 'GET /images/:image_id/tasks', weight: 2, generator: tasksOf },
  { needs: 'GET /tasks', weight: 3, generator: readTasks },
  { needs: 'POST /tasks', weight: 2, generator: createTask },
  { needs: 'GET /schemas/task', weight: 1, generator: schemas },
  { needs: 'POST /images/:image_id/locations', weight: 4, generator: addLocation },
  { needs: 'GET /cache', weight: 5, generator: cache },
]
