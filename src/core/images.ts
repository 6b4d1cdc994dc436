import { randomUUID } from 'node:crypto'
import type { NewImage } from '../db/database.ts'
import { hasKind, ServiceError } from '../domain/errors.ts'
import type { ImageId } from '../domain/ids.ts'
import { type Image, type ImageAttributes, type ImageStatus, type Visibility, whenceTo } from '../domain/image.ts'
import type { ImageQuery } from '../domain/query.ts'
import { enforce, enforceImage, enforceNewImage, enforceVisibility } from '../policy/enforce.ts'
import type { PropertyOperation } from '../policy/property-protection.ts'
import { imageTarget } from '../policy/target.ts'
import { forgetCopy } from './cached-images.ts'
import type { Core, RequestContext } from './core.ts'
import { eraseData } from './image-data.ts'
import { loadImage } from './load.ts'
import { eraseOrRestore, type LocationPatch, locationChange, patchLocations } from './locations.ts'
import { admitProperties, admitTags, exceeded, ownerQuota } from './quota.ts'
import { isStagedElsewhere } from './staging.ts'

export type ImageDraft = Partial<ImageAttributes> & {
  readonly id?: ImageId
  readonly tags: readonly string[]
  readonly properties: ReadonlyMap<string, string | null>
  /** What is wrong with it, for the ears of those who may create images at all. */
  readonly refusal?: ServiceError
}

/** One operation of a JSON patch on a base attribute, the tags, an extra property, or the locations. */
export type ImagePatch =
  | {
      readonly op: 'set'
      readonly attribute: keyof ImageAttributes
      readonly value: ImageAttributes[keyof ImageAttributes]
    }
  | { readonly op: 'set-tags'; readonly tags: readonly string[] }
  | {
      readonly op: 'set-property'
      readonly name: string
      readonly value: string | null
      readonly must: 'exist' | 'be-new' | 'any'
    }
  | { readonly op: 'unset-property'; readonly name: string }
  | LocationPatch
  /** An operation that no state of the image can make right, refused in its turn. */
  | { readonly op: 'refuse'; readonly error: ServiceError }

export async function createImage(core: Core, ctx: RequestContext, draft: ImageDraft): Promise<Image> {
  const row = newImage(core, ctx, draft)
  const quota = await ownerQuota(core, row.owner, 'Image exceeds the quota')
  const image = await core.db.images.insert(row, quota.within('count')).catch((cause: unknown) => {
    throw quota.explain(cause)
  })
  core.notifier.notify({ type: 'image.create', image })
  return readable(core, ctx, image)
}

/** An image as the caller may create it. Throws what is in the way. */
export function newImage(core: Core, ctx: RequestContext, draft: ImageDraft): NewImage {
  const { identity } = ctx
  const owner = draft.owner === undefined ? (identity.projectId ?? null) : draft.owner
  enforceNewImage(core.policy, identity, { owner, visibility: draft.visibility })
  for (const name of draft.properties.keys())
    if (!core.protection.allows('create', name, identity)) throw reserved(name)
  if (draft.refusal !== undefined) throw draft.refusal
  admitTags(core.limits, draft.tags.length)
  admitProperties(core.limits, draft.properties.keys())
  return {
    id: draft.id ?? (randomUUID() as ImageId),
    name: draft.name ?? null,
    owner,
    visibility: draft.visibility ?? 'shared',
    protected: draft.protected ?? false,
    hidden: draft.hidden ?? false,
    minRam: draft.minRam ?? 0,
    minDisk: draft.minDisk ?? 0,
    diskFormat: draft.diskFormat ?? null,
    containerFormat: draft.containerFormat ?? null,
    tags: [...new Set(draft.tags)],
    properties: draft.properties,
  }
}

export async function showImage(core: Core, ctx: RequestContext, id: ImageId): Promise<Image> {
  const image = await loadImage(core, ctx, id)
  enforceImage(core.policy, 'get_image', ctx.identity, image)
  return readable(core, ctx, image)
}

/** The image without properties that the caller may not read. */
function readable(core: Core, { identity }: RequestContext, image: Image): Image {
  const shown = [...image.properties].filter(([name]) => core.protection.allows('read', name, identity))
  return shown.length === image.properties.size ? image : { ...image, properties: new Map(shown) }
}

const reserved = (name: string) => new ServiceError('forbidden', `Attribute '${name}' is reserved.`)

/** A page of what the caller may see; `next` is the marker of the following page, if there may be one. */
export async function listImages(
  core: Core,
  ctx: RequestContext,
  query: ImageQuery,
): Promise<{ readonly images: readonly Image[]; readonly next: ImageId | undefined }> {
  enforce(core.policy, 'get_images', ctx.identity, { project_id: ctx.identity.projectId })
  const page = await core.db.images.list(query, ctx.scope).catch((cause: unknown) => {
    if (hasKind(cause, 'not-found'))
      throw new ServiceError('invalid', `No image found with ID ${query.marker}`, { cause })
    if (hasKind(cause, 'forbidden')) {
      throw new ServiceError('forbidden', `Forbidding request, image ${query.marker} not visible`, { cause })
    }
    throw cause
  })
  const images = page.filter((image) => core.policy.allows('get_image', ctx.identity, imageTarget(image, ctx.identity)))
  const last = images.at(-1)
  return {
    images: images.map((image) => readable(core, ctx, image)),
    next: page.length === query.limit ? last?.id : undefined,
  }
}

