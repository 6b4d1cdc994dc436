import { ServiceError } from '../../../domain/errors.ts'
import { type Arguments, type RowContext, raised, Timestamp } from '../../rows.ts'
import type { Connection, Session } from '../session.ts'
import type { RowTables } from './table.ts'

/** What a command works with, inside one transaction. */
export interface Desk extends RowTables {
  readonly session: Session
  readonly context: RowContext
  readonly facts: Connection['facts']
}

export interface Command {
  readonly effect: 'read' | 'write'
  /** Names of the arguments that must be there, and of those that may. */
  readonly needs: readonly string[]
  readonly takes: readonly string[]
  readonly run: (desk: Desk, args: Arguments) => Promise<unknown>
}
export type Commands = Readonly<Record<string, Command>>

/** `session` was an argument of every function in Python; here it means nothing. */
const IGNORED = ['session']

const command =
  (effect: Command['effect']) =>
  (needs: readonly string[], takes: readonly string[], run: Command['run']): Command => ({ effect, needs, takes, run })
export const reads = command('read')
export const writes = command('write')

/** Throws `invalid`, as Python's TypeError. */
export function checkArguments(name: string, { needs, takes }: Command, args: Arguments): void {
  const missing = needs.filter((one) => !Object.hasOwn(args, one)).map((one) => `'${one}'`)
  const unknown = Object.keys(args).find((one) => ![...needs, ...takes, ...IGNORED].includes(one))
  if (unknown !== undefined) throw badArguments(`${name}() got an unexpected keyword argument '${unknown}'`)
  if (missing.length > 0)
    throw badArguments(
      `${name}() missing ${missing.length} required positional argument${missing.length > 1 ? 's' : ''}: ${missing.join(' and ')}`,
    )
}

const BEYOND = /[\u{10000}-\u{10ffff}]/u

/** Throws `Invalid` for characters that upstream's columns in MySQL have no room for. */
export function checkCharacters(value: unknown, name = 'Param values'): void {
  if (typeof value === 'string' && BEYOND.test(value))
    throw raised('Invalid', `${name} can't contain 4 byte unicode characters.`)
  if (typeof value !== 'object' || value === null || value instanceof Timestamp) return
  for (const [key, member] of Object.entries(value)) {
    if (BEYOND.test(key)) throw raised('Invalid', "Property names can't contain 4 byte unicode.")
    checkCharacters(member, Array.isArray(value) ? name : key)
  }
}

export const badArguments = (message: string): ServiceError =>
  new ServiceError('invalid', message, { detail: { exception: 'TypeError' } })

/** An argument that is a text, or a number that stands for one. Throws `invalid`. */
export function text(args: Arguments, name: string): string {
  const value = args[name]
  if (typeof value === 'string') return value
  if (typeof value === 'number') return String(value)
  throw badArguments(`${name} must be a string`)
}

export const optionalText = (args: Arguments, name: string): string | null =>
  args[name] === undefined || args[name] === null ? null : text(args, name)

/** Throws `invalid`. */
export function integer(args: Arguments, name: string): number {
  const value = Number(args[name])
  if (!Number.isSafeInteger(value)) throw badArguments(`${name} must be a whole number`)
  return value
}

export const flag = (args: Arguments, name: string): boolean => Boolean(args[name])

/** An argument that is a dictionary. Throws `invalid`. */
export function dictionary(args: Arguments, name: string): Arguments {
  const value = args[name]
  if (isDictionary(value)) return value
  throw badArguments(`${name} must be a dictionary`)
}

export const isDictionary = (value: unknown): value is Arguments =>
  typeof value === 'object' && value !== null && !Array.isArray(value) && !(value instanceof Timestamp)

/** Without members that nobody may set. */
export const without = (values: Arguments, names: readonly string[]): Arguments =>
  Object.fromEntries(Object.entries(values).filter(([name]) => !names.includes(name)))

export const STAMPED = ['created_at', 'updated_at', 'deleted_at', 'deleted']
