import { hasKind, ServiceError } from '../domain/errors.ts'
import type { AttemptId, ImageId, LocationUri, StoreId } from '../domain/ids.ts'
import type { Location } from '../domain/image.ts'
import { type ByteRange, type ByteSource, exactLength, slice, wrongLength } from '../io/bytes.ts'
import { checkAlgorithm, type Signature } from '../io/digest.ts'
import type { Pump, Tap } from '../io/pump.ts'
import type { StoreDriver } from './driver.ts'

export interface WriteOptions {
  /** Bytes, when the caller knows them; the body must then have exactly so many. */
  readonly size?: number
  readonly attempt: AttemptId
  readonly signal: AbortSignal
}
export interface PutOptions extends WriteOptions {
  /** For `osHashValue`, as hashlib or OpenSSL name it. */
  readonly hashAlgorithm: string
  /** See every byte and may throw to refuse the data. */
  readonly taps?: readonly Tap[]
  /** That the data must have; `invalid` without it. */
  readonly signature?: Signature | undefined
}
/** Image data that is in a store. */
export interface Written {
  readonly location: Location
  readonly size: number
}
export interface Stored extends Written {
  /** md5, hex */
  readonly checksum: string
  readonly osHashAlgo: string
  readonly osHashValue: string
}

/** A configured place for image data: what the core calls. Errors carry `detail: { store, uri }`, without credentials. */
export interface Store {
  readonly id: StoreId
  readonly type: string
  readonly description: string | undefined
  /** Of several stores that hold an image, the one with the most is read. */
  readonly weight: number
  readonly readOnly: boolean
  readonly schemes: readonly string[]
  /**
   * Stores `body` as the data of `id` in one pass. All or nothing: after a rejection nothing readable is left behind.
   * Throws what the driver's `write` throws, `gone` when the store is read-only, and the errors of body and taps as
   * they are.
   */
  put(id: ImageId, body: ByteSource, options: PutOptions): Promise<Stored>
  /** The same without a look at the bytes: for one of several copies that are made at once. */
  write(id: ImageId, body: ByteSource, options: WriteOptions): Promise<Written>
  /**
   * The bytes of `range`, all of them without. Throws `not-found` before resolving; the bytes end with `unavailable`
   * when there are fewer than the range says.
   */
  open(location: Location, range: ByteRange | undefined, signal: AbortSignal): Promise<ByteSource>
  /** Throws `not-found`. */
  stat(location: Location, signal: AbortSignal): Promise<{ readonly size: number }>
  /** Throws `not-found` if there is nothing to delete, `conflict` if the data is in use. */
  delete(location: Location, signal: AbortSignal): Promise<void>
  /** Takes a `put` back that nobody knows of yet. Not bound to a client: it has gone, or must not stop this. */
  discard(stored: Stored): Promise<void>
  /** Removes what a `put` left behind when its process died. The caller guarantees that no image refers to it. */
  sweep(id: ImageId, attempt: AttemptId, signal: AbortSignal): Promise<void>
  /** Bytes that can still be written; undefined when the store cannot tell. */
  freeBytes(signal: AbortSignal): Promise<number | undefined>
  properties(): Readonly<Record<string, unknown>>
  close(): Promise<void>
}

export interface StoreSettings {
  readonly pump: Pump
  readonly description?: string | undefined
  readonly weight?: number | undefined
  /** Whether locations name the store; those of a deployment with a single store do not. */
  readonly named?: boolean
}

const DISCARD_MS = 60_000

