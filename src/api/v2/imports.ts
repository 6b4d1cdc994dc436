import type { Core, RequestContext } from '../../core/core.ts'
import { type ImportRequest, importImage } from '../../core/imports.ts'
import { stageImage } from '../../core/staging.ts'
import { ServiceError } from '../../domain/errors.ts'
import type { ApiRequest, Route } from '../http/route.ts'
import { admitContentType, announcedSize } from './image-data.ts'
import { expectedBody, imageId } from './images.ts'

type Request = ApiRequest<RequestContext>

export const importRoutes = (core: Core): readonly Route<RequestContext>[] => [
  {
    method: 'PUT',
    path: '/images/:image_id/stage',
    describe: {
      summary: 'Upload data that waits to be imported',
      rules: ['get_image', 'modify_image'],
      headers: { 'x-openstack-image-size': { type: 'integer', minimum: 0 } },
      body: { 'application/octet-stream': 'data' },
      answers: { 204: null },
    },
    plane: 'data',
    handle: async (request) => {
      if (!core.imports.offered.includes('glance-direct')) {
        throw new ServiceError('not-found', "'glance-direct' method is not available at this site.")
      }
      admitContentType(request)
      const size = announcedSize(request)
      await stageImage(core, request.context, imageId(request), {
        body: request.body,
        ...(size === undefined ? {} : { size }),
      })
      return { status: 204 }
    },
  },
  {
    method: 'POST',
    path: '/images/:image_id/import',
    describe: {
      summary: 'Begin to import data into an image',
      rules: ['get_image', 'modify_image', 'copy_image'],
      headers: { 'X-Image-Meta-Store': { type: 'string' } },
      body: { 'application/json': 'import_request' },
      answers: { 202: null },
    },
    handle: async (request) => {
      const order = parseImport(core, await expectedBody(request), request)
      const { requestId } = await importImage(core, request.context, imageId(request), order)
      return { status: 202, ...(requestId === undefined ? {} : { headers: { 'x-openstack-request-id': requestId } }) }
    },
  },
]

const invalid = (message: string) => new ServiceError('invalid', message)
const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

function parseImport(core: Core, body: unknown, { headers }: Request): ImportRequest {
  if (!isObject(body) || body['method'] === undefined) throw invalid("Import request requires a 'method' field.")
  const { method: members, stores, all_stores = false, all_stores_must_succeed = true } = body
  if (!isObject(members) || members['name'] === undefined) throw invalid("Import request requires a 'name' field.")
  const method = core.imports.methods.find(({ name }) => name === members['name'])
  if (method === undefined || !core.imports.offered.includes(method.name)) {
    throw invalid(`Unknown import method name '${String(members['name'])}'.`)
  }
  if (typeof all_stores_must_succeed !== 'boolean') {
    throw invalid("'all_stores_must_succeed' must be boolean value only")
  }
  if (typeof all_stores !== 'boolean') throw invalid("'all_stores' must be boolean value only")
  if (stores !== undefined && !Array.isArray(stores)) throw invalid("'stores' must be a list of store names")
  const store = headers['x-image-meta-store']
  return {
    method,
    members,
    ...(stores === undefined ? {} : { stores }),
    ...(typeof store === 'string' ? { store } : {}),
    allStores: all_stores,
    allMustSucceed: all_stores_must_succeed,
    body,
  }
}
