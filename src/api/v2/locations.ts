import type { Core, RequestContext } from '../../core/core.ts'
import { addLocation, type NewLocation } from '../../core/location-import.ts'
import { deleteFromStore, listLocations } from '../../core/locations.ts'
import type { LocationUri } from '../../domain/ids.ts'
import type { Route } from '../http/route.ts'
import { expectedBody, imageId } from './images.ts'
import { NEW_LOCATION } from './schemas.ts'
import { validator } from './validation.ts'
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
    method: 'POST',
    path: '/images/:image_id/locations',
    describe: {
      summary: 'Say where the data of an image is; it is looked at after the answer',
      rules: ['get_image', 'add_image_location'],
      body: { 'application/json': 'new_location' },
      answers: { 202: null },
    },
    handle: async (request) => {
      const location = parseLocation(await expectedBody(request))
      await addLocation(core, request.context, imageId(request), location)
      return { status: 202 }
    },
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

const validateLocation = validator('location', { properties: { add_location: NEW_LOCATION } })

function parseLocation(body: unknown): NewLocation {
  validateLocation({ add_location: body })
  const { url, validation_data: stated } = body as {
    readonly url: string
    readonly validation_data?: { readonly os_hash_algo?: string; readonly os_hash_value?: string }
  }
  const { os_hash_algo: osHashAlgo, os_hash_value: osHashValue } = stated ?? {}
  const validation = osHashAlgo === undefined || osHashValue === undefined ? undefined : { osHashAlgo, osHashValue }
  return { uri: url as LocationUri, validation }
}
