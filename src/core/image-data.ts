import { randomUUID } from 'node:crypto'
import type { Fetch } from '../cache/cache.ts'
import type { Claim } from '../db/database.ts'
import { hasKind, ServiceError } from '../domain/errors.ts'
import type { AttemptId, ImageId } from '../domain/ids.ts'
import { canBecome, type Image, type Location } from '../domain/image.ts'
import { type ByteRange, type ByteSource, releasing } from '../io/bytes.ts'
import type { Signature } from '../io/digest.ts'
import { inspection } from '../io/inspection.ts'
import type { Tap } from '../io/pump.ts'
import { enforceImage } from '../policy/enforce.ts'
import type { Store, Stored } from '../store/store.ts'
import type { Core, RequestContext } from './core.ts'
import { loadImage } from './load.ts'
import { admitSizeTotal, ownerQuota, type Quota, STORAGE_EXCEEDED } from './quota.ts'
import { imageSignature } from './signature.ts'

export interface Upload {
  /** Asked for only once everything but the bytes themselves has been accepted. */
  readonly body: () => ByteSource
  /** Bytes, when the client says so. */
  readonly size?: number
  /** Store id; the default store without it. */
  readonly store?: string
}

/** PUT /v2/images/{image_id}/file and whatever else brings the data of an image ends here. */
export async function uploadImage(core: Core, ctx: RequestContext, id: ImageId, upload: Upload): Promise<Image> {
  const store = core.stores.select(upload.store)
  const image = await loadImage(core, ctx, id)
  enforceImage(core.policy, 'upload_image', ctx.identity, image)
  admitUpload(image)
  const terms = await admitBytes(core, ctx, image, upload.size)

  const attempt = randomUUID() as AttemptId
  const claim: Claim = { attempt, imageId: id, worker: core.worker.id, store: store.id }
  core.attempts.add(attempt)
  try {
    const saving = await beginClaim(core, claim, terms.quota)
    core.notifier.notify({ type: 'image.update', image: saving })
    core.notifier.notify({ type: 'image.prepare', image: saving, store: core.stores.multi ? store.id : undefined })
    const active = await fillClaim(core, ctx, store, saving, claim, upload, terms)
    core.notifier.notify({ type: 'image.upload', image: active })
    core.notifier.notify({ type: 'image.activate', image: active })
    core.notifier.notify({ type: 'image.update', image: active })
    return active
  } finally {
    core.attempts.delete(attempt)
  }
}

/** What an upload is admitted on. */
interface Terms {
  readonly quota: Quota
  /** Bytes that the owner may still store. */
  readonly left: number
  readonly signature: Signature | undefined
}

/** Throws, and tells others of, what can be refused before the first byte. */
async function admitBytes(core: Core, ctx: RequestContext, image: Image, size: number | undefined): Promise<Terms> {
  try {
    admitSize(size ?? 0, core.limits.imageSize)
    const quota = await ownerQuota(core, image.owner, STORAGE_EXCEEDED)
    const left = await admitSizeTotal(quota, image, size)
    return { quota, left, signature: await imageSignature(core, ctx, image) }
  } catch (cause) {
    notifyFailure(core, image.id, cause)
    throw cause
  }
}

/** Others hear no more of an unexpected error than a client does. */
export function notifyFailure(core: Core, imageId: ImageId, cause: unknown): void {
  const reason = cause instanceof ServiceError ? cause.message : 'internal error'
  const failure = `Failed to upload image data for image ${imageId}: ${reason}`
  core.notifier.notify({ type: 'image.upload', imageId, failure })
}

async function beginClaim(core: Core, claim: Claim, quota: Quota): Promise<Image> {
  try {
    return await core.db.images.claim(claim, quota.within('uploading'))
  } catch (cause) {
    // It was `queued` a moment ago: somebody else began an upload, or deleted the image.
    if (hasKind(cause, 'conflict', 'not-found')) throw vanished(claim.imageId, cause)
    throw quota.explain(cause)
  }
}

/** Writes the data and makes the image active, or takes everything back. */
async function fillClaim(
  core: Core,
  ctx: RequestContext,
  store: Store,
  image: Image,
  claim: Claim,
  upload: Upload,
  { quota, left, signature }: Terms,
): Promise<Image> {
  const inspected = inspection(image, core.dataRules, (warning) => core.log.warn(`Image ${image.id}: ${warning}`))
  let stored: Stored | undefined
  try {
    stored = await store.put(image.id, upload.body(), {
      ...(upload.size === undefined ? {} : { size: upload.size }),
      attempt: claim.attempt,
      signal: ctx.signal,
      hashAlgorithm: core.dataRules.hashAlgorithm,
      taps: [sizeCap(core.limits.imageSize, left, (size) => quota.refusal('storage', size, left)), inspected],
      signature,
    })
    // Not bound to the client's connection: once the bytes are stored, a vanished client must not orphan them.
    return await publish(core, quota, claim, activated(image, stored, inspected.virtualSize()))
  } catch (cause) {
    const committed = stored && (await findCommitted(core, claim, stored, cause))
    if (committed) return committed
    throw await undoUpload(core, store, claim, stored, cause)
  }
}

