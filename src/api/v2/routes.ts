import type { Core, RequestContext } from '../../core/core.ts'
import { ServiceError } from '../../domain/errors.ts'
import type { Route } from '../http/route.ts'
import { cacheManagementRoutes, cacheRoutes } from './cache.ts'
import { infoRoutes, schemaRoutes } from './discovery.ts'
import { imageDataRoutes } from './image-data.ts'
import { imageRoutes } from './images.ts'
import { importRoutes } from './imports.ts'
import { locationRoutes } from './locations.ts'
import { memberRoutes } from './members.ts'
import { metadefRoutes, metadefSchemaRoutes } from './metadefs.ts'
import { buildSchemas, type SchemaOptions } from './schemas.ts'
import { taskRoutes } from './tasks.ts'
import { validator } from './validation.ts'
import type { ViewOptions } from './views.ts'

export interface V2Options {
  readonly schema: SchemaOptions
  readonly view: Omit<ViewOptions, 'declared'>
  /** Whether the older routes of the cache are there. */
  readonly cacheManagement: boolean
}

/** The v2 route table. */
export function v2Routes(core: Core, options: V2Options): readonly Route<RequestContext>[] {
  const schemas = buildSchemas(options.schema)
  const { offered } = core.imports
  const validateImage = validator('image', schemas.image)
  const routes: readonly Route<RequestContext>[] = [
    ...schemaRoutes(schemas),
    ...imageRoutes(core, {
      validateImage,
      view: { ...options.view, declared: new Set(Object.keys(options.schema.custom.properties)) },
      createHeaders: {
        ...(offered.length > 0 ? { 'openstack-image-import-methods': offered.join(',') } : {}),
        ...(core.stores.multi ? { 'openstack-image-store-ids': core.stores.all.map(({ id }) => id).join(',') } : {}),
      },
    }),
    ...imageDataRoutes(core),
    ...importRoutes(core),
    ...locationRoutes(core),
    ...memberRoutes(core),
    ...taskRoutes(core, {
      validateTask: validator('task', { ...schemas.task, additionalProperties: false }),
      validateImage,
    }),
    ...metadefSchemaRoutes,
    ...metadefRoutes(core),
    ...infoRoutes(core),
    ...cacheRoutes(core),
    ...(options.cacheManagement ? cacheManagementRoutes(core) : []),
  ]
  return [...routes.map(guarded), ...toTheSlash]
}

/** Whatever is asked of the version itself, its address has a slash at the end. */
const toTheSlash = (['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE'] as const).map(
  (method): Route<RequestContext> => ({
    method,
    path: '',
    handle: async (request) => ({ status: 302, headers: { location: `${request.baseUrl}/v2/` } }),
  }),
)

/** Callers without credentials may only look: what does more than that asks first who they are. */
const guarded = (route: Route<RequestContext>): Route<RequestContext> =>
  route.method === 'GET'
    ? route
    : {
        ...route,
        handle: async (request) => {
          if (request.context.identity.readOnly) throw new ServiceError('forbidden', 'Read-only access')
          return route.handle(request)
        },
      }
