import { ServiceError } from '../domain/errors.ts'
import type { Image } from '../domain/image.ts'
import type { Core, Limits } from './core.ts'

const RESERVED = 'os_glance'

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

/** Bytes that the owner of `image` may have beside its other images. */
export async function storageLeft(core: Core, image: Pick<Image, 'id' | 'owner'>): Promise<number> {
  const { storage } = core.limits
  return storage < 0 ? Number.POSITIVE_INFINITY : storage - (await core.db.images.usage(image.owner, image.id))
}

/** The condition of a database change that adds data. */
export const withinStorage = ({ storage }: Limits): { readonly storageLimit?: number } =>
  storage < 0 ? {} : { storageLimit: storage }

/** What data of `size` is told, undefined while nobody knows it, when only `left` bytes may be stored. */
export const storageExceeded = (
  refusal: string,
  size: number | undefined,
  left: number,
  cause?: unknown,
): ServiceError =>
  new ServiceError(
    'too-large',
    `${refusal}: The size of the data ${size ?? 'None'} will exceed the limit. ${left} bytes remaining.`,
    { cause },
  )
