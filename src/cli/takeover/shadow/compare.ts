import { isDeepStrictEqual } from 'node:util'

/** An answer without what is another each time. */
export interface Settled {
  readonly status: number
  /** By names in lower case: those that are compared. */
  readonly headers: ReadonlyMap<string, string>
  readonly body: string
}

/** What is said of two answers: one line for each thing in which ours is not theirs. */
export type Details = readonly string[]

export interface Comparison {
  /** Descriptions are prose, which is every project's own. */
  readonly ofSchema?: boolean
  /** Names of lists of JSON whose order means nothing; `tags` of texts always are such. */
  readonly sets?: readonly string[]
  /** Items of lists are the same thing when they have the same of one of these; where they stand is told once. */
  readonly keys?: readonly string[]
}

/** `status: 500 there, 400 here`, `body.images[3].size: 5 there, 6 here` and the like. */
export function compareAnswers(theirs: Settled, ours: Settled, how: Comparison = {}): Details {
  const details: string[] = []
  if (theirs.status !== ours.status) details.push(`status: ${theirs.status} there, ${ours.status} here`)
  for (const name of new Set([...theirs.headers.keys(), ...ours.headers.keys()])) {
    const [there, here] = [theirs.headers.get(name), ours.headers.get(name)]
    if (there !== here) details.push(`${name}: ${JSON.stringify(there)} there, ${JSON.stringify(here)} here`)
  }
  compareValues('body', bodyOf(theirs, how), bodyOf(ours, how), how, details)
  return details
}

/** JSON as data where it can be read, everything else as text. */
function bodyOf({ headers, body }: Settled, how: Comparison): unknown {
  if (headers.get('content-type')?.startsWith('application/json') !== true) return body
  try {
    return withoutOrder(JSON.parse(body), how)
  } catch {
    return body
  }
}

function withoutOrder(value: unknown, how: Comparison, name = ''): unknown {
  if (Array.isArray(value)) {
    const items = value.map((item) => withoutOrder(item, how))
    const isSet = how.sets?.includes(name) || (name === 'tags' && items.every((item) => typeof item === 'string'))
    return isSet ? items.toSorted((a, b) => (JSON.stringify(a) < JSON.stringify(b) ? -1 : 1)) : items
  }
  if (how.ofSchema && name === 'description' && typeof value === 'string') return '{prose}'
  if (!isRecord(value)) return value
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, withoutOrder(item, how, key)]))
}

function compareValues(path: string, there: unknown, here: unknown, how: Comparison, details: string[]): void {
  if (isDeepStrictEqual(there, here)) return
  if (Array.isArray(there) && Array.isArray(here)) {
    const matched = how.keys && matchItems(there, here, how.keys)
    if (matched !== undefined) {
      const { common, onlyThere, onlyHere } = matched
      if (onlyThere.length + onlyHere.length > 0)
        details.push(
          `${path}: only there: ${onlyThere.join(', ') || 'none'}; only here: ${onlyHere.join(', ') || 'none'}`,
        )
      else if (common.some(([from, to]) => from !== to)) details.push(`${path}: in another order`)
      for (const [from, to] of common) compareValues(`${path}[${to}]`, there[from], here[to], how, details)
      return
    }
    if (there.length === here.length) {
      for (const [index, item] of there.entries()) compareValues(`${path}[${index}]`, item, here[index], how, details)
      return
    }
  } else if (isRecord(there) && isRecord(here)) {
    for (const name of new Set([...Object.keys(there), ...Object.keys(here)]))
      compareValues(`${path}.${name}`, there[name], here[name], how, details)
    return
  }
  details.push(`${path}: ${brief(there)} there, ${brief(here)} here`)
}

interface Matched {
  /** Places of the same things on both sides. */
  readonly common: readonly (readonly [from: number, to: number])[]
  readonly onlyThere: readonly string[]
  readonly onlyHere: readonly string[]
}

/** Undefined for lists of what has no names, or the same one twice. */
function matchItems(there: readonly unknown[], here: readonly unknown[], keys: readonly string[]): Matched | undefined {
  const idOf = (item: unknown) => (isRecord(item) ? keys.map((key) => item[key]).find((id) => id !== undefined) : item)
  const [left, right] = [there, here].map((items) => new Map(items.map((item, index) => [idOf(item), index])))
  if (left?.size !== there.length || right?.size !== here.length || left.has(undefined) || right.has(undefined))
    return undefined
  const common = [...right].flatMap(([id, to]) => {
    const from = left.get(id)
    return from === undefined ? [] : [[from, to] as const]
  })
  const missing = (from: typeof left, to: typeof left) => [...from.keys()].filter((id) => !to.has(id)).map(String)
  return { common, onlyThere: missing(left, right), onlyHere: missing(right, left) }
}

const isRecord = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

/** Of items with names, the names: it is lists of other length that are shown so. */
function brief(value: unknown): string {
  const names = Array.isArray(value)
    ? value.map((item) => (isRecord(item) ? (item['namespace'] ?? item['id'] ?? item['name'] ?? item) : item))
    : value
  return String(JSON.stringify(names)).slice(0, 2000)
}
