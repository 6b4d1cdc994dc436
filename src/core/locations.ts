import type { ImageChange } from '../db/database.ts'
import { hasKind, ServiceError } from '../domain/errors.ts'
import type { ImageId, LocationUri } from '../domain/ids.ts'
import type { Image, Location } from '../domain/image.ts'
import { enforceImage } from '../policy/enforce.ts'
import type { Core, RequestContext } from './core.ts'
import { admitFormats, eraseLocation } from './image-data.ts'
import { loadImage } from './load.ts'
import { admitLocations, ownerQuota } from './quota.ts'
import { admitValidation, type Validation } from './validation-data.ts'

const EXCEEDED = 'Denying attempt to upload image because it exceeds the quota'

/** A location that a client gives, with what it knows of the data there. */
export interface ClientLocation {
  readonly uri: LocationUri
  readonly metadata: Readonly<Record<string, unknown>>
  readonly validation: Validation
}

/** One operation of a JSON patch on the locations; positions are as the client wrote them. */
export type LocationPatch =
  | { readonly op: 'add-location'; readonly position: string; readonly location: ClientLocation }
  | { readonly op: 'replace-locations'; readonly locations: readonly ClientLocation[] }
  | { readonly op: 'remove-location'; readonly position: string }

/** GET /v2/images/{image_id}/locations: for other services, whether or not images show their locations. */
export async function listLocations(core: Core, ctx: RequestContext, id: ImageId): Promise<readonly Location[]> {
  const image = await loadImage(core, ctx, id)
  enforceImage(core.policy, 'fetch_image_location', ctx.identity, image)
  return core.stores.inReadingOrder(image.locations)
}

/** `image` as it will be after the patch; nothing is saved. */
export async function patchLocations(
  core: Core,
  ctx: RequestContext,
  image: Image,
  patch: LocationPatch,
): Promise<Image> {
  const rule = patch.op === 'remove-location' ? 'delete_image_location' : 'set_image_location'
  enforceImage(core.policy, rule, ctx.identity, image)
  const [verb] = patch.op.split('-')
  const open = patch.op === 'remove-location' ? ['active'] : ['active', 'queued']
  if (!open.includes(image.status)) {
    throw new ServiceError('conflict', `It's not allowed to ${verb} locations if image status is ${image.status}.`)
  }
  if (patch.op === 'remove-location') return withoutLocation(image, patch.position)
  if (patch.op === 'add-location') return withLocation(core, ctx, image, patch)
  return withLocations(core, ctx, image, patch.locations)
}

/** What saves the locations of `draft`, which `patchLocations` made of `image`. */
export async function locationChange(core: Core, image: Image, draft: Image): Promise<ImageChange> {
  if (draft.locations === image.locations) return {}
  const more = draft.status !== image.status || draft.locations.length > image.locations.length
  return {
    status: draft.status,
    size: draft.size,
    checksum: draft.checksum,
    osHashAlgo: draft.osHashAlgo,
    osHashValue: draft.osHashValue,
    locations: { from: image.locations, to: draft.locations },
    ...(more ? (await ownerQuota(core, image.owner, EXCEEDED)).within('storage') : {}),
  }
}

async function withLocation(
  core: Core,
  ctx: RequestContext,
  image: Image,
  { position, location }: { readonly position: string; readonly location: ClientLocation },
): Promise<Image> {
  const facts = admitValidation(core, image, [location])
  if (positionIn(position) === undefined) throw invalid('Invalid position for adding a location.')
  return extended(core, ctx.signal, image, [location], facts)
}

/** New metadata for the locations that are there, or the first locations of an image. */
async function withLocations(
  core: Core,
  ctx: RequestContext,
  image: Image,
  locations: readonly ClientLocation[],
): Promise<Image> {
  const facts = admitValidation(core, image, locations)
  const known = new Map(accepted(image).map((location) => [location.uri, location]))
  const uris = new Set(locations.map(({ uri }) => uri))
  if (locations.length === known.size && uris.size === known.size && locations.every(({ uri }) => known.has(uri))) {
    const kept = locations.map(({ uri, metadata }) => ({
      uri,
      store: known.get(uri)?.store,
      metadata: unnamed(metadata),
    }))
    return { ...image, locations: kept }
  }
  if (known.size > 0) throw invalid('Original locations is not empty.')
  return extended(core, ctx.signal, image, locations, facts)
}

function withoutLocation(image: Image, written: string): Image {
  if (image.locations.length === 1) throw new ServiceError('forbidden', 'Cannot remove last location in the image.')
  const position = written === '-' ? image.locations.length - 1 : positionIn(written)
  if (position === undefined || position >= image.locations.length) {
    throw invalid('Invalid position for removing a location.')
  }
  return { ...image, locations: image.locations.toSpliced(position, 1) }
}

/** Those of a queued image hold nothing that was accepted: whatever comes takes their place. */
const accepted = (image: Image): readonly Location[] => (image.status === 'queued' ? [] : image.locations)

