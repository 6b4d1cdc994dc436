import { setTimeout as delay } from 'node:timers/promises'

/** What is told while somebody works with a service: the steps, in order. Projects carry the suite's name. */
export interface Step {
  readonly title: string
  readonly as: keyof typeof CAST
  readonly method: string
  /** `{image}` stands for the id of the last created image. */
  readonly path: string
  readonly headers?: Readonly<Record<string, string>>
  readonly body?: string | Readonly<Record<string, unknown>> | readonly unknown[]
  readonly status: number
}

const CAST = {
  alice: 'alice:notify-a:member,reader',
  bob: 'bob:notify-b:member,reader',
  admin: 'admin:notify-admin:admin,member,reader',
}

const patch = (...operations: readonly unknown[]) => ({
  method: 'PATCH',
  path: '/v2/images/{image}',
  headers: { 'Content-Type': 'application/openstack-images-v2.1-json-patch' },
  body: operations,
})
const upload = (body: string, headers: Readonly<Record<string, string>> = {}) => ({
  method: 'PUT',
  path: '/v2/images/{image}/file',
  headers: { 'Content-Type': 'application/octet-stream', ...headers },
  body,
})
const create = (name: string, more: Readonly<Record<string, unknown>> = {}) => ({
  method: 'POST',
  path: '/v2/images',
  body: { name, disk_format: 'raw', container_format: 'bare', ...more },
  status: 201,
})
const NAMESPACE = '/v2/metadefs/namespaces'

