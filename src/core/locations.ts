import { hasKind, ServiceError } from '../domain/errors.ts'
import type { ImageId } from '../domain/ids.ts'
import type { Image, Location } from '../domain/image.ts'
import { enforceImage } from '../policy/enforce.ts'
import type { Core, RequestContext } from './core.ts'
import { eraseLocation } from './image-data.ts'
import { loadImage } from './load.ts'

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
