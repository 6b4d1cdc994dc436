import { setTimeout as delay } from 'node:timers/promises'
import { hasKind, ServiceError } from '../../../domain/errors.ts'
import type { Answer, Rest } from '../../../io/rest.ts'
import { type Finding, many, note, ok, problem } from '../report.ts'
import { compareAnswers, type Details, type Settled } from './compare.ts'
import type { Course } from './course.ts'
import { explained } from './known.ts'

/** One who asks: headers of each request, asked for anew each time since tokens end. */
export type Caller = () => Promise<Readonly<Record<string, string>>>

export interface ShadowOptions {
  readonly rest: Rest
  /** Base URL of Glance, without `/v2`. */
  readonly theirs: string
  readonly ours: string
  readonly callers: readonly Caller[]
  readonly course: () => Course
  /** Requests to each side in a second, at most. */
  readonly rate: number
  /** Requests in all, at most. */
  readonly limit: number
  /** Told after each request. */
  readonly progress?: (asked: number) => void
}

export interface Difference {
  /** `GET /v2/images/{id}` */
  readonly route: string
  /** Such as `body.images[].size`. */
  readonly where: string
  readonly count: number
  /** The first of them. */
  readonly example: { readonly target: string; readonly detail: string }
}

export interface ShadowResult {
  readonly asked: number
  readonly alike: number
  /** Answers that differ only as docs/differences.md says, and how often for which reason. */
  readonly asKnown: number
  readonly reasons: ReadonlyMap<string, number>
  readonly different: number
  readonly differences: readonly Difference[]
  /** How many of the requests Glance answered 401, and how many below /v2 it answered 200. */
  readonly refused: number
  readonly served: number
}

/** Somebody may have changed something between the two answers: what differs is asked again, so often and after so long. */
const AGAIN = 2
const AGAIN_MS = 300

/** Asks both the same, one request after the other. Throws `unavailable` when one of them is not there from the beginning. */
export async function shadow(options: ShadowOptions): Promise<ShadowResult> {
  const { callers, course, limit, rate, progress } = options
  const reasons = new Map<string, number>()
  const differences = new Map<string, Difference>()
  const totals = { asked: 0, alike: 0, asKnown: 0, different: 0, refused: 0, served: 0 }

  const judge = (target: string, details: Details): void => {
    const why = explained(`GET ${target}`, details)
    if (details.length === 0) totals.alike += 1
    else if (why !== undefined) {
      totals.asKnown += 1
      for (const text of new Set(why.map((one) => one.why))) reasons.set(text, (reasons.get(text) ?? 0) + 1)
    } else {
      totals.different += 1
      // Whatever else differs is so because the status does.
      const status = details.find((detail) => detail.startsWith('status: '))
      const told = status === undefined ? details : [status]
      for (const [key, found] of new Map(told.map((detail) => [keyOf(target, detail), detail]))) {
        const before = differences.get(key)
        differences.set(key, {
          route: routeOf(target),
          where: whereOf(found),
          count: (before?.count ?? 0) + 1,
          example: before?.example ?? { target, detail: found },
        })
      }
    }
  }

  for (const [index, caller] of callers.entries()) {
    const targets = course()
    // The callers share what may be asked.
    const end = Math.floor((limit * (index + 1)) / callers.length)
    let step = await targets.next(undefined)
    while (!step.done && totals.asked < end) {
      const target = step.value
      const pause = delay(1000 / rate)
      const { theirs, details } = await compared(options, caller, target, totals.asked === 0)
      totals.asked += 1
      if (theirs.status === 401) totals.refused += 1
      if (theirs.status === 200 && target.startsWith('/v2/')) totals.served += 1
      judge(target, details)
      progress?.(totals.asked)
      await pause
      step = await targets.next(jsonOf(theirs))
    }
    await targets.return()
  }
  return { ...totals, reasons, differences: [...differences.values()] }
}

const NO_ANSWER: Answer = { status: 0, headers: {}, body: '' }

