import { parseListQuery } from '../../src/api/v2/list-query.ts'
import type { Database, Scope } from '../../src/db/database.ts'
import type { ImageId } from '../../src/domain/ids.ts'
import { type ImageQuery, SORT_KEYS } from '../../src/domain/query.ts'
import { LARGE, SMALL, STRANGER } from './catalogue.ts'

/*
 * Pages of the list of a catalogue, as clients ask for them.
 */

export type Who = 'admin' | 'large' | 'small' | 'stranger'

export const SCOPES: Readonly<Record<Who, Scope>> = {
  admin: { admin: true, project: undefined },
  large: { admin: false, project: LARGE },
  small: { admin: false, project: SMALL },
  stranger: { admin: false, project: STRANGER },
}

/** What is behind the `?`; MIDDLE is the time in the middle of the catalogue. */
export const SORTED: readonly string[] = SORT_KEYS.flatMap((key) => [`sort=${key}:asc`, `sort=${key}:desc`])

/** Filters that are a range of an index, for callers with few memberships at least. */
export const SERVED: readonly string[] = [
  'name=name-7',
  'status=active',
  'status=queued',
  'disk_format=raw',
  'visibility=public',
  'visibility=private',
  'visibility=shared',
  'visibility=community',
  'visibility=all',
  'owner=project-large',
  'name=name-7&created_at=lt:MIDDLE',
  'created_at=gte:MIDDLE',
  'created_at=lt:MIDDLE',
  'sort=created_at:asc&created_at=gt:MIDDLE',
  'sort=updated_at:desc&updated_at=lte:MIDDLE',
  'sort=size:asc&size_min=5000000000',
  'sort=size:desc&size_min=1000000000&size_max=2000000000',
  'sort=name:asc&name=name-7',
]

/** Filters that lead to few images, at whatever size of the catalogue. */
export const RARE: readonly string[] = [
  'owner=project-77',
  'name=image-2000',
  'tag=golden',
  'build=400',
  'checksum=c400',
  'checksum=c0&os_version=1',
  'hw_disk_bus=none',
  'tag=golden&hw_disk_bus=virtio',
  'created_at=eq:MIDDLE',
]

/** Filters that many images satisfy, wherever one looks. */
export const COMMON: readonly string[] = [
  'tag=os-3',
  'hw_disk_bus=virtio',
  'os_distro=distro-5',
  'os_version=1&hw_disk_bus=virtio',
  'name=in:name-1,name-2,name-3',
  'status=in:active,deactivated',
  'size_min=5000000000',
  'min_ram_min=1024',
  'protected=false',
  'sort=name:asc&hw_disk_bus=virtio',
]

/** Filters, and combinations, that no index serves, and few images satisfy. */
export const BOUNDED: readonly string[] = [
  'tag=team-77',
  'rack=rack-7',
  'protected=true',
  'tag=os-3&os_distro=distro-5',
  'tag=os-3&tag=team-77',
  'hw_disk_bus=virtio&owner=project-77',
  'os_distro=distro-5&os_version=1&tag=os-3',
  'status=in:saving,importing',
  'updated_at=lt:MIDDLE',
  'min_ram=512&protected=true&os_distro=distro-5',
]

const MINUTE_MS = 60_000
const BEGIN_MS = 1_600_000_000_000

/** Within a catalogue of so many images. */
export const asParameters = (page: string, images: number): string => {
  const middle = new Date(BEGIN_MS + Math.floor(images / 2) * MINUTE_MS).toISOString()
  return page.replaceAll('MIDDLE', `${middle.slice(0, 19)}Z`)
}

export const asQuery = (page: string, images: number): ImageQuery =>
  parseListQuery([...new URLSearchParams(asParameters(page, images))], { pageDefault: 25, pageMax: 1000 })

/** An image of the list that is far from its beginning. */
export const deepMarker = async (
  db: Database,
  who: Who,
  page: string,
  images: number,
): Promise<ImageId | undefined> => {
  const wide = page.includes('created_at')
    ? page
    : [page, 'created_at=lt:MIDDLE'].filter((text) => text !== '').join('&')
  const query = asQuery(wide, images)
  const found = await db.images.list(
    { ...query, sort: [{ key: 'created_at', descending: true }], limit: 1 },
    SCOPES[who],
  )
  return found[0]?.id
}
