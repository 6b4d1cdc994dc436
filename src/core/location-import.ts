import { setTimeout as delay } from 'node:timers/promises'
import type { Identity } from '../auth/identity.ts'
import type { ImageChange } from '../db/database.ts'
import { hasKind, ServiceError } from '../domain/errors.ts'
import type { ImageId, LocationUri } from '../domain/ids.ts'
import type { Image } from '../domain/image.ts'
import type { Flow, RunningJob } from '../imports/runner.ts'
import { digestSize } from '../io/digest.ts'
import type { Tap } from '../io/pump.ts'
import { enforceImage } from '../policy/enforce.ts'
import { redact } from '../store/store.ts'
import type { Digests } from '../store/stores.ts'
import type { Core, RequestContext } from './core.ts'
import { beginWork } from './jobs.ts'
import { loadImage } from './load.ts'
import { extended, locationChange } from './locations.ts'

/** A digest that a client states. */
export interface StatedDigest {
  readonly osHashAlgo: string
  /** Hex */
  readonly osHashValue: string
}

export interface NewLocation {
  readonly uri: LocationUri
  /** What the data must be; without `do_secure_hash`, what it is believed to be. */
  readonly validation: StatedDigest | undefined
}

const invalid = (message: string) => new ServiceError('invalid', message)

/** POST /v2/images/{image_id}/locations: the data is in a store already, and is looked at after the answer. */
export async function addLocation(core: Core, ctx: RequestContext, id: ImageId, location: NewLocation): Promise<void> {
  const { uri, validation } = location
  const image = await loadImage(core, ctx, id)
  if (image.status !== 'queued') {
    throw new ServiceError('conflict', `It's not allowed to add locations if image status is ${image.status}.`)
  }
  enforceImage(core.policy, 'add_image_location', ctx.identity, image)
  admitStore(core, ctx.identity, uri)
  if (validation !== undefined) admitDigest(validation)

  const verify = core.locationRules.secureHash && validation !== undefined
  const stated = validation && { os_hash_algo: validation.osHashAlgo, os_hash_value: validation.osHashValue }
  await beginWork(core, ctx, {
    type: 'location_import',
    input: { image_id: id, loc_url: redact(uri), validation_data: stated ?? {} },
    image,
    context: location,
    change: { image: verify ? { status: 'importing' } : {}, from: ['queued'] },
    flow: (running) => locationFlow(core, running),
  })
}

/** Throws `forbidden` unless the caller may name such a place: users those of web servers, services any. */
function admitStore(core: Core, { roles, serviceRoles }: Identity, uri: LocationUri): void {
  if (roles.includes('service') || serviceRoles.includes('service')) return
  if (uri.startsWith('http') && core.stores.all.some(({ type }) => type === 'http')) return
  throw new ServiceError('forbidden', 'http store must be enabled to use location API by normal user.')
}

function admitDigest({ osHashAlgo, osHashValue }: StatedDigest): void {
  if (!/^(?:[0-9a-f]{2})*$/i.test(osHashValue)) {
    throw invalid(`os_hash_value (${osHashValue}) is not a valid hexadecimal value`)
  }
  const size = digestSize(osHashAlgo)
  if (osHashValue.length / 2 === size) return
  throw invalid(
    `os_hash_value: (${osHashValue}) is not the correct size for (${osHashAlgo}) (should be (${size}) bytes)`,
  )
}

/**
 * Gives an image its location. It is active once the data has the stated digest; without one at once, and the digests
 * are found out after that, if they can be. Where digests do not matter, what is stated is believed.
 */
