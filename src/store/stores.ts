import { ServiceError } from '../domain/errors.ts'
import type { ImageId, StoreId } from '../domain/ids.ts'
import type { Location } from '../domain/image.ts'
import type { ByteSource } from '../io/bytes.ts'
import { openPump, type Tap } from '../io/pump.ts'
import { type Copies, type CopiesOptions, putCopies } from './copies.ts'
import type { StoreDriver } from './driver.ts'
import { openStore, type Store } from './store.ts'

export type { Copies, CopiesOptions } from './copies.ts'

export interface StoreSetup {
  readonly id: string
  readonly driver: StoreDriver
  readonly description?: string | undefined
  readonly weight?: number | undefined
}
export interface StoresSetup {
  /** Whether stores have names that clients see and use (`enabled_backends`). */
  readonly multi: boolean
  readonly defaultStore: string
  /** In the order of the configuration. Ids that begin with `os_glance_` are reserved stores. */
  readonly stores: readonly StoreSetup[]
}

export interface DigestOptions {
  /** For `osHashValue`, as hashlib or OpenSSL name it. */
  readonly hashAlgorithm: string
  readonly taps?: readonly Tap[]
  readonly signal: AbortSignal
}
export interface Digests {
  readonly size: number
  /** md5, hex */
  readonly checksum: string
  readonly osHashValue: string
}

/** Every store of this process. */
export interface Stores {
  readonly multi: boolean
  /** Those that clients may know of, in the order of the configuration. */
  readonly all: readonly Store[]
  readonly default: Store
  /** The store of that name, the default without one; with a single store, names mean nothing. Throws `invalid`. */
  select(name?: string): Store
  /** Any store, reserved ones too. */
  byId(id: StoreId): Store | undefined
  /** The store that holds the data of `location`; where it does not say, the first whose scheme fits. */
  find(location: Location): Store | undefined
  /** The same; throws `unavailable` when that store is not enabled here, or the location cannot be read. */
  holding(location: Location): Store
  /**
   * Stores `body` as the data of `id` in several stores while reading it once, at the pace of the slowest. Throws what
   * one of them throws, when each of them must succeed or none has, and the errors of body and taps as they are; what
   * others have stored by then stays until it is swept.
   */
  putCopies(id: ImageId, body: ByteSource, stores: readonly Store[], options: CopiesOptions): Promise<Copies>
  /** Reads all that is at `location`. Throws what reading throws, and the errors of the taps as they are. */
  digest(location: Location, options: DigestOptions): Promise<Digests>
  /** Heaviest store first, otherwise as they come. */
  inReadingOrder(locations: readonly Location[]): readonly Location[]
  close(): Promise<void>
}

/** The stores own their drivers, and share one pump. Throws `invalid` unless `defaultStore` is one of them. */
export function openStores({ multi, defaultStore, stores }: StoresSetup): Stores {
  const pump = openPump()
  const every = stores.map(({ id, driver, description, weight }) =>
    openStore(id as StoreId, driver, { pump, description, weight, named: multi }),
  )
  const all = every.filter(({ id }) => !id.startsWith('os_glance_'))
  const preferred = all.find(({ id }) => id === defaultStore)
  if (preferred === undefined)
    throw new ServiceError('invalid', `The default store "${defaultStore}" is not configured`)

  const byId = (id: StoreId) => every.find((store) => store.id === id)
  const find = ({ uri, store }: Location): Store | undefined => {
    // A name that a deployment with several stores once wrote means nothing where there is only one.
    if (store !== undefined && multi) return byId(store)
    const scheme = uri.slice(0, Math.max(0, uri.indexOf('://'))).toLowerCase()
    return all.find(({ schemes }) => schemes.includes(scheme))
  }
  const holding = (location: Location): Store => {
    // The database gives such a one where another key encrypted it.
    if (!location.uri.includes('://')) {
      throw new ServiceError('unavailable', 'The location of the image data cannot be read', {
        detail: { reason: 'it is encrypted with another metadata_encryption_key' },
      })
    }
    const store = find(location)
    if (store !== undefined) return store
    throw new ServiceError('unavailable', 'The image data is in a store that is not enabled here', {
      detail: { store: location.store },
    })
  }
  const weight = (location: Location) => find(location)?.weight ?? 0

  return {
    multi,
    all,
    default: preferred,
    select: (name) => {
      if (name === undefined || !multi) return preferred
      const found = all.find(({ id }) => id === name)
      if (found === undefined) throw new ServiceError('invalid', `Store for identifier ${name} not found`)
      return found
    },
    byId,
    find,
    holding,
    putCopies: (id, body, targets, options) => putCopies(pump, id, body, targets, options),
    digest: async (location, { hashAlgorithm, taps = [], signal }) => {
      const source = await holding(location).open(location, undefined, signal)
      const { size, digests } = await pump.copy(source, drain, { digests: ['md5', hashAlgorithm], taps, signal })
      const [checksum = '', osHashValue = ''] = digests
      return { size, checksum, osHashValue }
    },
    inReadingOrder: (locations) => locations.toSorted((a, b) => weight(b) - weight(a)),
    close: async () => {
      await Promise.all(every.map((store) => store.close()))
      await pump.close()
    },
  }
}

async function drain(body: ByteSource): Promise<void> {
  for await (const _ of body);
}
