import {
  cacheImage,
  cleanCache,
  clearCache,
  listCache,
  listCachedNodes,
  managedCache,
  pruneCache,
  uncacheImage,
} from '../../core/cached-images.ts'
import type { Core, RequestContext } from '../../core/core.ts'
import type { CachedImage } from '../../domain/cached-image.ts'
import { ServiceError } from '../../domain/errors.ts'
import type { ApiResponse, Description, JsonSchema, Method, Route } from '../http/route.ts'
import { imageId } from './images.ts'

type CacheRoute = Route<RequestContext>

/** Times are seconds since 1970. A record of the service database shows more of itself. */
const show = ({ imageId, hits, lastAccessed, lastModified, size, checksum, row }: CachedImage) => ({
  ...(row === undefined ? {} : { id: row }),
  image_id: imageId,
  hits,
  last_accessed: lastAccessed.getTime() / 1000,
  last_modified: lastModified.getTime() / 1000,
  size,
  ...(row === undefined ? {} : { checksum }),
})

export const cacheRoutes = (core: Core): readonly CacheRoute[] => [
  {
    method: 'GET',
    path: '/cache',
    describe: {
      summary: 'List the images that this node has cached, or is asked to cache',
      rules: ['cache_list'],
      answers: { 200: 'cache' },
    },
    handle: async ({ context }) => {
      const { cached, queued } = await listCache(core, context)
      return { status: 200, json: { cached_images: cached.map(show), queued_images: queued } }
    },
  },
  {
    method: 'DELETE',
    path: '/cache',
    describe: {
      summary: 'Empty the cache of this node, its queue, or both',
      rules: ['cache_delete'],
      answers: { 204: null },
    },
    handle: async ({ context, headers }) => {
      await clearCache(core, context, String(headers['x-image-cache-clear-target'] ?? '').toLowerCase())
      return { status: 204 }
    },
  },
  {
    method: 'DELETE',
    path: '/cache/:image_id',
    describe: {
      summary: 'Remove an image from the cache of this node, and from its queue',
      rules: ['cache_delete'],
      answers: { 204: null },
    },
    handle: async (request) => {
      await uncacheImage(core, request.context, imageId(request))
      return { status: 204 }
    },
  },
  {
    method: 'PUT',
    path: '/cache/:image_id',
    describe: { summary: 'Ask this node to cache an image', rules: ['cache_image'], answers: { 202: null } },
    handle: async (request) => {
      await cacheImage(core, request.context, imageId(request))
      return { status: 202 }
    },
  },
  {
    method: 'GET',
    path: '/cache/nodes/:image_id',
    describe: {
      summary: 'List the nodes that have cached an image',
      rules: ['list_cached_nodes'],
      answers: { 200: 'cache_nodes' },
    },
    handle: async (request) => ({
      status: 200,
      json: await listCachedNodes(core, request.context, imageId(request)),
    }),
  },
  {
    method: 'POST',
    path: '/cache/clean',
    describe: {
      summary: 'Remove what broken or stalled downloads left in the cache',
      rules: ['cache_clean'],
      answers: { 200: null },
    },
    handle: async ({ context }) => {
      await cleanCache(core, context)
      return { status: 200 }
    },
  },
  {
    method: 'POST',
    path: '/cache/prune',
    describe: {
      summary: 'Evict images until the cache is within its size',
      rules: ['cache_prune'],
      answers: { 200: 'cache_pruned' },
    },
    handle: async ({ context }) => {
      const { files, bytes } = await pruneCache(core, context)
      return { status: 200, json: { total_files_pruned: files, total_bytes_pruned: bytes } }
    },
  },
]

/** The older routes, of pipelines with `cachemanagement`; glance-cache-manage uses them. */
export const cacheManagementRoutes = (core: Core): readonly CacheRoute[] => {
  const routes: readonly CacheRoute[] = [
    {
      method: 'GET',
      path: '/cached_images',
      describe: managed('List the cached images', 'cached_images'),
      handle: async ({ context }) => done({ cached_images: (await managedCache(core, context).list()).map(show) }),
    },
    {
      method: 'DELETE',
      path: '/cached_images',
      describe: managed('Empty the cache', 'deleted'),
      handle: async ({ context }) => done({ num_deleted: await managedCache(core, context).evictAll() }),
    },
    {
      method: 'DELETE',
      path: '/cached_images/:image_id',
      describe: managed('Remove an image from the cache', NOTHING),
      handle: async (request) => {
        await managedCache(core, request.context).evict(imageId(request))
        return done(null)
      },
    },
    {
      method: 'GET',
      path: '/queued_images',
      describe: managed('List the images that are to be cached', 'queued_images'),
      handle: async ({ context }) => done({ queued_images: await managedCache(core, context).queued() }),
    },
    {
      method: 'DELETE',
      path: '/queued_images',
      describe: managed('Empty the queue of the cache', 'deleted'),
      handle: async ({ context }) => done({ num_deleted: await managedCache(core, context).dequeueAll() }),
    },
    {
      method: 'PUT',
      path: '/queued_images/:image_id',
      describe: managed('Ask this node to cache an image', NOTHING),
      handle: async (request) => {
        await managedCache(core, request.context).enqueue(imageId(request))
        return done(null)
      },
    },
    {
      method: 'DELETE',
      path: '/queued_images/:image_id',
      describe: managed('Remove an image from the queue of the cache', NOTHING),
      handle: async (request) => {
        await managedCache(core, request.context).dequeue(imageId(request))
        return done(null)
      },
    },
  ]
  return [...routes, ...others(routes)]
}

const NOTHING: JsonSchema = { type: 'null' }
const managed = (summary: string, answer: string | JsonSchema): Description => ({
  summary,
  rules: ['manage_image_cache'],
  answers: { 200: answer },
})

const done = (json: unknown): ApiResponse => ({ status: 200, json })

const METHODS: readonly Method[] = ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE']

/** Other methods on the same paths are not refused (405): as far as upstream's router knows, there is nothing. */
function others(routes: readonly CacheRoute[]): readonly CacheRoute[] {
  const handle = async (): Promise<ApiResponse> => {
    throw new ServiceError('not-found', 'The resource could not be found.')
  }
  return [...new Set(routes.map(({ path }) => path))].flatMap((path) =>
    METHODS.filter((method) => !routes.some((route) => route.path === path && route.method === method)).map(
      (method) => ({ method, path, handle }),
    ),
  )
}
