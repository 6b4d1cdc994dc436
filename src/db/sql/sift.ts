import { type RawBuilder, sql } from 'kysely'
import type { ImageFilter } from '../../domain/query.ts'
import type { Facts } from './facts.ts'
import {
  alias,
  anyOf,
  type Branch,
  behindMarker,
  indexOrder,
  inOrder,
  type Order,
  type Plan,
  placeOf,
  planOf,
  questionsOf,
  type Shape,
  shapeKey,
  walk,
} from './list.ts'
import { both, keysOf } from './list-filters.ts'
import { MEMBER_IMAGES } from './migrations.ts'
import type { Session } from './session.ts'
import { type Fragment, type Statement, slot, type Value, type Values } from './statement.ts'

/*
 * No index has the order of several keys. Each branch of the list is walked by the index of the first key, in stretches,
 * and the best of all images that came by are the page. A branch is done with when the walk has left the first key of
 * the last of them behind. This is for SQLite, where one statement would keep our process for as long as it takes to
 * sort all images that share a first key.
 */

/** A stretch of one branch; its `order` is that of the index. */
interface Stretch extends Shape {
  /** The order of the list. */
  readonly whole: readonly Order[]
  /** Whether the page begins behind a marker, whose keys stand in the slots `w0`, `w1` … */
  readonly behind: boolean
}

export interface SiftRow {
  /** One of the best, in their order; null if there are none. */
  readonly id: string | null
  /** Its keys when it came by. What it drove out by them stays out, so that it may not lose by others later. */
  readonly place: string | null
  /** Whether the stretch ends beyond its first key. */
  readonly passed: number | null
  /** How many images the stretch has; without any, there is no row. */
  readonly images: number
  /** The end of the stretch, in the order of the index. */
  readonly [end: `m${number}`]: Value
}

/** The best of a stretch and of those `held` before it: at most as many as the slot `most`. */
const siftQuery = (facts: Facts, stretch: Stretch): RawBuilder<SiftRow> => {
  const { whole, order, behind } = stretch
  const keys = whole.map(({ key }) => keysOf(facts)[key])
  const words = keys.map((_, n) => sql.ref(`w${n}`))
  const [first, id] = [words[0], words.at(-1)]
  const named = (values: readonly Fragment[]) => values.map((value, n) => sql`${value} as ${words[n]}`)
  const sorted = sql`order by ${sql.join(whole.map(({ descending }, n) => sql`${words[n]} ${descending ? sql`desc` : sql`asc`}`))}`
  const backwards = order.map(({ key, descending }) => ({ key, descending: !descending }))
  const wanted = [...questionsOf(facts, stretch), ...anyOf(behind ? behindMarker(facts, whole, keys, 'w') : [])]
  const hit = sql`${wanted.length === 0 ? sql`true` : both(wanted)} as hit`
  const beyond = sql`stretch.${alias(order, 0)} ${whole[0]?.descending ? sql`<` : sql`>`} best.${first}`
  // An image may be in several branches, or have changed and come by again: those that are held stay as they are.
  return sql<SiftRow>`with
    page as materialized (${walk(facts, stretch, [...named(keys), hit])}),
    held as (select ${sql.join(named(words.map((_, n) => sql`value ->> ${sql.lit(n)}`)))} from json_each(${slot('held')})),
    best as (
      select ${sql.join(words)} from page where hit and id not in (select ${id} from held)
      union all select ${sql.join(words)} from held ${sorted} limit ${slot('most')}),
    stretch as (select ${sql.join(order.map((_, n) => alias(order, n)))}, (select count(*) from page) as images from page ${inOrder(backwards)} limit 1)
    select best.${id} as id, json_array(${sql.join(words.map((key) => sql`best.${key}`))}) as place,
      ${order[0]?.key === whole[0]?.key ? beyond : sql`false`} as passed,
      stretch.images as images, ${placeOf(facts, order, 'stretch')}
      from stretch left join best ${sorted}`
}

