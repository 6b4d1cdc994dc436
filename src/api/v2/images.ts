import type { Core, RequestContext } from '../../core/core.ts'
import {
  addTag,
  createImage,
  deleteImage,
  type ImageDraft,
  listImages,
  removeTag,
  setActivation,
  showImage,
  updateImage,
} from '../../core/images.ts'
import { ServiceError } from '../../domain/errors.ts'
import type { ImageId } from '../../domain/ids.ts'
import type { ImageAttributes } from '../../domain/image.ts'
import type { ApiRequest, Route } from '../http/route.ts'
import { admitAmount, admitName, isWritable, READ_ONLY, readOnlyError, reservedError, WRITABLE } from './attributes.ts'
import { IMAGE_LIST_QUERY, IMAGE_PATCHES } from './document.ts'
import { pageLink, parseListQuery } from './list-query.ts'
import { parsePatch, patchDialect } from './patch.ts'
import { admitAttribute, admitParameter, type Validate } from './validation.ts'
import { imageView, type ViewOptions } from './views.ts'

type Request = ApiRequest<RequestContext>

/** Refused before anything else is looked at. */
const DISALLOWED = ['direct_url', 'self', 'file', 'schema', 'stores'] as const
const DONE = { status: 204 } as const

export const imageId = (request: Request): ImageId => request.params['image_id'] as ImageId

export function imageRoutes(
  core: Core,
  options: {
    readonly validateImage: Validate
    readonly view: ViewOptions
    /** Headers that tell of the import methods and the stores after a create. */
    readonly createHeaders: Readonly<Record<string, string>>
  },
): readonly Route<RequestContext>[] {
  const { validateImage, view } = options
  const show = (request: Request, image: Parameters<typeof imageView>[0]) =>
    imageView(image, view, request.context.isAdmin)

  return [
    {
      method: 'GET',
      path: '/images',
      describe: {
        summary: 'List images',
        rules: ['get_images', 'get_image', 'get_image_location'],
        query: IMAGE_LIST_QUERY,
        answers: { 200: 'images' },
      },
      handle: async (request) => {
        const query = parseListQuery(request.query, core.limits)
        const { images, next } = await listImages(core, request.context, query)
        return {
          status: 200,
          json: {
            images: images.map((image) => show(request, image)),
            first: pageLink('/v2/images', request.query, undefined),
            schema: '/v2/schemas/images',
            ...(next === undefined ? {} : { next: pageLink('/v2/images', request.query, next) }),
          },
        }
      },
    },
    {
      method: 'POST',
      path: '/images',
      describe: {
        summary: 'Create an image',
        rules: ['add_image', 'publicize_image', 'communitize_image'],
        body: { 'application/json': 'image' },
        answers: { 201: 'image' },
      },
      handle: async (request) => {
        const draft = parseDraft(await expectedBody(request), validateImage)
        const image = await createImage(core, request.context, draft)
        return {
          status: 201,
          headers: { location: `${request.baseUrl}/v2/images/${image.id}`, ...options.createHeaders },
          json: show(request, image),
        }
      },
    },
    {
      method: 'GET',
      path: '/images/:image_id',
      describe: { summary: 'Show an image', rules: ['get_image', 'get_image_location'], answers: { 200: 'image' } },
      rejectsBody: true,
      handle: async (request) => ({
        status: 200,
        json: show(request, await showImage(core, request.context, imageId(request))),
      }),
    },
    {
      method: 'PATCH',
      path: '/images/:image_id',
      describe: {
        summary: 'Change an image',
        rules: [
          'get_image',
          'modify_image',
          'publicize_image',
          'communitize_image',
          'set_image_location',
          'delete_image_location',
        ],
        body: IMAGE_PATCHES,
        answers: { 200: 'image' },
      },
      handle: async (request) => {
        const dialect = patchDialect(request.headers['content-type'])
        const patches = parsePatch(await expectedBody(request), dialect, validateImage, {
          locations: view.showLocations,
        })
        return { status: 200, json: show(request, await updateImage(core, request.context, imageId(request), patches)) }
      },
    },
    {
      method: 'DELETE',
      path: '/images/:image_id',
      describe: { summary: 'Delete an image', rules: ['get_image', 'delete_image'], answers: { 204: null } },
      rejectsBody: true,
      handle: async (request) => {
        const { requestId } = await deleteImage(core, request.context, imageId(request))
        return requestId === undefined ? DONE : { ...DONE, headers: { 'x-openstack-request-id': requestId } }
      },
    },
    ...(['deactivate', 'reactivate'] as const).map(
      (action): Route<RequestContext> => ({
        method: 'POST',
        path: `/images/:image_id/actions/${action}`,
        describe: {
          summary: `${action === 'reactivate' ? 'Reactivate' : 'Deactivate'} an image`,
          rules: ['get_image', action],
          answers: { 204: null },
        },
        rejectsBody: true,
        handle: async (request) => {
          const to = action === 'reactivate' ? 'active' : 'deactivated'
          await setActivation(core, request.context, imageId(request), to)
          return DONE
        },
      }),
    ),
    {
      method: 'PUT',
      path: '/images/:image_id/tags/:tag_value',
      describe: { summary: 'Add a tag to an image', rules: ['get_image', 'modify_image'], answers: { 204: null } },
      rejectsBody: true,
      handle: async (request) => {
        const tag = request.params['tag_value'] ?? ''
        validateImage({ tags: [tag] })
        admitParameter(tag)
        await addTag(core, request.context, imageId(request), tag)
        return DONE
      },
    },
    {
      method: 'DELETE',
      path: '/images/:image_id/tags/:tag_value',
      describe: { summary: 'Remove a tag of an image', rules: ['get_image', 'modify_image'], answers: { 204: null } },
      rejectsBody: true,
      handle: async (request) => {
        await removeTag(core, request.context, imageId(request), request.params['tag_value'] ?? '')
        return DONE
      },
    },
  ]
}