export function openStore(
  id: StoreId,
  driver: StoreDriver,
  { pump, description, weight = 0, named = true }: StoreSettings,
): Store {
  /** Runs `call`, and tells the operator about which store and location an error is. */
  const about = async <T>(uri: LocationUri | undefined, call: () => Promise<T>): Promise<T> => {
    try {
      return await call()
    } catch (error) {
      throw withDetail(error, { store: id, ...(uri === undefined ? {} : { uri: redact(uri) }) })
    }
  }
  const at = <T>({ uri }: Location, call: (uri: LocationUri) => Promise<T>): Promise<T> =>
    about(uri, async () => {
      if (!hasScheme(uri, driver.schemes)) {
        throw new ServiceError('invalid', `The location is not one of store ${id}`)
      }
      return call(uri)
    })

  const admit = (size: number | undefined): void => {
    if (!driver.features.write) {
      throw new ServiceError('gone', 'Error in store configuration. Adding images to store is disabled.')
    }
    if (size === undefined && !driver.features.unsizedWrite) {
      throw new ServiceError('invalid', `Store ${id} must know the size of the data beforehand`)
    }
  }

  const write = async (image: ImageId, body: ByteSource, options: WriteOptions): Promise<Written> => {
    admit(options.size)
    const { uri, size, metadata } = await driver.write(image, body, options)
    return { location: { uri, store: named ? id : undefined, metadata }, size }
  }

  const put = async (image: ImageId, body: ByteSource, options: PutOptions): Promise<Stored> => {
    const { hashAlgorithm, taps = [], signature, ...writing } = options
    const { size, attempt, signal } = writing
    admit(size)
    checkAlgorithm(hashAlgorithm)
    const copied = await pump.copy(body, (bytes) => write(image, bytes, writing), {
      digests: ['md5', hashAlgorithm],
      taps: [...(size === undefined ? [] : [lengthTap(size)]), ...taps],
      signature,
      signal,
      lane: id,
    })
    const { result } = copied
    if (result.size !== copied.size) {
      await driver.sweep(image, attempt, { signal: AbortSignal.timeout(DISCARD_MS) })
      throw wrongLength('internal', copied.size, result.size)
    }
    const [checksum = '', osHashValue = ''] = copied.digests
    return { ...result, checksum, osHashAlgo: hashAlgorithm, osHashValue }
  }

  const remove = (location: Location, signal: AbortSignal) => at(location, (uri) => driver.delete(uri, { signal }))

  return {
    id,
    type: driver.schemes[0],
    description,
    weight,
    readOnly: !driver.features.write,
    schemes: driver.schemes,
    put: (image, body, options) => about(undefined, () => put(image, body, options)),
    write: (image, body, options) => about(undefined, () => write(image, body, options)),
    open: (location, range, signal) =>
      at(location, async (uri) => {
        if (range === undefined) return driver.read(uri, { signal })
        const bytes = driver.features.randomRead
          ? await driver.read(uri, { ...range, signal })
          : slice(await driver.read(uri, { signal }), range)
        return exactLength(bytes, range.length, 'unavailable')
      }),
    stat: (location, signal) => at(location, (uri) => driver.stat(uri, { signal })),
    delete: remove,
    discard: async ({ location }) => {
      try {
        await remove(location, AbortSignal.timeout(DISCARD_MS))
      } catch (error) {
        if (!hasKind(error, 'not-found')) throw error
      }
    },
    sweep: (image, attempt, signal) => about(undefined, () => driver.sweep(image, attempt, { signal })),
    freeBytes: (signal) => about(undefined, async () => driver.freeBytes?.({ signal })),
    properties: () => driver.properties?.() ?? {},
    close: () => driver.close(),
  }
}

/** Ends an upload as soon as it is longer than declared, and at its end if it is shorter. */
export function lengthTap(size: number): Tap {
  let seen = 0
  return {
    update: (chunk) => {
      seen += chunk.length
      if (seen > size) throw wrongLength('invalid', size, `more than ${size}`)
    },
    end: () => {
      if (seen < size) throw wrongLength('invalid', size, seen)
    },
  }
}

const hasScheme = (uri: LocationUri, schemes: readonly string[]): boolean =>
  schemes.includes(uri.slice(0, Math.max(0, uri.indexOf('://'))).toLowerCase())

/** Without user, password and query. A password may itself hold an `@`: everything up to the last one goes. */
export const redact = (uri: LocationUri): string => uri.replace(/\?.*$/s, '?***').replace(/:\/\/.*@/s, '://***@')

function withDetail(error: unknown, detail: Readonly<Record<string, unknown>>): unknown {
  if (!(error instanceof ServiceError)) return error
  const { kind, message, cause, transient, stack } = error
  const detailed = new ServiceError(kind, message, { cause, detail: { ...error.detail, ...detail }, transient })
  return Object.assign(detailed, { stack })
}
