import { randomBytes } from 'node:crypto'
import type { Client } from './client.ts'
import type { Caller, Site } from './site.ts'
import type { Web } from './source.ts'

export interface World {
  readonly site: Site
  readonly client: Client
  readonly web: Web
}

/** What one of the services made. */
export interface Stock {
  /** Ids by what they are examples of. */
  readonly images: Readonly<Record<ExampleName, string>>
  readonly namespace: string
  readonly tasks: readonly string[]
}

const ODD_TEXTS: Readonly<Record<string, string>> = {
  empty: '',
  blank: '   ',
  quotes: `"double" 'single' \`back\``,
  colons: 'a:b::c;d=e&f',
  percent: '100% %s %(name)s',
  backslash: 'C:\\images\\new\ttab',
  lines: 'one\ntwo\r\nthree',
  unicode: 'Grüße, Привет, 画像, ﷽',
  html: '<b>&amp;</b>',
  json: '{"a": [1, null, "x"]}',
  sql: "'; drop table images; --",
  long: 'long '.repeat(12_000),
  number: '0x10',
  boolean: 'True',
}
const ODD_NAMES: Readonly<Record<string, string>> = {
  'with space': '1',
  'with:colon': '2',
  'with"quote': '3',
  Größe: '4',
  'a.b-c_d': '5',
  Case: '6',
}
const ODD_TAGS = ['red', 'two words', 'Größe', "it's", '"quoted"', 'a,b', 'x'.repeat(255)]

/** What an image is made of: what is done to it besides creating it, through the API. */
interface Example {
  readonly as?: Caller
  readonly attributes?: Readonly<Record<string, unknown>>
  readonly make?: (make: Making) => Promise<void>
}

interface Making extends World {
  readonly id: string
  upload(to?: string): Promise<void>
  /** As the image's owner, and with this answer. */
  call(status: number, method: string, path: string, body?: unknown, as?: Caller): Promise<void>
  patch(...operations: readonly Readonly<Record<string, unknown>>[]): Promise<void>
  import(body: Readonly<Record<string, unknown>>, as?: Caller): Promise<void>
}

const DIRECT = { method: { name: 'glance-direct' } }

const EXAMPLES = {
  queued: {},
  full: {
    attributes: {
      name: 'Ein "Name": mit\tallem — и так далее',
      min_disk: 7,
      min_ram: 512,
      protected: true,
      tags: ODD_TAGS,
      ...ODD_TEXTS,
    },
  },
  named: { attributes: ODD_NAMES, make: ({ upload }) => upload() },
  nameless: { attributes: { name: '' } },
  active: { make: ({ upload }) => upload() },
  cheap: { make: ({ upload }) => upload('cheap') },
  twice: {
    make: async (make) => {
      await make.upload('fast')
      await make.import({ method: { name: 'copy-image' }, stores: ['cheap'] }, 'admin')
    },
  },
  everywhere: {
    make: async (make) => {
      await make.call(204, 'PUT', '/stage', randomBytes(100_000))
      await make.import({ ...DIRECT, stores: ['cheap', 'fast'] })
    },
  },
  fetched: {
    make: (make) => make.import({ method: { name: 'web-download', uri: `${make.web.url}/image` } }),
  },
  unfetched: {
    make: (make) => make.import({ method: { name: 'web-download', uri: `${make.web.url}/gone` } }),
  },
  located: {
    as: 'admin',
    make: ({ patch, web }) =>
      patch({
        op: 'add',
        path: '/locations/-',
        value: { url: `${web.url}/located?a=b`, metadata: { 'a key': 'a "value"' } },
      }),
  },
  none: { make: ({ call }) => call(204, 'PUT', '/file', '') },
  deactivated: {
    make: async ({ upload, call }) => {
      await upload()
      await call(204, 'POST', '/actions/deactivate', undefined, 'admin')
    },
  },
  staged: { make: ({ call }) => call(204, 'PUT', '/stage', randomBytes(150_000)) },
  public: { as: 'admin', attributes: { visibility: 'public' }, make: ({ upload }) => upload() },
  community: { attributes: { visibility: 'community' }, make: ({ upload }) => upload() },
  private: { attributes: { visibility: 'private' }, make: ({ upload }) => upload() },
  hidden: { attributes: { os_hidden: true, visibility: 'community' }, make: ({ upload }) => upload() },
  shared: { make: (make) => share(make, 'accepted') },
  pending: { make: (make) => share(make, 'pending') },
  rejected: { make: (make) => share(make, 'rejected') },
  unshared: {
    make: async (make) => {
      await share(make, 'accepted')
      await make.call(204, 'DELETE', `/members/${make.site.projects.other}`)
    },
  },
  reshared: {
    make: async (make) => {
      await share(make, 'accepted')
      await make.call(204, 'DELETE', `/members/${make.site.projects.other}`)
      await share(make, 'accepted')
    },
  },
  changed: {
    attributes: { gone: 'soon', back: 'first', tags: ['one', 'two'] },
    make: async ({ upload, patch, call }) => {
      await patch(
        { op: 'remove', path: '/gone' },
        { op: 'remove', path: '/back' },
        { op: 'add', path: '/new', value: '' },
      )
      await patch(
        { op: 'add', path: '/back', value: 'again' },
        { op: 'replace', path: '/tags', value: ['two', 'three'] },
      )
      await call(204, 'DELETE', '/tags/two')
      await call(204, 'PUT', '/tags/four')
      await upload()
    },
  },
  null: { attributes: { null: 'is set by the database' } },
  killed: { attributes: { name: 'of the API v1' } },
  deleted: {
    attributes: { tags: ['gone'], gone: 'too' },
    make: async (make) => {
      await share(make, 'accepted')
      await make.call(204, 'DELETE', '')
    },
  },
  deletedQueued: { make: ({ call }) => call(204, 'DELETE', '') },
  deletedStaged: {
    make: async ({ call }) => {
      await call(204, 'PUT', '/stage', randomBytes(1000))
      await call(204, 'DELETE', '')
    },
  },
} as const satisfies Record<string, Example>
export type ExampleName = keyof typeof EXAMPLES

