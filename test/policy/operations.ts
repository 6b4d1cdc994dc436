import type { TestConfig } from '../support/server.ts'
import { CALLERS, type Caller, IMAGES, type Matrix, NAMESPACES, NOTHING, OWNERS, type Situation } from './situations.ts'

/**
 * The servers of the matrix: several stores, locations, copies and a cache, so that every rule has something to be asked
 * about. They may fetch from `port` of the loopback, whose `/data` is there.
 */
export const configOf = (port: number): TestConfig => ({
  DEFAULT: {
    enabled_backends: 'fast:file, cheap:file, web:http',
    enabled_import_methods: '[copy-image]',
    show_multiple_locations: 'True',
    image_cache_dir: 'cache',
    worker_self_reference_url: 'http://node-1:9292',
  },
  glance_store: { default_backend: 'fast' },
  import_filtering_opts: { allowed_hosts: '[127.0.0.1]', allowed_ports: `[${port}]` },
  paste_deploy: { flavor: 'keystone+cachemanagement' },
})

/** A request that asks a rule. */
interface Operation {
  readonly rule: string
  readonly method: string
  /** Below `/v2`; `{image}` and `{namespace}` stand for what the situation has. */
  readonly path: string
  /** `{web}` stands for the server that data may be fetched from. */
  readonly body?: unknown
  readonly type?: string
  readonly about: 'image' | 'queued image' | 'image in two places' | 'namespace' | 'nothing'
  /** A member of the answer, which the rule decides about: where it is there, the cell has a `+`. */
  readonly shows?: string
}

const PATCH = 'application/openstack-images-v2.1-json-patch'
const replace = (path: string, value: unknown) => [{ op: 'replace', path, value }]
const add = (path: string, value: unknown) => [{ op: 'add', path, value }]
const ABOUT: Readonly<Record<string, Operation['about']>> = {
  upload_image: 'queued image',
  add_image_location: 'queued image',
  delete_image_location: 'image in two places',
}
const image = (rule: string, method: string, rest = '', body?: unknown, type?: string): Operation => ({
  rule,
  method,
  path: `/images/{image}${rest}`,
  about: ABOUT[rule] ?? 'image',
  ...(body === undefined ? {} : { body }),
  ...(type === undefined ? {} : { type }),
})
const namespace = (rule: string, method: string, rest = '', body?: unknown): Operation => ({
  rule,
  method,
  path: `/metadefs/namespaces/{namespace}${rest}`,
  about: 'namespace',
  ...(body === undefined ? {} : { body }),
})
const general = (rule: string, method: string, path: string, body?: unknown): Operation => ({
  rule,
  method,
  path,
  about: 'nothing',
  ...(body === undefined ? {} : { body }),
})

const cached = (rule: string, method: string, path: string): Operation => ({ rule, method, path, about: 'image' })

const property = { name: 'new', title: 'New', type: 'string' }

