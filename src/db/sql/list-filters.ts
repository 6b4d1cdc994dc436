import { type RawBuilder, sql } from 'kysely'
import { VISIBILITIES } from '../../domain/image.ts'
import {
  type Comparison,
  type ExactColumn,
  type ImageFilter,
  type RangeColumn,
  SORT_KEYS,
  type SortKey,
} from '../../domain/query.ts'
import { toText } from '../time.ts'
import type { ElementType, Facts } from './facts.ts'
import { byOwner, byVisibility } from './migrations.ts'
import { type Fragment, slot, type Value, type Values } from './statement.ts'

/*
 * What a filter of a list is in SQL: a condition of an image, a bound of a range of an index, or the way to its images.
 * The text depends on the shape of the filter alone; its values stand in slots.
 */

export const COMPARE: Readonly<Record<Comparison, Fragment>> = {
  gt: sql`>`,
  gte: sql`>=`,
  eq: sql`=`,
  neq: sql`<>`,
  lt: sql`<`,
  lte: sql`<=`,
}

const COLUMN = {
  name: sql`images.name`,
  status: sql`images.status`,
  id: sql`images.id`,
  container_format: sql`images.container_format`,
  disk_format: sql`images.disk_format`,
  owner: sql`images.owner`,
  checksum: sql`images.checksum`,
  os_hash_algo: sql`images.os_hash_algo`,
  os_hash_value: sql`images.os_hash_value`,
  size: sql`images.size`,
  virtual_size: sql`images.virtual_size`,
  min_ram: sql`images.min_ram`,
  min_disk: sql`images.min_disk`,
  protected: sql`images.protected`,
} as const satisfies Record<ExactColumn | RangeColumn, Fragment>

/** Of the columns that are no texts. */
const TYPE: Readonly<Partial<Record<ExactColumn, ElementType>>> = {
  size: 'integer',
  virtual_size: 'integer',
  min_ram: 'integer',
  min_disk: 'integer',
  protected: 'boolean',
}

/** Sort keys with NULL as '' or 0, as the indexes have them. */
export const KEY = {
  name: sql`coalesce(images.name, '')`,
  status: sql`images.status`,
  container_format: sql`coalesce(images.container_format, '')`,
  disk_format: sql`coalesce(images.disk_format, '')`,
  size: sql`coalesce(images.size, 0)`,
  id: sql`images.id`,
  created_at: sql`images.created_at`,
  updated_at: sql`coalesce(images.updated_at, images.created_at)`,
} as const satisfies Record<SortKey, Fragment>

/** In MySQL, such a key is a column of its own, where we could add it. */
export const keysOf = ({ name, has }: Facts): Readonly<Record<SortKey, Fragment>> => {
  if (name !== 'mysql') return KEY
  const own = (key: SortKey) => (has(`glimpse_${key}`) ? sql`images.${sql.ref(`glimpse_${key}`)}` : KEY[key])
  return {
    ...KEY,
    name: own('name'),
    container_format: own('container_format'),
    disk_format: own('disk_format'),
    size: own('size'),
    updated_at: own('updated_at'),
  }
}

export const both = (conditions: readonly Fragment[]): Fragment => sql.join(conditions, sql` and `)
export const either = (conditions: readonly Fragment[]): Fragment => sql`(${sql.join(conditions, sql` or `)})`

/** So many slots are in a list of values that has a slot for each: few lengths, so that there are few shapes. */
const slotsFor = (values: readonly unknown[]): number => 2 ** Math.ceil(Math.log2(Math.max(2, values.length)))

/** `column` is the value of the slot, or one of them. */
const oneOf = (
  facts: Facts,
  column: Fragment,
  name: string,
  values: readonly unknown[],
  type?: ElementType,
): Fragment => {
  if (values.length === 1) return sql`${column} = ${slot(name)}`
  if (!facts.listsValues) return sql`${column} in (${facts.elements(slot(name), type)})`
  return sql`${column} in (${sql.join(Array.from({ length: slotsFor(values) }, (_, n) => slot(`${name}_${n}`)))})`
}

/** Columns of upstream's have no room for such a character, and a comparison with it would be an error. */
const BEYOND_UTF8MB3 = /[\u{10000}-\u{10FFFF}]/u