/** Throws `too-large` when other uploads of the owner have used up the quota meanwhile. */
async function publish(core: Core, quota: Quota, claim: Claim, change: ReturnType<typeof activated>): Promise<Image> {
  try {
    return await core.db.images.settle(claim, { ...change, ...quota.within('storage') })
  } catch (cause) {
    throw quota.explain(cause, change.size)
  }
}

/** Refuses the stream as soon as it is larger than any image may be, or than what is left to its owner. */
/** Without `left`, by the largest image that may be. */
export function sizeCap(limit: number, left?: number, refusal?: (size: number) => ServiceError): Tap {
  let size = 0
  return {
    update: (chunk) => {
      size += chunk.length
      admitSize(size, limit)
      if (left !== undefined && refusal !== undefined && size > left) throw refusal(size)
    },
  }
}

export function admitSize(size: number, limit: number): void {
  if (size > limit) {
    throw new ServiceError('too-large', 'The incoming image is too large: The provided image is too large.')
  }
}

function admitUpload(image: Image): void {
  if (!canBecome(image.status, 'saving')) {
    throw new ServiceError('conflict', `Image status transition from ${image.status} to saving is not allowed`)
  }
  admitFormats(image)
}

/** Throws `invalid` unless both formats are known, which data cannot do without. */
export function admitFormats(image: Pick<Image, 'diskFormat' | 'containerFormat'>): void {
  const missing = [
    ...(image.diskFormat === null ? ['disk_format'] : []),
    ...(image.containerFormat === null ? ['container_format'] : []),
  ]
  if (missing.length > 0) {
    const noun = missing.length === 1 ? 'Property' : 'Properties'
    throw new ServiceError('invalid', `${noun} ${missing.join(', ')} must be set prior to saving data.`)
  }
}

const activated = ({ locations }: Image, stored: Stored, virtualSize: number | null) => ({
  status: 'active' as const,
  size: stored.size,
  virtualSize,
  checksum: stored.checksum,
  osHashAlgo: stored.osHashAlgo,
  osHashValue: stored.osHashValue,
  locations: { from: locations, to: [stored.location] },
})

const vanished = (id: ImageId, cause: unknown) =>
  new ServiceError(
    'gone',
    `Image ${id} could not be found after upload. The image may have been deleted during the upload, cleaning up the chunks uploaded.`,
    { cause },
  )

const ADMIN = { admin: true, project: undefined } as const

/** A commit that failed may have happened all the same (its answer was lost): the row says so, nobody guesses. */
async function findCommitted(core: Core, claim: Claim, stored: Stored, cause: unknown): Promise<Image | undefined> {
  if (hasKind(cause, 'not-found', 'conflict', 'too-large')) return undefined
  const image = await core.db.images.get(claim.imageId, ADMIN).catch((error: unknown) => {
    if (hasKind(error, 'not-found')) return undefined
    // Neither published nor removed until the database answers again: the claim stays, and the sweep decides.
    throw cause
  })
  if (image?.locations.some(({ uri }) => uri === stored.location.uri)) return image
  // It may still happen, and the data must be there then: the sweep decides, once the claim is its own.
  if (hasKind(cause, 'unavailable') && cause.detail['outcome'] === 'unknown') throw cause
  return undefined
}

/** Takes back what the upload did, last thing first, and says what the client is to hear. */
async function undoUpload(
  core: Core,
  store: Store,
  claim: Claim,
  stored: Stored | undefined,
  cause: unknown,
): Promise<unknown> {
  try {
    // Who lost the claim lost the data too: the name may by now be that of somebody else's upload.
    if (stored !== undefined && !hasKind(cause, 'conflict')) await store.discard(stored)
    const image = await core.db.images.settle(claim, { status: 'queued', size: null, virtualSize: null })
    notifyFailure(core, image.id, cause)
    core.notifier.notify({ type: 'image.update', image })
    return cause
  } catch (lost) {
    const gone = hasKind(lost, 'not-found', 'conflict')
    if (!gone) core.log.error(`Image ${claim.imageId} stays in saving until it is swept`, lost)
    const reason = gone ? vanished(claim.imageId, cause) : cause
    notifyFailure(core, claim.imageId, reason)
    return reason
  }
}

