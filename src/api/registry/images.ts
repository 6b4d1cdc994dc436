import type { Row, RowDatabase } from '../../db/rows.ts'
import { hasKind, ServiceError } from '../../domain/errors.ts'
import type { ApiRequest, ApiResponse, Route } from '../http/route.ts'
import { type HistoricContext, inDetail, noSuchResource, requireWriter } from './context.ts'
import { isUuidLike, listArguments, type PageLimits } from './list-query.ts'

type Request = ApiRequest<HistoricContext>
type Body = Readonly<Record<string, unknown>>

const INDEXED = ['id', 'name', 'size', 'disk_format', 'container_format', 'checksum']
const SHOWN = [
  ...['id', 'created_at', 'updated_at', 'deleted_at', 'deleted', 'name', 'status', 'size', 'virtual_size'],
  ...['disk_format', 'container_format', 'min_disk', 'min_ram', 'is_public', 'checksum', 'owner', 'protected'],
]

/** The images of the registry of API v1 (glance/registry/api/v1/images.py). */
export function imageRoutes(rows: RowDatabase, limits: PageLimits): readonly Route<HistoricContext>[] {
  const run = async (request: Request, command: string, args: Body): Promise<Row> =>
    (await rows.run(command, request.context.rows, args)) as Row

  const list = async (request: Request): Promise<readonly Row[]> => {
    const args = listArguments(request.query, request.context.rows.admin, limits)
    try {
      return (await rows.run('image_get_all', request.context.rows, args)) as readonly Row[]
    } catch (error) {
      // Neither is an unknown marker told from one that the caller may not see.
      if (!hasKind(error, 'not-found', 'forbidden')) throw error
      throw new ServiceError('invalid', 'Invalid marker. Image could not be found.', { cause: error })
    }
  }
  const index = async (request: Request): Promise<ApiResponse> => ({
    status: 200,
    json: { images: (await list(request)).map((image) => pick(image, INDEXED)) },
  })
  const detail = async (request: Request): Promise<ApiResponse> => ({
    status: 200,
    json: { images: (await list(request)).map(imageDict) },
  })

  const show = async (request: Request): Promise<ApiResponse> => {
    const args = { image_id: idOf(request), v1_mode: true }
    return shown(await run(request, 'image_get', args).catch(hide))
  }

  const create = async (request: Request): Promise<ApiResponse> => {
    requireWriter(request.context)
    const { admin, owner } = request.context.rows
    const given = imageIn(await request.json())
    const values = {
      ...given,
      status: given['status'] ?? 'active',
      owner: admin && 'owner' in given ? given['owner'] : owner,
    }
    const { id } = given
    if (id && !isUuidLike(String(id))) throw new ServiceError('invalid', 'Invalid image id format')
    try {
      return shown(await run(request, 'image_create', { values: withLocations(values), v1_mode: true }))
    } catch (error) {
      if (hasKind(error, 'conflict'))
        throw inDetail('conflict', `Image with identifier ${String(id)} already exists!`, error)
      throw explained(error, 'Failed to add image metadata.')
    }
  }

  const update = async (request: Request): Promise<ApiResponse> => {
    requireWriter(request.context)
    const body = (await request.json()) as Body
    const { owner, ...rest } = imageIn(body)
    const values = request.context.rows.admin && owner !== undefined ? { ...rest, owner } : rest
    const args = {
      image_id: idOf(request),
      values: withLocations(values),
      purge_props: request.headers['x-glance-registry-purge-props'] === 'true',
      from_state: body['from_state'] ?? null,
      v1_mode: true,
    }
    try {
      return shown(await run(request, 'image_update', args))
    } catch (error) {
      if (isForbiddenPublic(error)) throw denied(error)
      if (hasKind(error, 'not-found', 'forbidden')) return plain(404, 'Image not found')
      if (hasKind(error, 'conflict')) return plain(409, 'Image operation conflicts')
      throw explained(error, 'Failed to update image metadata.')
    }
  }

  const remove = async (request: Request): Promise<ApiResponse> => {
    requireWriter(request.context)
    try {
      return shown(await run(request, 'image_destroy', { image_id: idOf(request) }))
    } catch (error) {
      if (isForbiddenPublic(error)) throw denied(error)
      return hide(error)
    }
  }

  return [
    { method: 'GET', path: '/', handle: index },
    { method: 'GET', path: '/images', handle: index },
    { method: 'POST', path: '/images', handle: create },
    { method: 'GET', path: '/images/detail', handle: detail },
    { method: 'GET', path: '/images/:id', handle: show },
    { method: 'PUT', path: '/images/:id', handle: update },
    { method: 'DELETE', path: '/images/:id', handle: remove },
  ]
}

