import { sql } from 'kysely'
import { ServiceError } from '../../domain/errors.ts'
import type { ImageId } from '../../domain/ids.ts'
import type { DelayedDeleteRepository } from '../database.ts'
import { fromText, toText } from '../time.ts'
import { imageRows } from './image-rows.ts'
import { noImage } from './image-writer.ts'
import type { LocationCipher } from './location-cipher.ts'
import { toLocation } from './location-rows.ts'
import type { Connection } from './session.ts'
import { slot } from './statement.ts'

/** Upstream marks the locations and properties of an image a moment before the rest of it. */
const MOMENT_MS = 10_000

export const delayedDeleteRepository = (connection: Connection, cipher: LocationCipher): DelayedDeleteRepository => {
  const { facts, prepare, read, write } = connection
  const rows = imageRows(connection, cipher)
  const id = slot<string>('id')
  const now = facts.timeIn(0)
  const alive = sql`deleted = false, deleted_at = null`
  const statements = {
    over: prepare(
      sql<{ id: ImageId }>`select id from images where status = 'pending_delete' and deleted_at < ${slot('before')}
        order by deleted_at limit ${slot('limit')}`,
    ),
    end: prepare(
      sql`update images set status = 'deleted', updated_at = ${now} where id = ${id} and status = 'pending_delete'`,
    ),
    locations: prepare(
      sql<{ value: string; meta_data: string | null }>`select value, meta_data from image_locations
        where image_id = ${id} and status = 'pending_delete' order by id`,
    ),
    find: prepare(
      sql<{ status: string; deleted_at: string | null }>`select status, deleted_at from images where id = ${id}`,
    ),
    revive: prepare(
      sql`update images set status = 'active', updated_at = ${now}, ${alive} where id = ${id} and status = 'pending_delete'`,
    ),
    reviveLocations: prepare(
      sql`update image_locations set status = 'active', updated_at = ${now}, ${alive}
        where image_id = ${id} and status = 'pending_delete' and deleted_at >= ${slot('since')}`,
    ),
    reviveProperties: prepare(
      sql`update image_properties set ${alive} where image_id = ${id} and deleted and deleted_at >= ${slot('since')}`,
    ),
    reviveTags: prepare(sql`update image_tags set ${alive} where image_id = ${id} and deleted_at = ${slot('at')}`),
    reviveMembers: prepare(
      sql`update image_members set ${alive} where image_id = ${id} and deleted_at = ${slot('at')}`,
    ),
  }

  return {
    over: async (before, limit) =>
      (await read((session) => session.all(statements.over, { before: toText(before), limit }))).map((row) => row.id),

    end: (image) =>
      write(async (session) => {
        const ended = await session.change(statements.end, { id: image })
        return ended > 0
          ? (await session.all(statements.locations, { id: image })).map((row) => toLocation(row, cipher))
          : []
      }),

    restore: (image) =>
      write(async (session) => {
        const found = await session.first(statements.find, { id: image })
        if (!found) throw noImage(image)
        const { status, deleted_at: at } = found
        if (status !== 'pending_delete' || at === null)
          throw new ServiceError(
            'conflict',
            `cannot restore the image from ${status} to active (wanted from_state=pending_delete)`,
          )
        const since = toText(new Date(fromText(at).getTime() - MOMENT_MS))
        const values = { id: image, at, since }
        await session.change(statements.revive, values)
        await session.change(statements.reviveLocations, values)
        await session.change(statements.reviveProperties, values)
        await session.change(statements.reviveTags, values)
        await session.change(statements.reviveMembers, values)
        const restored = await rows.one(session, image)
        if (!restored) throw noImage(image)
        return restored
      }),
  }
}
