import { isDeepStrictEqual } from 'node:util'
import type { Response } from '../../support/golden.ts'

/** What is said of an answer: one line for each thing in which ours is not theirs. */
export type Details = readonly string[]

/** Ids that the servers chose themselves: what is called on the left there is called on the right here. */
export type Aliases = ReadonlyMap<string, string>

export interface Names {
  readonly host: string
  /** The folder of the stores. */
  readonly dir: string
  readonly aliases: Aliases
}

const UUID = /[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}/g
const TIME = /\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z?/g

/** `text` with everything replaced that is another each time: hosts, request ids, times, ids that are aliases. */
function general(raw: string, { host, dir, aliases }: Names, asked: string): string {
  const text = raw.startsWith('!hex ') ? Buffer.from(raw.slice(5), 'hex').toString('latin1') : raw
  return (
    text
      .replaceAll(dir, '{dir}')
      .replaceAll(host, '{host}')
      .replace(new RegExp(`req-${UUID.source}`, 'g'), (id) => (asked.includes(id) ? id : '{request}'))
      .replace(TIME, (time) => (asked.includes(time) ? time : '{time}'))
      .replace(UUID, (id) => aliases.get(id) ?? id)
      // What a validator says about itself is a matter of its library.
      .replace(/(does not match schema '\w+': ).*/s, '$1{reason}')
  )
}

/** Tags are a set, and the prose of a schema is every project's own. */
function settled(value: unknown, ofSchema: boolean, key = ''): unknown {
  if (Array.isArray(value)) {
    const items = value.map((item) => settled(item, ofSchema))
    return key === 'tags' && items.every((item) => typeof item === 'string') ? items.toSorted() : items
  }
  if (ofSchema && key === 'description' && typeof value === 'string') return '{prose}'
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, settled(item, ofSchema, name)]))
}

const header = ({ headers }: Response, name: string): string | undefined => headers.find(([each]) => each === name)?.[1]

const isJson = (response: Response): boolean =>
  header(response, 'content-type')?.startsWith('application/json') ?? false

/** JSON as data where it can be read, everything else as text. */
function bodyOf(response: Response, names: Names, asked: string): unknown {
  const text = general(response.body ?? '', names, asked)
  if (!isJson(response)) return text
  try {
    return settled(JSON.parse(text), asked.includes('/schemas/'))
  } catch {
    return text
  }
}

export function differences(
  theirs: { readonly answer: Response; readonly names: Names },
  ours: { readonly answer: Response; readonly names: Names },
  asked: string,
): Details {
  const details: string[] = []
  if (theirs.answer.status !== ours.answer.status) {
    details.push(`status: ${theirs.answer.status} there, ${ours.answer.status} here`)
  }
  const known = new Set([...theirs.answer.headers, ...ours.answer.headers].map(([name]) => name))
  for (const name of known) {
    const [there, here] = [theirs, ours].map(({ answer, names }) => {
      const value = header(answer, name)
      return value === undefined ? undefined : general(value, names, asked)
    })
    if (there !== here) details.push(`${name}: ${JSON.stringify(there)} there, ${JSON.stringify(here)} here`)
  }
  compareBodies('body', bodyOf(theirs.answer, theirs.names, asked), bodyOf(ours.answer, ours.names, asked), details)
  return details
}

function compareBodies(path: string, there: unknown, here: unknown, details: string[]): void {
  if (isDeepStrictEqual(there, here)) return
  if (Array.isArray(there) && Array.isArray(here) && there.length === here.length) {
    for (const [index, item] of there.entries()) compareBodies(`${path}[${index}]`, item, here[index], details)
  } else if (isRecord(there) && isRecord(here)) {
    for (const name of new Set([...Object.keys(there), ...Object.keys(here)])) {
      compareBodies(`${path}.${name}`, there[name], here[name], details)
    }
  } else details.push(`${path}: ${brief(there)} there, ${brief(here)} here`)
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
