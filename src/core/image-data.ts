import { randomUUID } from 'node:crypto'
import type { Claim, ImageChange } from '../db/database.ts'
import { hasKind, ServiceError } from '../domain/errors.ts'
import type { AttemptId, ImageId } from '../domain/ids.ts'
import { canBecome, type Image, type Location } from '../domain/image.ts'
import type { ByteRange, ByteSource } from '../io/bytes.ts'
import { inspector, judge } from '../io/inspect.ts'
import { enforceImage } from '../policy/enforce.ts'
import type { Store, Stored } from '../store/store.ts'
import type { Core, RequestContext } from './core.ts'
import { loadImage } from './load.ts'

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
  admitUpload(core, image, upload.size)

  const claim: Claim = { attempt: randomUUID() as AttemptId, imageId: id, worker: core.worker.id, store: store.id }
  core.notifier.notify({ type: 'image.prepare', image: await beginClaim(core, claim) })
  let stored: Stored | undefined
  try {
    const written = await writeData(core, ctx, store, image, claim, upload)
    stored = written.stored
    // Not bound to the client's connection: once the bytes are stored, a vanished client must not orphan them.
    const active = await core.db.images.settle(claim, activated(written))
    core.notifier.notify({ type: 'image.upload', image: active })
    core.notifier.notify({ type: 'image.activate', image: active })
    return active
  } catch (cause) {
    throw await undoUpload(core, store, claim, stored, cause)
  }
}

async function beginClaim(core: Core, claim: Claim): Promise<Image> {
  try {
    return await core.db.images.claim(claim)
  } catch (cause) {
    // It was `queued` a moment ago: somebody else began an upload, or deleted the image.
    if (hasKind(cause, 'conflict', 'not-found')) throw vanished(claim.imageId, cause)
    throw cause
  }
}

interface WrittenData {
  readonly stored: Stored
  readonly virtualSize: number | null
}

async function writeData(
  core: Core,
  ctx: RequestContext,
  store: Store,
  image: Image,
  claim: Claim,
  upload: Upload,
): Promise<WrittenData> {
  const inspected = image.containerFormat === 'bare' ? inspector() : undefined
  const stored = await store.put(image.id, upload.body(), {
    ...(upload.size === undefined ? {} : { size: upload.size }),
    attempt: claim.attempt,
    signal: ctx.signal,
    hashAlgorithm: core.dataRules.hashAlgorithm,
    taps: [sizeCap(core.limits.imageSize), ...(inspected ? [{ update: inspected.update }] : [])],
  })
  if (inspected === undefined) return { stored, virtualSize: null }
  try {
    const verdict = judge(inspected.end(), image.diskFormat ?? 'raw', stored.size, {
      requireMatch: core.dataRules.requireFormatMatch,
      vmdkAllowedTypes: core.dataRules.vmdkAllowedTypes,
      gptNonfatal: core.dataRules.gptNonfatal,
    })
    for (const warning of verdict.warnings) core.log.warn(`Image ${image.id}: ${warning}`)
    return { stored, virtualSize: verdict.virtualSize }
  } catch (refused) {
    await store.discard(stored)
    throw refused
  }
}

/** Refuses the stream as soon as it is larger than any image may be. */
function sizeCap(limit: number): { update(chunk: Buffer): void } {
  let size = 0
  return {
    update: (chunk) => {
      size += chunk.length
      admitSize(size, limit)
    },
  }
}

function admitSize(size: number, limit: number): void {
  if (size > limit)
    throw new ServiceError('too-large', 'The incoming image is too large: The provided image is too large.')
}

function admitUpload(core: Core, image: Image, size: number | undefined): void {
  if (!canBecome(image.status, 'saving')) {
    throw new ServiceError('conflict', `Image status transition from ${image.status} to saving is not allowed`)
  }
  const missing = [
    ...(image.diskFormat === null ? ['disk_format'] : []),
    ...(image.containerFormat === null ? ['container_format'] : []),
  ]
  if (missing.length > 0) {
    throw new ServiceError(
      'invalid',
      `${missing.length === 1 ? 'Property' : 'Properties'} ${missing.join(', ')} must be set prior to saving data.`,
    )
  }
  admitSize(size ?? 0, core.limits.imageSize)
}