export const OPERATIONS: readonly Operation[] = [
  general('add_image', 'POST', '/images', { name: 'new' }),
  general('get_images', 'GET', '/images'),
  general('stores_info_detail', 'GET', '/info/stores/detail'),
  image('get_image', 'GET'),
  image('modify_image', 'PATCH', '', replace('/name', 'new'), PATCH),
  image('publicize_image', 'PATCH', '', replace('/visibility', 'public'), PATCH),
  image('communitize_image', 'PATCH', '', replace('/visibility', 'community'), PATCH),
  image('delete_image', 'DELETE'),
  image('upload_image', 'PUT', '/file', 'data', 'application/octet-stream'),
  image('download_image', 'GET', '/file'),
  image('download_from_store', 'GET', '/file?prefer=fast'),
  image('copy_image', 'POST', '/import', { method: { name: 'copy-image' }, stores: ['cheap'] }),
  image('fetch_image_location', 'GET', '/locations'),
  image('add_image_location', 'POST', '/locations', { url: '{web}/data' }),
  { ...image('get_image_location', 'GET'), shows: 'locations' },
  image('set_image_location', 'PATCH', '', add('/locations/-', { url: '{web}/data', metadata: {} }), PATCH),
  image('delete_image_location', 'PATCH', '', [{ op: 'remove', path: '/locations/0' }], PATCH),
  image('deactivate', 'POST', '/actions/deactivate'),
  image('reactivate', 'POST', '/actions/reactivate'),
  image('get_members', 'GET', '/members'),
  image('get_member', 'GET', '/members/pc'),
  image('add_member', 'POST', '/members', { member: 'pd' }),
  image('modify_member', 'PUT', '/members/pa', { status: 'accepted' }),
  image('delete_member', 'DELETE', '/members/pc'),
  general('tasks_api_access', 'GET', '/tasks'),
  general('tasks_api_access', 'POST', '/tasks', { type: 'import', input: {} }),
  general('cache_list', 'GET', '/cache'),
  general('cache_delete', 'DELETE', '/cache'),
  cached('cache_image', 'PUT', '/cache/{image}'),
  cached('cache_delete', 'DELETE', '/cache/{image}'),
  cached('list_cached_nodes', 'GET', '/cache/nodes/{image}'),
  general('cache_clean', 'POST', '/cache/clean'),
  general('cache_prune', 'POST', '/cache/prune'),
  general('manage_image_cache', 'GET', '/cached_images'),
  general('get_metadef_namespaces', 'GET', '/metadefs/namespaces'),
  general('add_metadef_namespace', 'POST', '/metadefs/namespaces', { namespace: '{new}' }),
  general('list_metadef_resource_types', 'GET', '/metadefs/resource_types'),
  namespace('get_metadef_namespace', 'GET'),
  namespace('modify_metadef_namespace', 'PUT', '', { namespace: '{namespace}' }),
  namespace('delete_metadef_namespace', 'DELETE'),
  namespace('get_metadef_objects', 'GET', '/objects'),
  namespace('get_metadef_object', 'GET', '/objects/some'),
  namespace('add_metadef_object', 'POST', '/objects', { name: 'new' }),
  namespace('modify_metadef_object', 'PUT', '/objects/some', { name: 'some' }),
  namespace('delete_metadef_object', 'DELETE', '/objects/some'),
  namespace('get_metadef_properties', 'GET', '/properties'),
  namespace('get_metadef_property', 'GET', '/properties/some'),
  namespace('add_metadef_property', 'POST', '/properties', property),
  namespace('modify_metadef_property', 'PUT', '/properties/some', { ...property, name: 'some' }),
  namespace('remove_metadef_property', 'DELETE', '/properties/some'),
  namespace('get_metadef_tags', 'GET', '/tags'),
  namespace('get_metadef_tag', 'GET', '/tags/some'),
  namespace('add_metadef_tag', 'POST', '/tags/new'),
  namespace('add_metadef_tags', 'POST', '/tags', { tags: [{ name: 'new' }] }),
  namespace('modify_metadef_tag', 'PUT', '/tags/some', { name: 'some' }),
  namespace('delete_metadef_tag', 'DELETE', '/tags/some'),
  namespace('delete_metadef_tags', 'DELETE', '/tags'),
  namespace('get_metadef_resource_type', 'GET', '/resource_types'),
  namespace('add_metadef_resource_type_association', 'POST', '/resource_types', { name: 'new' }),
  namespace('remove_metadef_resource_type_association', 'DELETE', '/resource_types/some'),
]

/** A server of images, and how it is told who asks. */
export interface Server {
  readonly url: string
  /** Of the server that it may fetch from. */
  readonly web: string
  readonly identify: (token: string) => Readonly<Record<string, string>>
  /** Called before each operation that is asked for, and told its `METHOD /v2/path` after it. */
  readonly before?: () => void
  readonly after?: (route: string) => void
}

