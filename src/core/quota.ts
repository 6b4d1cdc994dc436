import { ServiceError } from '../domain/errors.ts'
import type { Limits } from './core.ts'

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
