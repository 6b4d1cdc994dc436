// JSON bodies of the identity face → what src/auth/standalone.ts takes. Everything here throws `invalid`.
import type { Changes, UserChanges } from '../../auth/standalone/registry.ts'
import { DOMAIN } from '../../auth/standalone/registry.ts'
import type { Login, UserRef } from '../../auth/standalone/tokens.ts'
import { ServiceError } from '../../domain/errors.ts'

type Json = Readonly<Record<string, unknown>>

const invalid = (message: string) => new ServiceError('invalid', message)

/** The object `key` of `parent`. */
function object(parent: unknown, key: string, where: string): Json {
  const value = isObject(parent) ? parent[key] : undefined
  if (value === undefined) throw invalid(`Expecting to find ${key} in ${where}.`)
  if (!isObject(value)) throw invalid(`'${key}' in ${where} must be an object.`)
  return value
}

const isObject = (value: unknown): value is Json => typeof value === 'object' && value !== null && !Array.isArray(value)

function text(parent: Json, key: string, where: string): string {
  const value = optional(parent, key, 'string')
  if (value === undefined) throw invalid(`Expecting to find ${key} in ${where}.`)
  return value
}

interface Kinds {
  readonly string: string
  readonly boolean: boolean
}

function optional<Kind extends keyof Kinds>(parent: Json, key: string, kind: Kind): Kinds[Kind] | undefined {
  const value = parent[key]
  const actual = typeof value
  if (value !== undefined && actual !== kind) throw invalid(`Invalid input for field '${key}': not a ${kind}.`)
  return value as Kinds[Kind] | undefined
}

/** Whether `parent.domain` is the one there is; Keystone compares names without regard to case on most databases. */
function inDomain(parent: Json, where: string): boolean {
  const domain = object(parent, 'domain', where)
  const id = optional(domain, 'id', 'string')
  const name = optional(domain, 'name', 'string')
  if (id === undefined && name === undefined) throw invalid(`Expecting to find id or name in domain of ${where}.`)
  return id === undefined ? name?.toLowerCase() === DOMAIN.name.toLowerCase() : id === DOMAIN.id
}

/** By id, or by name and domain. Nobody has the empty id, which stands for what is in another domain. */
function reference(parent: Json, where: string): UserRef {
  const id = optional(parent, 'id', 'string')
  if (id !== undefined) return { id }
  const name = text(parent, 'name', where)
  return inDomain(parent, where) ? { name } : { id: '' }
}

export interface LoginBody extends Omit<Login, 'address'> {
  /** Methods asked for that this service does not know. */
  readonly unsupported: readonly unknown[]
}

/** The body of `POST /v3/auth/tokens`. */
export function parseLogin(body: unknown): LoginBody {
  const auth = object(body, 'auth', 'request body')
  const identity = object(auth, 'identity', 'auth')
  const methods = identity['methods']
  if (!Array.isArray(methods) || methods.length === 0) throw invalid('Expecting to find methods in identity.')
  const scope = parseScope(auth['scope'])
  const unsupported = methods.filter((method) => method !== 'password' && method !== 'token')
  if (unsupported.length > 0) return { unsupported, scope }
  return {
    unsupported,
    scope,
    ...(methods.includes('password') ? { password: parsePassword(object(identity, 'password', 'identity')) } : {}),
    ...(methods.includes('token') ? { token: text(object(identity, 'token', 'identity'), 'id', 'token') } : {}),
  }
}

function parsePassword(method: Json): NonNullable<Login['password']> {
  const user = object(method, 'user', 'password')
  return { user: reference(user, 'user'), password: text(user, 'password', 'user') }
}

