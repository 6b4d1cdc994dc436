import { type RawBuilder, sql } from 'kysely'
import { MEMBER_STATUSES, type MemberStatus, VISIBILITIES, type Visibility } from '../../domain/image.ts'
import type { ImageFilter, ImageQuery, SortKey } from '../../domain/query.ts'
import type { Scope } from '../database.ts'
import type { Facts } from './facts.ts'
import {
  both,
  candidates,
  condition,
  either,
  filterShape,
  found,
  isBefore,
  isKeyBound,
  KEY,
  keyBound,
  keysOf,
} from './list-filters.ts'
import { byOwner, byVisibility, MEMBER_IMAGES } from './migrations.ts'
import { type Fragment, slot, type Value } from './statement.ts'

/*
 * A list is a union of branches, one per reason for which an image is in it: it is public; it is private and the
 * caller's own; it is shared and the caller is a member … Each branch is a range of one index in the order of the
 * list, and SQL merges them lazily, so that a page costs the same wherever it begins. Filters that such a range can
 * have as its bounds are part of the branches. Others are asked of each image that the walk comes by; or else the ids
 * of the few images that satisfy one of them are taken, and the branches become one condition.
 */

export interface Order {
  readonly key: SortKey
  readonly descending: boolean
}

export interface Branch {
  readonly visibility: Visibility
  /** The slot with the owner that the image must have. */
  readonly owner?: 'project' | 'owner'
  /** The status of the membership by which the caller sees it. */
  readonly member?: MemberStatus
}

/** The whole order: `created_at` and `id` break ties, and nothing after `id` matters. */
export const wholeOrder = (sort: ImageQuery['sort']): readonly Order[] => {
  const [first, ...others] = sort
  // The direction of all the keys, where they have one.
  const descending = !(first?.descending === false && others.every((other) => !other.descending))
  const order: Order[] = []
  for (const next of [...sort, { key: 'created_at', descending }, { key: 'id', descending }] as const) {
    if (!order.some(({ key }) => key === next.key)) order.push(next)
    if (next.key === 'id') break
  }
  return order
}

/** The order of the index of a key: what the key leaves open, the time of creation and the id decide. */
export const indexOrder = ({ key: first, descending }: Order): readonly Order[] => {
  const keys: readonly SortKey[] =
    first === 'id' ? ['id'] : first === 'created_at' ? [first, 'id'] : [first, 'created_at', 'id']
  return keys.map((key) => ({ key, descending }))
}

/** Whether an index has this order. */
export const isIndexed = (order: readonly Order[]): boolean => {
  const [first] = order
  const words = (keys: readonly Order[]) => keys.map(({ key, descending }) => `${key} ${descending}`).join()
  return first !== undefined && words(indexOrder(first)) === words(order)
}

export const ownerFilter = (filters: readonly ImageFilter[]): Value | undefined => {
  for (const filter of filters)
    if (filter.by === 'column' && filter.column === 'owner' && filter.values.length === 1) return filter.values[0]
  return undefined
}

/** Why an image may be in the list; an image may have several reasons. */
export const branchesOf = (query: ImageQuery, { admin, project }: Scope): readonly Branch[] => {
  const { visibility: wanted, memberStatus } = query
  const owner = ownerFilter(query.filters)
  const branches: Branch[] = []
  const anyones = (visibility: Visibility) =>
    branches.push(owner === undefined ? { visibility } : { visibility, owner: 'owner' })
  const own = (visibility: Visibility) => {
    if (project !== undefined && (owner === undefined || owner === project))
      branches.push({ visibility, owner: 'project' })
  }

  for (const visibility of wanted === undefined || wanted === 'all' ? VISIBILITIES : [wanted]) {
    const foreign = visibility === 'public' || (visibility === 'community' ? wanted !== undefined : admin)
    if (foreign) anyones(visibility)
    else own(visibility)
    if (visibility === 'shared' && !admin && project !== undefined)
      for (const member of memberStatus === 'all' ? MEMBER_STATUSES : [memberStatus])
        branches.push({ visibility, member })
  }
  return branches
}

/** In the order of memberships, the same values are read from that table's own index. */
const MEMBER_KEY = {
  created_at: sql`glimpse_member_images.created_at`,
  id: sql`glimpse_member_images.image_id`,
} as const

/** Whether all images that satisfy the filters have the same key, and the marker too: then it orders nothing. */
export const pins = (filters: readonly ImageFilter[], key: SortKey, marker?: Value): boolean =>
  key !== 'id' &&
  filters.some(
    (filter) =>
      filter.by === 'column' &&
      filter.column === key &&
      filter.values.length === 1 &&
      (marker === undefined || filter.values[0] === marker),
  )

