import { type RawBuilder, sql } from 'kysely'
import { LRUCache } from 'lru-cache'
import { ServiceError } from '../../domain/errors.ts'
import { MEMBER_STATUSES, type MemberStatus, VISIBILITIES, type Visibility } from '../../domain/image.ts'
import type { Comparison, ExactColumn, ImageFilter, ImageQuery, RangeColumn, SortKey } from '../../domain/query.ts'
import type { Scope } from '../database.ts'
import type { ElementType, Facts } from './facts.ts'
import { byOwner, byVisibility } from './migrations.ts'
import type { Connection, Session } from './session.ts'
import { type Fragment, type Statement, slot, type Value, type Values } from './statement.ts'
import { toText } from './time.ts'

/*
 * A list is a union of branches, one per reason for which an image is in it: it is public; it is private and the
 * caller's own; it is shared and the caller is a member … Each branch is a range of one index in the order of the
 * list, and SQL merges them lazily, so that a page costs the same wherever it begins. Where a filter leaves few
 * images, their ids are taken instead and the branches become one condition.
 */

/** Up to so many images that satisfy one filter, looking at each of them beats walking the list. */
const FEW = 2_000
/** Clients choose the shape of a query (how many filters of which kind), so that shapes may not pile up. */
const CACHED_SHAPES = 300

interface Order {
  readonly key: SortKey
  readonly descending: boolean
}

interface Branch {
  readonly visibility: Visibility
  /** The slot with the owner that the image must have. */
  readonly owner?: 'project' | 'owner'
  /** The status of the membership by which the caller sees it. */
  readonly member?: MemberStatus
}