export interface Download {
  readonly image: Image
  /** Undefined when the image has no data that could be read. */
  readonly data?: { readonly source: ByteSource; readonly range: ByteRange; readonly partial: boolean }
}

/**
 * GET /v2/images/{image_id}/file. `pick` turns the size into the wanted range; undefined means all of it. Copies in the
 * stores of `prefer` are read before others. The data is open when this resolves, so that the status can still be chosen.
 */
export async function downloadImage(
  core: Core,
  ctx: RequestContext,
  id: ImageId,
  pick: (size: number) => ByteRange | undefined,
  prefer: readonly string[] = [],
): Promise<Download> {
  const image = await loadImage(core, ctx, id)
  if (image.status === 'deactivated' && !ctx.isAdmin) {
    throw new ServiceError('forbidden', 'The requested image has been deactivated. Image data download is forbidden.')
  }
  enforceImage(core.policy, 'download_image', ctx.identity, image)
  if (prefer.length > 0) enforceImage(core.policy, 'download_from_store', ctx.identity, image)
  const locations = preferred(core, image, prefer)
  if (image.size === null || locations.length === 0) return { image }
  const wanted = pick(image.size)
  const range = wanted ?? { offset: 0, length: image.size }
  const fetch = fetchFrom(core, locations)
  const cached = await core.cache?.read(image, range, { signal: ctx.signal, fetch })
  const source = cached ?? (await fetch(range, ctx.signal))
  if (source === undefined) return { image }
  const data = releasing(source, notified(core, ctx, image, range, source))
  return { image, data: { source: data, range, partial: wanted !== undefined } }
}

/** The locations in the order of reading, those in the stores of `prefer` before all others. */
function preferred(core: Core, image: Image, prefer: readonly string[]): readonly Location[] {
  if (prefer.length > 0 && !core.stores.multi) {
    throw new ServiceError(
      'invalid',
      'Store selection for download is not available when multiple backends are not enabled.',
    )
  }
  const unknown = prefer.find((name) => core.stores.all.every(({ id }) => id !== name))
  if (unknown !== undefined) throw new ServiceError('invalid', `Store '${unknown}' is not configured.`)
  const wanted = ({ store }: Location) => store !== undefined && prefer.includes(store)
  return core.stores.inReadingOrder(image.locations).toSorted((a, b) => Number(wanted(b)) - Number(wanted(a)))
}

/** Tries one location after the other; gives undefined when no store has the data. */
export const fetchFrom =
  (core: Core, locations: readonly Location[]): Fetch =>
  async (range, signal) => {
    let failure: unknown
    for (const location of locations) {
      try {
        return await core.stores.holding(location).open(location, range, signal)
      } catch (error) {
        core.log.warn(`Cannot read image data from store ${location.store ?? '(unnamed)'}`, error)
        if (!hasKind(error, 'not-found')) failure ??= error
      }
    }
    if (failure !== undefined) throw failure
    return undefined
  }

/** Tells of a download once it ends, with the bytes that really went out. */
async function* notified(
  core: Core,
  ctx: RequestContext,
  image: Image,
  range: ByteRange,
  source: ByteSource,
): AsyncGenerator<Buffer> {
  let sent = 0
  try {
    for await (const chunk of source) {
      yield chunk
      sent += chunk.length
    }
  } finally {
    if (sent > 0 || range.length === 0)
      core.notifier.notify({ type: 'image.send', image, bytes: sent, expected: range.length, to: ctx.identity })
  }
}

/** What it takes to erase data. */
export type Eraser = Pick<Core, 'db' | 'stores' | 'log'>

/** Removes data that its image has let go; what cannot be removed now is tried again by the sweep. */
export async function eraseData(core: Eraser, id: ImageId, locations: readonly Location[]): Promise<void> {
  for (const location of locations) {
    try {
      await eraseLocation(core, id, location)
    } catch (error) {
      core.log.warn(`Data of image ${id} stays in store ${location.store ?? '(unnamed)'} until the next sweep`, error)
    }
  }
}

/** Removes the data at a location that its image has let go. */
export async function eraseLocation(core: Eraser, id: ImageId, location: Location): Promise<void> {
  try {
    await core.stores.holding(location).delete(location, AbortSignal.timeout(60_000))
  } catch (error) {
    if (!hasKind(error, 'not-found')) throw error
  }
  await core.db.images.dropLocation(id, location.uri)
}