function parseScope(scope: unknown): Login['scope'] {
  if (scope === undefined || scope === null) return { kind: 'default' }
  if (scope === 'unscoped') return { kind: 'unscoped' }
  if (!isObject(scope)) throw invalid("'scope' must be an object or 'unscoped'.")
  const kinds = ['project', 'system', 'domain'].filter((kind) => scope[kind] !== undefined)
  if (kinds.length !== 1) throw invalid('Expecting to find one of project, system and domain in scope.')
  if (kinds[0] === 'project') {
    return { kind: 'project', ...reference(object(scope, 'project', 'scope'), 'project') }
  }
  if (kinds[0] === 'system') {
    if (object(scope, 'system', 'scope')['all'] !== true) throw invalid("Expecting 'all' to be true in system.")
    return { kind: 'system' }
  }
  // Roles are on projects and on the system, so nobody may log in to the domain.
  return { kind: 'project', id: '' }
}

/** `name`, `enabled`, and whatever else a client wants to keep, but for `managed`: what is not the client's to set. */
function common(fields: Json, managed: readonly string[]): Changes {
  const name = optional(fields, 'name', 'string')
  const enabled = optional(fields, 'enabled', 'boolean')
  const ours = new Set(['name', 'enabled', 'id', 'links', 'domain_id', 'options', 'extra', ...managed])
  checkOptions(fields['options'])
  if (fields['description'] !== null) optional(fields, 'description', 'string')
  return {
    ...(name === undefined ? {} : { name }),
    ...(enabled === undefined ? {} : { enabled }),
    extra: Object.fromEntries(Object.entries(fields).filter(([key]) => !ours.has(key))),
  }
}

/** To ignore `lock_password` and its like would be a promise not kept. */
function checkOptions(options: unknown): void {
  if (!isObject(options)) return
  const [unsupported] = Object.entries(options).find(([, value]) => value !== false && value !== null) ?? []
  if (unsupported !== undefined) throw invalid(`Option '${unsupported}' is not supported by this identity service.`)
}

function checkDomain(id: unknown): void {
  if (id !== undefined && id !== null && id !== DOMAIN.id) {
    throw new ServiceError('not-found', `Could not find domain: ${id}.`)
  }
}

function required(changes: Changes): Changes & { readonly name: string } {
  const { name } = changes
  if (name === undefined) throw invalid("'name' is a required property.")
  return { ...changes, name }
}

export function parseUserChanges(body: unknown): UserChanges {
  const user = object(body, 'user', 'request body')
  checkDomain(user['domain_id'])
  const password = user['password'] === null ? null : optional(user, 'password', 'string')
  const project = user['default_project_id']
  if (project !== undefined && project !== null && typeof project !== 'string') {
    throw invalid("Invalid input for field 'default_project_id': not a string.")
  }
  const managed = ['password', 'original_password', 'password_expires_at']
  return { ...common(user, managed), ...(password === undefined ? {} : { password }) }
}

export const parseNewUser = (body: unknown) => {
  const changes: UserChanges = parseUserChanges(body)
  return { ...changes, ...required(changes) }
}

export function parseProjectChanges(body: unknown): Changes {
  const project = object(body, 'project', 'request body')
  checkDomain(project['domain_id'])
  const parent = project['parent_id']
  if (parent !== undefined && parent !== null && parent !== DOMAIN.id) throw invalid('Projects cannot be nested here.')
  if (optional(project, 'is_domain', 'boolean')) throw invalid('There is one domain only, and projects cannot be one.')
  const tags = project['tags'] ?? []
  if (!Array.isArray(tags) || tags.some((tag) => typeof tag !== 'string')) {
    throw invalid("Invalid input for field 'tags': not a list of strings.")
  }
  return common(project, ['parent_id', 'is_domain'])
}

export const parseNewProject = (body: unknown) => required(parseProjectChanges(body))

/** The body of `POST /v3/users/{id}/password`. */
export function parsePasswordChange(body: unknown): { readonly original: string; readonly password: string } {
  const user = object(body, 'user', 'request body')
  return { original: text(user, 'original_password', 'user'), password: text(user, 'password', 'user') }
}