/** Whether the list with its filters is a range of the list without, whatever its branches. */
export const isRange = (order: readonly Order[], filters: readonly ImageFilter[]): boolean =>
  filters.every((filter) => isKeyBound(filter) && filter.column === order[0]?.key)

export interface Plan {
  /** The index to walk: that of the first key, or that of a filter whose images it has in the same order. */
  readonly index: SortKey
  /** Of each filter whether it bounds the ranges of the index; the others are asked of each image. */
  readonly bounds: readonly boolean[]
}

/**
 * How the list is walked. `crowded` is a caller with many memberships: they are walked by an index of their own, in
 * which only the time of creation is a bound, and images that do not satisfy another filter may be many.
 */
export const planOf = (
  facts: Facts,
  order: readonly Order[],
  filters: readonly ImageFilter[],
  crowded: boolean,
): Plan => {
  const first = order[0]?.key ?? 'created_at'
  const isExact = (filter: ImageFilter) =>
    filter.by === 'column' && filter.column !== 'id' && isKeyBound(filter) && facts.has(byVisibility(filter.column))
  // Behind the value of a key, an index has created_at and id.
  const inOrderOfCreation = first === 'created_at' && order.length === 2
  const lead = inOrderOfCreation && !crowded ? filters.find(isExact) : undefined
  const isOwner = (filter: ImageFilter) =>
    filter.by === 'column' && filter.column === 'owner' && filter.values.length === 1
  return {
    index: lead !== undefined && isKeyBound(lead) ? lead.column : first,
    bounds: filters.map(
      (filter) => filter === lead || (isKeyBound(filter) && filter.column === first) || (isOwner(filter) && !crowded),
    ),
  }
}

/** Rows behind the marker that are a range of an index. */
interface Range {
  readonly where: Fragment
  /** They all have the marker's own first key. */
  readonly sameFirst?: true
}

/** What is behind the marker, whose keys stand in the slots `m0`, `m1` …, in ranges that do not overlap. */
export const behindMarker = (
  facts: Facts,
  order: readonly Order[],
  keys: readonly Fragment[],
  marker = 'm',
): readonly Range[] => {
  const markers = order.map((_, n) => sql`${slot(`${marker}${n}`)}`)
  const beyond = (n: number) => (order[n]?.descending ? sql`<` : sql`>`)
  const uniform = order.every(({ descending }) => descending === order[0]?.descending)
  const row = (from: number) =>
    from === keys.length - 1
      ? sql`${keys[from]} ${beyond(from)} ${markers[from]}`
      : sql`(${sql.join(keys.slice(from))}) ${beyond(from)} (${sql.join(markers.slice(from))})`
  if (uniform && facts.comparesRows === 'of expressions') return [{ where: row(0) }]
  if (uniform && facts.comparesRows === 'of columns') {
    if (order[0]?.key === 'created_at' || order.length === 1) return [{ where: row(0) }]
    // The comparison cannot follow an index of an expression: those with the same first key, then those beyond.
    return [
      { where: sql`${keys[0]} = ${markers[0]} and ${row(1)}`, sameFirst: true },
      { where: sql`${keys[0]} ${beyond(0)} ${markers[0]}` },
    ]
  }
  const steps = keys.map((_, n) =>
    both([
      ...keys.slice(0, n).map((key, before) => sql`${key} = ${markers[before]}`),
      sql`${keys[n]} ${beyond(n)} ${markers[n]}`,
    ]),
  )
  // The bound says no more than the steps, but an index can follow it.
  const bound = sql`${keys[0]} ${beyond(0)}= ${markers[0]}`
  return [{ where: sql`${bound} and ${either(steps.map((step) => sql`(${step})`))}` }]
}

export interface Shape extends Plan {
  readonly branches: readonly Branch[]
  readonly order: readonly Order[]
  readonly filters: readonly ImageFilter[]
  readonly paged: boolean
}

export const shapeKey = ({ branches, order, filters, paged, index, bounds }: Shape): string =>
  [
    branches.map(({ visibility, owner = '', member = '' }) => `${visibility}/${owner}/${member}`),
    order.map(({ key, descending }) => `${key}${descending ? '-' : '+'}`),
    filters.map(filterShape),
    paged,
    index,
    bounds,
  ].join('|')

