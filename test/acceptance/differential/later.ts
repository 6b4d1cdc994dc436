import type { Generator, World } from './generate.ts'
import { anyImage } from './model.ts'
import { jsonBody, query, segment } from './request.ts'
import type * as values from './values.ts'

/**
 * What only some servers have: each kind takes part when the route table has the route it needs. Nothing here waits for
 * what goes on behind an answer; what is asked of an image after that is left to those who know when it is over.
 */
interface Later {
  readonly needs: string
  readonly weight: number
  readonly generator: Generator
}

const anImage = (world: World): string => anyImage(world.model, world.random, () => world.random.uuid())
const at = (id: string, rest: string): string => `/v2/images/${segment(id)}${rest}`

const stage: Generator = (world) => {
  const id = anImage(world)
  return {
    as: world.caller(),
    route: 'PUT /images/:image_id/stage',
    request: {
      method: 'PUT',
      target: at(id, '/stage'),
      headers: [['Content-Type', 'application/octet-stream']],
      body: 'abc',
    },
    touches: { image: id },
  }
}

/** Only such as are refused at once: one that is taken goes on in its own time. */
const refusedImport: Generator = (world) => {
  const { random } = world
  const id = random.chance(0.5) ? random.uuid() : anImage(world)
  const bodies: readonly unknown[] = [
    {},
    { method: {} },
    { method: { name: 'x' } },
    { method: { name: 'web-download' } },
    { method: { name: 'web-download', uri: 'x' } },
    { method: { name: 'web-download', uri: 'file:///etc/passwd' } },
    { method: 'x' },
    [],
    { method: { name: 'glance-direct' }, stores: ['x'] },
    { method: { name: 'copy-image' }, all_stores: true, stores: ['fast'] },
  ]
  return {
    as: world.caller(),
    route: 'POST /images/:image_id/import',
    request: { method: 'POST', target: at(id, '/import'), ...jsonBody(random.pick(bodies)) },
    touches: { image: id },
  }
}

const tasksOf: Generator = (world) => ({
  as: world.caller(),
  route: 'GET /images/:image_id/tasks',
  request: { method: 'GET', target: at(anImage(world), '/tasks'), headers: [] },
})

const task: Generator = (world) => {
  const { random } = world
  const pairs: [string, string][] = random.chance(0.5)
    ? [
        [
          random.pick(['status', 'type', 'limit', 'sort_key', 'marker']),
          random.pick(['x', 'pending', 'import', '1', 'created_at', '-1']),
        ],
      ]
    : []
  return random.chance(0.5)
    ? {
        as: world.caller(),
        route: 'GET /tasks',
        request: { method: 'GET', target: `/v2/tasks${query(pairs)}`, headers: [] },
      }
    : {
        as: world.caller(),
        route: 'GET /tasks/:task_id',
        request: { method: 'GET', target: `/v2/tasks/${random.pick(['x', random.uuid()])}`, headers: [] },
      }
}

const addLocation: Generator = (world) => {
  const { random } = world
  const id = anImage(world)
  const bodies: readonly unknown[] = [
    {},
    { url: 1 },
    { url: 'file:///etc/passwd' },
    { url: 'x' },
    { url: 'http://127.0.0.1:1/x', validation_data: { os_hash_algo: 'x' } },
    { url: 'http://127.0.0.1:1/x', validation_data: {} },
    [],
  ]
  return {
    as: random.pick<values.Caller>(['alice', 'rita', 'bob', 'service']),
    route: 'POST /images/:image_id/locations',
    request: { method: 'POST', target: at(id, '/locations'), ...jsonBody(random.pick(bodies)) },
    touches: { image: id },
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
  { needs: 'PUT /images/:image_id/stage', weight: 3, generator: stage },
  { needs: 'POST /images/:image_id/import', weight: 4, generator: refusedImport },
  { needs: 'GET /images/:image_id/tasks', weight: 2, generator: tasksOf },
  { needs: 'GET /tasks', weight: 2, generator: task },
  { needs: 'POST /images/:image_id/locations', weight: 3, generator: addLocation },
  { needs: 'GET /cache', weight: 5, generator: cache },
]
