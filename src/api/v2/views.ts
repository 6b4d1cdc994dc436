// Domain to JSON: here, and nowhere else, do names become snake_case on the wire.
import type { Image, Location, Member } from '../../domain/image.ts'
import type { Task } from '../../domain/task.ts'

export interface ViewOptions {
  readonly multiStore: boolean
  readonly showDirectUrl: boolean
  readonly showLocations: boolean
  /** Names that schema-image.json declares: a null of theirs stays null. */
  readonly declared: ReadonlySet<string>
  /** Heaviest store first. */
  readonly order: (locations: readonly Location[]) => readonly Location[]
}

/** Properties by which nodes talk to each other. */
const HIDDEN = new Set(['os_glance_stage_host', 'os_glance_hash_op_host'])

/** `YYYY-MM-DDTHH:MM:SSZ` */
export const isoTime = (date: Date): string => `${date.toISOString().slice(0, 19)}Z`

export function imageView(image: Image, options: ViewOptions, isAdmin: boolean): Record<string, unknown> {
  const view: Record<string, unknown> = Object.create(null)
  for (const [name, value] of image.properties) {
    if (!HIDDEN.has(name)) view[name] = value ?? (options.declared.has(name) ? null : '')
  }
  view['name'] = image.name
  view['disk_format'] = image.diskFormat
  view['container_format'] = image.containerFormat
  view['visibility'] = image.visibility
  view['size'] = image.size
  view['virtual_size'] = image.virtualSize
  view['status'] = image.status
  view['checksum'] = image.checksum
  view['protected'] = image.protected
  view['min_ram'] = image.minRam
  view['min_disk'] = image.minDisk
  view['owner'] = image.owner
  view['os_hidden'] = image.hidden
  view['os_hash_algo'] = image.osHashAlgo
  view['os_hash_value'] = image.osHashValue
  view['id'] = image.id
  view['created_at'] = isoTime(image.createdAt)
  view['updated_at'] = isoTime(image.updatedAt)
  // Where a deactivated image lies is for administrators alone.
  const locations = image.status === 'deactivated' && !isAdmin ? [] : options.order(image.locations)
  if (options.showLocations) {
    view['locations'] = locations.map(locationView)
  }
  if (options.showDirectUrl && locations[0] !== undefined) view['direct_url'] = locations[0].uri
  view['tags'] = image.tags
  view['self'] = `/v2/images/${image.id}`
  view['file'] = `/v2/images/${image.id}/file`
  view['schema'] = '/v2/schemas/image'
  const stores = locations.flatMap(({ store }) => store ?? [])
  if (options.multiStore && stores.length > 0) view['stores'] = stores.join(',')
  return view
}

export const locationView = ({ uri, store, metadata }: Location) => ({
  url: uri,
  metadata: store === undefined ? metadata : { ...metadata, store },
})

export const memberView = (member: Member) => ({
  member_id: member.member,
  image_id: member.imageId,
  status: member.status,
  created_at: isoTime(member.createdAt),
  updated_at: isoTime(member.updatedAt),
  schema: '/v2/schemas/member',
})

/** A task as lists show it. */
export const taskStubView = ({ id, type, status, owner, createdAt, updatedAt, expiresAt }: Task) => ({
  id,
  type,
  status,
  owner: owner ?? '',
  created_at: isoTime(createdAt),
  updated_at: isoTime(updatedAt),
  ...(expiresAt === null ? {} : { expires_at: isoTime(expiresAt) }),
  self: `/v2/tasks/${id}`,
  schema: '/v2/schemas/task',
})

export const taskView = (task: Task) => ({
  ...taskStubView(task),
  input: task.input,
  result: task.result,
  message: task.message,
  ...(task.imageId === null ? {} : { image_id: task.imageId }),
  ...(task.requestId === null ? {} : { request_id: task.requestId }),
  ...(task.userId === null ? {} : { user_id: task.userId }),
})

/** `YYYY-MM-DDTHH:MM:SS.ffffff`, of UTC without saying so. */
const rowTime = (date: Date): string => `${date.toISOString().slice(0, 23)}000`

/** A task as the tasks of an image are shown: a row of the database. */
export const taskRowView = (task: Task) => ({
  id: task.id,
  type: task.type,
  status: task.status,
  owner: task.owner ?? '',
  input: task.input,
  result: task.result,
  message: task.message,
  image_id: task.imageId,
  request_id: task.requestId,
  user_id: task.userId,
  created_at: rowTime(task.createdAt),
  updated_at: rowTime(task.updatedAt),
  expires_at: task.expiresAt && rowTime(task.expiresAt),
  deleted: false,
  deleted_at: null,
})