/** The values of a filter, in both ways of having several. */
const valuesOf = (name: string, values: readonly Value[]): Values => {
  if (values.length === 1) return { [name]: values[0] ?? null }
  const known = values.filter((value) => typeof value !== 'string' || !BEYOND_UTF8MB3.test(value))
  return {
    [name]: JSON.stringify(values),
    ...Object.fromEntries(
      Array.from({ length: slotsFor(values) }, (_, n) => [`${name}_${n}`, known[n] ?? known.at(-1) ?? null]),
    ),
  }
}

/** As `exists`, which a planner may turn into a join with all that could be found. */
export const found = (rows: Fragment): Fragment => sql`(select 1 ${rows} limit 1) is not null`

/** A filter, as text that depends on its shape alone. `n` tells its slots from the others'. */
export const condition = (facts: Facts, filter: ImageFilter, n: number, id: Fragment = COLUMN.id): Fragment => {
  switch (filter.by) {
    case 'column':
      return oneOf(facts, COLUMN[filter.column], `f${n}`, filter.values, TYPE[filter.column])
    case 'range':
      return both([
        ...(filter.min === undefined ? [] : [sql`${COLUMN[filter.column]} >= ${slot(`f${n}min`)}`]),
        ...(filter.max === undefined ? [] : [sql`${COLUMN[filter.column]} <= ${slot(`f${n}max`)}`]),
        sql`${COLUMN[filter.column]} is not null`,
      ])
    case 'time':
      return sql`${keysOf(facts)[filter.column]} ${COMPARE[filter.comparison]} ${slot(`f${n}`)}`
    case 'tag':
      return found(sql`from image_tags ${facts.by('glimpse_image_tags_value')}
        where image_tags.value = ${slot(`f${n}`)} and image_tags.deleted = ${false}
        and image_tags.image_id = ${id}`)
    case 'property':
      return found(sql`from image_properties ${facts.by('glimpse_image_properties_value')}
        where image_properties.name = ${slot(`f${n}name`)}
        and ${facts.sameText(sql`image_properties.value`, slot(`f${n}`))}
        and image_properties.deleted = ${false} and image_properties.image_id = ${id}`)
  }
}

export const filterShape = (filter: ImageFilter): string => {
  switch (filter.by) {
    case 'column':
      return filter.values.length === 1 ? filter.column : `${filter.column}*${slotsFor(filter.values)}`
    case 'range':
      return `${filter.column}${filter.min === undefined ? '' : '>'}${filter.max === undefined ? '' : '<'}`
    case 'time':
      return `${filter.column}:${filter.comparison}`
    case 'tag':
    case 'property':
      return filter.by
  }
}

export const filterValues = (filter: ImageFilter, n: number): Values => {
  switch (filter.by) {
    case 'column':
      return valuesOf(`f${n}`, filter.values)
    case 'range':
      return { [`f${n}min`]: filter.min ?? null, [`f${n}max`]: filter.max ?? null }
    case 'time':
      return { [`f${n}`]: toText(filter.value), [`f${n}day`]: toText(new Date(filter.value.getTime() + DAY_MS)) }
    case 'tag':
      return { [`f${n}`]: filter.tag }
    case 'property':
      return { [`f${n}name`]: filter.name, [`f${n}`]: filter.value }
  }
}

/** Filters that say between which values a sort key is. */
type KeyBound = ImageFilter &
  (
    | { readonly by: 'column'; readonly column: ExactColumn & SortKey }
    | { readonly by: 'range'; readonly column: 'size' }
    | { readonly by: 'time' }
  )

const isSortKey = (column: string): column is SortKey => (SORT_KEYS as readonly string[]).includes(column)

export const isKeyBound = (filter: ImageFilter): filter is KeyBound => {
  switch (filter.by) {
    case 'column':
      return filter.values.length === 1 && isSortKey(filter.column)
    case 'range':
      return filter.column === 'size'
    case 'time':
      return filter.comparison !== 'neq'
    default:
      return false
  }
}

/** Whether images were last updated before a time, and so created before it. */
export const isBefore = (filter: ImageFilter): boolean =>
  filter.by === 'time' && filter.column === 'updated_at' && ['lt', 'lte', 'eq'].includes(filter.comparison)

