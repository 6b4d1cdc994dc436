import type { ImagePatch } from '../../core/images.ts'
import type { ClientLocation } from '../../core/locations.ts'
import { ServiceError } from '../../domain/errors.ts'
import type { LocationUri } from '../../domain/ids.ts'
import type { ImageAttributes } from '../../domain/image.ts'
import { admitAmount, admitName, isWritable, READ_ONLY, readOnlyError, WRITABLE } from './attributes.ts'
import { admitAttribute, type Validate } from './validation.ts'

/** The two dialects by media type; draft 4 has the operation's name as a key. */
export const PATCH_TYPES = {
  'application/openstack-images-v2.0-json-patch': 'draft-4',
  'application/openstack-images-v2.1-json-patch': 'draft-10',
} as const
type Dialect = (typeof PATCH_TYPES)[keyof typeof PATCH_TYPES]

const OPERATIONS = ['add', 'remove', 'replace'] as const
type Operation = (typeof OPERATIONS)[number]

const invalid = (message: string) => new ServiceError('invalid', message)

/** Throws `unsupported-media-type` for any other type. */
export function patchDialect(contentType: string | undefined): Dialect {
  const type = (contentType ?? '').split(';')[0]?.trim().toLowerCase() ?? ''
  const dialect = (PATCH_TYPES as Record<string, Dialect>)[type]
  if (dialect !== undefined) return dialect
  const types = Object.keys(PATCH_TYPES).join(', ')
  throw new ServiceError('unsupported-media-type', `Image PATCH expects Content-Type one of: ${types}`, {
    detail: { headers: { 'accept-patch': types } },
  })
}

/**
 * Reads a whole patch. Syntax, reserved names and schemas are checked for all operations before the first is applied;
 * what depends on the image is left to the use case.
 */
export function parsePatch(
  body: unknown,
  dialect: Dialect,
  validate: Validate,
  { locations = false }: { readonly locations?: boolean } = {},
): readonly ImagePatch[] {
  if (!Array.isArray(body)) throw invalid('Request body must be a JSON array of operation objects.')
  return body.map((raw) => {
    if (typeof raw !== 'object' || raw === null || Array.isArray(raw)) throw invalid('Operations must be JSON objects.')
    return parseOperation(raw as Record<string, unknown>, dialect, validate, locations)
  })
}

function parseOperation(
  raw: Record<string, unknown>,
  dialect: Dialect,
  validate: Validate,
  locations: boolean,
): ImagePatch {
  const operation = dialect === 'draft-10' ? namedOperation(raw) : keyedOperation(raw)
  const pointer = dialect === 'draft-10' ? raw['path'] : raw[operation]
  if (pointer === undefined) throw invalid("Unable to find 'path' in JSON Schema change")
  if (typeof pointer !== 'string') throw invalid('The path of an operation must be a string.')
  const path = parsePointer(pointer)
  const [name = ''] = path
  const depth = name === 'locations' && operation !== 'replace' ? 2 : 1
  if (path.length !== depth) throw invalid(`Invalid JSON pointer for this resource: '/${path.join('/')}'`)
  if (operation !== 'remove' && !Object.hasOwn(raw, 'value')) {
    throw invalid(`Operation "${operation}" requires a member named "value".`)
  }
  const value = operation === 'remove' ? undefined : raw['value']

  if (READ_ONLY.has(name)) throw readOnlyError(name)
  admitName(name)
  if (operation !== 'remove') {
    validate({ [name]: name === 'locations' && operation === 'add' ? [value] : value })
    admitAmount(name, value)
  }
  admitAttribute(name, value)
  if (name.length > 255) throw invalid('Custom property should not be greater than 255 characters.')
  if (name === 'locations') return toLocationPatch(operation, path[1] ?? '', value, locations)
  return toPatch(operation, dialect, name, value)
}