/** Applies the patches in order, and saves once at the end: the failure of one leaves the image as it was. */
export async function updateImage(
  core: Core,
  ctx: RequestContext,
  id: ImageId,
  patches: readonly ImagePatch[],
): Promise<Image> {
  const image = await loadImage(core, ctx, id)
  const draft = {
    attributes: {} as Partial<ImageAttributes>,
    tags: undefined as readonly string[] | undefined,
    properties: new Map(image.properties),
  }
  let located = image
  let grown = false

  for (const patch of patches) {
    if (patch.op === 'refuse') {
      enforceImage(core.policy, 'modify_image', ctx.identity, image)
      throw patch.error
    }
    if (patch.op === 'add-location' || patch.op === 'replace-locations' || patch.op === 'remove-location') {
      located = await patchLocations(core, ctx, { ...located, ...draft.attributes }, patch)
      continue
    }
    if (patch.op === 'set' && patch.attribute === 'owner' && !ctx.isAdmin) {
      throw new ServiceError('forbidden', "Owner can't be updated by non admin.")
    }
    if (patch.op === 'set' && patch.attribute === 'visibility') {
      enforceVisibility(core.policy, ctx.identity, patch.value as Visibility, imageTarget(image, ctx.identity))
    }
    enforceImage(core.policy, 'modify_image', ctx.identity, image)
    if (patch.op === 'set') {
      admitFormatChange(image, patch.attribute)
      Object.assign(draft.attributes, { [patch.attribute]: patch.value })
    } else if (patch.op === 'set-tags') {
      admitTags(core.limits, new Set(patch.tags).size)
      draft.tags = patch.tags
    } else {
      patchProperty(core, ctx, draft.properties, patch)
      grown ||= patch.op === 'set-property' && !image.properties.has(patch.name)
    }
  }
  if (patches.length === 0) return readable(core, ctx, image)
  // Only growth is checked, so that an image above a lowered quota can still be edited and shrunk.
  if (grown) admitProperties(core.limits, draft.properties.keys())

  const updated = await core.db.images.update(
    id,
    {
      ...(await locationChange(core, image, located)),
      ...draft.attributes,
      ...(draft.tags === undefined ? {} : { tags: draft.tags }),
      setProperties: new Map(
        [...draft.properties].filter(
          ([name, value]) => image.properties.get(name) !== value || !image.properties.has(name),
        ),
      ),
      unsetProperties: [...image.properties.keys()].filter((name) => !draft.properties.has(name)),
    },
    [image.status],
  )
  core.notifier.notify({ type: 'image.update', image: updated })
  for (const location of image.locations)
    if (!updated.locations.some(({ uri }) => uri === location.uri)) await eraseOrRestore(core, image, location)
  return readable(core, ctx, updated)
}

function patchProperty(
  core: Core,
  ctx: RequestContext,
  properties: Map<string, string | null>,
  patch: Extract<ImagePatch, { op: 'set-property' | 'unset-property' }>,
): void {
  const { name } = patch
  const allowed = (operation: PropertyOperation) => core.protection.allows(operation, name, ctx.identity)
  // What one may not read is not there, as far as one can tell.
  const present = properties.has(name) && allowed('read')
  if (!present && (patch.op === 'unset-property' || patch.must === 'exist')) {
    throw new ServiceError('conflict', `Property ${name} does not exist.`)
  }
  if (patch.op === 'unset-property') {
    if (!allowed('delete')) throw reserved(name)
    properties.delete(name)
    return
  }
  if (present && patch.must === 'be-new') throw new ServiceError('conflict', `Property ${name} already present.`)
  if (!allowed(present ? 'update' : 'create')) throw reserved(name)
  properties.set(name, patch.value)
}

const KEY_REMOVAL_MS = 60_000

