import { ServiceError } from '../../domain/errors.ts'
import { type ImageId, isUuid } from '../../domain/ids.ts'
import { MEMBER_STATUSES, type MemberStatus, VISIBILITIES, type Visibility } from '../../domain/image.ts'
import {
  type Comparison,
  type ExactColumn,
  type ImageFilter,
  type ImageQuery,
  type RangeColumn,
  SORT_KEYS,
  type SortKey,
} from '../../domain/query.ts'
import { admitParameter } from './validation.ts'

export type Query = readonly (readonly [name: string, value: string])[]
export interface PageLimits {
  readonly pageDefault: number
  readonly pageMax: number
}

const invalid = (message: string) => new ServiceError('invalid', message)

/** The last value of a parameter, as every reader but `tag` and `sort_*` has it. */
export const last = (query: Query, name: string): string | undefined => query.findLast(([key]) => key === name)?.[1]
const all = (query: Query, name: string): readonly string[] =>
  query.flatMap(([key, value]) => (key === name ? [value.trim()] : []))

/** Columns that take `eq:` and `in:`. */
const OPERATED: ReadonlySet<string> = new Set(['name', 'id', 'status', 'container_format', 'disk_format'])
const EXACT: ReadonlySet<string> = new Set<ExactColumn>([
  'owner',
  'checksum',
  'os_hash_algo',
  'os_hash_value',
  'size',
  'virtual_size',
  'min_ram',
  'min_disk',
])
/** Columns of numbers, and the largest that they hold: 32 bits, or what a number of JavaScript is exact for. */
const LARGEST: ReadonlyMap<string, number> = new Map<RangeColumn, number>([
  ['size', Number.MAX_SAFE_INTEGER],
  ['virtual_size', Number.MAX_SAFE_INTEGER],
  ['min_ram', 2 ** 31 - 1],
  ['min_disk', 2 ** 31 - 1],
])
const COMPARISONS: ReadonlySet<string> = new Set<Comparison>(['gt', 'gte', 'eq', 'neq', 'lt', 'lte'])
const NOT_FILTERS = new Set([
  'limit',
  'marker',
  'member_status',
  'visibility',
  'os_hidden',
  'tag',
  'sort',
  'sort_key',
  'sort_dir',
  'changes-since',
])

/** GET /v2/images: everything behind the `?`. Throws `invalid`. */
export function parseListQuery(query: Query, limits: PageLimits): ImageQuery {
  for (const [name, value] of query) {
    admitParameter(name)
    admitParameter(value)
  }
  if (last(query, 'changes-since')) throw invalid('The "changes-since" filter is no longer available on v2.')
  const memberStatus = last(query, 'member_status') ?? 'accepted'
  if (memberStatus !== 'all' && !(MEMBER_STATUSES as readonly string[]).includes(memberStatus)) {
    throw invalid(`Invalid status: ${memberStatus}`)
  }
  return {
    visibility: parseVisibility(last(query, 'visibility')),
    memberStatus: memberStatus as MemberStatus | 'all',
    limit: Math.min(parseLimit(last(query, 'limit')) ?? limits.pageDefault, limits.pageMax),
    sort: parseSort(query),
    marker: parseMarker(last(query, 'marker')),
    hidden: parseHidden(last(query, 'os_hidden')),
    filters: parseFilters(query),
  }
}

function parseVisibility(text: string | undefined): Visibility | 'all' | undefined {
  if (text === undefined || text === '') return undefined
  if (text !== 'all' && !(VISIBILITIES as readonly string[]).includes(text))
    throw invalid(`Invalid visibility value: ${text}`)
  return text as Visibility | 'all'
}

export function parseLimit(text: string | undefined): number | undefined {
  if (text === undefined) return undefined
  if (!/^\s*[+-]?\d+\s*$/.test(text)) throw invalid('limit param must be an integer')
  const limit = Number(text)
  if (limit < 0) throw invalid('limit param must be positive')
  return limit
}

function parseMarker(text: string | undefined): ImageId | undefined {
  if (text === undefined) return undefined
  if (!isUuid(text)) throw invalid(`No image found with ID ${text}`)
  return text as ImageId
}

