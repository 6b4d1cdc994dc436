import type { Image, Member } from '../domain/image.ts'
import type { MetadefObject, Namespace, PropertySchema, Stamps } from '../domain/metadef.ts'
import type { Task } from '../domain/task.ts'
import type { Notification } from './notifier.ts'

export type Priority = 'INFO' | 'ERROR'

/** What consumers of Glance's notifications are told: names and shapes are theirs (glance/notifier.py). */
export interface Told {
  readonly priority: Priority
  readonly payload: Payload | string
}
export type Payload = Readonly<Record<string, unknown>>

export function tell(event: Notification, now: Date): Told {
  if (event.type === 'image.upload' && 'failure' in event) return { priority: 'ERROR', payload: event.failure }
  const isShort = event.type === 'image.send' && event.bytes !== event.expected
  return { priority: isShort ? 'ERROR' : 'INFO', payload: payloadOf(event, now) }
}

type Successful = Exclude<Notification, { readonly failure: string }>

function payloadOf(event: Successful, now: Date): Payload {
  const end = event.type.endsWith('.delete') ? { deleted: true, deleted_at: isoTime(now) } : ALIVE
  if ('member' in event) return { ...memberPayload(event.member), ...end }
  if ('task' in event) return { ...taskPayload(event.task, now), ...end }
  if ('item' in event) return { ...definitionPayload(event), ...end }
  if ('namespace' in event) return { ...namespacePayload(event.namespace, event.oldName), ...end }
  if (event.type === 'image.send') return sendPayload(event)
  const lists = event.type === 'image.prepare' || event.type === 'image.upload' ? importLists(event.image) : {}
  const backend = event.type === 'image.prepare' && event.store !== undefined ? { backend: event.store } : {}
  return { ...imagePayload(event.image), ...lists, ...backend, ...end }
}

const isoTime = (time: Date): string => `${time.toISOString().slice(0, 19)}Z`

const ALIVE = { deleted: false, deleted_at: null }
const stamps = ({ createdAt, updatedAt }: Stamps) => ({
  created_at: isoTime(createdAt),
  updated_at: isoTime(updatedAt ?? createdAt),
})

/** Without locations, which may hold credentials. */
const imagePayload = (image: Image): Payload => ({
  id: image.id,
  name: image.name,
  status: image.status,
  ...stamps(image),
  min_disk: image.minDisk,
  min_ram: image.minRam,
  protected: image.protected,
  checksum: image.checksum,
  owner: image.owner,
  disk_format: image.diskFormat,
  container_format: image.containerFormat,
  size: image.size,
  virtual_size: image.virtualSize,
  is_public: image.visibility === 'public',
  visibility: image.visibility,
  properties: Object.fromEntries(image.properties),
  tags: image.tags,
})

/** An import keeps these lists as properties of the image while it runs. */
const importLists = ({ properties }: Image) => ({
  os_glance_importing_to_stores: listed(properties.get('os_glance_importing_to_stores')),
  os_glance_failed_import: listed(properties.get('os_glance_failed_import')),
})
const listed = (names: string | null | undefined): readonly string[] => (names ? names.split(',') : [])

const sendPayload = ({ bytes, image, to }: Extract<Successful, { readonly type: 'image.send' }>): Payload => ({
  bytes_sent: bytes,
  image_id: image.id,
  owner_id: image.owner,
  receiver_tenant_id: to.projectId ?? null,
  receiver_user_id: to.userId ?? null,
})

const memberPayload = (member: Member): Payload => ({
  image_id: member.imageId,
  member_id: member.member,
  status: member.status,
  ...stamps(member),
})

/** What was asked for, what came of it and what went wrong may be confidential. */
const taskPayload = (task: Task, now: Date): Payload => ({
  id: task.id,
  type: task.type,
  status: task.status,
  result: null,
  owner: task.owner,
  message: null,
  // Glance takes no time for this moment.
  expires_at: isoTime(task.expiresAt ?? now),
  ...stamps(task),
})

const namespacePayload = (namespace: Namespace, oldName = namespace.name): Payload => ({
  namespace: namespace.name,
  namespace_old: oldName,
  display_name: namespace.displayName,
  protected: namespace.protected,
  visibility: namespace.visibility,
  owner: namespace.owner,
  description: namespace.description,
  ...stamps(namespace),
})

type Definition = Extract<Successful, { readonly item: unknown }>

function definitionPayload({ namespace, item, oldName = item.name }: Definition): Payload {
  const names = { namespace, name: item.name, name_old: oldName }
  if ('schema' in item) return { ...names, ...schemaPayload(item.schema) }
  if ('properties' in item) return { ...names, ...objectPayload(item), ...stamps(item) }
  if ('prefix' in item) return { ...names, prefix: item.prefix, properties_target: item.target, ...stamps(item) }
  return { ...names, ...stamps(item) }
}

const objectPayload = ({ properties, required, description }: MetadefObject): Payload => ({
  properties: [...properties].map(([name, schema]) => ({ name, ...schemaPayload(schema) })),
  required,
  description,
})

const TOLD_OF_SCHEMAS = [
  ...['type', 'title', 'description', 'default', 'minimum', 'maximum', 'enum', 'pattern', 'minLength', 'maxLength'],
  ...['confidential', 'items', 'uniqueItems', 'minItems', 'maxItems', 'additionalItems'],
]
const schemaPayload = (schema: PropertySchema): Payload =>
  Object.fromEntries(TOLD_OF_SCHEMAS.map((name) => [name, schema[name] ?? null]))
