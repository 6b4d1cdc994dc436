import { randomBytes } from 'node:crypto'
import { LRUCache } from 'lru-cache'
import { ServiceError } from '../../domain/errors.ts'
import type { ProjectId, UserId } from '../../domain/ids.ts'
import type { IdentityFile } from './file.ts'
import { expandRoles, type RoleName } from './registry.ts'
import {
  type Claims,
  LONGEST_CHAIN,
  type LoginMethod,
  newAuditId,
  openToken,
  type Scope,
  sealToken,
} from './token-format.ts'

/** A user, as a client names it; its domain is the default one. */
export type UserRef = { readonly id: string } | { readonly name: string }

export interface Login {
  /** One or both; with both they have to agree about the user. */
  readonly password?: { readonly user: UserRef; readonly password: string }
  readonly token?: string
  /** `default`: the user's default project if that works, else unscoped. */
  readonly scope:
    | { readonly kind: 'default' | 'unscoped' | 'system' }
    | { readonly kind: 'project'; readonly id: string }
    | { readonly kind: 'project'; readonly name: string }
  /** Of the client, to count failures by. */
  readonly address: string
}

/** A token that is good now, with what the registry says about its user at this moment. */
export interface Token {
  readonly text: string
  readonly user: { readonly id: UserId; readonly name: string }
  readonly scope: Scope
  /** In a token for a project. */
  readonly project: { readonly id: ProjectId; readonly name: string } | undefined
  /** With the implied ones. */
  readonly roles: readonly RoleName[]
  readonly methods: readonly LoginMethod[]
  readonly auditIds: readonly [string, ...string[]]
  readonly issuedAt: Date
  readonly expiresAt: Date
}

export interface Tokens {
  /** Throws `unauthenticated`, `too-many-requests` (with a `retry-after` in `detail.headers`), `not-found` for a bad `token`. */
  issue(login: Login): Promise<Token>
  /** Throws `unauthenticated`. `allowExpired` accepts tokens that expired less than two days ago. */
  validate(text: string, options?: { readonly allowExpired?: boolean }): Token
  /** Ends the token and all that were derived from it. Throws `unauthenticated` when it is not good any more. */
  revoke(text: string): void
}

/** Throws `unauthenticated`, `too-many-requests`. */
export type PasswordCheck = (
  user: UserRef,
  password: string,
  address: string,
) => Promise<{ readonly userId: UserId; readonly epoch: number }>

const EXPIRED_WINDOW_MS = 2 * 24 * 3600 * 1000
const CACHED_TOKENS = 10_000

export const unauthenticated = () =>
  new ServiceError('unauthenticated', 'The request you have made requires authentication.')