function parseHidden(text = 'false'): boolean {
  const value = text.toLowerCase()
  if (value !== 'true' && value !== 'false') {
    throw invalid(`Invalid value '${value}' for 'os_hidden' filter. Valid values are 'true' or 'false'.`)
  }
  return value === 'true'
}

function parseSort(query: Query): ImageQuery['sort'] {
  const combined = last(query, 'sort')
  const keys = all(query, 'sort_key')
  const dirs = all(query, 'sort_dir')
  if (combined !== undefined) {
    if (keys.length > 0 || dirs.length > 0) throw invalid('Old and new sorting syntax cannot be combined')
    return combined
      .trim()
      .split(',')
      .map((part) => {
        const [key = '', ...dir] = part.split(':')
        const direction = dir.join(':')
        return { key: sortKey(key.trim()), descending: descending(direction === '' ? 'desc' : direction.trim()) }
      })
  }
  const named = keys.length > 0 ? keys.map(sortKey) : (['created_at'] as const)
  const directions = dirs.map(descending)
  if (directions.length > 1 && directions.length !== keys.length) {
    throw invalid('Number of sort dirs does not match the number of sort keys')
  }
  return named.map((key, index) => ({ key, descending: directions[directions.length === 1 ? 0 : index] ?? true }))
}

function sortKey(text: string): SortKey {
  const key = SORT_KEYS.find((known) => known === text)
  if (key === undefined)
    throw invalid(`Invalid sort key: ${text}. It must be one of the following: ${SORT_KEYS.join(', ')}.`)
  return key
}

function descending(text: string): boolean {
  if (text !== 'asc' && text !== 'desc') throw invalid(`Invalid sort direction: ${text}`)
  return text === 'desc'
}

function parseFilters(query: Query): readonly ImageFilter[] {
  const filters: ImageFilter[] = all(query, 'tag').map((tag) => ({ by: 'tag', tag }))
  const single = new Map(query.filter(([name]) => !NOT_FILTERS.has(name)))
  for (const [name, value] of single) filters.push(parseFilter(name, value))
  return filters
}

function parseFilter(name: string, value: string): ImageFilter {
  const range = /^(.*)_(min|max)$/.exec(name)
  if (range !== null) {
    const [, column = '', end = ''] = range
    if (!/^\s*[+-]?\d+\s*$/.test(value)) throw invalid('Unable to filter on a range with a non-numeric value.')
    const largest = LARGEST.get(column)
    if (largest === undefined) throw invalid(`Unable to filter on a range of '${column}'.`)
    return parseBound(column as RangeColumn, end as 'min' | 'max', Number(value), largest)
  }
  if (name === 'created_at' || name === 'updated_at') return parseTimeFilter(name, value)
  if (OPERATED.has(name)) return { by: 'column', column: name as ExactColumn, values: parseOperated(value) }
  if (name === 'protected') {
    if (value !== 'true' && value !== 'false') {
      throw invalid(`Invalid value '${value}' for 'protected' filter. Valid values are 'true' or 'false'.`)
    }
    return { by: 'column', column: 'protected', values: [value === 'true'] }
  }
  if (EXACT.has(name)) {
    const largest = LARGEST.get(name)
    const values = largest === undefined ? [value] : numbers(value, largest)
    return { by: 'column', column: name as ExactColumn, values }
  }
  return { by: 'property', name, value }
}

/** A number that is none, or that no column holds, equals nothing. */
const numbers = (text: string, largest: number): readonly number[] =>
  /^\s*[+-]?\d+\s*$/.test(text) && Math.abs(Number(text)) <= largest ? [Number(text)] : []

/** Databases refuse to compare a column with what it cannot hold: beyond that is nothing, or everything. */
function parseBound(column: RangeColumn, end: 'min' | 'max', value: number, largest: number): ImageFilter {
  const nothing = end === 'min' ? value > largest : value < -largest
  if (nothing) return { by: 'column', column, values: [] }
  return { by: 'range', column, [end]: Math.max(-largest, Math.min(value, largest)) }
}

