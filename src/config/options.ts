// The option kit: declarations give type, check, sample file and documentation.

export type OptionKind = 'text' | 'integer' | 'float' | 'boolean' | 'choice' | 'list' | 'dict' | 'multi'

/** How one option is read from text and shown. `T` is what the code gets. */
export interface Option<T = unknown> {
  readonly kind: OptionKind
  readonly default: T
  /** One or two sentences for the operator, with the unit. */
  readonly help: string
  /** What may be written, to follow the word "expected". */
  readonly expects: string
  /** Parses one raw value, the last one given (all of them for `multi`). Throws an Error that says what is expected. */
  parse(raw: readonly string[]): T
  /** The raw values which `parse` reads as `value`; none for an option that is not set. */
  print(value: T): readonly string[]
  /** Never shown in a log, a dump or an error message. */
  readonly secret?: boolean
  /** Re-read on SIGHUP. */
  readonly mutable?: boolean
  /** Older spellings, `name` or `group.name`; they work and warn. */
  readonly deprecated?: readonly string[]
  /** Why the option is going away; setting it warns. */
  readonly deprecatedForRemoval?: string
}
export type OptionGroup = Readonly<Record<string, Option<never> | Option<unknown>>>
export type Values<Group extends OptionGroup> = {
  readonly [Name in keyof Group]: Group[Name] extends Option<infer T> ? T : never
}

/** What a declaration says; without `default` the value is undefined until somebody sets it. */
interface Spec<Default> extends Pick<Option, 'help' | 'secret' | 'mutable' | 'deprecated' | 'deprecatedForRemoval'> {
  readonly default?: Default
}

/** `T`, or undefined as well where the declaration gives no default. */
type Given<T, Default> = T | Extract<Default, undefined>

/** How a single value, such as an item of a list, is written. */
export interface ValueType<T> {
  readonly expects: string
  /** Gives undefined for a text that does not fit. */
  read(text: string): T | undefined
  write(value: T): string
}

const declare = <T, Default>(kind: OptionKind, type: ValueType<T>, spec: Spec<Default>): Option<Given<T, Default>> => {
  const preset = Object.freeze(spec.default) as Given<T, Default>
  return {
    ...spec,
    kind,
    default: preset,
    expects: type.expects,
    parse: (raw) => {
      const text = raw.at(-1) ?? ''
      // An empty number is no number: `workers =` leaves the choice to the service.
      if ((kind === 'integer' || kind === 'float') && text.trim() === '') return preset
      const value = type.read(text)
      if (value === undefined) throw new Error(`expected ${type.expects}`)
      return Object.freeze(value)
    },
    print: (value) => (value === undefined ? [] : [type.write(value as T)]),
  }
}

/** Any text, or only such as fits `pattern`, which `expects` puts into words. */
export const text = <Default extends string | undefined = undefined>(
  spec: Spec<Default> & { readonly pattern?: RegExp; readonly expects?: string },
): Option<Given<string, Default>> => {
  const { pattern = /^/, expects = 'text', ...rest } = spec
  return declare('text', { ...anyText, expects, read: (value) => (pattern.test(value) ? value : undefined) }, rest)
}

/** Limits are inclusive. */
interface Limits {
  readonly min?: number
  readonly max?: number
}

export const integer = <Default extends number | undefined = undefined>(
  spec: Spec<Default> & Limits,
): Option<Given<number, Default>> => {
  const { min, max, ...rest } = spec
  return declare('integer', wholeNumber({ min, max }), rest)
}

