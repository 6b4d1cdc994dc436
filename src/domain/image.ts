import type { ImageId, LocationUri, ProjectId, StoreId } from './ids.ts'

export const VISIBILITIES = ['community', 'public', 'private', 'shared'] as const
export type Visibility = (typeof VISIBILITIES)[number]

export const MEMBER_STATUSES = ['pending', 'accepted', 'rejected'] as const
export type MemberStatus = (typeof MEMBER_STATUSES)[number]

/** Which status may follow which (glance/domain/__init__.py, `Image.valid_state_targets`). */
export const TRANSITIONS = {
  queued: ['saving', 'uploading', 'importing', 'active', 'deleted'],
  saving: ['active', 'killed', 'deleted', 'queued'],
  uploading: ['importing', 'queued', 'deleted'],
  importing: ['active', 'deleted', 'queued'],
  active: ['pending_delete', 'deleted', 'deactivated'],
  killed: ['deleted'],
  pending_delete: ['deleted', 'active'],
  deleted: [],
  deactivated: ['active', 'deleted'],
} as const satisfies Record<string, readonly string[]>
export type ImageStatus = keyof typeof TRANSITIONS

export const canBecome = (from: ImageStatus, to: ImageStatus): boolean =>
  (TRANSITIONS[from] as readonly ImageStatus[]).includes(to)

/** Every status from which `to` may be reached. */
export const whenceTo = (to: ImageStatus): readonly ImageStatus[] =>
  (Object.keys(TRANSITIONS) as ImageStatus[]).filter((from) => canBecome(from, to))

/** `pending_delete`: the image is gone, its data not yet. */
export type LocationStatus = 'active' | 'pending_delete' | 'deleted'

export interface Location {
  readonly uri: LocationUri
  /** The store that keeps the data; undefined where the row does not say (single-store deployments of old). */
  readonly store: StoreId | undefined
  /** What the row holds beyond the store, as JSON. */
  readonly metadata: Readonly<Record<string, unknown>>
}

export interface Image {
  readonly id: ImageId
  readonly name: string | null
  readonly status: ImageStatus
  readonly visibility: Visibility
  readonly owner: ProjectId | null
  readonly protected: boolean
  readonly hidden: boolean
  /** Bytes of image data; null until known. */
  readonly size: number | null
  /** Bytes that a machine would see as the disk; null when unknown. */
  readonly virtualSize: number | null
  /** MiB */
  readonly minRam: number
  /** GiB */
  readonly minDisk: number
  readonly diskFormat: string | null
  readonly containerFormat: string | null
  /** md5, hex */
  readonly checksum: string | null
  readonly osHashAlgo: string | null
  readonly osHashValue: string | null
  readonly createdAt: Date
  readonly updatedAt: Date
  readonly tags: readonly string[]
  /** Extra properties; a map, because a client may choose names such as `__proto__`. */
  readonly properties: ReadonlyMap<string, string | null>
  /** Only those with status `active`, oldest first. */
  readonly locations: readonly Location[]
}

/** What an owner may say of an image (as against what the service finds out about it). */
export type ImageAttributes = Pick<
  Image,
  'name' | 'visibility' | 'owner' | 'protected' | 'hidden' | 'minRam' | 'minDisk' | 'diskFormat' | 'containerFormat'
>

export interface Member {
  readonly imageId: ImageId
  readonly member: ProjectId
  readonly status: MemberStatus
  readonly createdAt: Date
  readonly updatedAt: Date
}
