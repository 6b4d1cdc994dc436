import { sql } from 'kysely'
import { type Arguments, type Row, type RowContext, raised } from '../../rows.ts'
import { type Desk, text } from './command.ts'
import type { RowOf } from './table.ts'

export type ImageRow = RowOf<'images'>

const LONGEST_ID = 36
/** What Python's driver said of a row that was not there. */
export const NOT_FOUND = 'An object with the specified identifier was not found.'

/** No column holds a longer id, whatever a database makes of it. */
export function checkedId(args: Arguments): string {
  const id = text(args, 'image_id')
  if (id.length > LONGEST_ID) throw raised('ImageNotFound', NOT_FOUND)
  return id
}

/** Throws `ImageNotFound`, and `Forbidden` for one that the caller may not see. */
export async function findImage(desk: Desk, id: string, showDeleted: boolean): Promise<ImageRow> {
  checkedId({ image_id: id })
  const deleted = showDeleted || desk.context.admin ? sql`` : sql`and deleted = ${false}`
  const [image] = await desk.select(desk.session, 'images', sql`where id = ${id} ${deleted}`)
  if (image === undefined) throw raised('ImageNotFound', `No image found with ID ${id}`)
  if (!(await isVisible(desk, image, null))) throw raised('Forbidden', `Forbidding request, image ${id} not visible`)
  return image
}

/** Whether the caller may see an image; by a membership of that status only, if one is given. */
export async function isVisible(desk: Desk, image: Row, status: string | null): Promise<boolean> {
  const { admin, owner } = desk.context
  const { id, owner: of = null, visibility } = image
  if (admin || of === null || visibility === 'public' || visibility === 'community') return true
  if (owner === null) return false
  if (owner === of) return true
  if (visibility !== 'shared') return false
  const membership = sql`image_id = ${String(id)} and member = ${owner} and deleted = ${false}
    ${status === null ? sql`` : sql`and status = ${status}`}`
  return (await desk.count(desk.session, 'image_members', membership)) > 0
}

/** Throws unless the caller may change the image. */
export function requireMutable({ admin, owner }: RowContext, image: ImageRow): void {
  if (admin || (owner !== null && image.owner === owner)) return
  const open = image.visibility === 'public' || image.visibility === 'community'
  throw raised(open ? 'ForbiddenPublicImage' : 'Forbidden', 'You do not own this image')
}

/**
 * Throws unless the caller may change what belongs to an image. Glance's driver left that to the API in front of it;
 * but here whoever has a token can ask.
 */
export async function requireChangeable(desk: Desk, imageId: string): Promise<void> {
  if (!desk.context.admin) requireMutable(desk.context, await findImage(desk, imageId, false))
}
