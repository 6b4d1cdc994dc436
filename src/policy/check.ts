import type { Target } from './enforcer.ts'

/** A check of the policy language, as written. */
export type Check =
  | { readonly kind: 'true' | 'false' }
  | { readonly kind: 'not'; readonly check: Check }
  | { readonly kind: 'and' | 'or'; readonly checks: readonly Check[] }
  | { readonly kind: 'rule'; readonly name: string }
  | { readonly kind: 'role'; readonly match: string }
  /** `left:match`, where `left` is a literal or a dotted path into the credentials. */
  | { readonly kind: 'generic'; readonly left: string; readonly match: string }
  /** A question to another server. */
  | { readonly kind: 'remote'; readonly url: string }

export type Credentials = Readonly<Record<string, unknown>>
export type Test = (credentials: Credentials, target: Target) => boolean

export interface Compiled {
  readonly test: Test
  /** Depends on a remote check, which is always denied. */
  readonly remote: boolean
}

export type Warn = (message: string) => void

const ALWAYS: Check = { kind: 'true' }
const NEVER: Check = { kind: 'false' }

// ---- text to check

type Token = '(' | ')' | 'and' | 'or' | 'not' | 'literal' | Check

/**
 * Reads a check: a string in the policy language, or the lists of lists of old files (alternatives of conjunctions).
 * What cannot be understood is a check that is always false, and `warn` hears about it.
 * Throws an Error on a value that is neither.
 */
export function parseCheck(value: unknown, warn: Warn): Check {
  if (typeof value === 'string') return parseText(value, warn)
  if (value === null) return ALWAYS
  if (Array.isArray(value)) return parseLists(value, warn)
  throw new Error(`expected a check string, not ${JSON.stringify(value)}`)
}

function parseText(text: string, warn: Warn): Check {
  if (text === '') return ALWAYS
  const tokens = tokenize(text, warn)
  const parsed = parseTokens(tokens)
  if (parsed === undefined) warn(`Policy check ${JSON.stringify(text)} cannot be understood and denies everything`)
  return parsed ?? NEVER
}

function parseLists(lists: readonly unknown[], warn: Warn): Check {
  if (lists.length === 0) return ALWAYS
  const atom = (text: unknown): Check => {
    if (typeof text !== 'string') throw new Error(`expected a check string, not ${JSON.stringify(text)}`)
    return parseAtom(text, warn)
  }
  const alternatives = lists
    .map((inner) => (Array.isArray(inner) ? inner : [inner]))
    .filter((inner) => inner.length > 0 && inner[0] !== '')
    .map((inner) => join('and', inner.map(atom)))
  return alternatives.length === 0 ? NEVER : join('or', alternatives)
}

const join = (kind: 'and' | 'or', checks: readonly Check[]): Check =>
  checks.length === 1 && checks[0] !== undefined ? checks[0] : { kind, checks }