function parseOperated(expression: string): readonly string[] {
  const at = expression.indexOf(':')
  if (at < 0) return [expression]
  const [operator, value] = [expression.slice(0, at), expression.slice(at + 1)]
  if (operator === 'eq') return [value]
  if (operator === 'in') return splitQuoted(value)
  throw invalid(`Unable to filter by unknown operator '${operator}'.`)
}

/** `a,"b,c"`: values of `in:`, where quotes keep commas together. */
export function splitQuoted(text: string): readonly string[] {
  let open = false
  const chars = [...text]
  for (const [index, char] of chars.entries()) {
    if (char !== '"' || chars[index - 1] === '\\') continue
    if (!open && index > 0 && chars[index - 1] !== ',') {
      throw invalid(`Invalid filter value ${text}. There is no comma before opening quotation mark.`)
    }
    if (open && index + 1 < chars.length && chars[index + 1] !== ',') {
      throw invalid(`Invalid filter value ${text}. There is no comma after closing quotation mark.`)
    }
    open = !open
  }
  if (open) throw invalid(`Invalid filter value ${text}. The quote is not closed.`)
  return [...text.matchAll(/"([^"\\]*(?:\\.[^"\\]*)*)",?|([^,]+),?|,/g)].map(([, quoted, bare]) => quoted || bare || '')
}

function parseTimeFilter(column: 'created_at' | 'updated_at', expression: string): ImageFilter {
  const whole = parseIsoTime(expression)
  if (whole !== undefined) return { by: 'time', column, comparison: 'eq', value: whole }
  const at = expression.indexOf(':')
  const [comparison, text] = at < 0 ? ['eq', expression] : [expression.slice(0, at), expression.slice(at + 1)]
  const value = parseIsoTime(text)
  if (value === undefined) throw invalid(`Bad "${column}" query filter format. Use ISO 8601 DateTime notation.`)
  if (!COMPARISONS.has(comparison)) throw invalid('Unable to filter on a unknown operator.')
  return { by: 'time', column, comparison: comparison as Comparison, value }
}

/** ISO 8601 as Python's iso8601 reads it: time and zone may be absent; without a zone it is UTC. */
export function parseIsoTime(text: string): Date | undefined {
  const match =
    /^(\d{4})(?:-?(\d{1,2})(?:-?(\d{1,2})(?:[ T](\d{1,2})(?::?(\d{2})(?::?(\d{2})(?:[.,](\d+))?)?)?)?)?)?(Z|[+-]\d{2}(?::?\d{2})?)?$/.exec(
      text,
    )
  if (match === null) return undefined
  const [, year, month = '1', day = '1', hour = '0', minute = '0', second = '0', fraction = '0', zone = 'Z'] = match
  const two = (part: string) => part.padStart(2, '0')
  const offset = zone === 'Z' ? 'Z' : `${zone.slice(0, 3)}:${zone.slice(3).replace(':', '') || '00'}`
  const iso = `${year}-${two(month)}-${two(day)}T${two(hour)}:${two(minute)}:${two(second)}.${fraction.slice(0, 3).padEnd(3, '0')}${offset}`
  const date = new Date(iso)
  return Number.isNaN(date.getTime()) ? undefined : date
}

/** The query of `first` and `next`: all parameters but the marker, in order, encoded as forms are. */
export function pageLink(path: string, query: Query, marker: string | undefined): string {
  const pairs = query.filter(([name]) => name !== 'marker').map(([name, value]): [string, string] => [name, value])
  if (marker !== undefined) pairs.push(['marker', marker])
  return pairs.length === 0
    ? path
    : `${path}?${pairs.map(([name, value]) => `${encode(name)}=${encode(value)}`).join('&')}`
}

/** As Python's `quote_plus`: letters, digits and `-._~` stay, a blank is `+`. */
const encode = (text: string): string =>
  encodeURIComponent(text)
    .replaceAll('%20', '+')
    .replace(/[!'()*]/g, (char) => `%${char.charCodeAt(0).toString(16).toUpperCase()}`)
