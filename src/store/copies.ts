import type { ImageId, StoreId } from '../domain/ids.ts'
import type { Location } from '../domain/image.ts'
import { type ByteSource, wrongLength } from '../io/bytes.ts'
import type { Pump } from '../io/pump.ts'
import { split } from '../io/split.ts'
import { lengthTap, type PutOptions, type Store, type Stored } from './store.ts'

export interface CopiesOptions extends PutOptions {
  /** Whether the failure of one store is that of all; they are interrupted then. */
  readonly allMustSucceed: boolean
}

/** Image data that is in several stores. */
export interface Copies extends Omit<Stored, 'location'> {
  /** In the order in which the stores were named. */
  readonly locations: readonly Location[]
  readonly failures: readonly { readonly store: StoreId; readonly error: unknown }[]
}

const SWEEP_MS = 60_000

/** See `Stores.putCopies`. */
export async function putCopies(
  pump: Pump,
  id: ImageId,
  body: ByteSource,
  stores: readonly Store[],
  { allMustSucceed, hashAlgorithm, taps = [], signature, ...writing }: CopiesOptions,
): Promise<Copies> {
  const { size, attempt, signal } = writing
  const failures: { store: StoreId; error: unknown }[] = []
  const giveUp = new AbortController()
  const during = AbortSignal.any([signal, giveUp.signal])

  const writeAll = async (bytes: ByteSource) => {
    const branches = split(bytes, stores.length)
    const write = async (store: Store, index: number) => {
      const branch = branches[index]
      if (branch === undefined) return []
      try {
        return [{ store, ...(await store.write(id, branch, { ...writing, signal: during })) }]
      } catch (error) {
        failures.push({ store: store.id, error })
        if (allMustSucceed) giveUp.abort(error)
        return []
      } finally {
        await branch.leave()
      }
    }
    const written = (await Promise.all(stores.map(write))).flat()
    if (failures[0] !== undefined && (allMustSucceed || written.length === 0)) throw failures[0].error
    return written
  }

  const copied = await pump.copy(body, writeAll, {
    digests: ['md5', hashAlgorithm],
    taps: [...(size === undefined ? [] : [lengthTap(size)]), ...taps],
    signature,
    signal,
    lane: stores.map((store) => store.id).join(),
  })
  for (const { store, size } of copied.result) {
    if (size === copied.size) continue
    const error = wrongLength('internal', copied.size, size)
    if (allMustSucceed || copied.result.length === 1) throw error
    await store.sweep(id, attempt, AbortSignal.timeout(SWEEP_MS))
    failures.push({ store: store.id, error })
  }
  const [checksum = '', osHashValue = ''] = copied.digests
  return {
    locations: copied.result.filter(({ size }) => size === copied.size).map(({ location }) => location),
    failures,
    size: copied.size,
    checksum,
    osHashAlgo: hashAlgorithm,
    osHashValue,
  }
}