export async function locationFlow(core: Core, running: RunningJob): Promise<Flow> {
  const { uri, validation } = running.job.context as NewLocation
  const { secureHash } = core.locationRules
  const result = { image_id: running.job.imageId }
  const ended = async (image?: Image) => {
    if (image !== undefined) core.notifier.notify({ type: 'image.update', image })
  }
  const locate = async (signal: AbortSignal, facts: Partial<StatedDigest> = {}): Promise<Image> =>
    extended(core, signal, { ...running.image(), status: 'queued' }, [{ uri, metadata: {} }], facts)

  if (secureHash && validation === undefined) {
    let facts: ImageChange | undefined
    return {
      steps: [
        {
          name: 'location',
          run: async (signal) => {
            const image = running.image()
            // Another process came so far.
            if (image.status !== 'queued') return
            const change = await locationChange(core, image, await locate(signal))
            // Clients know by it that a digest is to come.
            await running.save({ ...change, osHashAlgo: core.dataRules.hashAlgorithm }, ['queued'])
          },
        },
        {
          name: 'digest',
          run: async (signal) => {
            facts = await digestIfPossible(core, running, uri, signal)
          },
        },
      ],
      done: () => ({ ...(facts && { image: facts }), result }),
      failed: () => ({}),
      ended,
    }
  }

  const verify = secureHash && validation !== undefined
  const from = verify ? 'importing' : 'queued'
  let change: ImageChange | undefined
  let located: Image | undefined
  return {
    steps: [
      {
        name: 'location',
        run: async (signal) => {
          const { id, status } = running.image()
          if (status !== from) throw new ServiceError('conflict', `Image ${id} is ${status}`)
          located = await locate(signal, validation)
          const draft = verify ? await verified(core, running, located, validation, signal) : located
          change = await locationChange(core, running.image(), draft)
        },
      },
    ],
    done: () => {
      if (change === undefined) throw new ServiceError('internal', 'The location has not been looked at yet')
      return { image: change, from: [from], result }
    },
    failed: () => (running.image().status === 'importing' ? refusedChange(running.image(), located) : {}),
    ended,
  }
}

/**
 * The image is queued again. As in upstream, clients see by its location where on the web the refused data is; nobody
 * reads it, as the image has no size, and the next data takes its place.
 */
function refusedChange(image: Image, located: Image | undefined): ImageChange {
  const status = 'queued'
  if (!located?.locations.every(({ uri }) => uri.startsWith('http'))) return { status }
  return { status, locations: { from: image.locations, to: located.locations } }
}

/** The image with its digests. Throws `invalid` unless the data is what it is said to be. */
async function verified(
  core: Core,
  running: RunningJob,
  image: Image,
  { osHashAlgo, osHashValue }: StatedDigest,
  signal: AbortSignal,
): Promise<Image> {
  const found = await digestStubbornly(core, running, image, osHashAlgo, signal)
  if (found.osHashValue !== osHashValue.toLowerCase()) {
    throw invalid(`os_hash_value: (${osHashValue}) not matched with actual os_hash_value: (${found.osHashValue})`)
  }
  return { ...image, ...found, osHashAlgo }
}

/** The image is active whatever comes of this. */
async function digestIfPossible(
  core: Core,
  running: RunningJob,
  uri: LocationUri,
  signal: AbortSignal,
): Promise<ImageChange | undefined> {
  const { hashAlgorithm } = core.dataRules
  try {
    const image = running.image()
    const location = image.locations.filter((each) => each.uri === uri)
    const found = await digestStubbornly(core, running, { ...image, locations: location }, hashAlgorithm, signal)
    return { checksum: found.checksum, osHashAlgo: hashAlgorithm, osHashValue: found.osHashValue }
  } catch (error) {
    signal.throwIfAborted()
    running.log.warn(`The digests of image ${running.job.imageId} cannot be found out`, error)
    return undefined
  }
}

const LONGEST_PAUSE_MS = 30_000

/** Reads the only location of `image`, again and again while that fails in a way that may pass. */
async function digestStubbornly(
  core: Core,
  running: RunningJob,
  image: Image,
  hashAlgorithm: string,
  signal: AbortSignal,
): Promise<Digests> {
  for (let failures = 1; ; failures++) {
    try {
      return await digest(core, running, image, hashAlgorithm, signal)
    } catch (error) {
      signal.throwIfAborted()
      if (failures > core.locationRules.retries || !hasKind(error, 'unavailable', 'timeout', 'bad-gateway')) throw error
      running.log.warn(`Image ${image.id} cannot be read (${failures})`, error)
    }
    await delay(Math.min(1000 * 2 ** (failures - 1), LONGEST_PAUSE_MS), undefined, { signal })
  }
}

/** Time in which some byte must come. */
const STALL_MS = 60_000

async function digest(
  core: Core,
  running: RunningJob,
  { locations: [location] }: Image,
  hashAlgorithm: string,
  signal: AbortSignal,
): Promise<Digests> {
  if (location === undefined) throw new ServiceError('not-found', 'The location was removed')
  const stalled = new AbortController()
  const timer = setTimeout(() => {
    stalled.abort(new ServiceError('timeout', 'The server of the image data stopped to send'))
  }, STALL_MS)
  let bytes = 0
  const counter: Tap = {
    update: (chunk) => {
      timer.refresh()
      bytes += chunk.length
      running.progress(bytes)
    },
  }
  try {
    const during = AbortSignal.any([signal, stalled.signal])
    return await core.stores.digest(location, { hashAlgorithm, taps: [counter], signal: during })
  } finally {
    clearTimeout(timer)
  }
}
