import type { Request } from '../../support/golden.ts'
import type { Caller } from './values.ts'

/** One request of the run, sent to both servers. */
export interface Asked {
  readonly as: Caller | undefined
  readonly request: Request
  /** The route that it is about, `METHOD /path/:of/:the/:table`. */
  readonly route: string
  /** What it may change, besides what its answer shows: read again on both sides when they disagree. */
  readonly touches?: { image?: string; readonly namespaces?: readonly string[] }
  /** Whether the real Glance keeps something else than it was told to, so that what is touched is of no more use. */
  readonly spoils?: (status: number) => boolean
  /** What goes on behind an answer. */
  readonly begins?: (status: number) => Begun | undefined
  /** Told the answer of the real Glance. */
  readonly learn?: (status: number, json: unknown) => void
}

/** Work that is waited for on both sides, and what is asked after that. */
export interface Begun {
  /** The image whose tasks it is. */
  readonly image?: string
  /** The task that it is, which may make an image. */
  readonly task?: string
  /** The image that comes into the cache. */
  readonly cached?: string
  readonly follow?: (made: { readonly image?: string | undefined }) => readonly Asked[]
}

export const segment = (text: string): string => encodeURIComponent(text.toWellFormed()).replaceAll("'", '%27')

export const query = (pairs: readonly (readonly [string, string])[]): string =>
  pairs.length === 0 ? '' : `?${pairs.map(([name, value]) => `${segment(name)}=${segment(value)}`).join('&')}`

export const jsonBody = (value: unknown, type = 'application/json') => ({
  headers: [['Content-Type', type]] as const,
  body: JSON.stringify(value),
})
