import type { Resource, ResourceLimits } from '../auth/limits.ts'
import type { OwnerLimits, OwnerUsage } from '../db/database.ts'
import { hasKind, ServiceError } from '../domain/errors.ts'
import type { ProjectId } from '../domain/ids.ts'
import type { Image } from '../domain/image.ts'
import type { Core, Limits } from './core.ts'

const RESERVED = 'os_glance'

/** How the refusal of data that is too much begins. */
export const STORAGE_EXCEEDED = 'Image exceeds the storage quota'

/** What exceeding a limit is called. */
export const exceeded = (what: string, attempted: number, maximum: number): string =>
  `The limit has been exceeded on the number of allowed image ${what}. Attempted: ${attempted}, Maximum: ${maximum}`

const admit = (what: string, attempted: number, maximum: number): void => {
  if (maximum < 0 || attempted <= maximum) return
  throw new ServiceError('too-large', exceeded(what, attempted, maximum))
}

/** Throws `too-large` when an image would have more extra properties than allowed; the service's own do not count. */
export const admitProperties = (limits: Limits, names: Iterable<string>): void =>
  admit('properties', [...names].filter((name) => !name.startsWith(RESERVED)).length, limits.properties)

/** Throws `too-large` when an image would have more tags than allowed. */
export const admitTags = (limits: Limits, count: number): void => admit('tags', count, limits.tags)

/** Throws `too-large` when an image would have more locations than allowed. */
export const admitLocations = (limits: Limits, count: number): void => admit('locations', count, limits.locations)

// ---- what the images of one owner may come to

type Kind = keyof OwnerUsage
/** Kinds of usage that are counted in bytes. */
type ByteKind = 'storage' | 'staging'

const KINDS = {
  storage: { limit: 'storageLimit', resource: 'image_size_total', unit: 1_048_576 },
  staging: { limit: 'stagingLimit', resource: 'image_stage_total', unit: 1_048_576 },
  count: { limit: 'countLimit', resource: 'image_count_total', unit: 1 },
  uploading: { limit: 'uploadingLimit', resource: 'image_count_uploading', unit: 1 },
} as const satisfies Record<Kind, { limit: keyof OwnerLimits; resource: Resource; unit: number }>

/**
 * The limits of one owner, as they were when a request began. They hold because each is a condition of the database
 * change that needs it (`within`); to ask before (`admit`) only saves a client from sending data in vain.
 */
export interface Quota {
  /** The condition of a change; what it throws, `explain` puts into words. */
  within(kind: Kind): OwnerLimits
  /** Bytes that the other images of the owner leave to `image`; Infinity without a limit. */
  storageLeft(image: Pick<Image, 'id'>): Promise<number>
  /** Bytes that the owner may still stage; Infinity without a limit. */
  stagingLeft(): Promise<number>
  /** What data of `size` (undefined while nobody knows it) is told when only `left` bytes of a kind may come. */
  refusal(kind: ByteKind, size: number | undefined, left: number): ServiceError
  /** An error of the database in the client's words, when it says that a limit of the owner is exceeded. */
  explain(error: unknown, size?: number | null): unknown
}

/**
 * The limits for the images of `owner`: Keystone's, or `user_storage_quota`, whose errors begin with `prefix`.
 * Throws `unavailable` when Keystone has to be asked and does not answer.
 */
