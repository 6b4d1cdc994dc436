import { ServiceError } from '../../domain/errors.ts'
import { SORT_KEYS } from '../../domain/query.ts'
import { inDetail } from './context.ts'

export interface PageLimits {
  readonly pageDefault: number
  readonly pageMax: number
}

const FILTERS = ['name', 'status', 'container_format', 'disk_format', 'min_ram', 'min_disk', 'size_min', 'size_max']
const TRUE = ['1', 't', 'true', 'on', 'y', 'yes']

const invalid = (message: string): ServiceError => new ServiceError('invalid', message)

/** The list that a request of API v1 asks for. Throws `invalid`. */
export function listArguments(
  query: readonly (readonly [string, string])[],
  admin: boolean,
  limits: PageLimits,
): Readonly<Record<string, unknown>> {
  const params = new Map(query)
  const isPublic = admin ? readPublic(params.get('is_public')) : undefined
  const marker = params.get('marker')
  if (marker && !isUuidLike(marker)) throw invalid('Invalid marker format')
  return {
    filters: readFilters(params, admin),
    limit: readLimit(params.get('limit'), limits),
    sort_key: [oneOf(params.get('sort_key') ?? 'created_at', SORT_KEYS, 'sort_key')],
    sort_dir: [oneOf(params.get('sort_dir') ?? 'desc', ['asc', 'desc'], 'sort_dir')],
    marker: marker ?? null,
    // To an admin, "public" has always meant: as if I were none.
    ...(isPublic === true ? { admin_as_user: true } : {}),
    ...(isPublic === false ? { is_public: false } : {}),
    member_status: 'all',
    v1_mode: true,
  }
}

function readFilters(params: ReadonlyMap<string, string>, admin: boolean): Readonly<Record<string, unknown>> {
  const properties = [...params].filter(([name]) => name.startsWith('property-'))
  const changesSince = params.get('changes-since')
  const isProtected = params.get('protected')
  const deleted = admin ? params.get('deleted') : undefined
  return {
    ...Object.fromEntries([...params].filter(([name]) => FILTERS.includes(name))),
    ...(changesSince === undefined ? {} : { 'changes-since': readTime(changesSince) }),
    ...(isProtected === undefined ? {} : { protected: readFlag(isProtected, 'protected must be True, or False') }),
    ...(deleted !== undefined
      ? { deleted: TRUE.includes(deleted.trim().toLowerCase()) }
      : changesSince === undefined
        ? { deleted: false }
        : {}),
    ...(properties.length === 0
      ? {}
      : { properties: Object.fromEntries(properties.map(([name, value]) => [name.slice('property-'.length), value])) }),
  }
}

function readTime(text: string): Date {
  const time = new Date(/[zZ]$|[+-]\d\d(?::?\d\d)?$/.test(text.slice(10)) ? text : `${text}Z`)
  if (!/^\d{4}-\d\d-\d\d/.test(text) || Number.isNaN(time.getTime()))
    throw inDetail('invalid', 'Unrecognized changes-since value')
  return time
}

function readFlag(text: string, message: string): boolean {
  const word = text.toLowerCase()
  if (word === 'true' || word === '1') return true
  if (word === 'false' || word === '0') return false
  throw inDetail('invalid', message)
}

/** Undefined means all. */
function readPublic(text: string | undefined): boolean | undefined {
  if (text === undefined) return true
  return text.toLowerCase() === 'none' ? undefined : readFlag(text, 'is_public must be None, True, or False')
}

function readLimit(text: string | undefined, { pageDefault, pageMax }: PageLimits): number {
  if (text === undefined) return Math.min(pageDefault, pageMax)
  if (!/^\s*[+-]?\d+\s*$/.test(text)) throw inDetail('invalid', 'limit param must be an integer')
  const limit = Number(text)
  if (limit < 0) throw inDetail('invalid', 'limit param must be positive')
  return Math.min(limit, pageMax)
}

function oneOf(value: string, allowed: readonly string[], name: string): string {
  if (allowed.includes(value)) return value
  throw invalid(`Unsupported ${name}. Acceptable values: ${allowed.join(', ')}`)
}

/** With or without dashes and braces, in any case, as oslo.utils has it. */
export const isUuidLike = (text: string): boolean =>
  /^[0-9a-f]{32}$/i.test(text.replace(/^urn:|uuid:/g, '').replace(/^\{|\}$|-/g, ''))
