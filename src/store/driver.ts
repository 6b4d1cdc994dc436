import type { buildConnector } from 'undici'
import type { OptionGroup, Values } from '../config/options.ts'
import { ServiceError } from '../domain/errors.ts'
import type { AttemptId, ImageId, LocationUri } from '../domain/ids.ts'
import type { ByteSource } from '../io/bytes.ts'

export interface StoreFeatures {
  readonly write: boolean
  /** `read` honours offset and length itself. */
  readonly randomRead: boolean
  /** `write` accepts a body of unknown size. */
  readonly unsizedWrite: boolean
}

export interface CallOptions {
  readonly signal: AbortSignal
}
export interface ReadOptions extends CallOptions {
  /** Bytes; 0 when absent. */
  readonly offset?: number
  /** Bytes; to the end when absent. What lies past the end is not delivered, and no error. */
  readonly length?: number
}
export interface WriteOptions extends CallOptions {
  /** Bytes, when the caller knows them; the body must then have exactly so many. */
  readonly size?: number
  /** Names the unfinished data, so that `sweep` finds it after a crash. */
  readonly attempt: AttemptId
}
export interface Written {
  readonly uri: LocationUri
  readonly size: number
  /** JSON kept beside the location. */
  readonly metadata: Readonly<Record<string, unknown>>
}

/** What a backend implements. Callers use Store, which adds checks, digests and retries. */
export interface StoreDriver {
  /** Of its locations; the first is also what the store type is called. */
  readonly schemes: readonly [string, ...string[]]
  readonly features: StoreFeatures

  /**
   * Stores `body` under `id`. All or nothing: after a rejection nothing readable is left behind.
   * Throws `conflict` if data for `id` exists, `too-large` if the medium is full, `unavailable` if it refuses to be
   * written, `invalid` if the body has more or fewer bytes than `options.size`; the body's own error otherwise.
   */
  write(id: ImageId, body: ByteSource, options: WriteOptions): Promise<Written>
  /**
   * Throws `not-found` before resolving, so that the HTTP status is still open; `invalid`, like all methods that take
   * one, for a location that no store of this type can have written.
   */
  read(uri: LocationUri, options: ReadOptions): Promise<ByteSource>
  /** Throws `not-found`. */
  stat(uri: LocationUri, options: CallOptions): Promise<{ readonly size: number }>
  /** Throws `not-found` if there is nothing to delete, `conflict` if the data is in use. */
  delete(uri: LocationUri, options: CallOptions): Promise<void>
  /**
   * Removes whatever a write of `id` by `attempt` left behind when its process died, finished or not; nothing to
   * remove is no error. The caller guarantees that no image refers to it.
   */
  sweep(id: ImageId, attempt: AttemptId, options: CallOptions): Promise<void>
  /** Ends what is open; every later call rejects with `unavailable`. */
  close(): Promise<void>

  /** Bytes that can still be written. */
  freeBytes?(options: CallOptions): Promise<number>
  /** Local directories that data is kept in. */
  readonly directories?: readonly string[]
  /** What `GET /v2/info/stores/detail` shows of this store. */
  properties?(): Readonly<Record<string, unknown>>
}

/** How far a store may go whose locations are web addresses that clients choose. */
export interface Reach {
  admits(url: string): Promise<boolean>
  /** Opens the connections, to no address that must not be reached. */
  connector(options: buildConnector.BuildOptions): Promise<buildConnector.connector>
}

/** A store type: what `enabled_backends = fast:file` names behind the colon. */
export interface StoreType<Group extends OptionGroup = OptionGroup> {
  readonly type: string
  readonly options: Group
  /**
   * Throws `invalid` with a message for the operator when the configuration cannot work. With `readOnly`, nothing is
   * made ready for data, and nobody will write, delete or sweep.
   */
  open(config: Values<Group>, reach?: Reach, readOnly?: boolean): Promise<StoreDriver>
}

/** Gives `open` its argument's type from `options`. */
export const defineStore = <const Group extends OptionGroup>(store: StoreType<Group>): StoreType<Group> => store

/**
 * Adds what every driver owes to every method: a call with an aborted signal rejects at once with its reason, a call to
 * a closed driver with `unavailable`; what is being read or written when the driver closes ends like an aborted one.
 */
export function guarded(driver: StoreDriver): StoreDriver {
  const closing = new AbortController()
  const admit = (signal: AbortSignal) => {
    closing.signal.throwIfAborted()
    signal.throwIfAborted()
  }
  const during = <Options extends CallOptions>(options: Options): Options => {
    admit(options.signal)
    return { ...options, signal: AbortSignal.any([options.signal, closing.signal]) }
  }
  const { freeBytes } = driver
  return {
    ...driver,
    write: async (id, body, options) => driver.write(id, body, during(options)),
    read: async (uri, options) => driver.read(uri, during(options)),
    stat: async (uri, options) => {
      admit(options.signal)
      return driver.stat(uri, options)
    },
    delete: async (uri, options) => {
      admit(options.signal)
      await driver.delete(uri, options)
    },
    sweep: async (id, attempt, options) => {
      admit(options.signal)
      await driver.sweep(id, attempt, options)
    },
    ...(freeBytes && {
      freeBytes: async (options: CallOptions) => {
        admit(options.signal)
        return freeBytes(options)
      },
    }),
    close: async () => {
      if (closing.signal.aborted) return
      closing.abort(new ServiceError('unavailable', 'The store is closed'))
      await driver.close()
    },
  }
}
