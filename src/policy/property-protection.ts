import { readFileSync } from 'node:fs'
import type { Identity } from '../auth/identity.ts'
import { parseIni } from '../config/ini.ts'
import { ServiceError } from '../domain/errors.ts'
import type { PolicyEnforcer } from './enforcer.ts'

const OPERATIONS = ['create', 'read', 'update', 'delete'] as const
export type PropertyOperation = (typeof OPERATIONS)[number]

/** Who may do what with the extra properties of images. Administrators are nobody special here. */
export interface PropertyProtection {
  allows(operation: PropertyOperation, property: string, identity: Identity): boolean
}

/** Without a file of rules everybody may do everything. */
export const UNPROTECTED: PropertyProtection = { allows: () => true }

export interface ProtectionOptions {
  readonly file: string
  /** Whether the rules name roles, or one policy each. */
  readonly format: 'roles' | 'policies'
  readonly policy: PolicyEnforcer
  readonly warn: (message: string) => void
}

type Permission = (identity: Identity) => boolean
interface Rule {
  readonly pattern: RegExp
  readonly permissions: Readonly<Record<PropertyOperation, Permission>>
}

/** The service's own properties; clients cannot set them anyway. */
const OWN = 'os_glance'

/**
 * Reads the rules: sections whose names are regular expressions, searched in a property's name; the first that is found
 * there counts, and a property that fits none is for nobody. Throws `invalid` for a file that is not as it should be.
 */
export function openPropertyProtection(options: ProtectionOptions): PropertyProtection {
  const rules = readSections(options.file)
    .filter(([name]) => !name.startsWith(OWN))
    .map(([name, section]) => readRule(name, section, options))
  return {
    allows: (operation, property, identity) => {
      if (property.startsWith(OWN)) return true
      return rules.find(({ pattern }) => pattern.test(property))?.permissions[operation](identity) ?? false
    },
  }
}

type Section = ReadonlyMap<string, string>

function readSections(file: string): readonly (readonly [name: string, section: Section])[] {
  let content: string
  try {
    content = readFileSync(file, 'utf8')
  } catch (cause) {
    throw new ServiceError('invalid', `property_protection_file: ${file} cannot be read`, { cause })
  }
  const sections = new Map<string, Map<string, string>>()
  for (const { group, name, value } of parseIni(content, file)) {
    const section = sections.get(group) ?? new Map<string, string>()
    sections.set(group, section.set(name.toLowerCase(), value))
  }
  return [...sections]
}

function readRule(name: string, section: Section, options: ProtectionOptions): Rule {
  const fail = (reason: string, cause?: unknown): never => {
    throw new ServiceError('invalid', `property_protection_file: [${name}] ${reason}`, { cause })
  }
  const permission = (operation: PropertyOperation): Permission => {
    const value = section.get(operation)
    if (value === undefined) return fail(`says nothing of ${operation}`)
    if (value.trim() === '') options.warn(`property_protection_file: [${name}] lets nobody ${operation}`)
    return readPermission(value, options, fail)
  }
  const [create, read, update, remove] = OPERATIONS.map(permission) as [Permission, Permission, Permission, Permission]
  return { pattern: compile(name, fail), permissions: { create, read, update, delete: remove } }
}

/** As Python has them: a flag for the whole expression stands at its beginning. */
function compile(name: string, fail: (reason: string, cause: unknown) => never): RegExp {
  const [, flag, rest = name] = /^(\(\?i\))(.*)$/s.exec(name) ?? []
  try {
    return new RegExp(rest, flag === undefined ? '' : 'i')
  } catch (cause) {
    return fail('is no regular expression', cause)
  }
}

function readPermission(value: string, { format, policy }: ProtectionOptions, fail: (reason: string) => never) {
  const items = value
    .split(',')
    .map((item) => item.trim())
    .filter((item) => item !== '')
  const [first] = items
  if (first === undefined) return nobody
  if (items.includes('@') && items.includes('!')) return fail('names everybody (@) and nobody (!) at once')
  if (items.includes('!')) return nobody
  if (items.includes('@')) return everybody
  if (format === 'policies') {
    if (items.length > 1) return fail('names several policies for one operation')
    return (identity: Identity) => policy.allows(first, identity, {})
  }
  const roles = new Set(items.map((item) => item.toLowerCase()))
  return ({ roles: own, serviceRoles }: Identity) => [...own, ...serviceRoles].some((role) => roles.has(role))
}

const everybody: Permission = () => true
const nobody: Permission = () => false
