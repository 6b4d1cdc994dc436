import type { ImageCache } from '../cache/cache.ts'
import type { CachedImage } from '../domain/cached-image.ts'
import { hasKind, ServiceError } from '../domain/errors.ts'
import type { ImageId } from '../domain/ids.ts'
import type { Image } from '../domain/image.ts'
import { enforce } from '../policy/enforce.ts'
import type { RuleName } from '../policy/rules.ts'
import { imageTarget } from '../policy/target.ts'
import type { Core, RequestContext } from './core.ts'
import { fetchFrom } from './image-data.ts'
import { loadImage } from './load.ts'

const notSupported = () => new ServiceError('not-found', 'Caching via API is not supported at this site.')

/** Throws `forbidden` unless the rule allows it, and `not-found` where there is no cache. */
function admit(core: Core, ctx: RequestContext, rule: RuleName, image?: Image): ImageCache {
  enforce(core.policy, rule, ctx.identity, image === undefined ? {} : imageTarget(image, ctx.identity))
  if (core.cache === undefined) throw notSupported()
  return core.cache
}

const load = (core: Core, ctx: RequestContext, id: ImageId) => loadImage(core, ctx, id, `Image ${id} not found.`)

/** GET /v2/cache */
export async function listCache(
  core: Core,
  ctx: RequestContext,
): Promise<{ readonly cached: readonly CachedImage[]; readonly queued: readonly ImageId[] }> {
  const cache = admit(core, ctx, 'cache_list')
  return { cached: await cache.list(), queued: await cache.queued() }
}

/** PUT /v2/cache/{image_id}: the image is fetched in the background, after those that were queued before. */
export async function cacheImage(core: Core, ctx: RequestContext, id: ImageId): Promise<void> {
  const image = await load(core, ctx, id)
  const cache = admit(core, ctx, 'cache_image', image)
  if (image.status !== 'active') {
    throw new ServiceError('invalid', 'Only images with status active can be targeted for queueing')
  }
  await cache.enqueue(id)
  prefetchQueued(core).catch((error: unknown) => core.log.error('Queued images cannot be cached', error))
}

/** DELETE /v2/cache/{image_id}: what is cached may be removed when its image is long gone. */
export async function uncacheImage(core: Core, ctx: RequestContext, id: ImageId): Promise<void> {
  const image = await load(core, ctx, id).catch(async (error: unknown) => {
    if (hasKind(error, 'not-found') && (await isKept(core, id))) return undefined
    throw error
  })
  const cache = admit(core, ctx, 'cache_delete', image)
  await cache.evict(id)
  await cache.dequeue(id)
}

const isKept = async ({ cache }: Core, id: ImageId): Promise<boolean> =>
  cache !== undefined &&
  ((await cache.queued()).includes(id) || (await cache.list()).some(({ imageId }) => imageId === id))

/** DELETE /v2/cache */
export async function clearCache(core: Core, ctx: RequestContext, target: string): Promise<void> {
  const cache = admit(core, ctx, 'cache_delete')
  if (!['', 'cache', 'queue'].includes(target)) {
    throw new ServiceError(
      'invalid',
      "If provided 'x-image-cache-clear-target' must be 'cache', 'queue' or empty string.",
    )
  }
  if (target !== 'queue') await cache.evictAll()
  if (target !== 'cache') await cache.dequeueAll()
}

/** GET /v2/cache/nodes/{image_id} */
export async function listCachedNodes(core: Core, ctx: RequestContext, id: ImageId): Promise<readonly string[]> {
  const { nodes } = admit(core, ctx, 'list_cached_nodes')
  if (nodes === undefined) throw new ServiceError('conflict', 'Centralized caching is not enabled')
  await load(core, ctx, id)
  return nodes(id)
}

/** POST /v2/cache/clean */
export const cleanCache = (core: Core, ctx: RequestContext): Promise<void> => admit(core, ctx, 'cache_clean').clean()

/** POST /v2/cache/prune */
export const pruneCache = (core: Core, ctx: RequestContext) => admit(core, ctx, 'cache_prune').prune()

/** The cache for the older routes: one rule for everything, and nobody asks whether there is such an image. */
export const managedCache = (core: Core, ctx: RequestContext): ImageCache => admit(core, ctx, 'manage_image_cache')

/** An image is deleted, and what this node keeps of it is of no use any more. */
export async function forgetCopy({ cache, log }: Core, id: ImageId): Promise<void> {
  try {
    await cache?.evict(id)
    await cache?.dequeue(id)
  } catch (error) {
    log.warn(`The cached copy of image ${id} stays until it is evicted`, error)
  }
}

const ADMIN = { admin: true, project: undefined } as const

/** Caches what is queued on this node; what fails stays queued. Resolves when this process has nothing left to do. */
export async function prefetchQueued(core: Core): Promise<void> {
  const { cache, db, log } = core
  await cache?.serveQueue(async (id) => {
    try {
      const image = await db.images.get(id, ADMIN)
      if (!(await cache.fill(image, fetchFrom(core, core.stores.inReadingOrder(image.locations))))) {
        log.warn(`Image ${id} is queued, but cannot be cached`)
      }
    } catch (error) {
      if (hasKind(error, 'not-found')) await cache.dequeue(id)
      log.warn(`Image ${id} is queued, but cannot be cached`, error)
    }
  })
}
