import { sql } from 'kysely'
import { ServiceError } from '../../domain/errors.ts'
import type { ImageId, ProjectId } from '../../domain/ids.ts'
import type { Member, MemberStatus } from '../../domain/image.ts'
import type { MemberRepository } from '../database.ts'
import { fromText } from '../time.ts'
import type { Connection, Session } from './session.ts'
import { slot } from './statement.ts'

interface MemberRow {
  readonly image_id: string
  readonly member: string
  readonly status: string
  readonly created_at: string
  readonly updated_at: string | null
}

const toMember = ({ image_id, member, status, created_at, updated_at }: MemberRow): Member => ({
  imageId: image_id as ImageId,
  member: member as ProjectId,
  status: status as MemberStatus,
  createdAt: fromText(created_at),
  updatedAt: fromText(updated_at ?? created_at),
})

const noMember = (image: ImageId, member: ProjectId) =>
  new ServiceError('not-found', `${member} not found in the member list of the image ${image}.`)

export const memberRepository = ({ facts, kysely, fixed: prepare, read, write }: Connection): MemberRepository => {
  const living = sql<boolean>`not deleted`
  const image = slot<string>('image')
  const now = facts.timeIn(0)
  const rows = kysely
    .selectFrom('image_members')
    .select(['image_id', 'member', 'status', 'created_at', 'updated_at'])
    .where('image_id', '=', image)
    .where(living)
    .orderBy('id')
  const one = kysely
    .updateTable('image_members')
    .where('image_id', '=', image)
    .where('member', '=', slot<string>('member'))
  const statements = {
    image: prepare(kysely.selectFrom('images').select('id').where('id', '=', image).where(living)),
    list: prepare<MemberRow>(rows),
    get: prepare<MemberRow>(rows.where('member', '=', slot<string>('member'))),
    count: prepare(
      kysely
        .selectFrom('image_members')
        .select(sql<number>`count(*)`.as('n'))
        .where('image_id', '=', image)
        .where(living),
    ),
    forgotten: prepare(
      kysely
        .selectFrom('image_members')
        .select('id')
        .where('image_id', '=', image)
        .where('member', '=', slot<string>('member'))
        .orderBy('id', 'desc')
        .limit(1),
    ),
    revive: prepare(
      kysely
        .updateTable('image_members')
        .set({ status: 'pending', deleted: false, deleted_at: null, updated_at: now })
        .where('id', '=', slot<number>('id')),
    ),
    insert: prepare(
      kysely.insertInto('image_members').values({
        image_id: image,
        member: slot('member'),
        can_share: false,
        status: 'pending',
        created_at: now,
        updated_at: now,
        deleted: false,
        deleted_at: null,
      }),
    ),
    setStatus: prepare(one.set({ status: slot('status'), updated_at: now }).where(living)),
    // Two living rows of one member are possible, and marked at the same time they would violate the unique key.
    merge: prepare(
      kysely
        .deleteFrom('image_members')
        .where('image_id', '=', image)
        .where('member', '=', slot<string>('member'))
        .where(living)
        .where(
          sql<boolean>`id <> (select latest from (select max(id) as latest from image_members
            where image_id = ${image} and member = ${slot('member')} and not deleted) as members)`,
        ),
    ),
    remove: prepare(one.set({ deleted: true, deleted_at: now }).where(living)),
  }

  const requireImage = async (session: Session, id: ImageId): Promise<void> => {
    if (!(await session.first(statements.image, { image: id })))
      throw new ServiceError('not-found', `No image found with ID ${id}`)
  }
  const find = async (session: Session, image: ImageId, member: ProjectId): Promise<Member> => {
    await requireImage(session, image)
    const row = await session.first(statements.get, { image, member })
    if (!row) throw noMember(image, member)
    return toMember(row)
  }

  return {
    add: (image, member, limit) =>
      write(async (session) => {
        await session.guard('image', image)
        await requireImage(session, image)
        const values = { image, member }
        if (await session.first(statements.get, values))
          throw new ServiceError('conflict', `The target member ${member} is already associated with image ${image}.`)
        const count = (await session.first(statements.count, values))?.n ?? 0
        if (limit >= 0 && count + 1 > limit)
          throw new ServiceError('too-large', `Attempted: ${count + 1}, Maximum: ${limit}`)
        const forgotten = await session.first(statements.forgotten, values)
        if (forgotten) await session.change(statements.revive, { id: forgotten.id })
        else await session.change(statements.insert, values)
        return find(session, image, member)
      }),
    list: (image) =>
      read(async (session) => {
        await requireImage(session, image)
        const members = (await session.all(statements.list, { image })).map(toMember)
        // Two rows of one member: upstream does not exclude them when two requests add it at once.
        return [...new Map(members.map((member) => [member.member, member])).values()]
      }),
    get: (image, member) => read((session) => find(session, image, member)),
    setStatus: (image, member, status) =>
      write(async (session) => {
        await session.guard('image', image)
        const values = { image, member, status }
        if ((await session.change(statements.setStatus, values)) === 0) {
          await requireImage(session, image)
          throw noMember(image, member)
        }
        return find(session, image, member)
      }),
    remove: (image, member) =>
      write(async (session) => {
        await session.guard('image', image)
        await requireImage(session, image)
        const values = { image, member }
        await session.change(statements.merge, values)
        if ((await session.change(statements.remove, values)) === 0) throw noMember(image, member)
      }),
  }
}