/** The image with further locations, whose data are there and not empty; a queued one is active then. */
export async function extended(
  core: Core,
  signal: AbortSignal,
  image: Image,
  added: readonly Pick<ClientLocation, 'uri' | 'metadata'>[],
  facts: Validation,
): Promise<Image> {
  const locations = [...accepted(image)]
  admitLocations(core.limits, locations.length + added.length)
  let { size } = image
  for (const { uri, metadata } of added) {
    if (!isPlain(metadata)) throw invalid('The metadata of a location may hold texts, lists and objects only')
    const location = { uri, store: storeFor(core, uri), metadata: unnamed(metadata) }
    const found = await sizeOf(core, signal, location)
    if (locations.some((each) => each.uri === uri)) throw invalid(`The location ${uri} already exists`)
    size ??= found
    locations.push(location)
  }
  await admitStorage(core, image, (size ?? 0) * added.length)
  if (image.status !== 'queued') return { ...image, locations, size }
  admitFormats(image)
  return {
    ...image,
    status: 'active',
    size,
    locations,
    checksum: facts.checksum ?? image.checksum,
    osHashAlgo: facts.osHashAlgo ?? image.osHashAlgo,
    osHashValue: facts.osHashValue ?? image.osHashValue,
  }
}

async function admitStorage(core: Core, image: Image, bytes: number): Promise<void> {
  const quota = await ownerQuota(core, image.owner, EXCEEDED)
  const left = (await quota.storageLeft(image)) - (image.size ?? 0) * image.locations.length
  if (bytes > left) throw quota.refusal('storage', bytes, left)
}

/** Schemes that name files and configuration of this machine: a client that could set them could read these. */
const RESTRICTED = new Set(['file', 'filesystem', 'swift+config'])

/** The store that a location of a client belongs to, undefined where stores have no names. */
function storeFor(core: Core, uri: LocationUri): Location['store'] {
  const scheme = uri.slice(0, Math.max(0, uri.indexOf('://'))).toLowerCase()
  const store = core.stores.find({ uri, store: undefined, metadata: {} })
  if (store === undefined || RESTRICTED.has(scheme)) throw invalid('Invalid location')
  return core.stores.multi ? store.id : undefined
}

async function sizeOf(core: Core, signal: AbortSignal, location: Location): Promise<number> {
  try {
    const { size } = await core.stores.holding(location).stat(location, signal)
    if (size > 0) return size
  } catch (cause) {
    if (hasKind(cause, 'not-found')) throw invalid('Invalid location', cause)
    if (hasKind(cause, 'invalid', 'unavailable')) throw invalid('The Store URI was malformed.', cause)
    throw cause
  }
  throw invalid('Invalid location')
}

const isPlain = (value: unknown): boolean =>
  typeof value === 'string' || (typeof value === 'object' && value !== null && Object.values(value).every(isPlain))

/** The service says which store it is. */
const unnamed = ({ store: _, ...metadata }: Readonly<Record<string, unknown>>) => metadata

const positionIn = (written: string): number | undefined =>
  written === '-' ? Number.POSITIVE_INFINITY : /^\d+$/.test(written) ? Number(written) : undefined

const invalid = (message: string, cause?: unknown) => new ServiceError('invalid', message, { cause })

/** DELETE /v2/stores/{store_id}/{image_id}: one of several copies goes. */
export async function deleteFromStore(core: Core, ctx: RequestContext, store: string, id: ImageId): Promise<void> {
  if (!core.stores.multi) throw new ServiceError('not-found', 'The resource could not be found.')
  if (core.stores.all.every((each) => each.id !== store)) {
    throw new ServiceError('conflict', `The selected store ${store} is not available on this node.`)
  }
  const image = await loadImage(core, ctx, id, `Failed to find image ${id}`)
  enforceImage(core.policy, 'get_image_location', ctx.identity, image)
  enforceImage(core.policy, 'delete_image_location', ctx.identity, image)
  if (image.status !== 'active') {
    throw new ServiceError(
      'conflict',
      "It's not allowed to remove image data from store if image status is not 'active'",
    )
  }
  if (image.locations.length === 1) {
    throw new ServiceError(
      'forbidden',
      'Cannot delete image data from the only store containing it. Consider deleting the image instead.',
    )
  }
  const location = image.locations.find((each) => core.stores.find(each)?.id === store)
  if (location === undefined) throw new ServiceError('not-found', `Image ${id} is not stored in store ${store}.`)

  const to = image.locations.filter((each) => each !== location)
  const updated = await core.db.images.update(id, { locations: { from: image.locations, to } }, ['active'])
  await eraseOrRestore(core, image, location)
  core.notifier.notify({ type: 'image.update', image: updated })
}

/** Removes the data of a location that the image has let go. Throws `conflict`, and keeps both, when it is in use. */
export async function eraseOrRestore(core: Core, image: Image, location: Location): Promise<void> {
  try {
    await eraseLocation(core, image.id, location)
  } catch (cause) {
    if (!hasKind(cause, 'conflict')) {
      core.log.warn(
        `Data of image ${image.id} stays in store ${location.store ?? '(unnamed)'} until the next sweep`,
        cause,
      )
      return
    }
    await core.db.images.restoreLocation(image.id, location.uri)
    throw new ServiceError(
      'conflict',
      `The data for Image ${image.id} could not be deleted because it is in use: ${cause.message}`,
      { cause },
    )
  }
}