/** How many images a stretch has: the first of a branch, and the longest. */
export interface StretchSizes {
  readonly from: number
  readonly to: number
}

/** So many times longer than the one before it is a stretch. */
const GROWTH = 4

/** Before all texts, and behind them. */
const LOWEST = ''
const HIGHEST = '\u{10ffff}'

interface Walk {
  readonly branch: Branch
  readonly order: readonly Order[]
  readonly plan: Plan
  /** Where the next stretch begins; empty at the beginning. */
  readonly at: Values
  readonly size: number
}

interface Held {
  readonly id: string
  readonly place: string
}

export interface Sift {
  readonly branches: readonly Branch[]
  readonly order: readonly [Order, ...Order[]]
  readonly filters: readonly ImageFilter[]
  readonly limit: number
  /** Whether the page begins behind a marker, whose keys are `m0`, `m1` … of the values. */
  readonly paged: boolean
  readonly values: Values
}

/** Makes searches in the order of several keys. Each call of one looks at `sizes.to` images or fewer. */
export const sifter =
  (
    facts: Facts,
    prepared: (key: string, build: () => RawBuilder<SiftRow>) => Statement<SiftRow>,
    sizes: StretchSizes,
  ) =>
  ({ branches, order: whole, filters, limit, paged, values }: Sift) => {
    const [first] = whole
    const behind = Object.fromEntries(whole.map((_, n) => [`w${n}`, values[`m${n}`] ?? null]))
    const least = Math.min(sizes.to, Math.max(sizes.from, limit))

    let walks = branches.map((branch): Walk => {
      // Memberships have no index but this.
      const byTime = branch.member !== undefined && facts.has(MEMBER_IMAGES)
      const order = indexOrder(byTime ? { ...first, key: 'created_at' } : first)
      // Of the images that share the marker's first key, any may be behind it.
      const edge = first.descending ? HIGHEST : LOWEST
      const at = paged && order[0]?.key === first.key ? { m0: values['m0'] ?? null, m1: edge, m2: edge } : {}
      return { branch, order, plan: planOf(facts, order, filters, byTime), at, size: least }
    })
    let best: readonly Held[] = []

    /** One stretch, the best after it, and the rest of the walk. */
    const stroll = async (session: Session, { branch, order, plan, at, size }: Walk, held: readonly Held[]) => {
      const shape = { ...plan, branches: [branch], order, filters, paged: 'm0' in at }
      const stretch = { ...shape, whole, behind: paged }
      const key = `${shapeKey(shape)}|${shapeKey({ ...shape, order: whole, paged })}`
      const rows = await session.all(
        prepared(key, () => siftQuery(facts, stretch)),
        { ...values, ...behind, ...at, limit: size, most: limit, held: `[${held.map(({ place }) => place).join()}]` },
      )
      const last = rows.at(-1)
      if (last === undefined) return { images: 0, held, rest: [] }
      const now = rows.flatMap(({ id, place }) => (id === null || place === null ? [] : [{ id, place }]))
      const done = last.images < size || (now.length === limit && last.passed)
      const end = Object.fromEntries(order.map((_, n) => [`m${n}`, last[`m${n}`] ?? null]))
      const rest = { branch, order, plan, at: end, size: Math.min(sizes.to, size * GROWTH) }
      return { images: last.images, held: now, rest: done ? [] : [rest] }
    }

    return async (session: Session): Promise<readonly string[] | undefined> => {
      let [left, held, images] = [walks, best, 0]
      for (
        let [next, ...others] = left;
        next !== undefined && images + next.size <= sizes.to;
        [next, ...others] = left
      ) {
        const walked = await stroll(session, next, held)
        images += walked.images
        held = walked.held
        left = [...walked.rest, ...others]
      }
      if (left.length === 0) return held.map(({ id }) => id)
      // Only now: a call may be repeated if it failed.
      walks = left
      best = held
      return undefined
    }
  }
