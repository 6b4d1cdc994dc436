// Domain to JSON: here, and nowhere else, do names become snake_case on the wire.
import type { Image, Location, Member } from '../../domain/image.ts'

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
