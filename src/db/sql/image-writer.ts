import { sql } from 'kysely'
import { hasKind, ServiceError } from '../../domain/errors.ts'
import type { ImageId } from '../../domain/ids.ts'
import type { Image, ImageStatus } from '../../domain/image.ts'
import type { ImageChange, NewImage, OwnerLimits } from '../database.ts'
import type { ImageRows } from './image-rows.ts'
import type { LocationCipher } from './location-cipher.ts'
import { locationRows } from './location-rows.ts'
import { ownerUsage } from './owner-usage.ts'
import type { Connection, Session } from './session.ts'
import { type Statement, slot, type Value, type Values } from './statement.ts'
import type { ImagesTable } from './tables.ts'

type ColumnChange = Exclude<
  keyof ImageChange,
  'tags' | 'setProperties' | 'unsetProperties' | 'addLocations' | 'locations' | keyof OwnerLimits
>

const COLUMN_OF = {
  name: 'name',
  status: 'status',
  visibility: 'visibility',
  owner: 'owner',
  protected: 'protected',
  hidden: 'os_hidden',
  size: 'size',
  virtualSize: 'virtual_size',
  minRam: 'min_ram',
  minDisk: 'min_disk',
  diskFormat: 'disk_format',
  containerFormat: 'container_format',
  checksum: 'checksum',
  osHashAlgo: 'os_hash_algo',
  osHashValue: 'os_hash_value',
} as const satisfies Record<ColumnChange, keyof ImagesTable>

const changedColumns = (change: ImageChange): readonly (readonly [string, Value])[] =>
  (Object.entries(COLUMN_OF) as [ColumnChange, string][]).flatMap(([key, column]) => {
    const value = change[key]
    return value === undefined ? [] : [[column, value] as const]
  })

export const noImage = (id: ImageId) => new ServiceError('not-found', `No image found with ID ${id}`)
export const wrongStatus = ({ id, status }: Pick<Image, 'id' | 'status'>, from: readonly ImageStatus[]) =>
  new ServiceError('conflict', `Image ${id} is ${status}`, { detail: { status, wanted: from.join(', ') } })

/** Upstream's columns of MySQL know no letter case and no accents, and have one property of a name. */
const alike = (name: string, cause: unknown) =>
  new ServiceError('invalid', `The database takes the name ${name} for that of another property of the image`, {
    cause,
  })

const writeStatements = ({ facts, kysely, fixed: prepare }: Connection) => {
  const living = sql<boolean>`not deleted`
  const id = slot<string>('id')
  const now = facts.timeIn(0)
  const value = slot<string>('value')
  const name = slot<string>('name')
  const nameIs = facts.exactly(sql.ref('name'), name)
  const born = { created_at: now, updated_at: now, deleted: false, deleted_at: null } as const
  const gone = { deleted: true, deleted_at: now } as const
  const given = Object.values(COLUMN_OF)
  return {
    insertImage: prepare(
      kysely.insertInto('images').values({
        ...(Object.fromEntries(given.map((column) => [column, slot(column)])) as Omit<
          ImagesTable,
          'id' | keyof typeof born
        >),
        id,
        ...born,
      }),
    ),
    status: prepare<{ id: ImageId; status: ImageStatus }>(
      kysely.selectFrom('images').select(['id', 'status']).where('id', '=', id).where(living).$castTo(),
    ),
    /** Of a deleted one the name may be another that the database takes for the same. */
    setProperty: prepare(
      kysely
        .updateTable('image_properties')
        .set({ name, value, deleted: false, deleted_at: null, updated_at: now })
        .where('image_id', '=', id)
        .where('name', '=', name)
        .where(sql<boolean>`(deleted or (${nameIs}))`),
    ),
    insertProperty: prepare(kysely.insertInto('image_properties').values({ image_id: id, name, value, ...born })),
    unsetProperty: prepare(
      kysely.updateTable('image_properties').set(gone).where('image_id', '=', id).where(nameIs).where(living),
    ),
    tags: prepare(kysely.selectFrom('image_tags').select('value').where('image_id', '=', id).where(living)),
    insertTag: prepare(kysely.insertInto('image_tags').values({ image_id: id, value, ...born })),
    removeTag: prepare(
      kysely
        .updateTable('image_tags')
        .set(gone)
        .where('image_id', '=', id)
        .where(facts.exactly(sql.ref('value'), value))
        .where(living),
    ),
  }
}

