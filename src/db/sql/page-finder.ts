import type { RawBuilder } from 'kysely'
import { LRUCache } from 'lru-cache'
import { ServiceError } from '../../domain/errors.ts'
import type { ImageFilter, ImageQuery } from '../../domain/query.ts'
import type { Scope } from '../database.ts'
import { tooSlow } from './facts.ts'
import {
  branchesOf,
  type IdRow,
  isIndexed,
  isRange,
  type LookRow,
  lookQuery,
  lookupQuery,
  type MarkerRow,
  markerQuery,
  membershipsQuery,
  type Order,
  ownerFilter,
  pins,
  planOf,
  type Shape,
  shapeKey,
  walkQuery,
  wholeOrder,
} from './list.ts'
import { countQuery, filterShape, filterValues } from './list-filters.ts'
import { byVisibility, MEMBER_IMAGES } from './migrations.ts'
import type { Connection, Session } from './session.ts'
import { type SiftRow, type StretchSizes, sifter } from './sift.ts'
import type { Statement, Value, Values } from './statement.ts'

/** So few images that a filter leads to are sorted without further thought. */
const VERY_FEW = 100
/** So many are sorted in one go at most: a few milliseconds. */
const FEW = 2_000
/** So many memberships of a caller are looked at one by one. */
const FEW_MEMBERSHIPS = 200
/** The list is looked at in stretches, from so many images to so many (a few milliseconds). */
const STRETCH: StretchSizes = { from: 100, to: 2_000 }
/** Keys that the index does not have are read from the table, which takes about twice as long. */
const SIFTED: StretchSizes = { from: 100, to: 1_000 }
/** Clients choose the shape of a query (how many filters of which kind), so that shapes may not pile up. */
const CACHED_SHAPES = 300
/** A search that takes longer is given up after the piece of work that it is at. */
const SEARCH_MS = 30_000

/** A page that is being looked for. Each call does a bounded piece of work; undefined says that there is more to do. */
export type Search = (session: Session) => Promise<readonly string[] | undefined>

/** Of the pieces that a search is made of, and of all of it. */
export interface Bounds {
  readonly searchMs?: number
  readonly stretch?: StretchSizes
  /** So many images that a filter leads to are sorted in one go. */
  readonly few?: number
}

/**
 * Finds the ids of a page. A call may be repeated if it failed. Throws `not-found` or `forbidden` for the marker,
 * `unavailable` when it takes too long.
 */