const idOf = ({ params }: Request): string => params['id'] as string

const shown = (image: Row): ApiResponse => ({ status: 200, json: { image: imageDict(image) } })
const plain = (status: number, text: string): ApiResponse => ({
  status,
  headers: { 'content-type': 'text/plain; charset=UTF-8' },
  text,
})

/** What the caller may not see does not exist. */
function hide(error: unknown): never {
  throw hasKind(error, 'not-found', 'forbidden') ? noSuchResource() : error
}

const isForbiddenPublic = (error: unknown): boolean =>
  hasKind(error, 'forbidden') && error.detail['exception'] === 'ForbiddenPublicImage'
const denied = (cause: unknown): ServiceError =>
  new ServiceError('forbidden', 'Access was denied to this resource.', { cause })

const explained = (error: unknown, what: string): unknown =>
  hasKind(error, 'invalid') ? inDetail('invalid', `${what} Got error: ${error.message}`, error) : error

const pick = (row: Row, names: readonly string[]): Row =>
  Object.fromEntries(names.flatMap((name) => (Object.hasOwn(row, name) ? [[name, row[name]]] : [])))

/** An image as v1 knows it: properties by name, the first active location by itself. */
function imageDict(image: Row): Row {
  const properties = image['properties'] as readonly { name: string; value: string | null; deleted: boolean }[]
  const locations = image['locations'] as readonly { url: string; status: string }[]
  return {
    ...pick(image, SHOWN),
    properties: Object.fromEntries(properties.filter((one) => !one.deleted).map(({ name, value }) => [name, value])),
    location_data: locations,
    location: locations.find(({ status }) => status === 'active')?.url ?? null,
  }
}

/** Throws `invalid`. */
function imageIn(body: unknown): Body {
  const { image } = body as { readonly image?: unknown }
  if (typeof image !== 'object' || image === null || Array.isArray(image))
    throw new ServiceError('invalid', 'The body must have an image')
  return image as Body
}

interface LocationData {
  readonly url: string
  readonly metadata: unknown
  readonly status: string
  readonly id: number | null
}

/** One list of `location`, `locations` and `location_data`, each URL once, in that order. Throws `invalid`. */
function withLocations({ location, locations, location_data, ...values }: Body): Body {
  const urls = location === undefined ? asList(locations) : [location]
  const data = asList(location_data).map(readLocation)
  if (urls.length + data.length === 0) return values
  const byUrl = new Map(urls.map((url) => [text(url), newLocation(text(url))]))
  for (const one of data) byUrl.set(one.url, one)
  return { ...values, locations: [...byUrl.values()] }
}

const asList = (value: unknown): readonly unknown[] => {
  if (value === undefined || value === null) return []
  if (Array.isArray(value)) return value
  throw new ServiceError('invalid', 'Locations must be a list')
}
const text = (value: unknown): string => {
  if (typeof value === 'string') return value
  throw new ServiceError('invalid', 'A location must be a URL')
}
const newLocation = (url: string): LocationData => ({ url, metadata: {}, status: 'active', id: null })

function readLocation(value: unknown): LocationData {
  const { url, metadata, status, id } = (value ?? {}) as Partial<LocationData>
  return { url: text(url), metadata: metadata ?? {}, status: status ?? 'active', id: id ?? null }
}
