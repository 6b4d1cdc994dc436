import { createHash } from 'node:crypto'
import type { Generator, World } from './generate.ts'
import { anyImage, type ImageModel, learnImage } from './model.ts'
import { type Asked, jsonBody, segment } from './request.ts'
import { CONTENTS } from './source.ts'
import type * as values from './values.ts'

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

/** What has become of an image. */
export const imageAgain = ({ model }: World, id: string): Asked => ({
  as: 'admin',
  route: 'GET /images/:image_id',
  request: { method: 'GET', target: at(id), headers: [] },
  touches: { image: id },
  learn: (status, json) => {
    if (status === 200) learnImage(model, json as Record<string, unknown>)
  },
})

/** That, and what its tasks say of it. */
const outcome = (world: World, id: string): readonly Asked[] => [
  imageAgain(world, id),
  {
    as: 'admin',
    route: 'GET /images/:image_id/tasks',
    request: { method: 'GET', target: at(id, '/tasks'), headers: [] },
    touches: { image: id },
  },
]

const stage: Generator = (world) => {
  const { random, model } = world
  const inactive = random.chance(0.15)
  const id = anImage(world, ({ status }) => (inactive ? status !== 'queued' : status === 'queued'))
  const type = random.weighted([
    [12, 'application/octet-stream'],
    [1, 'text/plain'],
  ])
  return {
    as: owner(world, id),
    route: 'PUT /images/:image_id/stage',
    request: {
      method: 'PUT',
      target: at(id, '/stage'),
      headers: [['Content-Type', type]],
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
  { stores: ['fast', 'cheap'], all_stores_must_succeed: true },
  { all_stores: true },
  { all_stores: true, all_stores_must_succeed: false },
  { all_stores: false, stores: ['cheap'] },
  { stores: ['x'] },
  { stores: ['fast', 'x'], all_stores_must_succeed: false },
  { stores: 'fast' },
  { all_stores: true, stores: ['fast'] },
  { all_stores: 'yes' },
  { all_stores_must_succeed: 1 },
]
const COPIES: readonly Readonly<Record<string, unknown>>[] = [
  { stores: ['cheap'] },
  { stores: ['fast'] },
  { all_stores: true },
  { all_stores: true, all_stores_must_succeed: false },
  {},
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
  { name: 'copy-image' },
]

const imports: Generator = (world) => {
  const { random } = world
  const wanted = random.pick(Object.keys(METHODS))
  const inactive = random.chance(0.05)
  const id = random.chance(0.04)
    ? random.uuid()
    : anImage(world, ({ status }) => status === (inactive ? 'deactivated' : wanted))
  const method = random.chance(0.2) ? random.pick(NO_METHODS) : METHODS[wanted]?.(world)
  const copies = wanted === 'active' && random.chance(0.7)
  const body = random.chance(0.04) ? [] : { method, ...random.pick(copies ? COPIES : STORES) }
  const store = random.chance(0.05) ? [['X-Image-Meta-Store', random.pick(['cheap', 'x'])] as const] : []
  const { headers, ...message } = jsonBody(body)
  return {
    as: copies ? 'admin' : owner(world, id),
    route: 'POST /images/:image_id/import',
    request: { method: 'POST', target: at(id, '/import'), headers: [...headers, ...store], ...message },
    touches: { image: id },
    begins: (status) => (status === 202 ? { image: id, follow: () => outcome(world, id) } : undefined),
  }
}

/** An image that is ready to be imported into: others are refused mostly for their formats. */
const ready = ({ random, model }: World, id = random.uuid()): Asked => {
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

/** The last two of a course: such an import leaves a task there and none here, which all lists of tasks would show. */
export function finale(world: World): readonly Asked[] {
  const id = world.random.uuid()
  const { as, ...created } = ready(world, id)
  const body = { method: { name: 'web-download', uri: `${world.source}/abc` }, stores: [] }
  const imported = { method: 'POST', target: at(id, '/import'), ...jsonBody(body) }
  return [
    { as, ...created },
    { as, route: 'POST /images/:image_id/import', request: imported, touches: { image: id } },
  ]
}

const digest = (algorithm: string, text: string): string => createHash(algorithm).update(text).digest('hex')
const stated = (algorithm: string, text: string) => ({
  os_hash_algo: algorithm,
  os_hash_value: digest(algorithm, text),
})

const addLocation: Generator = (world) => {
  const { random, source } = world
  const inactive = random.chance(0.1)
  const id = anImage(world, ({ status }) => (inactive ? status !== 'queued' : status === 'queued'))
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
    begins: (status) => (status === 202 ? { image: id, follow: () => outcome(world, id) } : undefined),
  }
}

const locations: Generator = (world) => ({
  as: world.random.pick<values.Caller>(['service', 'admin', 'ada', 'alice', 'rita']),
  route: 'GET /images/:image_id/locations',
  request: { method: 'GET', target: at(anImage(world), '/locations'), headers: [] },
})

const STORE_IDS = ['fast', 'cheap', 'fast', 'cheap', 'web', 'nowhere', 'os_glance_staging_store', '..']

/** Takes an image out of a store: those with more than one are likely. */
const deleteFromStore: Generator = (world) => {
  const { random } = world
  const id = anImage(world, ({ stores }) => stores.length > 1)
  return {
    as: random.pick<values.Caller>(['admin', 'ada', 'alice', 'bob']),
    route: 'DELETE /stores/:store_id/:image_id',
    request: { method: 'DELETE', target: `/v2/stores/${random.pick(STORE_IDS)}/${segment(id)}`, headers: [] },
    touches: { image: id },
    begins: (status) => (status === 204 ? { follow: () => [imageAgain(world, id)] } : undefined),
  }
}

const tasks: Generator = (world) => ({
  as: world.caller(),
  route: 'GET /images/:image_id/tasks',
  request: { method: 'GET', target: at(anImage(world), '/tasks'), headers: [] },
})

export const importGenerators: readonly (readonly [weight: number, generator: Generator])[] = [
  [5, (world) => ready(world)],
  [4, stage],
  [7, imports],
  [4, addLocation],
  [2, locations],
  [2, deleteFromStore],
  [2, tasks],
]