/** The service has the stores `fast` (default) and `cheap`, and a `user_storage_quota` of 100 bytes. */
export const STEPS: readonly Step[] = [
  {
    title: 'an image is created',
    as: 'alice',
    ...create('ten', { min_disk: 1, min_ram: 2, os_distro: 'débian ☃', a: '', tags: ['one'] }),
  },
  { title: 'its data is uploaded', as: 'alice', ...upload('ten bytes!'), status: 204 },
  { title: 'its data is downloaded', as: 'alice', method: 'GET', path: '/v2/images/{image}/file', status: 200 },
  {
    title: 'a part of its data is downloaded',
    as: 'alice',
    method: 'GET',
    path: '/v2/images/{image}/file',
    headers: { Range: 'bytes=0-3' },
    status: 206,
  },
  {
    title: 'it is renamed',
    as: 'alice',
    ...patch({ op: 'replace', path: '/name', value: 'renamed' }, { op: 'add', path: '/empty', value: '' }),
    status: 200,
  },
  { title: 'a patch changes nothing', as: 'alice', ...patch(), status: 200 },
  { title: 'a tag is added', as: 'alice', method: 'PUT', path: '/v2/images/{image}/tags/two', status: 204 },
  { title: 'a tag is removed', as: 'alice', method: 'DELETE', path: '/v2/images/{image}/tags/one', status: 204 },
  {
    title: 'it is deactivated',
    as: 'admin',
    method: 'POST',
    path: '/v2/images/{image}/actions/deactivate',
    status: 204,
  },
  {
    title: 'it is reactivated',
    as: 'admin',
    method: 'POST',
    path: '/v2/images/{image}/actions/reactivate',
    status: 204,
  },
  {
    title: 'a member is added',
    as: 'alice',
    method: 'POST',
    path: '/v2/images/{image}/members',
    body: { member: 'notify-b' },
    status: 200,
  },
  {
    title: 'the member accepts',
    as: 'bob',
    method: 'PUT',
    path: '/v2/images/{image}/members/notify-b',
    body: { status: 'accepted' },
    status: 200,
  },
  { title: 'the member reads the data', as: 'bob', method: 'GET', path: '/v2/images/{image}/file', status: 200 },
  {
    title: 'the member is removed',
    as: 'alice',
    method: 'DELETE',
    path: '/v2/images/{image}/members/notify-b',
    status: 204,
  },
  {
    title: 'it becomes public',
    as: 'admin',
    ...patch({ op: 'replace', path: '/visibility', value: 'public' }),
    status: 200,
  },
  { title: 'it is deleted', as: 'admin', method: 'DELETE', path: '/v2/images/{image}', status: 204 },

  {
    title: 'an image without a name is created',
    as: 'alice',
    method: 'POST',
    path: '/v2/images',
    body: {},
    status: 201,
  },
  { title: 'an upload without formats is refused', as: 'alice', ...upload('ten bytes!'), status: 400 },
  { title: 'a queued image is deleted', as: 'alice', method: 'DELETE', path: '/v2/images/{image}', status: 204 },

  { title: 'an image for the other store is created', as: 'alice', ...create('cheap') },
  {
    title: 'its data is uploaded into a store of choice',
    as: 'alice',
    ...upload('ten bytes!', { 'X-Image-Meta-Store': 'cheap' }),
    status: 204,
  },
  { title: 'a second upload is refused', as: 'alice', ...upload('ten bytes!'), status: 409 },

  { title: 'an image that will be too large is created', as: 'alice', ...create('large') },
  { title: 'data above the quota is uploaded', as: 'alice', ...upload('x'.repeat(120)), status: 413 },
  { title: 'it has no data to download', as: 'alice', method: 'GET', path: '/v2/images/{image}/file', status: 204 },
  {
    title: 'it is deleted without ever having had data',
    as: 'alice',
    method: 'DELETE',
    path: '/v2/images/{image}',
    status: 204,
  },

  {
    title: 'a namespace is created',
    as: 'admin',
    method: 'POST',
    path: NAMESPACE,
    body: {
      namespace: 'OS::Notify',
      display_name: 'Notify',
      description: 'About notifications.',
      visibility: 'public',
      owner: 'notify-admin',
    },
    status: 201,
  },
  {
    title: 'an object is created',
    as: 'admin',
    method: 'POST',
    path: `${NAMESPACE}/OS::Notify/objects`,
    body: {
      name: 'dog',
      description: 'A dog.',
      required: ['name'],
      properties: {
        name: { title: 'Name', type: 'string', minLength: 0, maxLength: 10, pattern: '^[a-z]+$', default: 'rex' },
        age: { title: 'Age', description: 'In years.', type: 'integer', minimum: 0, maximum: 30 },
        tricks: {
          title: 'Tricks',
          type: 'array',
          items: { type: 'string', enum: ['sit', 'roll'] },
          uniqueItems: true,
          minItems: 1,
          maxItems: 2,
          additionalItems: false,
        },
      },
    },
    status: 201,
  },
  {
    title: 'an object is renamed',
    as: 'admin',
    method: 'PUT',
    path: `${NAMESPACE}/OS::Notify/objects/dog`,
    body: { name: 'cat', description: 'A cat.' },
    status: 200,
  },
  {
    title: 'an object is deleted',
    as: 'admin',
    method: 'DELETE',
    path: `${NAMESPACE}/OS::Notify/objects/cat`,
    status: 204,
  },
  {
    title: 'a property is created',
    as: 'admin',
    method: 'POST',
    path: `${NAMESPACE}/OS::Notify/properties`,
    body: {
      name: 'cores',
      title: 'Cores',
      description: 'How many.',
      type: 'integer',
      minimum: 1,
      maximum: 8,
      default: 2,
      enum: ['1', '2'],
    },
    status: 201,
  },
  {
    title: 'a property is renamed',
    as: 'admin',
    method: 'PUT',
    path: `${NAMESPACE}/OS::Notify/properties/cores`,
    body: {
      name: 'threads',
      title: 'Threads',
      type: 'string',
      minLength: 1,
      maxLength: 2,
      pattern: '.',
      readonly: true,
    },
    status: 200,
  },
  {
    title: 'a property is deleted',
    as: 'admin',
    method: 'DELETE',
    path: `${NAMESPACE}/OS::Notify/properties/threads`,
    status: 204,
  },
  {
    title: 'a definition tag is created',
    as: 'admin',
    method: 'POST',
    path: `${NAMESPACE}/OS::Notify/tags/one`,
    status: 201,
  },
  {
    title: 'a definition tag is renamed',
    as: 'admin',
    method: 'PUT',
    path: `${NAMESPACE}/OS::Notify/tags/one`,
    body: { name: 'uno' },
    status: 200,
  },
  {
    title: 'a definition tag is deleted',
    as: 'admin',
    method: 'DELETE',
    path: `${NAMESPACE}/OS::Notify/tags/uno`,
    status: 204,
  },
  {
    title: 'tags are replaced',
    as: 'admin',
    method: 'POST',
    path: `${NAMESPACE}/OS::Notify/tags`,
    body: { tags: [{ name: 'two' }, { name: 'three' }] },
    status: 201,
  },
  {
    title: 'a resource type is associated',
    as: 'admin',
    method: 'POST',
    path: `${NAMESPACE}/OS::Notify/resource_types`,
    body: { name: 'OS::Nova::Flavor', prefix: 'hw:', properties_target: 'image' },
    status: 201,
  },
  {
    title: 'its association ends',
    as: 'admin',
    method: 'DELETE',
    path: `${NAMESPACE}/OS::Notify/resource_types/OS::Nova::Flavor`,
    status: 204,
  },
  {
    title: 'a namespace is renamed',
    as: 'admin',
    method: 'PUT',
    path: `${NAMESPACE}/OS::Notify`,
    body: { namespace: 'OS::Renamed', visibility: 'private' },
    status: 200,
  },
  {
    title: 'all objects are deleted',
    as: 'admin',
    method: 'DELETE',
    path: `${NAMESPACE}/OS::Renamed/objects`,
    status: 204,
  },
  {
    title: 'all properties are deleted',
    as: 'admin',
    method: 'DELETE',
    path: `${NAMESPACE}/OS::Renamed/properties`,
    status: 204,
  },
  { title: 'all tags are deleted', as: 'admin', method: 'DELETE', path: `${NAMESPACE}/OS::Renamed/tags`, status: 204 },
  { title: 'a namespace is deleted', as: 'admin', method: 'DELETE', path: `${NAMESPACE}/OS::Renamed`, status: 204 },
  {
    title: 'a namespace is created with all that is in it',
    as: 'admin',
    method: 'POST',
    path: NAMESPACE,
    body: {
      namespace: 'OS::Whole',
      resource_type_associations: [{ name: 'OS::Nova::Flavor' }],
      properties: { cores: { title: 'Cores', type: 'integer' } },
      objects: [{ name: 'dog', properties: { name: { title: 'Name', type: 'string' } } }],
      tags: [{ name: 'one' }],
    },
    status: 201,
  },
  { title: 'and deleted again', as: 'admin', method: 'DELETE', path: `${NAMESPACE}/OS::Whole`, status: 204 },
]