export const float = <Default extends number | undefined = undefined>(
  spec: Spec<Default> & Limits,
): Option<Given<number, Default>> => {
  const { min, max, ...rest } = spec
  return declare('float', number('a number', /^[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?$/i, { min, max }), rest)
}

/** A TCP port. */
export const port = <Default extends number | undefined = undefined>(
  spec: Spec<Default>,
): Option<Given<number, Default>> =>
  declare('integer', { ...wholeNumber({ min: 0, max: 65_535 }), expects: 'a port number from 0 to 65535' }, spec)

export const bool = <Default extends boolean | undefined = undefined>(
  spec: Spec<Default>,
): Option<Given<boolean, Default>> => declare('boolean', truth, spec)

/** One of `choices`; with `ignoreCase` in any case, and the code gets it as it is spelled here. */
export const choice = <const Choice extends string, const Default extends Choice | undefined = undefined>(
  choices: readonly Choice[],
  spec: Spec<Default> & { readonly ignoreCase?: boolean },
): Option<Given<Choice, Default>> => {
  const { ignoreCase = false, ...rest } = spec
  return declare('choice', oneOf(choices, ignoreCase), rest)
}

/** A number of bytes, or of a unit of them. */
export const bytes = <Default extends number | undefined = undefined>(
  spec: Spec<Default>,
): Option<Given<number, Default>> => declare('text', amountOfBytes, spec)

/** `a,b`, or `[a,b]` with `bounds`. Items are texts unless `of` says otherwise. */
export const list = <T = string, const Default extends readonly NoInfer<T>[] | undefined = undefined>(
  spec: Spec<Default> & { readonly bounds?: boolean; readonly of?: ValueType<T> },
): Option<Given<readonly T[], Default>> => {
  const { bounds = false, of = anyText as unknown as ValueType<T>, ...rest } = spec
  return declare('list', listOf(of, bounds), rest)
}

/** `name:value,name:value`. */
export const dict = <Default extends Dict | undefined = undefined>(spec: Spec<Default>): Option<Given<Dict, Default>> =>
  declare('dict', pairs, spec)
/** Has no prototype, so that every name is free. */
export type Dict = Readonly<Record<string, string>>

/** An option that may be given several times; every value counts. */
export const multi = (spec: Spec<readonly string[]>): Option<readonly string[]> => ({
  ...spec,
  kind: 'multi',
  default: Object.freeze(spec.default ?? []),
  expects: 'text, once for each value',
  parse: (raw) => Object.freeze([...raw]),
  print: (values) => values,
})

/** The values of a group of which nothing is set. */
export const defaults = <Group extends OptionGroup>(group: Group): Values<Group> =>
  Object.freeze(
    Object.fromEntries(Object.entries(group).map(([name, option]) => [name, option.default])),
  ) as Values<Group>

const anyText: ValueType<string> = { expects: 'text', read: (value) => value, write: (value) => value }

interface OpenLimits {
  readonly min: number | undefined
  readonly max: number | undefined
}

/** Every digit of a large number, as it was declared. */
const digits = (value: number): string => (Number.isInteger(value) ? BigInt(value).toString() : String(value))

const inWords = ({ min, max }: OpenLimits): string => {
  if (min !== undefined && max !== undefined) return ` from ${digits(min)} to ${digits(max)}`
  return min !== undefined ? ` of at least ${digits(min)}` : max !== undefined ? ` of at most ${digits(max)}` : ''
}

const number = (what: string, form: RegExp, { min, max }: OpenLimits): ValueType<number> => ({
  expects: `${what}${inWords({ min, max })}`,
  read: (raw) => {
    const written = raw.trim()
    const value = Number(written.replaceAll('_', ''))
    return form.test(written) && value >= (min ?? -Infinity) && value <= (max ?? Infinity) ? value : undefined
  },
  write: digits,
})

export const wholeNumber = (limits: { [Name in keyof OpenLimits]?: number | undefined } = {}): ValueType<number> =>
  number('an integer', /^[+-]?\d+(?:_\d+)*$/, { min: limits.min, max: limits.max })

const UNITS = ['B', 'KB', 'MB', 'GB', 'TB']
const amountOfBytes: ValueType<number> = {
  expects: 'a whole number of bytes, or of KB, MB, GB or TB (1 KB is 1024 bytes), without a space before the unit',
  read: (raw) => {
    const [, amount, unit = 'B'] = /^\s*(\d+)([KMGT]?B)?\s*$/.exec(raw) ?? []
    return amount === undefined ? undefined : Number(amount) * 1024 ** UNITS.indexOf(unit)
  },
  write: digits,
}

export const oneOf = <const Choice extends string>(
  choices: readonly Choice[],
  ignoreCase = false,
): ValueType<Choice> => {
  const fold = (value: string) => (ignoreCase ? value.toLowerCase() : value)
  return {
    expects: `one of ${choices.map((one) => one || "''").join(', ')}`,
    read: (value) => choices.find((one) => fold(one) === fold(value)),
    write: (value) => value,
  }
}

const TRUE = ['true', '1', 'on', 'yes']
const FALSE = ['false', '0', 'off', 'no']
const truth: ValueType<boolean> = {
  expects: 'true or false',
  read: (raw) => {
    const word = raw.trim().toLowerCase()
    return TRUE.includes(word) ? true : FALSE.includes(word) ? false : undefined
  },
  write: String,
}

const unquote = (item: string) => (/^(["']).*\1$/s.test(item) && item.length > 1 ? item.slice(1, -1) : item)
const quote = (item: string) =>
  item === '' || /,|^["'\s]|\s$/.test(item) ? (item.includes('"') ? `'${item}'` : `"${item}"`) : item

const splitItems = (raw: string): readonly string[] => {
  const body = raw.trim().replace(/[,\s]+$/, '')
  if (body === '') return []
  return [...`${body},`.matchAll(/\s*("[^"]*"|'[^']*'|[^,]*)\s*,/g)].map(([, item = '']) => unquote(item.trim()))
}

const listOf = <T>(type: ValueType<T>, bounds: boolean): ValueType<readonly T[]> => ({
  expects: `a list written ${bounds ? '[a,b]' : 'a,b'}${type.expects === 'text' ? '' : ` with each item ${type.expects}`}`,
  read: (raw) => {
    const inner = bounds ? /^\s*\[(.*)\][,\s]*$/s.exec(raw)?.[1] : raw
    if (inner === undefined) return undefined
    const items = splitItems(inner).map((item) => type.read(item))
    return items.some((item) => item === undefined) ? undefined : (items as readonly T[])
  },
  write: (items) => {
    const inner = items.map((item) => quote(type.write(item))).join(',')
    return bounds ? `[${inner}]` : inner
  },
})

const pairs: ValueType<Dict> = {
  expects: 'pairs written name:value,name:value, each name once',
  read: (raw) => {
    const found: Record<string, string> = Object.create(null)
    const written = raw.trim()
    // A comma which no name:value follows belongs to the value before it.
    for (const pair of written === '' ? [] : written.split(/,(?=[^,:]*:)/)) {
      const colon = pair.indexOf(':')
      const name = pair.slice(0, Math.max(0, colon)).trim()
      if (name === '' || name in found) return undefined
      found[name] = pair.slice(colon + 1).trim()
    }
    return found
  },
  write: (dict) =>
    Object.entries(dict)
      .map(([name, value]) => `${name}:${value}`)
      .join(','),
}
