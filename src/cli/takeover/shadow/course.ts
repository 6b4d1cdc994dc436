import { createReadStream } from 'node:fs'
import { createInterface } from 'node:readline'

type Json = Readonly<Record<string, unknown>>

/** Targets of GET requests, one after the other; told what Glance answered to the last one, if that was JSON. */
export type Course = AsyncGenerator<string, void, Json | undefined>

const SCHEMAS = [
  ...['image', 'images', 'member', 'members', 'task', 'tasks'],
  ...['namespace', 'namespaces', 'resource_type', 'resource_types', 'property', 'properties'].map(
    (name) => `metadefs/${name}`,
  ),
  ...['object', 'objects', 'tag', 'tags'].map((name) => `metadefs/${name}`),
]

const SORT_KEYS = ['name', 'status', 'container_format', 'disk_format', 'size', 'id', 'created_at', 'updated_at']
/** Attributes of an image that lists can be filtered by. */
const FILTERS = [
  'name',
  'owner',
  'status',
  'visibility',
  'checksum',
  'os_hash_value',
  'disk_format',
  'container_format',
]
const STANDARD = new Set([
  ...FILTERS,
  ...['id', 'size', 'virtual_size', 'min_disk', 'min_ram', 'protected', 'os_hidden', 'os_hash_algo', 'created_at'],
  ...['updated_at', 'tags', 'self', 'file', 'schema', 'stores', 'locations', 'direct_url'],
])
const PAGE = 20
/** Of so many images, each route below them is asked for. */
const WHOLE = 25

/** All that the bearer of a token can list and read: wide first, since it may be cut off. */
export async function* walk(): Course {
  for (const target of ['/', '/versions', '/v2/info/import', '/v2/info/stores', '/v2/info/stores/detail']) yield target
  yield '/v2/info/usage'
  for (const name of SCHEMAS) yield `/v2/schemas/${name}`
  yield* lists()
  yield* metadefs()
  yield* tasks()
  yield* images()
}

async function* lists(): Course {
  const page = listOf(yield `/v2/images?limit=${PAGE}`, 'images')
  for (const visibility of ['public', 'private', 'shared', 'community', 'all'])
    yield imageList({ visibility, limit: PAGE })
  for (const status of ['accepted', 'pending', 'rejected', 'all'])
    yield imageList({ visibility: 'shared', member_status: status, limit: PAGE })
  for (const key of SORT_KEYS)
    for (const dir of ['asc', 'desc']) yield imageList({ sort_key: key, sort_dir: dir, limit: PAGE })
  yield imageList({ sort: 'status:asc,created_at:desc', limit: PAGE })
  for (const hidden of ['true', 'false']) yield imageList({ os_hidden: hidden, limit: PAGE })
  for (const guarded of ['true', 'false']) yield imageList({ protected: guarded, limit: PAGE })
  for (const name of FILTERS) {
    const value = page.map((image) => image[name]).find((one) => typeof one === 'string' && one !== '')
    if (typeof value === 'string') yield imageList({ [name]: value, limit: PAGE })
  }
  for (const image of page.slice(0, 3)) yield* like(image)
  const ids = page.slice(0, 3).map(({ id }) => String(id))
  if (ids.length > 0) yield imageList({ id: `in:${ids.join(',')}` })
}

/** Lists that an image is in. */
async function* like(image: Json): Course {
  const { size, created_at, updated_at, tags } = image
  if (typeof size === 'number') {
    yield imageList({ size_min: size, limit: PAGE })
    yield imageList({ size_max: size, limit: PAGE })
  }
  if (typeof created_at === 'string') {
    yield imageList({ created_at: `gte:${created_at}`, limit: PAGE })
    yield imageList({ created_at: `lt:${created_at}`, limit: PAGE })
  }
  if (typeof updated_at === 'string') yield imageList({ updated_at: `lte:${updated_at}`, limit: PAGE })
  if (Array.isArray(tags) && typeof tags[0] === 'string') yield imageList({ tag: tags[0], limit: PAGE })
  const property = Object.entries(image).find(([name, value]) => !STANDARD.has(name) && typeof value === 'string')
  if (property !== undefined) yield imageList({ [property[0]]: String(property[1]), limit: PAGE })
}

async function* images(): Course {
  let known = 0
  yield* pages(`/v2/images?limit=${PAGE}&visibility=all`, 'images', async function* (image) {
    const path = `/v2/images/${encodeURIComponent(String(image['id']))}`
    yield path
    if (known < WHOLE || image['visibility'] === 'shared') yield `${path}/members`
    if (known < WHOLE) {
      yield `${path}/tasks`
      yield `${path}/locations`
    }
    known += 1
  })
}

async function* tasks(): Course {
  yield* pages(`/v2/tasks?limit=${PAGE}`, 'tasks', async function* ({ id }) {
    yield `/v2/tasks/${encodeURIComponent(String(id))}`
  })
}

async function* metadefs(): Course {
  yield '/v2/metadefs/resource_types'
  yield* pages(`/v2/metadefs/namespaces?limit=${PAGE}`, 'namespaces', async function* ({ namespace }) {
    const path = `/v2/metadefs/namespaces/${encodeURIComponent(String(namespace))}`
    yield path
    for (const part of ['objects', 'properties', 'tags', 'resource_types']) yield `${path}/${part}`
  })
}

/** Every page of a list, and what belongs to each of its items. */
async function* pages(first: string, name: string, each: (item: Json) => Course): Course {
  for (let target: string | undefined = first; target !== undefined; ) {
    const page: Json | undefined = yield target
    for (const item of listOf(page, name)) yield* each(item)
    const next: unknown = page?.['next']
    target = typeof next === 'string' ? next : undefined
  }
}

const listOf = (page: Json | undefined, name: string): readonly Json[] => {
  const items = page?.[name]
  return Array.isArray(items) ? items.filter((item): item is Json => typeof item === 'object' && item !== null) : []
}

const imageList = (query: Readonly<Record<string, string | number>>): string =>
  `/v2/images?${Object.entries(query)
    .map(([name, value]) => `${encodeURIComponent(name)}=${encodeURIComponent(String(value).toWellFormed())}`)
    .join('&')}`

/** The request line of a GET, as the logs of Glance's own server, Apache and nginx have it. */
const LOGGED = /"GET (\S+)(?: HTTP\/[\d.]+)?" \d{3}\b/

/** Each GET of an access log once, in its order, without those of image data. What stands before `/v2` is left out. */
export async function* replay(file: string): Course {
  const seen = new Set<string>()
  for await (const line of createInterface({ input: createReadStream(file), crlfDelay: Number.POSITIVE_INFINITY })) {
    const target = LOGGED.exec(line)?.[1]?.replace(/^(?:https?:\/\/[^/]+)?(?:\/[\w.-]+)*?(?=\/v2(?:\/|$))/, '')
    if (target === undefined || !/^\/(v2\/|versions$|$)/.test(target)) continue
    if (/^\/v2\/images\/[^/?]+\/file/.test(target) || seen.has(target)) continue
    seen.add(target)
    yield target
  }
}