/** The status of every operation in every situation, by every caller. */
export async function askServer(server: Server): Promise<Matrix> {
  const matrix = new Map<string, Record<string, Record<string, string>>>()
  for (const operation of OPERATIONS) {
    const block: Record<string, Record<string, string>> = {}
    const situations = { namespace: NAMESPACES, nothing: NOTHING }[operation.about as string] ?? IMAGES
    for (const [name, situation] of Object.entries(situations)) block[name] = await askRow(server, operation, situation)
    const shows = operation.shows === undefined ? '' : ` (+ with ${operation.shows})`
    matrix.set(`${operation.rule}: ${operation.method} ${operation.path}${shows}`, block)
  }
  return matrix
}

let made = 0

async function askRow(server: Server, operation: Operation, situation: Situation): Promise<Record<string, string>> {
  const cells: Record<string, string> = {}
  let thing: string | undefined
  for (const caller of Object.keys(CALLERS) as Caller[]) {
    thing ??= await make(server, operation, situation)
    server.before?.()
    const fill = (text: string): string =>
      text
        .replaceAll('{image}', thing ?? '')
        .replaceAll('{namespace}', thing ?? '')
        .replaceAll('{new}', `new-${++made}`)
        .replaceAll('{web}', server.web)
    const { method, path, body, type, shows } = operation
    const { status, text } = await send(
      server,
      CALLERS[caller],
      method,
      fill(path),
      body === undefined ? undefined : fill(written(body)),
      type,
    )
    cells[caller] = `${status}${shows !== undefined && status === 200 && shows in JSON.parse(text) ? '+' : ''}`
    server.after?.(`${method} /v2${path.replace(/\?.*/, '').replace(/\/(some|new|pa|pc)$/, '/{name}')}`)
    // What was changed is not what the next one is to be asked about.
    if (method !== 'GET' && status < 300) thing = undefined
  }
  return cells
}

const written = (body: unknown): string => (typeof body === 'string' ? body : JSON.stringify(body))

async function make(server: Server, { about }: Operation, { owner, visibility, members }: Situation): Promise<string> {
  const token = OWNERS[owner]
  const succeed = async (method: string, path: string, body: unknown, type?: string): Promise<void> => {
    const { status, text } = await send(server, token, method, path, written(body), type)
    if (status >= 300) throw new Error(`${method} ${path}: ${status} ${text}`)
  }
  if (about === 'nothing') return ''
  if (about === 'namespace') {
    const name = `space-${++made}`
    await succeed('POST', '/metadefs/namespaces', {
      namespace: name,
      visibility,
      objects: [{ name: 'some' }],
      properties: { some: { title: 'Some', type: 'string' } },
      tags: [{ name: 'some' }],
      resource_type_associations: [{ name: 'some' }],
    })
    return name
  }
  const id = `00000000-0000-4000-8000-${String(++made).padStart(12, '0')}`
  await succeed('POST', '/images', { id, name: 'some', visibility, disk_format: 'raw', container_format: 'bare' })
  if (about !== 'queued image') await succeed('PUT', `/images/${id}/file`, 'data', 'application/octet-stream')
  if (about === 'image in two places') {
    const second = add('/locations/-', { url: `${server.web}/data`, metadata: {} })
    await succeed('PATCH', `/images/${id}`, second, PATCH)
  }
  for (const member of members) await succeed('POST', `/images/${id}/members`, { member })
  return id
}

async function send(
  server: Server,
  token: string,
  method: string,
  path: string,
  body?: string,
  type = 'application/json',
): Promise<{ readonly status: number; readonly text: string }> {
  const headers = { ...server.identify(token), ...(body === undefined ? {} : { 'Content-Type': type }) }
  const answer = await fetch(`${server.url}/v2${path}`, { method, headers, ...(body === undefined ? {} : { body }) })
  return { status: answer.status, text: await answer.text() }
}
