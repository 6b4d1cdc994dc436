import type { Generator, World } from './generate.ts'
import { anyImage } from './model.ts'
import { type Asked, segment } from './request.ts'
import type * as values from './values.ts'

const unlikely = (world: World): string => world.random.pick([world.random.uuid(), 'x'])
const anImage = (world: World): string =>
  anyImage(
    world.model,
    world.random,
    () => unlikely(world),
    ({ status, size }) => status === 'active' && size > 0,
  )
/** Only administrators may see to the cache. */
const keeper = ({ random, caller }: World): values.Caller =>
  random.chance(0.7) ? random.pick<values.Caller>(['admin', 'ada']) : caller()

const asking = (as: values.Caller, method: string, route: string, id = ''): Asked => ({
  as,
  route: `${method} ${route}`,
  request: { method, target: `/v2${route.replace(':image_id', segment(id))}`, headers: [] },
})

const cache: Generator = (world) => {
  const { random } = world
  const as = keeper(world)
  const id = anImage(world)
  return random.weighted<() => Asked>([
    [3, () => asking(as, 'GET', '/cache')],
    [
      1,
      () => {
        const asked = asking(as, 'DELETE', '/cache')
        const target = random.pick(['cache', 'queue', 'Queue', 'x', ''])
        if (random.chance(0.3)) return asked
        return { ...asked, request: { ...asked.request, headers: [['x-image-cache-clear-target', target]] } }
      },
    ],
    [
      5,
      () => ({
        ...asking(as, 'PUT', '/cache/:image_id', id),
        begins: (status) => (status === 202 ? { cached: id } : undefined),
      }),
    ],
    [2, () => asking(as, 'DELETE', '/cache/:image_id', id)],
    [2, () => asking(as, 'GET', '/cache/nodes/:image_id', id)],
    [1, () => asking(as, 'POST', '/cache/clean')],
    [1, () => asking(as, 'POST', '/cache/prune')],
  ])()
}

/** The older routes. What is queued by them waits for other programs there, so that it is soon taken back. */
const older: Generator = (world) => {
  const { random } = world
  const as = keeper(world)
  const id = anImage(world)
  return random.weighted<() => Asked>([
    [3, () => asking(as, 'GET', '/cached_images')],
    [1, () => asking(as, 'DELETE', '/cached_images')],
    [2, () => asking(as, 'DELETE', '/cached_images/:image_id', id)],
    [1, () => asking(as, 'GET', '/queued_images')],
    [1, () => asking(as, 'DELETE', '/queued_images')],
    [1, () => asking(as, 'DELETE', '/queued_images/:image_id', id)],
    [
      2,
      () => ({
        ...asking(as, 'PUT', '/queued_images/:image_id', id),
        begins: () => ({
          follow: () => [
            asking('admin', 'GET', '/queued_images'),
            asking('admin', 'DELETE', '/queued_images/:image_id', id),
            asking('admin', 'DELETE', '/cached_images/:image_id', id),
          ],
        }),
      }),
    ],
  ])()
}

export const cacheGenerators: readonly (readonly [weight: number, generator: Generator])[] = [
  [6, cache],
  [4, older],
]