export async function expectedBody(request: Request): Promise<unknown> {
  if (!request.hasBody) throw new ServiceError('invalid', 'Body expected in request.')
  return request.json()
}

/** Throws `invalid`; what only some may not do is the draft's `refusal`. */
export function parseDraft(body: unknown, validate: Validate): ImageDraft {
  if (typeof body !== 'object' || body === null || Array.isArray(body))
    throw new ServiceError('invalid', 'Image must be a JSON object.')
  const given = body as Record<string, unknown>
  for (const name of DISALLOWED) if (Object.hasOwn(given, name)) throw readOnlyError(name)
  validate(given)
  const attributes: Record<string, unknown> = {}
  const properties = new Map<string, string | null>()
  let refusal: ServiceError | undefined
  for (const [name, value] of Object.entries(given)) {
    if (name === 'tags') (value as string[]).forEach(admitParameter)
    else admitAttribute(name, value)
    if (name === 'id' || name === 'tags') continue
    if (isWritable(name)) {
      admitAmount(name, value)
      attributes[WRITABLE[name]] = value
    } else if (name === 'locations') {
      refusal ??= reservedError(name)
    } else if (READ_ONLY.has(name)) {
      // Hashes are the service's to find out; clients that send them have always been ignored.
      if (name !== 'os_hash_algo' && name !== 'os_hash_value') refusal ??= readOnlyError(name)
    } else {
      if (name.length > 255)
        throw new ServiceError('invalid', 'Custom property should not be greater than 255 characters.')
      admitName(name)
      properties.set(name, value as string | null)
    }
  }
  return {
    ...(attributes as Partial<ImageAttributes>),
    ...(given['id'] === undefined ? {} : { id: given['id'] as ImageId }),
    tags: (given['tags'] as string[] | undefined) ?? [],
    properties,
    ...(refusal === undefined ? {} : { refusal }),
  }
}
