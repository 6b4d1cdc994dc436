import type { Core, RequestContext } from '../../core/core.ts'
import { deleteFromStore, listLocations } from '../../core/locations.ts'
import type { Route } from '../http/route.ts'
import { imageId } from './images.ts'
import { locationView } from './views.ts'

export const locationRoutes = (core: Core): readonly Route<RequestContext>[] => [
  {
    method: 'GET',
    path: '/images/:image_id/locations',
    rejectsBody: true,
    handle: async (request) => ({
      status: 200,
      json: (await listLocations(core, request.context, imageId(request))).map(locationView),
    }),
  },
  {
    method: 'DELETE',
    path: '/stores/:store_id/:image_id',
    rejectsBody: true,
    handle: async (request) => {
      await deleteFromStore(core, request.context, request.params['store_id'] ?? '', imageId(request))
      return { status: 204 }
    },
  },
]