const branchCondition = ({ visibility, owner, member }: Branch): Fragment =>
  both([
    sql`images.visibility = ${visibility}`,
    ...(owner === undefined ? [] : [sql`images.owner = ${slot(owner)}`]),
    ...(member === undefined
      ? []
      : [
          found(sql`from image_members where image_members.image_id = images.id
            and image_members.member = ${slot('project')} and image_members.status = ${member}
            and not image_members.deleted`),
        ]),
  ])

/** What a key of the order is called in a subquery. */
export const alias = (order: readonly Order[], n: number) => sql.ref(n === order.length - 1 ? 'id' : `k${n}`)

export const inOrder = (order: readonly Order[], first = 0): Fragment =>
  sql`order by ${sql.join(
    order.slice(first).map(({ descending }, n) => sql`${alias(order, first + n)} ${descending ? sql`desc` : sql`asc`}`),
  )}`

const SHOWN = sql`images.os_hidden = ${slot('hidden')} and images.status <> 'killed'`

const select = (
  order: readonly Order[],
  keys: readonly Fragment[],
  tables: Fragment,
  where: readonly Fragment[],
  { first = 0, more = [] }: { readonly first?: number; readonly more?: readonly Fragment[] } = {},
): Fragment =>
  sql`select ${sql.join([...keys.slice(first).map((key, n) => sql`${key} as ${alias(order, first + n)}`), ...more])}
    from ${tables} where ${both([...where, SHOWN])}`

/**
 * The next images of the list that satisfy the filters which bound it, with their keys and `more` columns: at most the
 * slot `limit`.
 */
export const walk = (
  facts: Facts,
  { branches, order, filters, paged, index, bounds }: Shape,
  more: readonly Fragment[] = [],
): Fragment => {
  const limited = (query: Fragment, first = 0) => sql`${query} ${inOrder(order, first)} limit ${slot('limit')}`
  const ranges = (keys: readonly Fragment[]): readonly Range[] => (paged ? behindMarker(facts, order, keys) : [])
  /** With `known` keys, which an index has in place of those of the image. */
  const bounding = (known: Partial<Record<SortKey, Fragment>>): readonly Fragment[] =>
    filters.flatMap((filter, n) => {
      if (!bounds[n]) return isBefore(filter) ? [sql`${known.created_at ?? KEY.created_at} < ${slot(`f${n}day`)}`] : []
      const key = isKeyBound(filter) ? (known[filter.column] ?? keysOf(facts)[filter.column]) : undefined
      return key === undefined || !isKeyBound(filter)
        ? [condition(facts, filter, n)]
        : [keyBound(key, filter, n), condition(facts, filter, n)]
    })
  const keys = order.map(({ key }) => keysOf(facts)[key])

  const memberships = (visibility: Visibility, member: MemberStatus): Fragment => {
    const memberKeys = order.map(({ key }) => ({ ...keysOf(facts), ...MEMBER_KEY })[key])
    const where = [
      sql`glimpse_member_images.member = ${slot('project')} and glimpse_member_images.status = ${member}`,
      sql`images.visibility = ${visibility} and not images.deleted`,
      ...bounding(MEMBER_KEY),
      ...anyOf(ranges(memberKeys)),
    ]
    return select(order, memberKeys, sql`glimpse_member_images ${facts.thenImage(MEMBER_KEY.id)}`, where, { more })
  }
  const parts = (branch: Branch): readonly Fragment[] => {
    if (branch.member !== undefined && facts.has(MEMBER_IMAGES)) return [memberships(branch.visibility, branch.member)]
    // An owner's images are few beside all, and sorted where there is no index.
    const ofOwner = facts.has(byOwner(index)) ? byOwner(index) : byOwner('created_at')
    const table = sql`images ${facts.by(branch.owner === undefined ? byVisibility(index) : ofOwner)}`
    const where = [sql`images.deleted = ${false}`, branchCondition(branch), ...bounding({})]
    if (!paged) return [select(order, keys, table, where, { more })]
    return ranges(keys).map((range) => {
      if (!range.sameFirst) return select(order, keys, table, [...where, range.where], { more })
      // SQLite would sort all of them, because it does not see that an expression which equals a value is in order.
      const rest = limited(select(order, keys, table, [...where, range.where], { first: 1, more }), 1)
      return sql`select ${slot('m0')} as ${alias(order, 0)}, same.* from (${rest}) as same`
    })
  }

  const all = branches.flatMap(parts)
  // `union` also drops what several branches have; the ranges of one have nothing in common.
  const union = branches.length === 1 ? sql` union all ` : sql` union `
  return limited(
    sql.join(facts.mergesUnions || all.length === 1 ? all : all.map((part) => sql`(${limited(part)})`), union),
  )
}

