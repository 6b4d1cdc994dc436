import { hasKind, ServiceError } from '../domain/errors.ts'
import type { ImageId } from '../domain/ids.ts'
import type { Image } from '../domain/image.ts'
import type { Core, RequestContext } from './core.ts'

/** Looks an image up; whoever may not see it is told, in the words of `missing`, that there is none. */
export async function loadImage(
  core: Core,
  ctx: RequestContext,
  id: ImageId,
  missing = `No image found with ID ${id}`,
): Promise<Image> {
  try {
    return await core.db.images.get(id, ctx.scope)
  } catch (cause) {
    if (hasKind(cause, 'not-found')) throw new ServiceError('not-found', missing, { cause })
    throw cause
  }
}
