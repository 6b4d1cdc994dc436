import { sql } from 'kysely'
import { type Arguments, type Row, raised } from '../../rows.ts'
import {
  type Commands,
  type Desk,
  dictionary,
  flag,
  integer,
  optionalText,
  reads,
  STAMPED,
  text,
  without,
  writes,
} from './command.ts'
import { requireChangeable } from './rights.ts'
import type { RowOf } from './table.ts'

export const memberCommands: Commands = {
  image_member_create: writes(['values'], [], async (desk, args) => {
    const values = dictionary(args, 'values')
    const row = { image_id: text(values, 'image_id'), member: text(values, 'member') }
    await requireChangeable(desk, row.image_id)
    const now = desk.now()
    await desk.insert(desk.session, 'image_members', {
      can_share: false,
      status: 'pending',
      ...without(values, [...STAMPED, 'id']),
      ...row,
      created_at: now,
      updated_at: now,
      deleted: false,
    })
    const [created] = await desk.select(
      desk.session,
      'image_members',
      sql`where image_id = ${row.image_id} and member = ${row.member} order by id desc limit 1`,
    )
    return created && format(created)
  }),
  image_member_update: writes(['memb_id', 'values'], [], async (desk, args) => {
    const id = integer(args, 'memb_id')
    const fixed = await requireOwn(desk, id)
    // What is not said becomes the default, and a deleted row comes back: so it was.
    const change = { can_share: false, ...without(dictionary(args, 'values'), [...STAMPED, 'id']), ...fixed }
    const values = { ...change, deleted: false, deleted_at: null, updated_at: desk.now() }
    if ((await desk.update(desk.session, 'image_members', values, sql`id = ${id}`)) === 0) throw noMember(id)
    const [updated] = await desk.select(desk.session, 'image_members', sql`where id = ${id}`)
    return updated && format(updated)
  }),
  image_member_delete: writes(['memb_id'], [], async (desk, args) => {
    const id = integer(args, 'memb_id')
    await requireOwn(desk, id)
    const gone = { deleted: true, deleted_at: desk.now() }
    if ((await desk.update(desk.session, 'image_members', gone, sql`id = ${id}`)) === 0) throw noMember(id)
    return null
  }),
  image_member_find: reads([], ['image_id', 'member', 'status', 'include_deleted'], (desk, args) =>
    findMembers(desk, {
      imageId: optionalText(args, 'image_id'),
      member: optionalText(args, 'member'),
      status: optionalText(args, 'status'),
      deleted: flag(args, 'include_deleted'),
    }),
  ),
  image_member_count: reads(['image_id'], [], async (desk, args) => {
    const imageId = optionalText(args, 'image_id')
    if (!imageId) throw raised('Invalid', 'Image id is required.')
    return desk.count(desk.session, 'image_members', sql`image_id = ${imageId} and deleted = ${false}`)
  }),
}

/**
 * Throws unless the caller may change a membership: it is of an image of its own, or it is the member still. Gives what has to
 * stay as it is: nobody moves a membership to another image, or gives itself the right to share.
 */
async function requireOwn(desk: Desk, id: number): Promise<Arguments> {
  const [row] = await desk.select(desk.session, 'image_members', sql`where id = ${id}`)
  if (row === undefined) throw noMember(id)
  const { image_id, member, can_share } = row
  if (desk.context.admin) return {}
  if (member !== null && member === desk.context.owner && !row.deleted) return { image_id, member, can_share }
  await requireChangeable(desk, image_id ?? '')
  return { image_id, member }
}

const noMember = (id: number) => raised('NotFound', `No membership found with ID ${id}`)

const format = ({ deleted_at: _, ...row }: RowOf<'image_members'>): Row => row

interface Wanted {
  readonly imageId: string | null
  readonly member: string | null
  readonly status: string | null
  /** Whether deleted ones are wanted too. */
  readonly deleted: boolean
}

/** Memberships that the caller may see: all, or those of its images, and its own. */
export async function findMembers(desk: Desk, { imageId, member, status, deleted }: Wanted): Promise<readonly Row[]> {
  const { admin, owner } = desk.context
  const own = sql`(image_members.member = ${owner} or exists (select 1 from images
    where images.id = image_members.image_id and images.owner = ${owner}))`
  const conditions = [
    sql`1 = 1`,
    ...(deleted ? [] : [sql`image_members.deleted = ${false}`]),
    ...(admin ? [] : [own]),
    ...(imageId === null ? [] : [sql`image_members.image_id = ${imageId}`]),
    ...(member === null ? [] : [sql`image_members.member = ${member}`]),
    ...(status === null ? [] : [sql`image_members.status = ${status}`]),
  ]
  const rows = await desk.select(
    desk.session,
    'image_members',
    sql`where ${sql.join(conditions, sql` and `)} order by image_members.id`,
  )
  return rows.map(format)
}
