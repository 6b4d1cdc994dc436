import type { Core, RequestContext } from '../../core/core.ts'
import { deleteFromStore } from '../../core/locations.ts'
import type { Route } from '../http/route.ts'
import { imageId, mutating } from './images.ts'

export const locationRoutes = (core: Core): readonly Route<RequestContext>[] => [
  {
    method: 'DELETE',
    path: '/stores/:store_id/:image_id',
    rejectsBody: true,
    handle: async (request) => {
      mutating(request)
      await deleteFromStore(core, request.context, request.params['store_id'] ?? '', imageId(request))
      return { status: 204 }
    },
  },
]
