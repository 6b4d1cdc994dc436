import { openStoreDriver, type PlannedStore, plannedStores, type StoresPlan } from '../../app.ts'
import type { Config } from '../../config/config.ts'
import type { DatabaseInspection, LocationFacts } from '../../db/sql/inspect.ts'
import type { StoreDriver } from '../../store/driver.ts'
import { redact } from '../../store/store.ts'

/** A store of the configuration, opened only to be looked at. */
export interface StoreLook extends PlannedStore {
  /** Undefined when it cannot be opened. */
  readonly driver: StoreDriver | undefined
  readonly error: unknown
}

export interface StoresLook extends Pick<StoresPlan, 'multi' | 'defaultStore'> {
  readonly stores: readonly StoreLook[]
  close(): Promise<void>
}

/** Never rejects: a store that cannot be opened is one of the things to be told. */
export async function lookAtStores(config: Config): Promise<StoresLook> {
  const { multi, defaultStore, stores: planned } = plannedStores(config)
  const stores: StoreLook[] = []
  for (const one of planned) {
    try {
      stores.push({ ...one, driver: await openStoreDriver(config, one, true), error: undefined })
      if (multi) config.storeGroup(one.id)
    } catch (error) {
      stores.push({ ...one, driver: undefined, error })
    }
  }
  const close = async () => {
    for (const { driver } of stores) await driver?.close()
  }
  return { multi, defaultStore, stores, close }
}

/** What all locations of the database say together. */
export interface Survey {
  readonly total: number
  /** Not to be read as an address: encrypted with another key, or damaged. Ids of images. */
  readonly unreadable: Tally
  /** By the store or scheme that is not here. */
  readonly homeless: ReadonlyMap<string, Tally>
  /** Some of each store's, taken at random. */
  readonly samples: ReadonlyMap<StoreLook, SampleOf>
}
export interface SampleOf {
  readonly taken: readonly LocationFacts[]
  /** Of so many. */
  readonly seen: number
}
export interface Tally {
  readonly count: number
  /** Ids of the first images. */
  readonly images: readonly string[]
}

const EXAMPLES = 3

/** Reads every location once. */
export async function surveyLocations(
  inspection: DatabaseInspection,
  { multi, stores }: StoresLook,
  sampleSize: number,
): Promise<Survey> {
  let total = 0
  let unreadable: Tally = { count: 0, images: [] }
  const homeless = new Map<string, Tally>()
  const samples = new Map(stores.map((store) => [store, new Sample(sampleSize)] as const))

  const homeOf = ({ store, uri }: LocationFacts): StoreLook | undefined => {
    if (multi && store !== undefined) return stores.find(({ id }) => id === store)
    return stores.find(({ driver }) => driver?.schemes.includes(schemeOf(uri)))
  }
  for await (const batch of inspection.locations())
    for (const location of batch) {
      total += 1
      if (schemeOf(location.uri) === '') unreadable = counted(unreadable, location)
      else {
        const home = homeOf(location)
        if (home === undefined) {
          const place = nameOf(location, multi)
          homeless.set(place, counted(homeless.get(place), location))
        } else samples.get(home)?.take(location)
      }
    }
  return { total, unreadable, homeless, samples }
}

const schemeOf = (uri: string): string => /^([a-z][\w+.-]*):\/\//i.exec(uri)?.[1]?.toLowerCase() ?? ''
const nameOf = ({ store, uri }: LocationFacts, multi: boolean): string =>
  multi && store !== undefined ? `store ${store}` : `scheme ${schemeOf(uri)}`
const counted = (before: Tally = { count: 0, images: [] }, { imageId }: LocationFacts): Tally => ({
  count: before.count + 1,
  images: before.images.length < EXAMPLES ? [...before.images, imageId] : before.images,
})

/** So many of any number, each as likely as the others (reservoir sampling). */
class Sample implements SampleOf {
  readonly taken: LocationFacts[] = []
  seen = 0
  readonly #size: number

  constructor(size: number) {
    this.#size = size
  }

  take(location: LocationFacts): void {
    this.seen += 1
    if (this.taken.length < this.#size) this.taken.push(location)
    else {
      const at = Math.floor(Math.random() * this.seen)
      if (at < this.#size) this.taken[at] = location
    }
  }
}

/** A location for an operator's eyes: without credentials. */
export const shownUri = ({ uri }: LocationFacts): string => redact(uri as Parameters<typeof redact>[0])