/** Those that no request finds any more. */
export const DELETED: readonly ExampleName[] = ['deleted', 'deletedQueued', 'deletedStaged']

async function share({ call, upload, site: { projects } }: Making, status: string): Promise<void> {
  const { other } = projects
  await call(200, 'POST', '/members', { member: other })
  if (status !== 'pending') await call(200, 'PUT', `/members/${other}`, { status }, 'other')
  await upload().catch((error: unknown) => {
    // It has its data from the first time.
    if (!/ 409,/.test(String(error))) throw error
  })
}

/** Makes one image of each kind, metadata definitions and tasks, all through the API, but for what no API makes. */
export async function makeStock(world: World, label: string): Promise<Stock> {
  const { client, site } = world
  const images: Record<string, string> = {}
  for (const [name, example] of Object.entries(EXAMPLES) as [string, Example][])
    images[name] = await makeImage(world, `${label}-${name}`, example)
  await site.sql(`update image_properties set value = NULL where name = 'null' and image_id = '${images['null']}'`)
  await site.sql(`update images set status = 'killed' where id = '${images['killed']}'`)
  // Upstream reads paths as Latin-1.
  const namespace = `${label}::a name`
  await makeNamespace(client, namespace)
  return { images: images as Record<ExampleName, string>, namespace, tasks: await makeTasks(world, label) }
}

async function makeImage(
  world: World,
  label: string,
  { as = 'owner', attributes = {}, make }: Example,
): Promise<string> {
  const { client } = world
  const body = { name: label, disk_format: 'raw', container_format: 'bare', ...attributes }
  const { id: made } = await client.must(201, { as, method: 'POST', path: '/images', body })
  const id = String(made)
  const call: Making['call'] = async (status, method, path, body, caller = as) => {
    await client.must(status, { as: caller, method, path: `/images/${id}${path}`, body })
  }
  await make?.({
    ...world,
    id,
    call,
    upload: async (store) => {
      const headers: Readonly<Record<string, string>> = store === undefined ? {} : { 'x-image-meta-store': store }
      const body = randomBytes(50_000 + Math.floor(Math.random() * 300_000))
      await client.must(204, { as, method: 'PUT', path: `/images/${id}/file`, body, headers })
    },
    patch: (...operations) => call(200, 'PATCH', '', operations),
    import: async (body, caller) => {
      await call(202, 'POST', '/import', body, caller)
      await client.settled(id)
    },
  })
  return id
}

async function makeNamespace({ must }: Client, namespace: string): Promise<void> {
  const path = `/metadefs/namespaces/${encodeURIComponent(namespace)}`
  const post = (where: string, body: unknown) => must(201, { as: 'admin', method: 'POST', path: where, body })
  const property = { name: 'a:b', title: 'Größe "1"', type: 'string', enum: ['a', 'ü'], default: 'a' }
  await post('/metadefs/namespaces', {
    namespace,
    display_name: 'Ein "Name"',
    description: "Quotes ' and ü",
    visibility: 'public',
    protected: false,
  })
  await post(`${path}/properties`, property)
  await post(`${path}/objects`, {
    name: 'object',
    description: '',
    required: ['x'],
    properties: { x: { title: 'X', type: 'integer', minimum: 0 } },
  })
  await post(`${path}/tags`, { tags: [{ name: 'tag' }, { name: 'ü tag' }] })
  await post(`${path}/resource_types`, { name: 'OS::Glance::Image', prefix: 'p:', properties_target: 'image' })
  await must(200, { as: 'admin', method: 'PUT', path: `${path}/properties/a%3Ab`, body: { ...property, title: 'ß' } })
}

/** Tasks of the older kind, which an administrator begins. */
async function makeTasks({ client, web }: World, label: string): Promise<readonly string[]> {
  const { must } = client
  const ids: string[] = []
  for (const path of ['image', 'gone']) {
    const input = {
      import_from: `${web.url}/${path}`,
      import_from_format: 'raw',
      image_properties: { name: `${label} ü`, disk_format: 'raw', container_format: 'bare' },
    }
    const { id } = await must(201, { as: 'admin', method: 'POST', path: '/tasks', body: { type: 'import', input } })
    ids.push(String(id))
    await client.ended(String(id))
  }
  return ids
}