/** A message as it came from the broker. */
export interface Received {
  readonly routingKey: string
  readonly body: Readonly<Record<string, unknown>>
}

/** What is worth comparing of a message: without what is different each time. */
export interface Event {
  readonly queue: string
  readonly event: string
  readonly priority: string
  readonly publisher: string
  readonly payload: unknown
}

/** Removes what an earlier run may have left in the way of the steps. */
export async function clear(baseUrl: string): Promise<void> {
  for (const name of ['OS::Notify', 'OS::Renamed', 'OS::Whole'])
    await fetch(`${baseUrl}${NAMESPACE}/${name}`, { method: 'DELETE', headers: { 'X-Auth-Token': CAST.admin } })
}

/** Plays the steps; gives what was told during each, in order, by title. `received` grows as messages come in. */
export async function play(
  baseUrl: string,
  steps: readonly Step[],
  received: readonly Received[],
  settleMs = 300,
): Promise<Readonly<Record<string, readonly Event[]>>> {
  const told: Record<string, readonly Event[]> = {}
  const names = new Map<string, string>()
  let image = ''
  for (const { title, as, method, path, headers, body, status } of steps) {
    const before = received.length
    const answer = await fetch(`${baseUrl}${path.replace('{image}', image)}`, {
      method,
      headers: { 'X-Auth-Token': CAST[as], 'Content-Type': 'application/json', ...headers },
      ...(body === undefined ? {} : { body: typeof body === 'string' ? body : JSON.stringify(body) }),
    })
    const text = await answer.text()
    if (answer.status !== status) throw new Error(`${title}: ${answer.status} instead of ${status}: ${text}`)
    if (path === '/v2/images') image = (JSON.parse(text) as { id: string }).id
    await settled(received, settleMs)
    told[title] = received.slice(before).map((message) => simplified(message, names))
  }
  return told
}

/** Waits until nothing has come in for a while. */
async function settled(received: readonly Received[], quietMs: number): Promise<void> {
  let count = -1
  while (count !== received.length) {
    count = received.length
    await delay(quietMs)
  }
}

const UUID = /[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}/g
const TIME = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/

function simplified({ routingKey, body }: Received, names: Map<string, string>): Event {
  const payload = JSON.parse(JSON.stringify(body['payload']), (name, value: unknown) => {
    if (name === 'tags' && Array.isArray(value)) return value.toSorted()
    if (typeof value !== 'string') return value
    if (TIME.test(value)) return '{{time}}'
    return value.replaceAll(UUID, (id) => {
      if (!names.has(id)) names.set(id, `{{id${names.size + 1}}}`)
      return names.get(id) ?? ''
    })
  }) as unknown
  return {
    queue: routingKey,
    event: String(body['event_type']),
    priority: String(body['priority']),
    publisher: String(body['publisher_id']),
    payload,
  }
}