export function openTokens(
  file: IdentityFile,
  checkPassword: PasswordCheck,
  lifetimeMs: number,
  now: () => number,
): Tokens {
  const { db } = file
  const key = signingKey(file)
  const userRow = db.prepare('SELECT name, enabled, epoch FROM users WHERE id = ?')
  const projectById = db.prepare('SELECT id, name, enabled FROM projects WHERE id = ?')
  const projectByName = db.prepare('SELECT id FROM projects WHERE name = ?')
  const defaultProject = db.prepare(`
    SELECT projects.id FROM users JOIN projects ON projects.id = users.extra ->> '$.default_project_id'
    WHERE users.id = ?`)
  const assigned = db.prepare("SELECT role FROM assignments WHERE user_id = ? AND coalesce(project_id, '') = ?")
  const isRevoked = db.prepare('SELECT 1 FROM revoked_tokens WHERE audit_id = ?')
  const revoke = db.prepare('INSERT OR IGNORE INTO revoked_tokens (audit_id, until) VALUES (?, ?)')
  const prune = db.prepare('DELETE FROM revoked_tokens WHERE until < ?')

  const cache = new LRUCache<string, Token>({ max: CACHED_TOKENS })
  let cachedVersion = -1

  const rolesOf = (userId: UserId, scope: Scope) =>
    expandRoles(
      assigned.all(userId, scope.kind === 'project' ? scope.projectId : '').map((row) => row['role'] as RoleName),
    )

  /** What the registry says about `claims` now; `undefined` when they are no longer good. Does not look at the clock. */
  function lookUp(text: string, claims: Claims): Token | undefined {
    const { userId, scope, epoch, methods, auditIds, issuedAt, expiresAt } = claims
    const user = userRow.get(userId) as { name: string; enabled: number; epoch: number } | undefined
    if (!user?.enabled || user.epoch !== epoch || auditIds.some((id) => isRevoked.get(id))) return undefined
    const dates = { issuedAt: new Date(issuedAt), expiresAt: new Date(expiresAt) }
    const common = { text, user: { id: userId, name: user.name }, scope, methods, auditIds, ...dates }
    if (scope.kind === 'unscoped') return { ...common, project: undefined, roles: [] }
    const roles = rolesOf(userId, scope)
    if (roles.length === 0) return undefined
    if (scope.kind === 'system') return { ...common, project: undefined, roles }
    const project = projectById.get(scope.projectId) as { name: string; enabled: number } | undefined
    if (!project?.enabled) return undefined
    return { ...common, project: { id: scope.projectId, name: project.name }, roles }
  }

  function read(text: string): Token | undefined {
    const version = file.version()
    if (version !== cachedVersion) {
      cache.clear()
      cachedVersion = version
    }
    const known = cache.get(text)
    if (known) return known
    const claims = openToken(key, text)
    const token = claims && lookUp(text, claims)
    if (token) cache.set(text, token)
    return token
  }

  function validate(text: string, { allowExpired = false }: { readonly allowExpired?: boolean } = {}): Token {
    const token = read(text)
    const grace = allowExpired ? EXPIRED_WINDOW_MS : 0
    if (!token || token.expiresAt.getTime() + grace <= now()) throw unauthenticated()
    return token
  }

  const projectScope = (row: Record<string, unknown> | undefined): readonly Scope[] =>
    row ? [{ kind: 'project', projectId: row['id'] as ProjectId }] : []

  /** The scopes to try, the best first. */
  function scopesFor(wanted: Login['scope'], userId: UserId): readonly Scope[] {
    if (wanted.kind === 'project') {
      return projectScope('id' in wanted ? projectById.get(wanted.id) : projectByName.get(wanted.name))
    }
    if (wanted.kind !== 'default') return [{ kind: wanted.kind }]
    return [...projectScope(defaultProject.get(userId)), { kind: 'unscoped' }]
  }

  return {
    validate,
    issue: async ({ password, token: parentText, scope, address }) => {
      const byPassword = password && (await checkPassword(password.user, password.password, address))
      const parent = parentText === undefined ? undefined : goodParent(parentText)
      const { userId, epoch } = byPassword ?? parent ?? {}
      if (userId === undefined || epoch === undefined || (parent && parent.userId !== userId)) throw unauthenticated()
      const issuedAt = now()
      const methods: readonly LoginMethod[] = [
        ...(byPassword ? (['password'] as const) : []),
        ...(parent ? ([...parent.methods, 'token'] as const) : []),
      ]
      const expiresAt = parent?.expiresAt ?? issuedAt + lifetimeMs
      const auditIds = [newAuditId(), ...(parent?.auditIds ?? [])] as const
      for (const candidate of scopesFor(scope, userId)) {
        const token = read(sealToken(key, { userId, epoch, scope: candidate, methods, issuedAt, expiresAt, auditIds }))
        if (token) return token
      }
      throw unauthenticated()
    },
    revoke: (text) => {
      const { auditIds, expiresAt } = validate(text)
      file.write(() => {
        prune.run(now())
        revoke.run(auditIds[0], expiresAt.getTime() + EXPIRED_WINDOW_MS)
      })
    },
  }

  function goodParent(text: string): Claims {
    const claims = openToken(key, text)
    if (!claims || !read(text) || claims.expiresAt <= now()) {
      throw new ServiceError('not-found', 'Could not find the token.')
    }
    if (claims.auditIds.length >= LONGEST_CHAIN) throw unauthenticated()
    return claims
  }
}

/** Random, made by whichever process comes first. */
function signingKey({ db, write }: IdentityFile): Uint8Array {
  const read = db.prepare("SELECT value FROM settings WHERE name = 'token_key'")
  const insert = db.prepare("INSERT OR IGNORE INTO settings (name, value) VALUES ('token_key', ?)")
  if (!read.get()) write(() => insert.run(randomBytes(32)))
  return read.get()?.['value'] as Uint8Array
}
