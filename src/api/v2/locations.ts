import type { Core, RequestContext } from '../../core/core.ts'
import { deleteFromStore, listLocations } from '../../core/locations.ts'
import type { Route } from '../http/route.ts'
import { imageId } from './images.ts'
import { locationView } from './views.ts'

export const locationRoutes = (core: Core): readonly Route<RequestContext>[] => [
  {
    method: 'GET',
    path: '/images/:image_id/locations',
    describe: {
      summary: 'List the locations of an image',
      rules: ['get_image', 'fetch_image_location'],
      answers: { 200: 'locations' },
    },
    rejectsBody: true,
    handle: async (request) => ({
      status: 200,
      json: (await listLocations(core, request.context, imageId(request))).map(locationView),
    }),
  },
  {
    method: 'DELETE',
    path: '/stores/:store_id/:image_id',
    describe: {
      summary: 'Remove the data of an image from a store',
      rules: ['get_image', 'delete_image_location', 'get_image_location'],
      answers: { 204: null },
    },
    rejectsBody: true,
    handle: async (request) => {
      await deleteFromStore(core, request.context, request.params['store_id'] ?? '', imageId(request))
      return { status: 204 }
    },
  },
]