async function compared({ rest, theirs, ours }: ShadowOptions, caller: Caller, target: string, isFirst: boolean) {
  for (let attempt = 0; ; attempt++) {
    const headers = await caller()
    const ask = (base: string) =>
      rest.request('GET', `${base}${target}`, { headers: { ...headers } }).catch((error: unknown) => {
        if (!hasKind(error, 'unavailable')) throw error
        if (isFirst) throw new ServiceError('unavailable', `${base} does not answer`, { cause: error })
        return NO_ANSWER
      })
    const [left, right] = await Promise.all([ask(theirs), ask(ours)])
    const details = compareAnswers(settled(left, theirs), settled(right, ours), {
      ofSchema: target.includes('/schemas/'),
      sets: SETS,
      keys: KEYS,
    })
    if (details.length === 0 || attempt === AGAIN || explained(`GET ${target}`, details))
      return { theirs: left, details }
    await delay(AGAIN_MS)
  }
}

const SETS = ['members', 'resource_types', 'resource_type_associations', 'stores', 'required', 'all_of']
const KEYS = ['id', 'namespace', 'member_id', 'name']

/** What clients look at; the rest belongs to the connection or the moment. */
const HEADERS = [
  ...['content-type', 'location', 'etag', 'content-md5', 'content-range', 'allow', 'www-authenticate'],
  ...['openstack-image-import-methods', 'openstack-image-store-ids', 'x-openstack-request-id'],
]
const REQUEST_ID = /req-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}/g

/** Without the names of the two services, and of the request. */
function settled({ status, headers, body }: Answer, base: string): Settled {
  const { host, pathname } = new URL(base)
  const general = (text: string) =>
    text.replaceAll(`${host}${pathname.replace(/\/$/, '')}`, '{service}').replace(REQUEST_ID, '{request}')
  const compared = HEADERS.flatMap((name) => {
    const value = headers[name]
    return value === undefined || (name === 'content-type' && body === '')
      ? []
      : [[name, general(String(value))] as const]
  })
  return { status, headers: new Map(compared), body: general(body) }
}

function jsonOf({ status, body }: Answer): Readonly<Record<string, unknown>> | undefined {
  if (status !== 200) return undefined
  try {
    const value: unknown = JSON.parse(body)
    return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : undefined
  } catch {
    return undefined
  }
}

// ---- telling

const UUID = /[0-9a-f]{8}-?(?:[0-9a-f]{4}-?){3}[0-9a-f]{12}/g

/** What all requests of a kind have in common. */
function routeOf(target: string): string {
  const [path = '', query] = target.split('?')
  const names = [...new URLSearchParams(query ?? '').keys()].toSorted()
  const plain = path
    .replace(UUID, '{id}')
    .replace(/^(\/v2\/metadefs\/namespaces\/)[^/]+/, '$1{namespace}')
    .replace(/(\/(?:objects|properties|tags|resource_types|members)\/)[^/]+$/, '$1{name}')
  return `GET ${plain}${names.length === 0 ? '' : `?${[...new Set(names)].join('&')}`}`
}

const whereOf = (detail: string): string =>
  detail.startsWith('status: ') ? detail : detail.slice(0, detail.indexOf(': ')).replace(/\[\d+\]/g, '[]')
const keyOf = (target: string, detail: string): string => `${routeOf(target)} ${whereOf(detail)}`

/** The result as findings; differences that nobody knows of are problems. */
export function* shadowFindings(result: ShadowResult): Iterable<Finding> {
  for (const { route, where, count, example } of result.differences)
    yield problem(`${route}: ${where}${count > 1 ? ` (${many(count, 'time')})` : ''}`, undefined, [
      example.target,
      clipped(example.detail),
    ])
  for (const [why, count] of result.reasons) yield ok(`As is known: ${why} (${many(count, 'time')}).`)
  if (result.refused > 0 && result.served === 0)
    yield problem(
      'Glance does not let the caller read anything: it answers 401.',
      'give a token that is good: --token-file, or OS_* variables',
    )
  else if (result.refused > 0) yield note(`Glance answered ${many(result.refused, 'request')} with 401.`)
  if (result.asked === 0) yield problem('Nothing was asked.', 'look whether the log has GET requests of /v2')
}

const LONGEST = 300
const clipped = (text: string): string => (text.length > LONGEST ? `${text.slice(0, LONGEST)}…` : text)

export const shadowTotal = ({ asked, alike, asKnown, different }: ShadowResult): string =>
  `${many(asked, 'request')} to both: ${alike} answered alike, ${asKnown} differ as is known, ${different} differ otherwise.`