/** One condition of several ranges; one alone stays as it is, so that an index can follow it. */
export const anyOf = (ranges: readonly Range[]): readonly Fragment[] => {
  const [only, ...more] = ranges
  if (only && more.length === 0) return [only.where]
  return only ? [either(ranges.map(({ where }) => sql`(${where})`))] : []
}

export interface IdRow {
  readonly id: string
}

/** The next images of the list, where every filter bounds it. */
export const walkQuery = (facts: Facts, shape: Shape): RawBuilder<IdRow> =>
  sql<IdRow>`select id from (${walk(facts, shape)}) as page`

/** Whether an image satisfies the filters that do not bound the walk. */
export const questionsOf = (facts: Facts, { filters, bounds }: Shape, id?: Fragment): readonly Fragment[] =>
  filters.flatMap((filter, n) => (bounds[n] ? [] : [condition(facts, filter, n, id)]))

/** The place of a row in the list, as `m0`, `m1` … */
export const placeOf = (facts: Facts, order: readonly Order[], table: string): Fragment =>
  sql.join(
    order.map(({ key }, n) => {
      const place = sql`${sql.ref(table)}.${alias(order, n)}`
      return sql`${key === 'size' ? facts.integer(place) : place} as ${sql.ref(`m${n}`)}`
    }),
  )

export interface LookRow extends IdRow {
  /** Whether it satisfies the other filters too. */
  readonly hit: boolean | number | null
  readonly [key: `m${number}`]: Value
}

/** The next images of the list, so many as are looked at in one go, with their places in the list. */
export const lookQuery = (facts: Facts, shape: Shape): RawBuilder<LookRow> => {
  const { order, filters, bounds } = shape
  // Tags and properties are asked for by the id, which is known.
  const byId = filters.every(({ by }, n) => bounds[n] || by === 'tag' || by === 'property')
  const images = byId ? sql`` : facts.thenImage(sql`page.id`)
  return sql<LookRow>`select ${placeOf(facts, order, 'page')}, page.id as id, (${both(questionsOf(facts, shape, sql`page.id`))}) as hit
    from (${walk(facts, shape)}) as page ${images} ${inOrder(order)}`
}

/** The page among the images that one filter leads to. */
export const lookupQuery = (
  facts: Facts,
  { branches, order, filters, paged }: Shape,
  from: number,
): RawBuilder<IdRow> => {
  const keys = order.map(({ key }) => keysOf(facts)[key])
  const rows = select(
    order,
    keys,
    sql`(select distinct id from (${candidates(facts, filters[from] as ImageFilter, from)}) as found) as c ${facts.thenImage(sql`c.id`)}`,
    [
      sql`not images.deleted`,
      either(branches.map((branch) => sql`(${branchCondition(branch)})`)),
      ...filters.map((filter, n) => condition(facts, filter, n)),
      ...anyOf(paged ? behindMarker(facts, order, keys) : []),
    ],
  )
  return sql<IdRow>`select id from (${rows} ${inOrder(order)} limit ${slot('limit')}) as page`
}

/** How many memberships the caller has, at most as many as the slot `few`. */
export const membershipsQuery = (): RawBuilder<{ n: number }> =>
  sql<{ n: number }>`select count(*) as n from (select 1 from glimpse_member_images
    where glimpse_member_images.member = ${slot('project')} limit ${slot('few')}) as f`

export interface MarkerRow {
  readonly visible: number | boolean
  readonly [key: `m${number}`]: Value
}

export const markerQuery = (facts: Facts, order: readonly Order[]): RawBuilder<MarkerRow> => {
  const keys = order.map(
    ({ key }, n) =>
      sql`${key === 'size' ? facts.integer(keysOf(facts).size) : keysOf(facts)[key]} as ${sql.ref(`m${n}`)}`,
  )
  return sql<MarkerRow>`select ${sql.join(keys)}, ${visibleTo('project')} as visible
    from images where images.id = ${slot('marker')} and not images.deleted`
}

/** Whether somebody who is no admin may see the image: anybody may if nobody owns it. */
export const visibleTo = (project: string): RawBuilder<boolean | number> => sql<boolean | number>`(
  images.owner is null or images.visibility in ('public', 'community') or coalesce(images.owner = ${slot(project)}, false)
  or (images.visibility = 'shared' and ${found(sql`from image_members where image_members.image_id = images.id
    and image_members.member = ${slot(project)} and not image_members.deleted`)}))`