export async function deleteImage(core: Core, ctx: RequestContext, id: ImageId): Promise<Deletion> {
  const image = await loadImage(core, ctx, id, `Failed to find image ${id} to delete`)
  enforceImage(core.policy, 'delete_image', ctx.identity, image)
  const stageHost = await isStagedElsewhere(core, ctx, image)
  if (stageHost !== undefined) {
    const there = await deleteAt(core, ctx, stageHost, id)
    if (there !== undefined) return there
  }
  if (image.protected) throw new ServiceError('forbidden', `Image ${id} is protected and cannot be deleted.`)

  // The row goes first: data that is left behind by a crash is still known to it, and swept later.
  const deleted = await core.db.images.remove(id, whenceTo('deleted'), core.delayedDelete)
  core.imports.runner.look(id)
  core.notifier.notify({ type: 'image.delete', image: { ...deleted, status: 'deleted' } })
  if (!core.delayedDelete) await eraseData(core, deleted.id, deleted.locations)
  await forgetCopy(core, deleted.id)
  await removeEncryptionKey(core, ctx, deleted)
  if (deleted.status === 'uploading' || deleted.status === 'importing') {
    await core.imports.staging
      .remove(id)
      .catch((error: unknown) => core.log.warn(`What is staged of the deleted image ${id} is swept later`, error))
  }
  return {}
}

export interface Deletion {
  /** Of the request that did it, when that was another one than the caller's. */
  readonly requestId?: string | undefined
}

/** The key of a volume that the image was made from, where the image says that nobody else needs it; failures are logged. */
async function removeEncryptionKey(core: Core, ctx: RequestContext, { id, properties }: Image): Promise<void> {
  const key = properties.get('cinder_encryption_key_id')
  if (!key || properties.get('cinder_encryption_key_deletion_policy') !== 'on_image_deletion') return
  try {
    // The image is gone: a client that hangs up does not change what happens to its key.
    await core.keys.removeKey(key, ctx.identity, AbortSignal.timeout(KEY_REMOVAL_MS))
  } catch (error) {
    core.log.warn(`Encryption key ${key} of the deleted image ${id} stays`, error)
  }
}

/** Lets the node with the staged data delete the image. Undefined when it does not answer: then it is deleted here. */
async function deleteAt(core: Core, ctx: RequestContext, host: string, id: ImageId): Promise<Deletion | undefined> {
  try {
    return await core.imports.relay({
      method: 'DELETE',
      url: `${host}/v2/images/${id}`,
      token: ctx.identity.token,
    })
  } catch (error) {
    if (!(error instanceof ServiceError) || !error.transient) throw error
    core.log.warn(`${host}, where image ${id} is staged, does not answer`, error)
    return undefined
  }
}

/** Forbids (`deactivated`) or allows again (`active`) to download the data; repeating it is no error. */
export async function setActivation(
  core: Core,
  ctx: RequestContext,
  id: ImageId,
  to: 'active' | 'deactivated',
): Promise<void> {
  const rule = to === 'active' ? 'reactivate' : 'deactivate'
  const from: ImageStatus = to === 'active' ? 'deactivated' : 'active'
  const image = await loadImage(core, ctx, id)
  enforceImage(core.policy, rule, ctx.identity, image)
  if (image.status === to) return
  if (image.status !== from) {
    throw new ServiceError('forbidden', `Not allowed to ${rule} image in status '${image.status}'`)
  }
  const changed = await core.db.images.update(id, { status: to }, [from])
  core.notifier.notify({ type: 'image.update', image: changed })
}

export async function addTag(core: Core, ctx: RequestContext, id: ImageId, tag: string): Promise<void> {
  const image = await loadImageForTags(core, ctx, id)
  try {
    await core.db.images.addTag(id, tag, core.limits.tags)
  } catch (cause) {
    if (!hasKind(cause, 'too-large')) throw cause
    throw new ServiceError(
      'too-large',
      `Image tag limit exceeded for image ${id}: ${exceeded('tags', image.tags.length + 1, core.limits.tags)}:`,
      { cause },
    )
  }
  notifyTags(core, image, [...new Set([...image.tags, tag])])
}

export async function removeTag(core: Core, ctx: RequestContext, id: ImageId, tag: string): Promise<void> {
  const image = await loadImageForTags(core, ctx, id)
  try {
    await core.db.images.removeTag(id, tag)
  } catch (cause) {
    if (!hasKind(cause, 'not-found')) throw cause
    throw new ServiceError('not-found', 'The resource could not be found.', { cause })
  }
  notifyTags(
    core,
    image,
    image.tags.filter((each) => each !== tag),
  )
}

const notifyTags = (core: Core, image: Image, tags: readonly string[]) =>
  core.notifier.notify({ type: 'image.update', image: { ...image, tags, updatedAt: new Date() } })

async function loadImageForTags(core: Core, ctx: RequestContext, id: ImageId): Promise<Image> {
  const image = await loadImage(core, ctx, id, `Image ${id} not found.`)
  enforceImage(core.policy, 'modify_image', ctx.identity, image)
  return image
}

/** Formats are facts about the data, so they are fixed once there is some. */
function admitFormatChange(image: Image, attribute: keyof ImageAttributes): void {
  if (attribute !== 'diskFormat' && attribute !== 'containerFormat') return
  if (image.status === 'queued' || image.status === 'importing') return
  const name = attribute === 'diskFormat' ? 'disk_format' : 'container_format'
  throw new ServiceError('forbidden', `Attribute ${name} can be only replaced for a queued image.`)
}
