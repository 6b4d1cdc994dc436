import type { Generator } from './generate.ts'
import { imageAgain } from './imports.ts'
import { type Asked, jsonBody, query } from './request.ts'
import type * as values from './values.ts'

const FILTERS: Readonly<Record<string, readonly string[]>> = {
  status: ['pending', 'success', 'failure', 'x', ''],
  type: ['import', 'api_image_import', 'location_import', 'x'],
  limit: ['0', '1', '3', '-1', 'x'],
  sort_key: ['created_at', 'status', 'type', 'x'],
  sort_dir: ['asc', 'desc', 'x'],
  owner: ['pa', 'x'],
  x: ['y'],
}

const show = (as: values.Caller, id: string): Asked => ({
  as,
  route: 'GET /tasks/:task_id',
  request: { method: 'GET', target: `/v2/tasks/${id}`, headers: [] },
})

const read: Generator = (world) => {
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
        const names = random.some(Object.keys(FILTERS), random.below(3))
        const pairs = names.map((name) => [name, random.pick(FILTERS[name] ?? [])] as const)
        const target = `/v2/tasks${query(random.chance(0.2) ? [...pairs, ['marker', id()]] : pairs)}`
        return { as, route: 'GET /tasks', request: { method: 'GET', target, headers: [] } }
      },
    ],
    [3, () => show(as, id())],
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

const create: Generator = (world) => {
  const { random, source, model } = world
  const named = { name: 'of a task', disk_format: 'raw', container_format: 'bare' }
  // Without an owner, only administrators see it there.
  const properties = random.chance(0.2) ? named : { ...named, owner: 'pa' }
  const input = { import_from: `${source}/abc`, import_from_format: 'raw', image_properties: properties }
  const bodies: readonly (readonly [number, unknown])[] = [
    [8, { type: 'import', input }],
    [1, { type: 'import', input: { ...input, import_from: `${source}/none` } }],
    [1, { type: 'import', input: { ...input, import_from: 'file:///etc/passwd' } }],
    [1, { type: 'import', input: { ...input, import_from: 'ftp://127.0.0.1/x' } }],
    [1, { type: 'import', input: { ...input, import_from: 1 } }],
    [1, { type: 'import', input: { import_from: `${source}/abc` } }],
    [1, { type: 'import', input: {} }],
    [1, { type: 'import' }],
    [1, { type: 'x', input }],
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
            follow: ({ image }) => [show('admin', id), ...(image === undefined ? [] : [imageAgain(world, image)])],
          }
        : undefined,
  }
}

const schema: Generator = (world) => {
  const path = world.random.pick(['/schemas/task', '/schemas/tasks'])
  return { as: world.caller(), route: `GET ${path}`, request: { method: 'GET', target: `/v2${path}`, headers: [] } }
}

export const taskGenerators: readonly (readonly [weight: number, generator: Generator])[] = [
  [4, read],
  [2, create],
  [1, schema],
]
