import { setImmediate as nextTurn } from 'node:timers/promises'
import { sql } from 'kysely'
import { hasKind, ServiceError } from '../../domain/errors.ts'
import type { ImageId } from '../../domain/ids.ts'
import type { Image, ImageStatus } from '../../domain/image.ts'
import type { Claim, ImageRepository } from '../database.ts'
import { imageRows } from './image-rows.ts'
import { imageWriter, noImage, wrongStatus } from './image-writer.ts'
import { visibleTo } from './list.ts'
import type { LocationCipher } from './location-cipher.ts'
import { toLocation } from './location-rows.ts'
import { pageFinder } from './page-finder.ts'
import type { Connection } from './session.ts'
import { slot } from './statement.ts'

const repositoryStatements = ({ facts, kysely, fixed: prepare }: Connection) => {
  const living = sql<boolean>`not deleted`
  const id = slot<string>('id')
  const now = facts.timeIn(0)
  // An image is marked first, and all of it has its time: by that a restore knows what went with it.
  const its = sql<string>`(select deleted_at from images where id = ${id})`
  const ofImage = <Table extends 'image_properties' | 'image_tags' | 'image_members'>(table: Table) =>
    sql`update ${sql.table(table)} set deleted = ${true}, deleted_at = ${its} where image_id = ${id} and ${living}`

  return {
    markImage: prepare(
      kysely
        .updateTable('images')
        .set({ deleted: true, deleted_at: now, status: slot('status'), updated_at: now })
        .where('id', '=', id),
    ),
    touchImage: prepare(kysely.updateTable('images').set({ updated_at: now }).where('id', '=', id).where(living)),
    markProperties: prepare(ofImage('image_properties')),
    markTags: prepare(ofImage('image_tags')),
    // Two living rows of one member are possible, and marked at the same time they would violate the unique key.
    mergeMembers: prepare(
      kysely
        .deleteFrom('image_members')
        .where('image_id', '=', id)
        .where(living)
        .where(
          sql<boolean>`id not in (select latest from (select max(id) as latest from image_members where image_id = ${id} and not deleted
            group by member) as members)`,
        ),
    ),
    markMembers: prepare(ofImage('image_members')),
    markLocations: prepare(
      kysely
        .updateTable('image_locations')
        .set({ deleted: true, deleted_at: its, updated_at: now, status: 'pending_delete' })
        .where('image_id', '=', id)
        .where(living),
    ),
    // An image whose own status is `pending_delete` waits for its time: upstream's delayed delete.
    undropped: prepare(
      sql<{ image_id: string; value: string; meta_data: string | null }>`select image_id, value, meta_data
        from image_locations ${facts.by('glimpse_image_locations_undropped')} cross join images
        where image_locations.status = 'pending_delete' and image_locations.deleted = ${true}
          and images.id = image_locations.image_id and images.status <> 'pending_delete' order by image_locations.id limit ${slot('limit')}`,
    ),
    insertClaim: prepare(
      kysely.insertInto('glimpse_claims').values({
        attempt: slot('attempt'),
        image_id: id,
        worker: slot('worker'),
        store: slot('store'),
      }),
    ),
    forgetClaim: prepare(
      kysely
        .deleteFrom('glimpse_claims')
        .where('attempt', '=', slot<string>('attempt'))
        .where('worker', '=', slot<string>('worker')),
    ),
  }
}

/** What an image is while somebody writes its data. */
const CLAIMED: readonly ImageStatus[] = ['saving', 'uploading']

