import { hasKind, ServiceError } from '../domain/errors.ts'
import type { AttemptId } from '../domain/ids.ts'
import type { Image } from '../domain/image.ts'
import type { ImportJob, ImportMethod, Step } from '../imports/import.ts'
import type { RunningJob } from '../imports/runner.ts'
import type { ByteSource } from '../io/bytes.ts'
import { type Inspection, inspection } from '../io/inspection.ts'
import type { Tap } from '../io/pump.ts'
import type { Copies } from '../store/stores.ts'
import type { Core } from './core.ts'
import { sizeCap } from './image-data.ts'
import type { Order } from './import-flow.ts'
import { ownerQuota, STORAGE_EXCEEDED } from './quota.ts'
import { unpackSignature } from './signature.ts'

const UNDO_MS = 60_000

export interface Filling {
  readonly step: Step
  /** Once the step has run. */
  outcome(): Pick<Copies, 'locations' | 'failures'> & {
    readonly facts: Pick<Image, 'size' | 'virtualSize' | 'checksum' | 'osHashAlgo' | 'osHashValue'>
  }
}

/** The last step of an import: what is staged, or what an active image has, goes into the stores, read once for all. */
export function fillStores(
  core: Core,
  running: RunningJob,
  job: ImportJob,
  order: Pick<Order, 'method' | 'stores' | 'allMustSucceed' | 'signature'>,
): Filling {
  const { method, stores, allMustSucceed } = order
  const { imageId } = job
  let begun = job.tries > 1
  let outcome: ReturnType<Filling['outcome']> | undefined

  /** Every try has its own name, so that another process finds what each of them left. */
  const attemptOf = (tries: number) => `${job.task}.${tries}` as AttemptId
  const sweep = async () => {
    const holding = running.gone() ? [] : job.image().locations.map((location) => core.stores.find(location))
    for (const store of stores) {
      if (holding.includes(store)) continue
      for (let tries = 1; tries <= job.tries; tries++)
        await store.sweep(imageId, attemptOf(tries), AbortSignal.timeout(UNDO_MS))
    }
  }

  const run = async (signal: AbortSignal) => {
    if (begun) await sweep()
    begun = true
    const image = job.image()
    const size = await sizeOf(job, method)
    await admitStorage(core, image, size, stores.length)
    const [only, ...others] = stores
    const store = others.length === 0 && core.stores.multi ? only?.id : undefined
    core.notifier.notify({ type: 'image.prepare', image, store })
    const inspected = method.open === undefined ? inspectionOf(core, image) : undefined
    const source = await openSource(job, method, signal)
    const copies = await core.stores.putCopies(imageId, source, stores, {
      size,
      attempt: attemptOf(job.tries),
      signal,
      allMustSucceed,
      hashAlgorithm: (method.open && image.osHashAlgo) ?? core.dataRules.hashAlgorithm,
      signature: order.signature === undefined ? undefined : unpackSignature(order.signature),
      taps: [sizeCap(core.limits.imageSize), counter(job), ...(inspected ? [inspected] : [])],
    })
    if (method.open !== undefined) admitCopy(image, copies)
    for (const { store, error } of copies.failures) job.log.warn(`Image ${imageId} is not in store ${store}`, error)
    const { size: bytes, checksum, osHashAlgo, osHashValue } = copies
    const virtualSize = inspected?.virtualSize() ?? null
    outcome = { ...copies, facts: { size: bytes, virtualSize, checksum, osHashAlgo, osHashValue } }
  }

  return {
    step: { name: 'stores', run, undo: sweep },
    outcome: () => {
      if (outcome === undefined) throw new ServiceError('internal', `Image ${imageId} is in no store yet`)
      return outcome
    },
  }
}

/** Bytes that are to be stored. */
async function sizeOf(job: ImportJob, method: ImportMethod): Promise<number> {
  if (method.open !== undefined) return job.image().size ?? 0
  const size = await job.staging.size(job.imageId)
  if (size === undefined) throw notHere(job)
  return size
}

async function openSource(job: ImportJob, method: ImportMethod, signal: AbortSignal): Promise<ByteSource> {
  if (method.open !== undefined) return method.open(job.image(), signal)
  try {
    return await job.staging.read(job.imageId, undefined, signal)
  } catch (error) {
    throw hasKind(error, 'not-found') ? notHere(job, error) : error
  }
}

const notHere = ({ tries }: ImportJob, cause?: unknown) =>
  new ServiceError(
    'unavailable',
    tries === 1
      ? 'The staged data is gone: stage it again'
      : 'The node that has the staged data stopped before the import was finished: stage it again',
    { cause },
  )

/** Refuses what is known to be too much before anything is written; the last word has the database. */
async function admitStorage(core: Core, image: Image, size: number, copies: number): Promise<void> {
  const quota = await ownerQuota(core, image.owner, STORAGE_EXCEEDED)
  const left = (await quota.storageLeft(image)) - (image.size ?? 0) * image.locations.length
  if (size * copies > left) throw quota.refusal('storage', size * copies, left)
}

const inspectionOf = (core: Core, image: Image): Inspection =>
  inspection(image, core.dataRules, (warning) => core.log.warn(`Image ${image.id}: ${warning}`))

function counter(job: ImportJob): Tap {
  let bytes = 0
  return {
    update: (chunk) => {
      bytes += chunk.length
      job.progress(bytes)
    },
  }
}

/** Throws `unavailable` unless what was read is what the image is said to be: a copy must not be another image. */
function admitCopy(image: Image, copies: Copies): void {
  const same = (known: string | null, found: string) => known === null || known === found
  if (same(image.checksum, copies.checksum) && same(image.osHashValue, copies.osHashValue)) return
  throw new ServiceError('unavailable', 'The data in the store it is copied from is damaged', {
    detail: { expected: image.checksum, found: copies.checksum },
  })
}
