import { Ajv, type ErrorObject, type ValidateFunction } from 'ajv'
import { ServiceError } from '../../domain/errors.ts'
import type { JsonSchema } from '../http/route.ts'

export type Validate = (value: unknown) => void

const OPTIONS = {
  strict: false,
  allErrors: false,
  allowUnionTypes: true,
  unicodeRegExp: false,
  validateFormats: false,
  // The compiler refuses what it cannot use; to compile the schema of schemas too takes as long as all of ours.
  meta: false,
  validateSchema: false,
} as const

/**
 * A check of values against a schema. It throws `invalid`, in the words that clients of Glance have always read.
 * Compiled when it is first used: most processes never use most of them, and start the sooner.
 */
export function validator(name: string, schema: JsonSchema): Validate {
  const { name: _name, links: _links, ...checked } = schema
  let compiled: ValidateFunction | undefined
  return (value) => {
    compiled ??= new Ajv(OPTIONS).compile({ type: 'object', ...checked })
    const check = compiled
    if (check(value)) return
    const [error] = check.errors ?? []
    const reason = error === undefined ? 'unknown' : describe(error, value)
    throw new ServiceError('invalid', `Provided object does not match schema '${name}': ${reason}`)
  }
}

/** Throws `invalid`, with the reason, unless values can be checked against a schema of somebody else's. */
export function assertSchema(schema: JsonSchema): void {
  try {
    new Ajv(OPTIONS).compile(schema)
  } catch (cause) {
    throw new ServiceError('invalid', (cause as Error).message, { cause })
  }
}

/** The sentence of Python's jsonschema for the same failure, since clients and tests look for its words. */
function describe(error: ErrorObject, root: unknown): string {
  const value = valueAt(root, error.instancePath)
  const params = error.params as Record<string, unknown>
  switch (error.keyword) {
    case 'type': {
      const types = Array.isArray(params['type']) ? (params['type'] as string[]) : String(params['type']).split(',')
      return `${repr(value)} is not of type ${types.map(repr).join(', ')}`
    }
    case 'enum':
      return `${repr(value)} is not one of ${repr(params['allowedValues'])}`
    case 'maxLength':
      return `${repr(value)} is too long`
    case 'minLength':
      return `${repr(value)} is too short`
    case 'pattern':
      return `${repr(value)} does not match ${repr(params['pattern'])}`
    case 'required':
      return `${repr(params['missingProperty'])} is a required property`
    case 'additionalProperties':
      return `Additional properties are not allowed (${repr(params['additionalProperty'])} was unexpected)`
    case 'maximum':
      return `${repr(value)} is greater than the maximum of ${params['limit']}`
    case 'minimum':
      return `${repr(value)} is less than the minimum of ${params['limit']}`
    case 'dependencies':
      return `${repr(params['missingProperty'])} is a dependency of ${repr(params['property'])}`
    case 'uniqueItems':
      return `${repr(value)} has non-unique elements`
    default:
      return `${repr(value)} ${error.message ?? 'is not valid'}`
  }
}

const valueAt = (root: unknown, path: string): unknown =>
  path
    .split('/')
    .slice(1)
    .reduce<unknown>((at, part) => {
      const key = part.replaceAll('~1', '/').replaceAll('~0', '~')
      return typeof at === 'object' && at !== null ? (at as Record<string, unknown>)[key] : undefined
    }, root)

/** As Python prints a value. */
function repr(value: unknown): string {
  if (value === null || value === undefined) return 'None'
  if (value === true) return 'True'
  if (value === false) return 'False'
  if (typeof value === 'string') {
    const quote = value.includes("'") && !value.includes('"') ? '"' : "'"
    const body = value
      .replaceAll('\\', '\\\\')
      .replaceAll('\n', '\\n')
      .replaceAll('\t', '\\t')
      .replaceAll('\r', '\\r')
      .replace(/[\0-\x1f\x7f-\xa0]/g, (char) => `\\x${char.charCodeAt(0).toString(16).padStart(2, '0')}`)
    return `${quote}${quote === "'" ? body.replaceAll("'", "\\'") : body}${quote}`
  }
  if (Array.isArray(value)) return `[${value.map(repr).join(', ')}]`
  if (typeof value === 'object') {
    return `{${Object.entries(value)
      .map(([key, item]) => `${repr(key)}: ${repr(item)}`)
      .join(', ')}}`
  }
  return String(value)
}

/** Columns of many deployments cannot hold characters beyond the Basic Multilingual Plane, so nobody may send them. */
const BEYOND_BMP = /[\u{10000}-\u{10FFFF}]/u

/** Throws `invalid` for text that no column could hold faithfully: 4-byte characters, halves of them, and NUL. */
function admitText(text: string, fourBytes: string): void {
  if (BEYOND_BMP.test(text)) throw new ServiceError('invalid', fourBytes)
  if (!text.isWellFormed()) throw new ServiceError('invalid', 'Text may not contain half of a surrogate pair.')
  if (text.includes('\0')) throw new ServiceError('invalid', 'Text may not contain the character NUL.')
}

export const admitParameter = (text: string): void => admitText(text, "Param values can't contain 4 byte unicode.")

/** Checks the name of an attribute or property, and its value where that is text (or a list of texts). */
export function admitAttribute(name: string, value: unknown, context = ''): void {
  admitText(name, "Property names can't contain 4 byte unicode.")
  for (const text of Array.isArray(value) ? value : [value]) {
    if (typeof text === 'string')
      admitText(text, `${context}${titleCase(name)} can't contain 4 byte unicode characters.`)
  }
}

/** As Python's `str.title` does: each run of letters begins with a capital. */
const titleCase = (text: string): string =>
  text.replace(/\p{L}+/gu, (word) => word.slice(0, 1).toUpperCase() + word.slice(1).toLowerCase())
