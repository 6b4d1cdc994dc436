import { sql } from 'kysely'
import type { ImageId, LocationUri, ProjectId, StoreId } from '../../domain/ids.ts'
import type { Image, ImageStatus, Location, Visibility } from '../../domain/image.ts'
import type { Connection, Session } from './session.ts'
import { slot } from './statement.ts'
import { fromText } from './time.ts'

interface ImageRow {
  readonly id: string
  readonly name: string | null
  readonly status: string
  readonly visibility: string
  readonly owner: string | null
  readonly protected: boolean | number
  readonly os_hidden: boolean | number
  readonly size: number | null
  readonly virtual_size: number | null
  readonly min_ram: number
  readonly min_disk: number
  readonly disk_format: string | null
  readonly container_format: string | null
  readonly checksum: string | null
  readonly os_hash_algo: string | null
  readonly os_hash_value: string | null
  readonly created_at: string
  readonly updated_at: string | null
}

interface PropertyRow {
  readonly image_id: string
  readonly name: string
  readonly value: string | null
}

interface TagRow {
  readonly id: number
  readonly image_id: string
  readonly value: string
}

export interface LocationRow extends TagRow {
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
export const toLocation = ({ value, meta_data }: Pick<LocationRow, 'value' | 'meta_data'>): Location => {
  const { store: named, ...metadata } = asRecord(meta_data)
  const store = named ?? metadata['backend']
  return {
    uri: value as LocationUri,
    store: typeof store === 'string' ? (store as StoreId) : undefined,
    metadata,
  }
}

export const toMetadata = ({ store, metadata }: Location): string =>
  JSON.stringify(store === undefined ? metadata : { ...metadata, store })

const toImage = (
  row: ImageRow,
  properties: ReadonlyMap<string, string | null>,
  tags: readonly string[],
  locations: readonly Location[],
): Image => ({
  id: row.id as ImageId,
  name: row.name,
  status: row.status as ImageStatus,
  visibility: row.visibility as Visibility,
  owner: row.owner as ProjectId | null,
  protected: Boolean(row.protected),
  hidden: Boolean(row.os_hidden),
  size: row.size,
  virtualSize: row.virtual_size,
  minRam: row.min_ram,
  minDisk: row.min_disk,
  diskFormat: row.disk_format,
  containerFormat: row.container_format,
  checksum: row.checksum,
  osHashAlgo: row.os_hash_algo,
  osHashValue: row.os_hash_value,
  createdAt: fromText(row.created_at),
  updatedAt: fromText(row.updated_at ?? row.created_at),
  tags,
  properties,
  locations,
})

const byAge = (a: { readonly id: number }, b: { readonly id: number }): number => a.id - b.id
const toProperties = (rows: readonly PropertyRow[]) => new Map(rows.map(({ name, value }) => [name, value]))
const toTags = (rows: readonly TagRow[]) => [...new Set(rows.toSorted(byAge).map(({ value }) => value))]
const toLocations = (rows: readonly LocationRow[]) => rows.toSorted(byAge).map(toLocation)

const perImage = <Row extends { readonly image_id: string }>(rows: readonly Row[]): ReadonlyMap<string, Row[]> => {
  const groups = new Map<string, Row[]>()
  for (const row of rows) {
    const group = groups.get(row.image_id)
    if (group) group.push(row)
    else groups.set(row.image_id, [row])
  }
  return groups
}

export interface ImageRows {
  /** The image, unless it is deleted. */
  one(session: Session, id: string): Promise<Image | undefined>
  /** Those of them that are there, in the order of `ids`. */
  many(session: Session, ids: readonly string[]): Promise<readonly Image[]>
}

/** Reads images: one statement per table, never a join, so that rows are not multiplied. */
export const imageRows = ({ facts, kysely, prepare }: Connection): ImageRows => {
  // `not deleted` is no use to an index, so that nothing tempts the planner to read all living rows.
  const living = sql<boolean>`not deleted`
  const columns = kysely
    .selectFrom('images')
    .select(['id', 'name', 'status', 'visibility', 'owner', 'protected', 'os_hidden'])
    .select([
      facts.integer(sql.ref('size')).as('size'),
      facts.integer(sql.ref('virtual_size')).as('virtual_size'),
      'min_ram',
      'min_disk',
      'disk_format',
      'container_format',
      'checksum',
      'os_hash_algo',
      'os_hash_value',
      'created_at',
      'updated_at',
    ])
    .where(living)
  const properties = kysely.selectFrom('image_properties').select(['image_id', 'name', 'value']).where(living)
  const tags = kysely.selectFrom('image_tags').select(['id', 'image_id', 'value']).where(living)
  const locations = kysely
    .selectFrom('image_locations')
    .select(['id', 'image_id', 'value', 'meta_data'])
    .where(living)
    .where('status', '=', 'active')

  const id = slot<string>('id')
  const listed = (column: string) => sql<boolean>`${sql.ref(column)} in (${facts.elements(slot<string>('ids'))})`
  const single = {
    image: prepare<ImageRow>(columns.where('id', '=', id)),
    properties: prepare<PropertyRow>(properties.where('image_id', '=', id)),
    tags: prepare<TagRow>(tags.where('image_id', '=', id)),
    locations: prepare<LocationRow>(locations.where('image_id', '=', id)),
  }
  const several = {
    images: prepare<ImageRow>(columns.where(listed('id'))),
    properties: prepare<PropertyRow>(properties.where(listed('image_id'))),
    tags: prepare<TagRow>(tags.where(listed('image_id'))),
    locations: prepare<LocationRow>(locations.where(listed('image_id'))),
  }

  return {
    one: async (session, id) => {
      const values = { id }
      const row = await session.first(single.image, values)
      return (
        row &&
        toImage(
          row,
          toProperties(await session.all(single.properties, values)),
          toTags(await session.all(single.tags, values)),
          toLocations(await session.all(single.locations, values)),
        )
      )
    },
    many: async (session, ids) => {
      const values = { ids: JSON.stringify(ids) }
      const rows = new Map((await session.all(several.images, values)).map((row) => [row.id, row]))
      const propertiesOf = perImage(await session.all(several.properties, values))
      const tagsOf = perImage(await session.all(several.tags, values))
      const locationsOf = perImage(await session.all(several.locations, values))
      return ids.flatMap((id) => {
        const row = rows.get(id)
        return row
          ? toImage(
              row,
              toProperties(propertiesOf.get(id) ?? []),
              toTags(tagsOf.get(id) ?? []),
              toLocations(locationsOf.get(id) ?? []),
            )
          : []
      })
    },
  }
}
