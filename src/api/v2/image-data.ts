import type { Core, RequestContext } from '../../core/core.ts'
import { downloadImage, uploadImage } from '../../core/image-data.ts'
import { ServiceError } from '../../domain/errors.ts'
import { requestedRange } from '../../io/bytes.ts'
import type { ApiRequest, Route } from '../http/route.ts'
import { imageId } from './images.ts'

type Request = ApiRequest<RequestContext>

export const imageDataRoutes = (core: Core): readonly Route<RequestContext>[] => [
  {
    method: 'GET',
    path: '/images/:image_id/file',
    describe: {
      summary: 'Download the data of an image',
      rules: ['get_image', 'download_image', 'download_from_store'],
      query: { prefer: { type: 'string', description: 'Stores to read from first, with commas between them' } },
      headers: { Range: { type: 'string' } },
      answers: { 200: 'data', 204: null, 206: 'data' },
    },
    plane: 'data',
    rejectsBody: true,
    handle: async (request) => {
      const range = (size: number) => requestedRange(request.headers, size)
      const { image, data } = await downloadImage(core, request.context, imageId(request), range, preferred(request))
      if (data === undefined) return { status: 204 }
      const { offset, length } = data.range
      return {
        status: data.partial ? 206 : 200,
        headers: {
          'content-type': 'application/octet-stream',
          'content-length': String(length),
          ...(data.partial ? { 'content-range': `bytes ${offset}-${offset + length - 1}/${image.size}` } : {}),
          ...(image.checksum === null ? {} : { 'content-md5': image.checksum }),
        },
        data: data.source,
      }
    },
  },
  {
    method: 'PUT',
    path: '/images/:image_id/file',
    describe: {
      summary: 'Upload the data of an image',
      rules: ['get_image', 'upload_image'],
      headers: { 'X-Image-Meta-Store': { type: 'string' }, 'x-openstack-image-size': { type: 'integer', minimum: 0 } },
      body: { 'application/octet-stream': 'data' },
      answers: { 204: null },
    },
    plane: 'data',
    handle: async (request) => {
      admitContentType(request)
      const size = announcedSize(request)
      const store = request.headers['x-image-meta-store']
      await uploadImage(core, request.context, imageId(request), {
        body: request.body,
        ...(size === undefined ? {} : { size }),
        ...(typeof store === 'string' ? { store } : {}),
      })
      return { status: 204 }
    },
  },
]

/** `?prefer=s1,s2`: blanks and empty names do not count. */
function preferred({ query }: Request): readonly string[] {
  const names = query.findLast(([name]) => name === 'prefer')?.[1] ?? ''
  return names
    .split(',')
    .map((name) => name.trim())
    .filter((name) => name !== '')
}

export function admitContentType(request: Request): void {
  const type = request.headers['content-type']?.split(';')[0]?.trim().toLowerCase()
  if (type === 'application/octet-stream') return
  throw new ServiceError('unsupported-media-type', `Invalid content type ${type ?? 'None'}`)
}

/** Bytes that the client announces; undefined when it does not know (chunked). */
export function announcedSize(request: Request): number | undefined {
  const header = request.headers['x-openstack-image-size']
  if (header !== undefined) {
    if (typeof header !== 'string' || !/^\s*\+?\d+\s*$/.test(header) || Number(header) > Number.MAX_SAFE_INTEGER) {
      throw new ServiceError('invalid', 'Invalid or missing image size in request headers.')
    }
    return Number(header)
  }
  if (request.headers['transfer-encoding'] !== undefined) return undefined
  return Number(request.headers['content-length'] ?? 0)
}