/** The whole order: `created_at` and `id` break ties, and nothing after `id` matters. */
const wholeOrder = (sort: ImageQuery['sort']): readonly Order[] => {
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

const ownerFilter = (filters: readonly ImageFilter[]): Value | undefined => {
  for (const filter of filters)
    if (filter.by === 'column' && filter.column === 'owner' && filter.values.length === 1) return filter.values[0]
  return undefined
}

/** Why an image may be in the list; an image may have several reasons. */
const branchesOf = (query: ImageQuery, { admin, project }: Scope): readonly Branch[] => {
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

const COMPARE: Readonly<Record<Comparison, Fragment>> = {
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
const KEY = {
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
const keysOf = ({ name, has }: Facts): Readonly<Record<SortKey, Fragment>> => {
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

/** In the order of memberships, the same values are read from that table's own index. */
const MEMBER_KEY = {
  created_at: sql`glimpse_member_images.created_at`,
  id: sql`glimpse_member_images.image_id`,
} as const

const both = (conditions: readonly Fragment[]): Fragment => sql.join(conditions, sql` and `)
const either = (conditions: readonly Fragment[]): Fragment => sql`(${sql.join(conditions, sql` or `)})`

/** `column` is the value of the slot, or one of them. */
const oneOf = (facts: Facts, column: Fragment, name: string, several: boolean, type?: ElementType): Fragment =>
  several ? sql`${column} in (${facts.elements(slot(name), type)})` : sql`${column} = ${slot(name)}`

/** A filter, as text that depends on its shape alone. `n` tells its slots from the others'. */
const condition = (facts: Facts, filter: ImageFilter, n: number): Fragment => {
  switch (filter.by) {
    case 'column':
      return oneOf(facts, COLUMN[filter.column], `f${n}`, filter.values.length !== 1, TYPE[filter.column])
    case 'range':
      return both([
        ...(filter.min === undefined ? [] : [sql`${COLUMN[filter.column]} >= ${slot(`f${n}min`)}`]),
        ...(filter.max === undefined ? [] : [sql`${COLUMN[filter.column]} <= ${slot(`f${n}max`)}`]),
        sql`${COLUMN[filter.column]} is not null`,
      ])
    case 'time':
      return sql`${keysOf(facts)[filter.column]} ${COMPARE[filter.comparison]} ${slot(`f${n}`)}`
    case 'tag':
      return sql`exists (select 1 from image_tags ${facts.by('glimpse_image_tags_value')}
        where image_tags.value = ${slot(`f${n}`)} and image_tags.deleted = ${false}
        and image_tags.image_id = images.id)`
    case 'property':
      return sql`exists (select 1 from image_properties ${facts.by('glimpse_image_properties_value')}
        where image_properties.name = ${slot(`f${n}name`)}
        and ${facts.sameText(sql`image_properties.value`, slot(`f${n}`))}
        and image_properties.deleted = ${false} and image_properties.image_id = images.id)`
  }
}

const filterShape = (filter: ImageFilter): string => {
  switch (filter.by) {
    case 'column':
      return `${filter.column}${filter.values.length === 1 ? '' : '*'}`
    case 'range':
      return `${filter.column}${filter.min === undefined ? '' : '>'}${filter.max === undefined ? '' : '<'}`
    case 'time':
      return `${filter.column}:${filter.comparison}`
    case 'tag':
    case 'property':
      return filter.by
  }
}

const filterValues = (filter: ImageFilter, n: number): Values => {
  switch (filter.by) {
    case 'column':
      return { [`f${n}`]: filter.values.length === 1 ? (filter.values[0] ?? null) : JSON.stringify(filter.values) }
    case 'range':
      return { [`f${n}min`]: filter.min ?? null, [`f${n}max`]: filter.max ?? null }
    case 'time':
      return { [`f${n}`]: toText(filter.value) }
    case 'tag':
      return { [`f${n}`]: filter.tag }
    case 'property':
      return { [`f${n}name`]: filter.name, [`f${n}`]: filter.value }
  }
}

/** Where an index leads from a filter to the ids of its images; undefined for filters that many images satisfy. */
const candidates = (facts: Facts, filter: ImageFilter, n: number): Fragment | undefined => {
  const value = slot(`f${n}`)
  const indexed = (index: string, query: Fragment) => (facts.has(index) ? query : undefined)
  // By the list's index of a key: all of its ranges, one for each visibility.
  const listed = (key: SortKey, where: Fragment) =>
    indexed(
      byVisibility(key),
      sql`select images.id as id from images ${facts.by(byVisibility(key))} where images.deleted = ${false}
      and images.visibility in (${sql.join(VISIBILITIES.map((visibility) => sql.lit(visibility)))})
      and images.os_hidden = ${slot('hidden')} and ${where}`,
    )
  switch (filter.by) {
    case 'column': {
      const several = filter.values.length !== 1
      const equal = (column: Fragment) => oneOf(facts, column, `f${n}`, several, TYPE[filter.column])
      switch (filter.column) {
        case 'name':
          return listed('name', equal(keysOf(facts).name))
        case 'status':
          return listed('status', equal(keysOf(facts).status))
        case 'size':
          return listed('size', equal(keysOf(facts).size))
        case 'id':
          return sql`select images.id as id from images where ${equal(COLUMN.id)}`
        case 'checksum':
          return sql`select images.id as id from images ${facts.by('checksum_image_idx')} where ${equal(COLUMN.checksum)}`
        case 'os_hash_value':
          return sql`select images.id as id from images ${facts.by('os_hash_value_image_idx')}
            where ${equal(COLUMN.os_hash_value)}`
        default:
          return undefined
      }
    }
    case 'time':
      return filter.column === 'updated_at' && filter.comparison !== 'neq'
        ? listed('updated_at', sql`${keysOf(facts).updated_at} ${COMPARE[filter.comparison]} ${value}`)
        : undefined
    case 'range':
      return undefined
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

/** Rows behind the marker that are a range of an index. */
interface Range {
  readonly where: Fragment
  /** They all have the marker's own first key. */
  readonly sameFirst?: true
}

/** What is behind the marker, whose keys stand in the slots `m0`, `m1` …, in ranges that do not overlap. */
const behindMarker = (facts: Facts, order: readonly Order[], keys: readonly Fragment[]): readonly Range[] => {
  const markers = order.map((_, n) => sql`${slot(`m${n}`)}`)
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

interface Shape {
  readonly branches: readonly Branch[]
  readonly order: readonly Order[]
  readonly filters: readonly ImageFilter[]
  readonly paged: boolean
  /** The filter whose images are looked at one by one. */
  readonly from: number | undefined
}

const shapeKey = ({ branches, order, filters, paged, from }: Shape): string =>
  [
    branches.map(({ visibility, owner = '', member = '' }) => `${visibility}/${owner}/${member}`),
    order.map(({ key, descending }) => `${key}${descending ? '-' : '+'}`),
    filters.map(filterShape),
    paged,
    from,
  ].join('|')

const branchCondition = ({ visibility, owner, member }: Branch): Fragment =>
  both([
    sql`images.visibility = ${visibility}`,
    ...(owner === undefined ? [] : [sql`images.owner = ${slot(owner)}`]),
    ...(member === undefined
      ? []
      : [
          sql`exists (select 1 from image_members where image_members.image_id = images.id
            and image_members.member = ${slot('project')} and image_members.status = ${member}
            and not image_members.deleted)`,
        ]),
  ])

type KeyRow = { readonly id: string }

/** The ids of a page, in order. */
const pageQuery = (facts: Facts, { branches, order, filters, paged, from }: Shape): RawBuilder<KeyRow> => {
  const conditions = filters.map((filter, n) => condition(facts, filter, n))
  const shown = sql`images.os_hidden = ${slot('hidden')} and images.status <> 'killed'`
  const alias = (n: number) => sql.ref(n === order.length - 1 ? 'id' : `k${n}`)
  const limited = (query: Fragment, first = 0) =>
    sql`${query} order by ${sql.join(
      order.slice(first).map(({ descending }, n) => sql`${alias(first + n)} ${descending ? sql`desc` : sql`asc`}`),
    )} limit ${slot('limit')}`
  const select = (keys: readonly Fragment[], tables: Fragment, where: readonly Fragment[], first = 0) =>
    sql`select ${sql.join(keys.slice(first).map((key, n) => sql`${key} as ${alias(first + n)}`))}
      from ${tables} where ${both([...where, shown, ...conditions])}`
  const ranges = (keys: readonly Fragment[]): readonly Range[] => (paged ? behindMarker(facts, order, keys) : [])
  const anyRange = (keys: readonly Fragment[]): readonly Fragment[] =>
    paged ? [either(ranges(keys).map(({ where }) => sql`(${where})`))] : []

  const keys = order.map(({ key }) => keysOf(facts)[key])
  // In order of the first key at least; within rows that share it, SQLite sorts what the index leaves open.
  const index = order[0]?.key ?? 'created_at'

  const memberships = (visibility: Visibility, member: MemberStatus): Fragment => {
    const memberKeys = order.map(({ key }) => ({ ...keysOf(facts), ...MEMBER_KEY })[key])
    // The condition stands alone where it is one, so that it can bound the range.
    const [only, ...more] = ranges(memberKeys)
    return select(memberKeys, sql`glimpse_member_images cross join images`, [
      sql`glimpse_member_images.member = ${slot('project')} and glimpse_member_images.status = ${member}`,
      sql`images.id = glimpse_member_images.image_id and images.visibility = ${visibility} and not images.deleted`,
      ...(only && more.length === 0 ? [only.where] : anyRange(memberKeys)),
    ])
  }
  const walks = (branch: Branch): readonly Fragment[] => {
    if (branch.member !== undefined && facts.has('glimpse_member_images'))
      return [memberships(branch.visibility, branch.member)]
    const table = sql`images ${facts.by(branch.owner === undefined ? byVisibility(index) : byOwner(index))}`
    const where = [sql`images.deleted = ${false}`, branchCondition(branch)]
    if (!paged) return [select(keys, table, where)]
    return ranges(keys).map((range) => {
      if (!range.sameFirst) return select(keys, table, [...where, range.where])
      // SQLite would sort all of them, because it does not see that an expression which equals a value is in order.
      const rest = limited(select(keys, table, [...where, range.where], 1), 1)
      return sql`select ${slot('m0')} as ${alias(0)}, same.* from (${rest}) as same`
    })
  }

  const union = (walked: readonly Fragment[]): Fragment =>
    sql.join(
      facts.mergesUnions || walked.length === 1 ? walked : walked.map((walk) => sql`(${limited(walk)})`),
      sql` union `,
    )

  const driver = from === undefined ? undefined : candidates(facts, filters[from] as ImageFilter, from)
  const rows = driver
    ? select(keys, sql`(select distinct id from (${driver}) as found) as c cross join images`, [
        sql`images.id = c.id and not images.deleted`,
        either(branches.map((branch) => sql`(${branchCondition(branch)})`)),
        ...anyRange(keys),
      ])
    : // `union` also drops what several branches have.
      union(branches.flatMap(walks))
  return sql<KeyRow>`select id from (${limited(rows)}) as page`
}

interface MarkerRow {
  readonly visible: number | boolean
  readonly [key: `m${number}`]: Value
}

const markerQuery = (facts: Facts, order: readonly Order[]): RawBuilder<MarkerRow> => {
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
  or (images.visibility = 'shared' and exists (select 1 from image_members where image_members.image_id = images.id
    and image_members.member = ${slot(project)} and not image_members.deleted)))`

/** Finds the ids of a page. Throws `not-found` or `forbidden` for the marker. */
export const pageFinder = ({ facts, prepare }: Connection) => {
  const pages = new LRUCache<string, Statement<KeyRow>>({ max: CACHED_SHAPES })
  const markers = new LRUCache<string, Statement<MarkerRow>>({ max: CACHED_SHAPES })
  const counts = new LRUCache<string, Statement<{ n: number }>>({ max: CACHED_SHAPES })
  const cached = <Row>(
    cache: LRUCache<string, Statement<Row>>,
    key: string,
    build: () => RawBuilder<Row>,
  ): Statement<Row> => {
    const known = cache.get(key)
    if (known) return known
    const built = prepare(build())
    cache.set(key, built)
    return built
  }

  const countOf = async (session: Session, filter: ImageFilter, n: number, values: Values): Promise<number> => {
    const driver = candidates(facts, filter, n)
    if (driver === undefined) return Number.POSITIVE_INFINITY
    const count = cached(
      counts,
      `${n}|${filterShape(filter)}`,
      () =>
        sql<{ n: number }>`select count(*) as n from (select 1 from (${driver}) as c limit ${sql.lit(FEW + 1)}) as f`,
    )
    return (await session.first(count, values))?.n ?? 0
  }

  /** The filter that leaves the fewest images, if those are few. */
  const mostSelective = async (session: Session, filters: readonly ImageFilter[], values: Values) => {
    let best: number | undefined
    let fewest = FEW
    for (const [n, filter] of filters.entries()) {
      const count = await countOf(session, filter, n, values)
      if (count > fewest) continue
      best = n
      fewest = count
    }
    return best
  }

  return async (session: Session, query: ImageQuery, scope: Scope): Promise<readonly string[]> => {
    const { filters, limit, marker } = query
    const order = wholeOrder(query.sort)
    const values: Record<string, Value> = {
      project: scope.project ?? null,
      owner: ownerFilter(filters) ?? null,
      hidden: query.hidden,
      limit,
    }
    for (const [n, filter] of filters.entries()) Object.assign(values, filterValues(filter, n))

    if (marker !== undefined) {
      const key = order.map(({ key }) => key).join()
      const row = await session.first(
        cached(markers, key, () => markerQuery(facts, order)),
        { project: values['project'] ?? null, marker },
      )
      if (!row) throw new ServiceError('not-found', `Marker ${marker} could not be found`)
      if (!scope.admin && !row.visible) throw new ServiceError('forbidden', `Marker ${marker} is not visible`)
      for (const [n] of order.entries()) values[`m${n}`] = row[`m${n}`] ?? null
    }
    const branches = branchesOf(query, scope)
    if (limit === 0 || branches.length === 0) return []

    const from = await mostSelective(session, filters, values)
    const shape: Shape = { branches, order, filters, paged: marker !== undefined, from }
    const rows = await session.all(
      cached(pages, shapeKey(shape), () => pageQuery(facts, shape)),
      values,
    )
    return rows.map(({ id }) => id)
  }
}