export async function ownerQuota(core: Core, owner: ProjectId | null, prefix: string): Promise<Quota> {
  const keeper = core.projectLimits
  const { storage } = core.limits
  const limits = keeper === undefined ? (storage < 0 ? {} : { storageLimit: storage }) : inUnits(await keeper.of(owner))

  const refuse = (kind: Kind, usage: number, delta: number | undefined, cause?: unknown): ServiceError => {
    const limit = limits[KINDS[kind].limit] ?? 0
    return keeper === undefined
      ? storageExceeded(prefix, delta, limit - usage, cause)
      : overLimit(owner, kind, { limit, usage, delta: delta ?? 0 }, cause)
  }

  return {
    within: (kind) => {
      const { limit } = KINDS[kind]
      return limits[limit] === undefined ? {} : { [limit]: limits[limit] }
    },
    storageLeft: async ({ id }) =>
      limits.storageLimit === undefined
        ? Number.POSITIVE_INFINITY
        : limits.storageLimit - (await core.db.images.usage(owner, id)),
    stagingLeft: async () =>
      limits.stagingLimit === undefined
        ? Number.POSITIVE_INFINITY
        : limits.stagingLimit - (await core.db.images.ownerUsage(owner)).staging,
    refusal: (kind, size, left) => refuse(kind, (limits[KINDS[kind].limit] ?? 0) - left, size),
    explain: (error, size) => {
      if (!hasKind(error, 'too-large')) return error
      const { exceeded: limit, usage } = error.detail
      const kind = (Object.keys(KINDS) as Kind[]).find((one) => KINDS[one].limit === limit)
      if (kind === undefined || typeof usage !== 'number') return error
      const delta = kind === 'count' ? 1 : kind === 'uploading' ? 0 : (size ?? 0)
      return refuse(kind, usage - delta, delta, error)
    },
  }
}

/** Keystone's numbers in the units of the database. */
const inUnits = (limits: ResourceLimits): OwnerLimits =>
  Object.fromEntries(
    Object.values(KINDS)
      .filter(({ resource }) => limits[resource] >= 0)
      .map(({ limit, resource, unit }) => [limit, limits[resource] * unit]),
  )

/** In Keystone's units and upstream's words; sizes are rounded up, so that the sum is seen to exceed. */
function overLimit(
  owner: ProjectId | null,
  kind: Kind,
  { limit, usage, delta }: { readonly limit: number; readonly usage: number; readonly delta: number },
  cause: unknown,
): ServiceError {
  const { resource, unit } = KINDS[kind]
  const [most, used, more] = [limit, usage, delta].map((amount) => Math.ceil(amount / unit))
  return new ServiceError(
    'too-large',
    'The request returned a 413 Request Entity Too Large. This generally means that rate limiting or a quota ' +
      `threshold was breached.\n\nThe response body:\nProject ${owner ?? 'None'} is over a limit for ` +
      `[Resource ${resource} is over limit of ${most} due to current usage ${used} and delta ${more}]`,
    { cause },
  )
}

const storageExceeded = (prefix: string, size: number | undefined, left: number, cause?: unknown): ServiceError =>
  new ServiceError(
    'too-large',
    `${prefix}: The size of the data ${size ?? 'None'} will exceed the limit. ${left} bytes remaining.`,
    { cause },
  )

/** Bytes that data for `image` may have at most. Throws `too-large` when `size` bytes, or any while that is unknown, are more. */
export async function admitSizeTotal(quota: Quota, image: Image, size: number | undefined): Promise<number> {
  return admitBytes(quota, 'storage', size, await quota.storageLeft(image))
}

/** Bytes that may be staged at most. Throws `too-large` when `size` bytes, or any while that is unknown, are more. */
export async function admitStaging(quota: Quota, size: number | undefined): Promise<number> {
  return admitBytes(quota, 'staging', size, await quota.stagingLeft())
}

function admitBytes(quota: Quota, kind: ByteKind, size: number | undefined, left: number): number {
  if (size === undefined ? left <= 0 : size > left) throw quota.refusal(kind, size, left)
  return left
}

/** GET /v2/info/usage: what the caller's project uses of Keystone's limits, sizes in whole MiB; empty without these. */
export async function projectUsage(
  core: Core,
  project: ProjectId | null,
): Promise<Readonly<Partial<Record<Resource, { readonly usage: number; readonly limit: number }>>>> {
  if (core.projectLimits === undefined) return {}
  const [limits, usage] = await Promise.all([core.projectLimits.of(project), core.db.images.ownerUsage(project)])
  return Object.fromEntries(
    (Object.keys(KINDS) as Kind[]).map((kind) => {
      const { resource, unit } = KINDS[kind]
      return [resource, { usage: Math.floor(usage[kind] / unit), limit: limits[resource] }]
    }),
  )
}