/** The clocks of two nodes differ by less, so that nothing was updated so long before it was created. */
const DAY_MS = 86_400_000

/** What such a filter says of the key as an index has it. The filter itself says more of NULL. */
export const keyBound = (key: Fragment, filter: KeyBound, n: number): Fragment => {
  switch (filter.by) {
    case 'column':
      return sql`${key} = ${slot(`f${n}`)}`
    case 'range':
      return both([
        ...(filter.min === undefined ? [] : [sql`${key} >= ${slot(`f${n}min`)}`]),
        ...(filter.max === undefined ? [] : [sql`${key} <= ${slot(`f${n}max`)}`]),
      ])
    case 'time':
      return sql`${key} ${COMPARE[filter.comparison]} ${slot(`f${n}`)}`
  }
}

/** Where an index leads from a filter to the ids of its images; undefined for filters that many images satisfy. */
export const candidates = (facts: Facts, filter: ImageFilter, n: number): Fragment | undefined => {
  const value = slot(`f${n}`)
  const indexed = (index: string, query: Fragment) => (facts.has(index) ? query : undefined)
  const anyVisibility = sql`images.visibility in (${sql.join(VISIBILITIES.map((name) => sql.lit(name)))})`
  // By the list's index of a key: all of its ranges, one for each visibility.
  const listed = (key: SortKey, where: Fragment) =>
    indexed(
      byVisibility(key),
      sql`select images.id as id from images ${facts.by(byVisibility(key))} where images.deleted = ${false}
        and ${anyVisibility} and images.os_hidden = ${slot('hidden')} and ${where}`,
    )
  switch (filter.by) {
    case 'column': {
      const equal = (column: Fragment) => oneOf(facts, column, `f${n}`, filter.values, TYPE[filter.column])
      switch (filter.column) {
        case 'name':
          return listed('name', equal(keysOf(facts).name))
        case 'status':
          return listed('status', equal(keysOf(facts).status))
        case 'size':
          return listed('size', equal(keysOf(facts).size))
        case 'container_format':
          return listed('container_format', equal(keysOf(facts).container_format))
        case 'disk_format':
          return listed('disk_format', equal(keysOf(facts).disk_format))
        case 'id':
          return sql`select images.id as id from images where ${equal(COLUMN.id)}`
        case 'checksum':
          return sql`select images.id as id from images ${facts.by('checksum_image_idx')} where ${equal(COLUMN.checksum)}`
        case 'os_hash_value':
          return sql`select images.id as id from images ${facts.by('os_hash_value_image_idx')}
            where ${equal(COLUMN.os_hash_value)}`
        case 'owner':
          return indexed(
            byOwner('created_at'),
            sql`select images.id as id from images ${facts.by(byOwner('created_at'))}
              where images.deleted = ${false} and ${equal(COLUMN.owner)} and ${anyVisibility}
              and images.os_hidden = ${slot('hidden')}`,
          )
        default:
          return undefined
      }
    }
    case 'time':
    case 'range':
      return isKeyBound(filter) ? listed(filter.column, keyBound(keysOf(facts)[filter.column], filter, n)) : undefined
    case 'tag':
      return indexed(
        'glimpse_image_tags_value',
        sql`select image_tags.image_id as id from image_tags ${facts.by('glimpse_image_tags_value')}
        where image_tags.value = ${value} and image_tags.deleted = ${false}`,
      )
    case 'property':
      return indexed(
        'glimpse_image_properties_value',
        sql`select image_properties.image_id as id from image_properties
        ${facts.by('glimpse_image_properties_value')} where image_properties.name = ${slot(`f${n}name`)}
        and ${facts.sameText(sql`image_properties.value`, value)} and image_properties.deleted = ${false}`,
      )
  }
}

/** How many images a filter leads to, at most as many as the slot `few`; undefined where it does not lead to any. */
export const countQuery = (facts: Facts, filter: ImageFilter, n: number): RawBuilder<{ n: number }> | undefined => {
  const rows = candidates(facts, filter, n)
  return rows && sql<{ n: number }>`select count(*) as n from (select 1 from (${rows}) as c limit ${slot('few')}) as f`
}
