import { sql } from 'kysely'
import { ServiceError } from '../../domain/errors.ts'
import type { ImageId, LocationUri, StoreId } from '../../domain/ids.ts'
import type { Location } from '../../domain/image.ts'
import type { ImageChange } from '../database.ts'
import { isSealed, type LocationCipher, unsealed } from './location-cipher.ts'
import type { Connection, Session } from './session.ts'
import { slot, type Values } from './statement.ts'

export interface LocationRow {
  readonly id: number
  readonly value: string
  readonly meta_data: string | null
}

const asRecord = (json: string | null): Record<string, unknown> => {
  try {
    const value: unknown = JSON.parse(json ?? '{}')
    return typeof value === 'object' && value !== null && !Array.isArray(value) ? { ...value } : {}
  } catch {
    return {}
  }
}

/** Before Train, upstream called the store `backend`. */
export const toLocation = (
  { value, meta_data }: Pick<LocationRow, 'value' | 'meta_data'>,
  cipher: LocationCipher,
): Location => {
  const { store: named, ...metadata } = asRecord(meta_data)
  const store = named ?? metadata['backend']
  return { uri: cipher.open(value), store: typeof store === 'string' ? (store as StoreId) : undefined, metadata }
}

const toMetadata = ({ store, metadata }: Location): string =>
  JSON.stringify(store === undefined ? metadata : { ...metadata, store })

/** Writes the locations of an image inside a transaction. `base` has the slot `id`, of the image. */
export const locationRows = ({ facts, kysely, fixed: prepare }: Connection, cipher: LocationCipher) => {
  const now = facts.timeIn(0)
  const image = slot<string>('id')
  const living = sql<boolean>`not deleted`
  const one = kysely.updateTable('image_locations').where('id', '=', slot<number>('row'))
  const rows = kysely.selectFrom('image_locations').select(['id', 'value']).where('image_id', '=', image)
  const statements = {
    living: prepare(rows.where(living)),
    marked: prepare(rows.where('status', '=', 'pending_delete')),
    insert: prepare(
      kysely.insertInto('image_locations').values({
        image_id: image,
        value: slot('value'),
        meta_data: slot('metadata'),
        status: 'active',
        created_at: now,
        updated_at: now,
        deleted: false,
        deleted_at: null,
      }),
    ),
    describe: prepare(one.set({ meta_data: slot('metadata'), updated_at: now })),
    mark: prepare(one.set({ deleted: true, deleted_at: now, updated_at: now, status: 'pending_delete' })),
    restore: prepare(one.set({ deleted: false, deleted_at: null, updated_at: now, status: 'active' })),
    drop: prepare(one.set({ updated_at: now, status: 'deleted' })),
  }

  const add = async (session: Session, locations: readonly Location[], base: Values) => {
    for (const location of locations)
      await session.change(statements.insert, {
        ...base,
        value: cipher.seal(location.uri),
        metadata: toMetadata(location),
      })
  }

  /** Ends, one way or the other, that the rows of `uri` wait for their data to go. */
  const settle = async (session: Session, how: 'restore' | 'drop', uri: LocationUri, base: Values) => {
    for (const { id, value } of await session.all(statements.marked, base))
      if (cipher.open(value) === uri) await session.change(statements[how], { ...base, row: id })
  }

  return {
    add,

    /** Throws `conflict` unless the present ones are exactly `from`. */
    replace: async (
      session: Session,
      id: ImageId,
      { from, to }: NonNullable<ImageChange['locations']>,
      base: Values,
    ) => {
      const present = (await session.all(statements.living, base)).map((row) => ({
        row: row.id,
        uri: cipher.open(row.value),
      }))
      const known = new Map(from.map((location) => [location.uri, location]))
      if (present.length !== from.length || !present.every(({ uri }) => known.has(uri)))
        throw new ServiceError('conflict', `The locations of image ${id} have changed meanwhile`)
      const wanted = new Map(to.map((location) => [location.uri, location]))
      for (const { row, uri } of present) {
        const before = known.get(uri)
        const after = wanted.get(uri)
        if (after === undefined) await session.change(statements.mark, { ...base, row })
        else if (before !== undefined && toMetadata(before) !== toMetadata(after))
          await session.change(statements.describe, { ...base, row, metadata: toMetadata(after) })
      }
      await add(
        session,
        to.filter(({ uri }) => !known.has(uri)),
        base,
      )
    },

    restore: (session: Session, uri: LocationUri, base: Values) => settle(session, 'restore', uri, base),
    drop: (session: Session, uri: LocationUri, base: Values) => settle(session, 'drop', uri, base),
  }
}

/** So many of the newest locations are looked at: one alone may be broken. */
const SAMPLE = 10

/** Throws `invalid` when the newest sealed locations cannot be opened. */
export async function requireFittingKey({ kysely, prepare, read }: Connection, cipher: LocationCipher): Promise<void> {
  // Who does not look at locations needs no key: the metadata definitions, the purge.
  if (cipher === unsealed) return
  const newest = prepare(kysely.selectFrom('image_locations').select('value').orderBy('id', 'desc').limit(SAMPLE))
  const sealed = (await read((session) => session.all(newest))).map(({ value }) => value).filter(isSealed)
  if (sealed.length === 0 || sealed.some((text) => cipher.open(text) !== text)) return
  throw new ServiceError('invalid', 'metadata_encryption_key is not the key of the locations in the database')
}