const activated = ({ stored, virtualSize }: WrittenData): ImageChange & { readonly status: 'active' } => ({
  status: 'active',
  size: stored.size,
  virtualSize,
  checksum: stored.checksum,
  osHashAlgo: stored.osHashAlgo,
  osHashValue: stored.osHashValue,
  addLocations: [stored.location],
})

const vanished = (id: ImageId, cause: unknown) =>
  new ServiceError(
    'gone',
    `Image ${id} could not be found after upload. The image may have been deleted during the upload, cleaning up the chunks uploaded.`,
    { cause },
  )

/** Takes back what the upload did, last thing first, and says what the client is to hear. */
async function undoUpload(
  core: Core,
  store: Store,
  claim: Claim,
  stored: Stored | undefined,
  cause: unknown,
): Promise<unknown> {
  if (stored !== undefined) {
    // What cannot be removed now stays claimed, and is swept once this worker is gone.
    await store.discard(stored)
  }
  try {
    await core.db.images.settle(claim, { status: 'queued', size: null, virtualSize: null })
  } catch (lost) {
    if (hasKind(lost, 'not-found', 'conflict')) return vanished(claim.imageId, cause)
    core.log.error(`Image ${claim.imageId} stays in saving until it is swept`, lost)
  }
  return cause
}

export interface Download {
  readonly image: Image
  /** Undefined when the image has no data that could be read. */
  readonly data?: { readonly source: ByteSource; readonly range: ByteRange; readonly partial: boolean }
}

/**
 * GET /v2/images/{image_id}/file. `pick` turns the size into the wanted range; undefined means all of it.
 * The data is open when this resolves, so that the status can still be chosen.
 */
export async function downloadImage(
  core: Core,
  ctx: RequestContext,
  id: ImageId,
  pick: (size: number) => ByteRange | undefined,
): Promise<Download> {
  const image = await loadImage(core, ctx, id)
  if (image.status === 'deactivated' && !ctx.isAdmin) {
    throw new ServiceError('forbidden', 'The requested image has been deactivated. Image data download is forbidden.')
  }
  enforceImage(core.policy, 'download_image', ctx.identity, image)
  const locations = core.stores.inReadingOrder(image.locations)
  if (image.size === null || locations.length === 0) return { image }
  const wanted = pick(image.size)
  const range = wanted ?? { offset: 0, length: image.size }
  const source = await openFirst(core, ctx, locations, range)
  if (source === undefined) return { image }
  return { image, data: { source: notified(core, ctx, image, range, source), range, partial: wanted !== undefined } }
}

/** Tries one location after the other; undefined when no store has the data. */
async function openFirst(
  core: Core,
  ctx: RequestContext,
  locations: readonly Location[],
  range: ByteRange,
): Promise<ByteSource | undefined> {
  let failure: unknown
  for (const location of locations) {
    try {
      return await core.stores.holding(location).open(location, range, ctx.signal)
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
): ByteSource {
  let sent = 0
  try {
    for await (const chunk of source) {
      yield chunk
      sent += chunk.length
    }
  } finally {
    if (sent > 0 || range.length === 0)
      core.notifier.notify({ type: 'image.send', image, bytes: sent, to: ctx.identity })
  }
}

/** Removes the data of a deleted image; what cannot be removed now is tried again by the sweep. */
export async function eraseData(core: Core, id: ImageId, locations: readonly Location[]): Promise<void> {
  for (const location of locations) {
    try {
      await core.stores
        .holding(location)
        .delete(location, AbortSignal.timeout(60_000))
        .catch((error: unknown) => {
          if (!hasKind(error, 'not-found')) throw error
        })
      await core.db.images.dropLocation(id, location.uri)
    } catch (error) {
      core.log.warn(
        `Data of deleted image ${id} stays in store ${location.store ?? '(unnamed)'} until the next sweep`,
        error,
      )
    }
  }
}
