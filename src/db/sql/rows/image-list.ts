import { sql } from 'kysely'
import type { Comparison } from '../../../domain/query.ts'
import { type Arguments, raised, Timestamp } from '../../rows.ts'
import { COMPARE } from '../list-filters.ts'
import type { Fragment, Value } from '../statement.ts'
import { badArguments, type Commands, type Desk, flag, isDictionary, optionalText, reads } from './command.ts'
import { toV1, withChildren } from './images.ts'
import { findImage } from './rights.ts'
import { pageOf, TABLES } from './table.ts'

const OPTIONS = [
  ...['filters', 'marker', 'limit', 'sort_key', 'sort_dir', 'member_status', 'is_public', 'admin_as_user'],
  ...['return_tag', 'v1_mode'],
]
const LONGEST_PAGE = 1000

export const imageListCommands: Commands = {
  image_get_all: reads([], OPTIONS, async (desk, args) => {
    const filters = isDictionary(args['filters']) ? args['filters'] : {}
    const deletedToo = 'changes-since' in filters || Boolean(filters['deleted'])
    const marker = optionalText(args, 'marker')
    const where = pageOf(desk, 'images', [...filterConditions(desk, filters), ...visibility(desk, filters, args)], {
      keys: sortKeys(args),
      marker: marker === null ? undefined : await findImage(desk, marker, deletedToo),
      limit: limitOf(args),
    })
    const images = await withChildren(desk, await desk.select(desk.session, 'images', where), deletedToo)
    const tagged = flag(args, 'return_tag') ? await withTags(desk, images) : images
    return flag(args, 'v1_mode') ? tagged.map(toV1) : tagged
  }),
}

export function limitOf(args: Arguments): number {
  const limit = args['limit'] ?? LONGEST_PAGE
  if (typeof limit !== 'number' || !Number.isInteger(limit) || limit < 0) throw badArguments('limit must be a number')
  return Math.min(limit, LONGEST_PAGE)
}

async function withTags<T extends { readonly id: string | null }>(desk: Desk, images: readonly T[]) {
  if (images.length === 0) return images
  const tags = Map.groupBy(
    await desk.select(
      desk.session,
      'image_tags',
      sql`where image_id in (${sql.join(images.map(({ id }) => id))}) and deleted = ${false} order by id`,
    ),
    (row) => row.image_id,
  )
  return images.map((image) => ({ ...image, tags: (tags.get(image.id) ?? []).map(({ value }) => value) }))
}

const listOf = (value: unknown): readonly string[] =>
  Array.isArray(value) ? value.map(String) : value === null || value === undefined ? [] : [String(value)]

/** `created_at` and `id` break ties, in the direction that is said once, else downwards. */
function sortKeys(args: Arguments) {
  const columns = listOf(args['sort_key'])
  const given = listOf(args['sort_dir'])
  const rest = given.length === 1 ? (given[0] as string) : 'desc'
  const keys = (columns.length === 0 ? ['created_at'] : columns).map((column, n) => {
    if (!Object.hasOwn(TABLES.images, column)) throw raised('InvalidSortKey', 'Sort key supplied was not valid.')
    return { column, descending: (given.length === 1 ? rest : (given[n] ?? rest)) !== 'asc' }
  })
  const ties = ['created_at', 'id'].filter((column) => !keys.some((key) => key.column === column))
  return [...keys, ...ties.map((column) => ({ column, descending: rest !== 'asc' }))]
}

/** Which images the caller sees. */
function visibility(desk: Desk, filters: Arguments, args: Arguments): readonly Fragment[] {
  const { admin, owner } = desk.context
  const status = optionalText(args, 'member_status') ?? 'accepted'
  const asMember = sql`images.visibility = 'shared' and exists (select 1 from image_members
    where image_members.image_id = images.id and image_members.deleted = ${false} and image_members.member = ${owner}
    ${status === 'all' ? sql`` : sql`and image_members.status = ${status}`})`
  const mine = owner === null ? [] : [sql`or images.owner = ${owner}`, sql`or (${asMember})`]
  const seen =
    admin && !flag(args, 'admin_as_user')
      ? []
      : [sql`(images.visibility in ('public', 'community') ${sql.join(mine, sql` `)})`]
  const isPublic = args['is_public'] ?? null
  const wanted = filters['visibility'] ?? null
  return [
    ...seen,
    ...(isPublic === null ? [] : [sql`images.visibility ${isPublic ? sql`=` : sql`<>`} 'public'`]),
    ...(wanted === 'all' ? [] : [ofVisibility(wanted, owner)]),
  ]
}