/** Writes images inside a transaction. */
export const imageWriter = (connection: Connection, rows: ImageRows, cipher: LocationCipher) => {
  const { facts, kysely, fixed: prepare } = connection
  const statements = writeStatements(connection)
  const locations = locationRows(connection, cipher)
  const usage = ownerUsage(connection)

  // As many as there are sets of columns that change together: a handful.
  const updates = new Map<string, Statement<unknown>>()
  const updateOf = (columns: readonly string[]): Statement<unknown> => {
    const key = columns.join()
    const known = updates.get(key)
    if (known) return known
    const built = prepare(
      kysely
        .updateTable('images')
        .set({
          ...Object.fromEntries(columns.map((column) => [column, slot(column)])),
          updated_at: facts.timeIn(0),
        })
        .where('id', '=', slot<string>('id'))
        .where(sql<boolean>`not deleted`)
        .where(sql<boolean>`status in (${facts.elements(slot('from'))})`),
    )
    updates.set(key, built)
    return built
  }

  const load = async (session: Session, id: ImageId): Promise<Image> => {
    const image = await rows.one(session, id)
    if (!image) throw noImage(id)
    return image
  }
  const status = (session: Session, id: ImageId) => session.first(statements.status, { id })
  const requireStatus = async (session: Session, id: ImageId) => {
    const row = await status(session, id)
    if (!row) throw noImage(id)
    return row
  }

  const setProperties = async (session: Session, properties: ReadonlyMap<string, string | null>, base: Values) => {
    for (const [name, value] of properties) {
      const values = { ...base, name, value }
      if ((await session.change(statements.setProperty, values)) > 0) continue
      await session.change(statements.insertProperty, values).catch((cause: unknown) => {
        throw hasKind(facts.translate(cause), 'conflict') ? alike(name, cause) : cause
      })
    }
  }
  /** Each once, as it is written: the database may take different ones for the same. */
  const tagsOf = async (session: Session, base: Values): Promise<ReadonlySet<string>> =>
    new Set((await session.all(statements.tags, base)).map(({ value }) => value))
  const setTags = async (session: Session, tags: readonly string[], base: Values) => {
    const wanted = new Set(tags)
    const present = await tagsOf(session, base)
    for (const value of present) if (!wanted.has(value)) await session.change(statements.removeTag, { ...base, value })
    for (const value of wanted) if (!present.has(value)) await session.change(statements.insertTag, { ...base, value })
  }
  /** Throws `conflict` unless the status is one of `from`. */
  const apply = async (session: Session, id: ImageId, change: ImageChange, from: readonly ImageStatus[]) => {
    const base = { id }
    await session.guard('image', id)
    const columns = changedColumns(change)
    const values = { ...base, ...Object.fromEntries(columns), from: JSON.stringify(from) }
    if ((await session.change(updateOf(columns.map(([column]) => column)), values)) === 0)
      throw wrongStatus(await requireStatus(session, id), from)
    for (const name of change.unsetProperties ?? []) await session.change(statements.unsetProperty, { ...base, name })
    if (change.setProperties) await setProperties(session, change.setProperties, base)
    if (change.tags) await setTags(session, change.tags, base)
    if (change.addLocations) await locations.add(session, change.addLocations, base)
    if (change.locations) await locations.replace(session, id, change.locations, base)
    const image = await load(session, id)
    await usage.admit(session, image.owner, change)
    return image
  }

  const insertRows = async (session: Session, image: NewImage, limits: OwnerLimits = {}): Promise<Image> => {
    const base = { id: image.id }
    const data = { size: null, virtual_size: null, checksum: null, os_hash_algo: null, os_hash_value: null }
    const columns = Object.fromEntries(changedColumns({ ...image, status: 'queued' }))
    await session.change(statements.insertImage, { ...base, ...columns, ...data })
    await setProperties(session, image.properties, base)
    await setTags(session, image.tags, base)
    await usage.admit(session, image.owner, limits)
    return load(session, image.id)
  }

  return {
    apply,
    insert: insertRows,
    load,
    locations,
    requireStatus,
    status,
    usage,
    tags: { of: tagsOf, insert: statements.insertTag, remove: statements.removeTag },
  }
}