/** Refused where clients do not see locations either. */
function toLocationPatch(operation: Operation, position: string, value: unknown, visible: boolean): ImagePatch {
  if (operation === 'replace' && (value as unknown[]).length === 0)
    return forbidden('Cannot set locations to empty list.')
  if (!visible) {
    const verb = operation === 'replace' ? 'update' : operation
    return forbidden(`It's not allowed to ${verb} locations if locations are invisible.`)
  }
  if (operation === 'remove') return { op: 'remove-location', position }
  if (operation === 'add') return { op: 'add-location', position, location: parseLocation(value as WireLocation) }
  return { op: 'replace-locations', locations: (value as WireLocation[]).map(parseLocation) }
}

const forbidden = (message: string): ImagePatch => ({ op: 'refuse', error: new ServiceError('forbidden', message) })

interface WireLocation {
  readonly url: string
  readonly metadata: Readonly<Record<string, unknown>>
  readonly validation_data?: Readonly<Record<'os_hash_algo' | 'os_hash_value', string>> & { readonly checksum?: string }
}

const parseLocation = ({ url, metadata, validation_data: data }: WireLocation): ClientLocation => ({
  uri: url as LocationUri,
  metadata,
  validation: {
    ...(data?.checksum === undefined ? {} : { checksum: data.checksum }),
    ...(data === undefined ? {} : { osHashAlgo: data.os_hash_algo, osHashValue: data.os_hash_value }),
  },
})

function toPatch(operation: Operation, dialect: Dialect, name: string, value: unknown): ImagePatch {
  if (name === 'tags' || isWritable(name)) {
    if (operation === 'remove') {
      return { op: 'refuse', error: new ServiceError('forbidden', `Property ${name} may not be removed.`) }
    }
    if (operation === 'add' && dialect === 'draft-4') {
      return { op: 'refuse', error: new ServiceError('conflict', `Property ${name} already present.`) }
    }
    return name === 'tags'
      ? { op: 'set-tags', tags: value as readonly string[] }
      : { op: 'set', attribute: WRITABLE[name], value: value as ImageAttributes[keyof ImageAttributes] }
  }
  if (operation === 'remove') return { op: 'unset-property', name }
  const must = operation === 'replace' ? 'exist' : dialect === 'draft-4' ? 'be-new' : 'any'
  return { op: 'set-property', name, value: value as string | null, must }
}

function namedOperation(raw: Record<string, unknown>): Operation {
  const name = raw['op']
  const available = OPERATIONS.join(', ')
  if (name === undefined || name === null) {
    throw invalid(`Unable to find \`op\` in JSON Schema change. It must be one of the following: ${available}.`)
  }
  const operation = OPERATIONS.find((known) => known === name)
  if (operation === undefined) {
    throw invalid(`Invalid operation: \`${String(name)}\`. It must be one of the following: ${available}.`)
  }
  return operation
}

function keyedOperation(raw: Record<string, unknown>): Operation {
  const [operation, second] = OPERATIONS.filter((known) => Object.hasOwn(raw, known))
  if (second !== undefined)
    throw invalid('Operation objects must contain only one member named "add", "remove", or "replace".')
  if (operation === undefined) {
    throw invalid('Operation objects must contain exactly one member named "add", "remove", or "replace".')
  }
  return operation
}

/** A JSON pointer as Glance accepts it: `~0` and `~1` escapes, no empty parts, blanks around a part dropped. */
export function parsePointer(pointer: string): readonly string[] {
  if (!pointer.startsWith('/')) throw invalid(`Pointer \`${pointer}\` does not start with "/".`)
  if (/\/\s*\//.test(pointer.slice(1))) throw invalid(`Pointer \`${pointer}\` contains adjacent "/".`)
  if (pointer.length > 1 && pointer.endsWith('/')) throw invalid(`Pointer \`${pointer}\` end with "/".`)
  if (pointer.slice(1).trim() === '/') throw invalid(`Pointer \`${pointer}\` does not contains valid token.`)
  if (/~(?![01])/.test(pointer)) {
    throw invalid(`Pointer \`${pointer}\` contains "~" not part of a recognized escape sequence.`)
  }
  return pointer
    .replace(/^\/+/, '')
    .split('/')
    .map((part) => part.replaceAll('~1', '/').replaceAll('~0', '~').trim())
}