/** Community images of others only on demand. */
const ofVisibility = (wanted: unknown, owner: string | null): Fragment =>
  wanted !== null
    ? sql`images.visibility = ${String(wanted)}`
    : owner === null
      ? sql`images.visibility <> 'community'`
      : sql`(images.visibility <> 'community' or images.owner = ${owner})`

const COMPARED = ['name', 'id', 'status', 'container_format', 'disk_format']

const hasProperty = (name: string, value: unknown): Fragment =>
  sql`exists (select 1 from image_properties where image_properties.image_id = images.id
    and image_properties.deleted = ${false} and image_properties.name = ${name}
    and image_properties.value = ${String(value)})`

function filterConditions(desk: Desk, filters: Arguments): readonly Fragment[] {
  return Object.entries(filters).flatMap(([name, value]): readonly Fragment[] => {
    switch (name) {
      case 'visibility':
        return []
      case 'properties':
        return isDictionary(value) ? Object.entries(value).map(([key, wanted]) => hasProperty(key, wanted)) : []
      case 'tags':
        return listOf(value).map(
          (tag) => sql`exists (select 1 from image_tags where image_tags.image_id = images.id
            and image_tags.deleted = ${false} and image_tags.value = ${tag})`,
        )
      case 'changes-since':
        return [sql`images.updated_at > ${desk.toTime(value)}`]
      case 'deleted':
        return value
          ? [sql`images.deleted = ${true}`]
          : [sql`images.deleted = ${false}`, sql`images.status <> 'killed'`]
    }
    return value === null ? [] : [filterCondition(desk, name, value)]
  })
}

function filterCondition(desk: Desk, name: string, value: unknown): Fragment {
  const [, ranged = '', bound] = /^(\w+)_(min|max)$/.exec(name) ?? []
  if (bound !== undefined && ['size', 'virtual_size', 'min_ram', 'min_disk'].includes(ranged)) {
    const limit = Number(value)
    if (!Number.isInteger(limit))
      throw raised('InvalidFilterRangeValue', 'Unable to filter on a range with a non-numeric value.')
    return sql`${sql.ref(`images.${ranged}`)} ${bound === 'min' ? sql`>=` : sql`<=`} ${limit}`
  }
  if (!Object.hasOwn(TABLES.images, name)) return hasProperty(name, value)
  const column = sql.ref(`images.${name}`)
  const [operator, operand] = splitOperator(String(value))
  if (name === 'created_at' || name === 'updated_at') {
    if (value instanceof Timestamp) return sql`${column} = ${desk.toTime(value)}`
    if (Number.isNaN(Date.parse(operand)))
      throw raised('InvalidParameterValue', `Bad "${name}" query filter format. Use ISO 8601 DateTime notation.`)
    return sql`${column} ${comparison(operator)} ${desk.toTime(operand)}`
  }
  if (COMPARED.includes(name)) {
    if (operator === 'in') return sql`${column} in (${sql.join(splitList(operand))})`
    if (operator === 'eq') return sql`${column} = ${operand}`
    throw unknownOperator(operator)
  }
  return sql`${column} = ${asValue(TABLES.images[name as keyof typeof TABLES.images], value)}`
}

const asValue = (type: string, value: unknown): Value =>
  type === 'flag'
    ? value === true || value === 1 || /^(true|1)$/i.test(String(value))
    : type === 'text'
      ? String(value)
      : Number(value)

const unknownOperator = (operator: string) =>
  raised('InvalidFilterOperatorValue', `Unable to filter by unknown operator '${operator}'.`)

/** Throws `InvalidFilterOperatorValue`. */
function comparison(operator: string): Fragment {
  if (!Object.hasOwn(COMPARE, operator)) throw unknownOperator(operator)
  return COMPARE[operator as Comparison]
}

/** What stands before the first colon, unless all of it is a time. */
function splitOperator(expression: string): readonly [operator: string, operand: string] {
  const colon = expression.indexOf(':')
  if (colon < 0 || /^\d{4}-\d\d-\d\d[T ]/.test(expression)) return ['eq', expression]
  return [expression.slice(0, colon), expression.slice(colon + 1)]
}

const LIST = /^(?:(?:"(?:[^"\\]|\\.)*"|(?:[^",\\]|\\.)*)(?:,|$))*$/s
const ITEM = /"((?:[^"\\]|\\.)*)",?|([^,]+),?|,/gs

/** `a,b`, with quotes around what has a comma. Throws `InvalidParameterValue`. */
function splitList(text: string): readonly string[] {
  if (!LIST.test(text))
    throw raised('InvalidParameterValue', `Invalid filter value ${text}. The quotes do not fit together.`)
  return [...text.matchAll(ITEM)].map(([, quoted, plain]) => quoted ?? plain ?? '')
}