export const pageFinder = (
  { facts, prepare }: Pick<Connection, 'facts' | 'prepare'>,
  { searchMs = SEARCH_MS, stretch, few: most = FEW }: Bounds = {},
) => {
  const sizes = stretch ?? STRETCH
  const cached = <Row>() => {
    const known = new LRUCache<string, Statement<Row>>({ max: CACHED_SHAPES })
    return (key: string, build: () => RawBuilder<Row>): Statement<Row> => {
      const found = known.get(key) ?? prepare(build())
      known.set(key, found)
      return found
    }
  }
  const walks = cached<IdRow>()
  const looks = cached<LookRow>()
  const lookups = cached<IdRow>()
  const counts = cached<{ n: number }>()
  const markers = cached<MarkerRow>()
  const sift = sifter(facts, cached<SiftRow>(), stretch ?? SIFTED)
  const memberships = prepare(membershipsQuery())
  const sortStretches = facts.sortStretches && prepare(facts.sortStretches)

  /** The filter that leads to the fewest images, if those are no more than `few`. */
  const mostSelective = async (session: Session, filters: readonly ImageFilter[], values: Values, few: number) => {
    let best: number | undefined
    let fewest = few
    for (const [n, filter] of filters.entries()) {
      const query = countQuery(facts, filter, n)
      if (query === undefined) continue
      const count = counts(`${n}|${filterShape(filter)}`, () => query)
      const found = (await session.first(count, { ...values, few: fewest + 1 }))?.n ?? 0
      if (found > fewest) continue
      best = n
      fewest = found
    }
    return best
  }

  return (query: ImageQuery, scope: Scope): Search => {
    const { filters, limit, marker } = query
    const whole = wholeOrder(query.sort)
    const branches = branchesOf(query, scope)
    const base: Record<string, Value> = {
      project: scope.project ?? null,
      owner: ownerFilter(filters) ?? null,
      hidden: query.hidden,
      limit,
    }
    for (const [n, filter] of filters.entries()) Object.assign(base, filterValues(filter, n))
    const shared = branches.some(({ member }) => member !== undefined)
    const deadline = Date.now() + searchMs

    /** The order, and the place in it behind which the page begins. */
    const begin = async (session: Session): Promise<{ readonly order: readonly Order[]; readonly values: Values }> => {
      if (marker === undefined) return { order: whole.filter(({ key }) => !pins(filters, key)), values: base }
      const key = whole.map(({ key }) => key).join()
      const row = await session.first(
        markers(key, () => markerQuery(facts, whole)),
        { project: base['project'] ?? null, marker },
      )
      if (!row) throw new ServiceError('not-found', `Marker ${marker} could not be found`)
      if (!scope.admin && !row.visible) throw new ServiceError('forbidden', `Marker ${marker} is not visible`)
      const kept = whole.flatMap((order, n) => {
        const value = row[`m${n}`] ?? null
        return pins(filters, order.key, value) ? [] : [{ order, value }]
      })
      return {
        order: kept.map(({ order }) => order),
        values: { ...base, ...Object.fromEntries(kept.map(({ value }, n) => [`m${n}`, value])) },
      }
    }
    const places = ({ order }: Shape, row: LookRow): Values =>
      Object.fromEntries(order.map((_, n) => [`m${n}`, row[`m${n}`] ?? null]))

    const lookUp = async (session: Session, shape: Shape, values: Values, from: number) => {
      const rows = await session.all(
        lookups(`${from}|${shapeKey(shape)}`, () => lookupQuery(facts, shape, from)),
        values,
      )
      return rows.map(({ id }) => id)
    }

    const isCrowded = async (session: Session): Promise<boolean> => {
      if (!shared || !facts.has(MEMBER_IMAGES)) return false
      const few = { project: base['project'] ?? null, few: FEW_MEMBERSHIPS + 1 }
      return ((await session.first(memberships, few))?.n ?? 0) > FEW_MEMBERSHIPS
    }

    const walkOn = async (session: Session, shape: Shape, values: Values) => {
      const rows = await session.all(
        walks(shapeKey(shape), () => walkQuery(facts, shape)),
        values,
      )
      return rows.map(({ id }) => id)
    }

    /** Looks through the list for images that satisfy the filters which do not bound the walk. */
    const look = (shape: Shape, start: Values): Search => {
      let looked = {
        found: [] as readonly string[],
        images: 0,
        /** As far as can be told from what was seen, so many more are to be looked at. */
        ahead: limit * 3,
        at: start,
        /** Each filter leads to more images than this. */
        more: VERY_FEW,
      }
      return async (session) => {
        const { found, images, at, ahead, more } = looked
        // A little more than what seems needed: once more would cost more.
        const size = Math.min(sizes.to, Math.max(sizes.from, Math.ceil(ahead * 1.3)))
        const here = { ...shape, paged: at['m0'] !== undefined }
        const rows = await session.all(
          looks(shapeKey(here), () => lookQuery(facts, here)),
          { ...at, limit: size },
        )
        const hits = [...found, ...rows.filter(({ hit }) => hit).map(({ id }) => id)]
        const last = rows.at(-1)
        if (hits.length >= limit || rows.length < size || last === undefined) return hits.slice(0, limit)

        const toCome = Math.ceil(((images + size) * (limit - hits.length)) / (hits.length + 1))
        const few = Math.min(most, toCome)
        if (few > more) {
          const from = await mostSelective(session, filters, start, few)
          if (from !== undefined) return await lookUp(session, shape, start, from)
        }
        looked = {
          found: hits,
          images: images + size,
          ahead: toCome,
          at: { ...at, ...places(shape, last) },
          more: Math.max(few, more),
        }
        return undefined
      }
    }

    const isSifted = (order: readonly Order[]): order is readonly [Order, ...Order[]] =>
      facts.inProcess && order[0] !== undefined && !isIndexed(order) && facts.has(byVisibility(order[0].key))

    /** Decides how the page is looked for. */
    const plan = async (session: Session): Promise<Search> => {
      const { order, values } = await begin(session)
      if (limit === 0 || branches.length === 0) return async () => []
      const paged = marker !== undefined
      const shaped = (crowded: boolean): Shape => ({
        ...planOf(facts, order, filters, crowded),
        ...{ branches, order, filters, paged },
      })
      let shape = shaped(false)
      if (isSifted(order)) {
        const from = await mostSelective(session, filters, values, most)
        if (from !== undefined) return (again) => lookUp(again, shape, values, from)
        return sift({ branches, order, filters, limit, paged, values })
      }
      if (!isRange(order, filters) && (shared || !shape.bounds.every(Boolean))) {
        const from = await mostSelective(session, filters, values, VERY_FEW)
        if (from !== undefined) return (again) => lookUp(again, shape, values, from)
        if (await isCrowded(session)) shape = shaped(true)
      }
      return shape.bounds.every(Boolean) ? (again) => walkOn(again, shape, values) : look(shape, values)
    }

    let search: Search | undefined
    return async (session) => {
      if (sortStretches && !isIndexed(whole)) await session.all(sortStretches)
      search ??= await plan(session)
      const ids = await search(session)
      if (ids === undefined && Date.now() >= deadline)
        throw tooSlow('The list takes too long with these filters, in this order')
      return ids
    }
  }
}