export const imageRepository = (connection: Connection, cipher: LocationCipher): ImageRepository => {
  const { fixed: prepare, read, write } = connection
  const rows = imageRows(connection, cipher)
  const findPage = pageFinder(connection)
  const statements = repositoryStatements(connection)
  const { apply, insert, load, locations, requireStatus, status, tags, usage } = imageWriter(connection, rows, cipher)
  const visible = prepare(
    sql<{ visible: boolean | number }>`select ${visibleTo('project')} as visible from images where id = ${slot('id')}`,
  )

  /** An image without locations for those who may not see where deactivated data is. */
  const shown = (image: Image, admin: boolean): Image =>
    image.status === 'deactivated' && !admin ? { ...image, locations: [] } : image

  return {
    insert: (image, limits = {}) =>
      write((session) => insert(session, image, limits)).catch((error: unknown) => {
        if (hasKind(error, 'conflict'))
          throw new ServiceError('conflict', `Image ID ${image.id} already exists!`, { cause: error })
        throw error
      }),

    get: (id, { admin, project }) =>
      read(async (session) => {
        const image = await load(session, id)
        const known =
          admin ||
          image.owner === null ||
          image.owner === project ||
          image.visibility === 'public' ||
          image.visibility === 'community' ||
          (image.visibility === 'shared' &&
            project !== undefined &&
            (await session.first(visible, { id, project }))?.visible)
        if (!known) throw noImage(id)
        return shown(image, admin)
      }),

    list: async (query, scope) => {
      for (const search = findPage(query, scope); ; await nextTurn()) {
        // A transaction for each piece of the search, so that others have their turn.
        const images = await read(async (session) => {
          const ids = await search(session)
          return ids && (await rows.many(session, ids))
        })
        if (images !== undefined) return images.map((image) => shown(image, scope.admin))
      }
    },

    update: (id, change, from) => write((session) => apply(session, id, change, from)),

    usage: (owner, except) => read((session) => usage.count(session, 'storage', owner, except)),

    ownerUsage: (owner) => read((session) => usage.all(session, owner)),

    addTag: (id, tag, limit) =>
      write(async (session) => {
        const base = { id }
        await session.guard('image', id)
        if ((await session.change(statements.touchImage, base)) === 0) throw noImage(id)
        const present = await tags.of(session, base)
        if (present.has(tag)) return
        if (limit >= 0 && present.size + 1 > limit)
          throw new ServiceError('too-large', `Attempted: ${present.size + 1}, Maximum: ${limit}`)
        await session.change(tags.insert, { ...base, value: tag })
      }),

    removeTag: (id, tag) =>
      write(async (session) => {
        const base = { id }
        await session.guard('image', id)
        if ((await session.change(statements.touchImage, base)) === 0) throw noImage(id)
        if ((await session.change(tags.remove, { ...base, value: tag })) === 0)
          throw new ServiceError('not-found', `Could not find tag ${tag} on image ${id}`)
      }),

    remove: (id, from, keep = false) =>
      write(async (session) => {
        await session.guard('image', id)
        const image = await load(session, id)
        if (!from.includes(image.status)) throw wrongStatus(image, from)
        const base = { id }
        const status = keep && image.locations.length > 0 ? 'pending_delete' : 'deleted'
        await session.change(statements.markImage, { ...base, status })
        await session.change(statements.markLocations, base)
        await session.change(statements.markProperties, base)
        await session.change(statements.markTags, base)
        await session.change(statements.mergeMembers, base)
        await session.change(statements.markMembers, base)
        return image
      }),

    dropLocation: (id, uri) => write((session) => locations.drop(session, uri, { id })),

    restoreLocation: (id, uri) =>
      write(async (session) => {
        await session.guard('image', id)
        await requireStatus(session, id)
        await locations.restore(session, uri, { id })
      }),

    undropped: (limit) =>
      read(async (session) =>
        (await session.all(statements.undropped, { limit })).map((row) => ({
          id: row.image_id as ImageId,
          location: toLocation(row, cipher),
        })),
      ),

    claim: ({ attempt, imageId, worker, store }: Claim, limits = {}, to = 'saving') =>
      write(async (session) => {
        const image = await apply(session, imageId, { ...limits, status: to, size: null }, ['queued'])
        await session.change(statements.insertClaim, { attempt, id: imageId, worker, store })
        return image
      }),

    settle: async ({ attempt, imageId, worker }: Claim, change) => {
      // What is thrown inside a transaction undoes it, and the claim of a deleted image is to be forgotten.
      const outcome = await write(async (session) => {
        if ((await session.change(statements.forgetClaim, { attempt, worker })) === 0)
          throw new ServiceError('conflict', `Image ${imageId} is not being written by this attempt any more`)
        const image = await status(session, imageId)
        if (!image) return noImage(imageId)
        if (!CLAIMED.includes(image.status)) return wrongStatus(image, CLAIMED)
        return apply(session, imageId, change, CLAIMED)
      })
      if (outcome instanceof ServiceError) throw outcome
      return outcome
    },
  }
}