/** Words are separated by white space; parentheses count only at the ends of a word, since `%(key)s` has some inside. */
function tokenize(text: string, warn: Warn): readonly Token[] {
  const tokens: Token[] = []
  for (const word of text.split(/\s+/)) {
    const opened = word.replace(/^\(+/, '')
    for (let n = opened.length; n < word.length; n++) tokens.push('(')
    const bare = opened.replace(/\)+$/, '')
    const lower = bare.toLowerCase()
    if (lower === 'and' || lower === 'or' || lower === 'not') tokens.push(lower)
    else if (/^(["']).*\1$/s.test(opened) && opened.length >= 2) tokens.push('literal')
    else if (bare !== '') tokens.push(parseAtom(bare, warn))
    for (let n = bare.length; n < opened.length; n++) tokens.push(')')
  }
  return tokens
}

function parseAtom(text: string, warn: Warn): Check {
  if (text === '@') return ALWAYS
  if (text === '!') return NEVER
  const colon = text.indexOf(':')
  const left = text.slice(0, colon)
  const match = text.slice(colon + 1)
  if (colon > 0) {
    if (left === 'rule') return { kind: 'rule', name: match }
    if (left === 'http' || left === 'https') return { kind: 'remote', url: text }
    if (template(match) !== undefined) {
      if (left === 'role') return { kind: 'role', match }
      if (!/^["']/.test(left) || literal(left) !== undefined) return { kind: 'generic', left, match }
    }
  }
  warn(`Policy check ${JSON.stringify(text)} cannot be understood and counts as false`)
  return NEVER
}

/** `or` binds loosest, then `and`, then `not`. Undefined when the tokens make no sentence. */
function parseTokens(tokens: readonly Token[]): Check | undefined {
  let at = 0

  const series = (kind: 'and' | 'or', part: () => Check | undefined) => (): Check | undefined => {
    const checks: Check[] = []
    do {
      const check = part()
      if (check === undefined) return undefined
      checks.push(check)
    } while (tokens[at] === kind && ++at)
    return join(kind, checks)
  }
  const unary = (): Check | undefined => {
    const token = tokens[at++]
    if (token === 'not') {
      const check = unary()
      return check && { kind: 'not', check }
    }
    if (token === '(') {
      const check = either()
      return tokens[at++] === ')' ? check : undefined
    }
    return typeof token === 'object' ? token : undefined
  }
  const either = series('or', series('and', unary))

  const check = either()
  return at === tokens.length ? check : undefined
}

// ---- check to text

/** The check in the policy language, such that reading it again gives the same check. */
export function printCheck(check: Check): string {
  switch (check.kind) {
    case 'true':
      return '@'
    case 'false':
      return '!'
    case 'not':
      return `not ${printPart(check.check)}`
    case 'and':
    case 'or':
      return check.checks.map(printPart).join(` ${check.kind} `)
    case 'rule':
      return `rule:${check.name}`
    case 'role':
      return `role:${check.match}`
    case 'generic':
      return `${check.left}:${check.match}`
    case 'remote':
      return check.url
  }
}

const printPart = (check: Check): string =>
  check.kind === 'and' || check.kind === 'or' ? `(${printCheck(check)})` : printCheck(check)

// ---- check to closure

const allow: Test = () => true
const deny: Test = () => false

/** Turns a check into a closure; `lookup` gives the rules it refers to. */
export function compileCheck(check: Check, lookup: (rule: string) => Compiled): Compiled {
  switch (check.kind) {
    case 'true':
      return { test: allow, remote: false }
    case 'false':
      return { test: deny, remote: false }
    case 'remote':
      return { test: deny, remote: true }
    case 'not': {
      const { test, remote } = compileCheck(check.check, lookup)
      // The opposite of an answer that nobody gave is no permission either.
      return remote ? { test: deny, remote } : { test: (credentials, target) => !test(credentials, target), remote }
    }
    case 'and':
    case 'or': {
      const parts = check.checks.map((part) => compileCheck(part, lookup))
      const tests = parts.map(({ test }) => test)
      return { test: check.kind === 'and' ? allOf(tests) : anyOf(tests), remote: parts.some(({ remote }) => remote) }
    }
    case 'rule':
      return lookup(check.name)
    case 'role':
      return { test: compileRole(check.match), remote: false }
    case 'generic':
      return { test: compileGeneric(check.left, check.match), remote: false }
  }
}

const allOf =
  (tests: readonly Test[]): Test =>
  (credentials, target) => {
    for (const test of tests) if (!test(credentials, target)) return false
    return true
  }

const anyOf =
  (tests: readonly Test[]): Test =>
  (credentials, target) => {
    for (const test of tests) if (test(credentials, target)) return true
    return false
  }

/** The roles of the credentials are in lower case already. */
function compileRole(match: string): Test {
  const wanted = template(match) ?? noText
  if (typeof wanted === 'string') {
    const role = wanted.toLowerCase()
    return ({ roles }) => Array.isArray(roles) && roles.includes(role)
  }
  return ({ roles }, target) => {
    const role = wanted(target)?.toLowerCase()
    return role !== undefined && Array.isArray(roles) && roles.includes(role)
  }
}

function compileGeneric(left: string, match: string): Test {
  const wanted = template(match) ?? noText
  const known = literal(left)
  if (known !== undefined) {
    if (typeof wanted === 'string') return wanted === known ? allow : deny
    return (_, target) => wanted(target) === known
  }
  const path = left.split('.')
  if (typeof wanted === 'string') return (credentials) => holds(credentials, path, 0, wanted)
  return (credentials, target) => {
    const text = wanted(target)
    return text !== undefined && holds(credentials, path, 0, text)
  }
}

/** Whether `text` stands at the end of the path; of a list on the way, any entry will do. */
function holds(value: unknown, path: readonly string[], depth: number, text: string): boolean {
  const key = path[depth]
  if (key === undefined) return display(value) === text
  if (typeof value !== 'object' || value === null || !Object.hasOwn(value, key)) return false
  const next = (value as Credentials)[key]
  if (!Array.isArray(next)) return next !== undefined && holds(next, path, depth + 1, text)
  return next.some((entry) => holds(entry, path, depth + 1, text))
}

type Template = string | ((target: Target) => string | undefined)

const noText = () => undefined

/** `%(key)s` stands for an attribute of the target. Undefined when the text is no such template. */
function template(text: string): Template | undefined {
  if (!text.includes('%')) return text
  // Odd entries are the placeholders.
  const pieces = text.split(/(%%|%\([^()]*\)s)/)
  if (pieces.some((piece, n) => n % 2 === 0 && piece.includes('%'))) return undefined
  const parts = pieces
    .filter((piece) => piece !== '')
    .map((piece): Template => {
      if (piece === '%%') return '%'
      if (!piece.startsWith('%')) return piece
      const key = piece.slice(2, -2)
      return (target) => attribute(target, key)
    })
  const [first] = parts
  if (parts.length === 1 && first !== undefined) return first
  return (target) => {
    let filled = ''
    for (const part of parts) {
      const piece = typeof part === 'string' ? part : part(target)
      if (piece === undefined) return undefined
      filled += piece
    }
    return filled
  }
}

const attribute = (target: Target, key: string): string | undefined => {
  const value = Object.hasOwn(target, key) ? target[key] : undefined
  return value === undefined ? undefined : display(value)
}

const ESCAPES: Readonly<Record<string, string>> = { n: '\n', t: '\t', r: '\r' }

/** The text of a literal: quoted, a number, None, True or False. Undefined for anything else. */
function literal(text: string): string | undefined {
  const quoted = /^(?:'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)")$/s.exec(text)
  if (quoted) return (quoted[1] ?? quoted[2] ?? '').replace(/\\(.)/gs, (_, char: string) => ESCAPES[char] ?? char)
  if (text === 'None' || text === 'True' || text === 'False') return text
  if (/^[+-]?(0|[1-9]\d*)$/.test(text)) return BigInt(text.replace('+', '')).toString()
  if (/^[+-]?(\d+\.\d*|\.\d+)$/.test(text))
    return Number(text)
      .toString()
      .replace(/^(-?\d+)$/, '$1.0')
  return undefined
}

/** A value as the policy language writes it, which is as Python does: operators' files say `True` and `None`. */
export function display(value: unknown): string {
  if (typeof value === 'string') return value
  if (value === null || value === undefined) return 'None'
  if (typeof value === 'boolean') return value ? 'True' : 'False'
  if (Array.isArray(value)) return `[${value.map(quote).join(', ')}]`
  if (value instanceof Date)
    return value
      .toISOString()
      .replace('T', ' ')
      .replace(/(\.000)?Z$/, '+00:00')
  return String(value)
}

const quote = (value: unknown): string => (typeof value === 'string' ? `'${value}'` : display(value))
