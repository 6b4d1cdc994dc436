import { setImmediate as nextTurn } from 'node:timers/promises'
import { sql } from 'kysely'
import type { ImageId, ProjectId } from '../../domain/ids.ts'
import type { Image, ImageStatus, Visibility } from '../../domain/image.ts'
import { fromText } from '../time.ts'
import type { LocationCipher } from './location-cipher.ts'
import { type LocationRow, toLocation } from './location-rows.ts'
import type { Connection, Session } from './session.ts'
import { type Fragment, slot } from './statement.ts'

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
  readonly name: string
  readonly value: string | null
}

interface TagRow {
  readonly id: number
  readonly value: string
}

/** A row of the image that is the `n`th of a page. */
type Of<Row> = Row & { readonly n: number }

const byAge = (a: { readonly id: number }, b: { readonly id: number }): number => a.id - b.id

const toImage = (
  row: ImageRow,
  properties: readonly PropertyRow[],
  tags: readonly TagRow[],
  locations: readonly LocationRow[],
  cipher: LocationCipher,
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
  tags: [...new Set(tags.toSorted(byAge).map(({ value }) => value))],
  properties: new Map(properties.map(({ name, value }) => [name, value])),
  locations: locations.toSorted(byAge).map((location) => toLocation(location, cipher)),
})

/** The rows of each of `count` images. */
const perImage = <Row>(rows: readonly Of<Row>[], count: number): readonly (readonly Row[])[] => {
  const groups: Row[][] = Array.from({ length: count }, () => [])
  for (const row of rows) groups[row.n]?.push(row)
  return groups
}

/** So many images are read at once; between the parts of a long page others have their turn. */
const CHUNK = 250

const IMAGE_COLUMNS = `id, name, status, visibility, owner, protected, os_hidden, min_ram, min_disk, disk_format,
  container_format, checksum, os_hash_algo, os_hash_value, created_at, updated_at`

export interface ImageRows {
  /** The image, unless it is deleted. */
  one(session: Session, id: string): Promise<Image | undefined>
  /** Those of them that are there, in the order of `ids`. */
  many(session: Session, ids: readonly string[]): Promise<readonly Image[]>
}

/** Reads images: one statement per table, never a join of children, so that rows are not multiplied. */
export const imageRows = ({ facts, fixed, prepare }: Connection, cipher: LocationCipher): ImageRows => {
  const sizes = sql`${facts.integer(sql.ref('size'))} as size, ${facts.integer(sql.ref('virtual_size'))} as virtual_size`
  const reader = <Row>(columns: Fragment, table: Fragment) => ({
    one: fixed(sql<Row>`select ${columns} from ${table} = ${slot('id')} and ${facts.living}`),
    many: prepare(
      sql<
        Of<Row>
      >`select e.n, ${columns} from ${facts.numbered(slot('ids'))} cross join ${table} = e.value and ${facts.living}`,
    ),
  })
  const images = reader<ImageRow>(sql`${sql.raw(IMAGE_COLUMNS)}, ${sizes}`, sql`images where id`)
  const properties = reader<PropertyRow>(
    sql`name, image_properties.value as value`,
    sql`image_properties where image_id`,
  )
  const tags = reader<TagRow>(sql`id, image_tags.value as value`, sql`image_tags where image_id`)
  const locations = reader<LocationRow>(
    sql`id, image_locations.value as value, meta_data`,
    sql`image_locations where status = 'active' and image_id`,
  )

  const some = async (session: Session, ids: readonly string[]): Promise<readonly Image[]> => {
    const values = { ids: JSON.stringify(ids) }
    const rows = await session.all(images.many, values)
    const propertiesOf = perImage(await session.all(properties.many, values), ids.length)
    const tagsOf = perImage(await session.all(tags.many, values), ids.length)
    const locationsOf = perImage(await session.all(locations.many, values), ids.length)
    return rows
      .toSorted((a, b) => a.n - b.n)
      .map((row) => toImage(row, propertiesOf[row.n] ?? [], tagsOf[row.n] ?? [], locationsOf[row.n] ?? [], cipher))
  }

  return {
    one: async (session, id) => {
      const values = { id }
      // Asked at once, which is one round trip where the library can do that.
      const answers = [
        session.all(images.one, values),
        session.all(properties.one, values),
        session.all(tags.one, values),
        session.all(locations.one, values),
      ] as const
      // Of failures, the first in order says why; those after it only follow from it.
      await Promise.allSettled(answers)
      const [[image], ...rest] = await Promise.all(answers)
      return image && toImage(image, ...rest, cipher)
    },
    many: async (session, ids) => {
      const images: Image[] = []
      for (let from = 0; from < ids.length; from += CHUNK) {
        if (from > 0) await nextTurn()
        images.push(...(await some(session, ids.slice(from, from + CHUNK))))
      }
      return images
    },
  }
}
