import { setImmediate as nextTurn } from 'node:timers/promises'
import { type ErrorKind, ServiceError } from '../domain/errors.ts'

/*
 * Plain data as JSON. What JSON has no words for is an object `{"$": KIND, "v": …}`; an object of our own that has a
 * member `$` is written as its entries, so that nothing can be mistaken for one of these.
 */

const tagged = (kind: string, content: string): string => `{"$":"${kind}","v":${content}}`

/** Throws a TypeError for what is no data, such as a function. */
export function print(value: unknown): string {
  switch (typeof value) {
    case 'string':
      return JSON.stringify(value)
    case 'number':
      return Number.isFinite(value) && !Object.is(value, -0)
        ? String(value)
        : tagged('number', `"${printNumber(value)}"`)
    case 'boolean':
      return String(value)
    case 'undefined':
      return '{"$":"undefined"}'
    case 'bigint':
      return tagged('bigint', `"${value}"`)
    case 'object':
      return value === null ? 'null' : printObject(value)
    default:
      throw new TypeError(`A ${typeof value} is no data`)
  }
}

const printNumber = (value: number): string => (Object.is(value, -0) ? '-0' : String(value))

function printObject(value: object): string {
  if (Array.isArray(value)) return `[${value.map(print).join()}]`
  if (value instanceof Date) return tagged('time', print(value.getTime()))
  if (value instanceof Map) return tagged('map', print([...value]))
  if (value instanceof Set) return tagged('set', print([...value]))
  if (value instanceof ServiceError) return tagged('error', printError(value))
  const prototype: unknown = Object.getPrototypeOf(value)
  if (prototype !== Object.prototype && prototype !== null)
    throw new TypeError(`An object of class ${value.constructor.name} is no data`)
  if (Object.hasOwn(value, '$')) return tagged('object', print(Object.entries(value)))
  let text = '{'
  for (const [name, member] of Object.entries(value))
    text += `${text.length > 1 ? ',' : ''}${JSON.stringify(name)}:${print(member)}`
  return `${text}}`
}

/** What the cause was stays with who throws: it may hold anything. */
function printError({ kind, message, detail, transient }: ServiceError): string {
  try {
    return print({ kind, message, detail, transient })
  } catch {
    return print({ kind, message, detail: {}, transient })
  }
}

/** So many items of a list are printed or read at once. */
const CHUNK = 100

/** As `print`; a list has one item in each line, and others have their turn meanwhile. */
export async function printResult(value: unknown): Promise<string> {
  if (!Array.isArray(value) || value.length < 2) return print(value)
  const lines: string[] = []
  for (let from = 0; from < value.length; from += CHUNK) {
    if (from > 0) await nextTurn()
    for (const item of value.slice(from, from + CHUNK)) lines.push(print(item))
  }
  return `[\n${lines.join(',\n')}\n]`
}

/** What `printResult` printed. Throws `invalid`. */
export async function parseResult(text: string): Promise<unknown> {
  if (!text.startsWith('[\n')) return parse(text)
  const lines = text.slice(2, -2).split(',\n')
  const items: unknown[] = []
  for (let from = 0; from < lines.length; from += CHUNK) {
    if (from > 0) await nextTurn()
    for (const line of lines.slice(from, from + CHUNK)) items.push(parse(line))
  }
  return items
}

/** Throws `invalid`. */
export function parse(text: string): unknown {
  try {
    return revive(JSON.parse(text))
  } catch (cause) {
    if (cause instanceof ServiceError) throw cause
    throw new ServiceError('invalid', 'This is not JSON', { cause })
  }
}

/** The data that JSON stands for, which is used up by it. Throws `invalid`. */
export function revive(json: unknown): unknown {
  if (typeof json !== 'object' || json === null) return json
  if (Array.isArray(json)) {
    for (let at = 0; at < json.length; at += 1) {
      if (typeof json[at] === 'object') json[at] = revive(json[at])
    }
    return json
  }
  if (Object.hasOwn(json, '$')) return reviveTagged(json as Tagged)
  const members = json as Record<string, unknown>
  for (const name of Object.keys(members)) {
    if (typeof members[name] === 'object') members[name] = revive(members[name])
  }
  return members
}

interface Tagged {
  readonly $: unknown
  readonly v?: unknown
}

function reviveTagged({ $: kind, v: content }: Tagged): unknown {
  const value = revive(content)
  switch (kind) {
    case 'undefined':
      return undefined
    case 'number':
      if (typeof value === 'string') return Number(value)
      break
    case 'bigint':
      if (typeof value === 'string' && /^-?\d{1,100}$/.test(value)) return BigInt(value)
      break
    case 'time':
      if (typeof value === 'number') return new Date(value)
      break
    case 'map':
      if (arePairs(value)) return new Map(value)
      break
    case 'set':
      if (Array.isArray(value)) return new Set(value)
      break
    case 'object':
      if (arePairs(value)) return Object.fromEntries(value.map(([name, member]) => [String(name), member]))
      break
    case 'error':
      if (isErrorData(value)) return new ServiceError(value.kind, value.message, value)
      break
  }
  throw new ServiceError('invalid', 'There is no such data')
}

const arePairs = (value: unknown): value is readonly (readonly [unknown, unknown])[] =>
  Array.isArray(value) && value.every((pair) => Array.isArray(pair) && pair.length === 2)

interface ErrorData {
  readonly kind: ErrorKind
  readonly message: string
  readonly detail: Readonly<Record<string, unknown>>
  readonly transient: boolean
}

const isErrorData = (value: unknown): value is ErrorData =>
  typeof value === 'object' &&
  value !== null &&
  'kind' in value &&
  typeof value.kind === 'string' &&
  'message' in value &&
  typeof value.message === 'string'
