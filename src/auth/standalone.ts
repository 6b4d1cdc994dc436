import type { IncomingHttpHeaders } from 'node:http'
import type { UserId } from '../domain/ids.ts'
import type { Identity, IdentityProvider } from './identity.ts'
import { type IdentityFile, openIdentityFile } from './standalone/file.ts'
import { loginGuard } from './standalone/login-guard.ts'
import { openPasswords, type Passwords } from './standalone/passwords.ts'
import { DOMAIN, newId, openRegistry, type Registry, type RoleName } from './standalone/registry.ts'
import { openTokens, type PasswordCheck, type Tokens, unauthenticated } from './standalone/tokens.ts'

export interface StandaloneOptions {
  /** Path of the SQLite file; made when missing, with its directory. Several processes may have it open. */
  readonly file: string
  /** Seconds. */
  readonly tokenLifetime?: number
  /** Where clients find the login, for the challenge of a 401. */
  readonly authUri?: string
  /** Milliseconds since 1970. */
  readonly now?: () => number
  /** log2 of scrypt's N, for new passwords. */
  readonly passwordCost?: number
}

export interface Standalone extends Registry {
  readonly provider: IdentityProvider
  readonly tokens: Tokens
  /** For users themselves. Throws `unauthenticated` when `original` is wrong, `too-many-requests` as a login does. */
  changePassword(id: UserId, original: string, password: string, address: string): Promise<void>
  /**
   * Makes the first users, projects and roles, once in the life of the file: what somebody deletes later stays
   * deleted. Says whether this call did it.
   */
  bootstrap(passwords: { readonly adminPassword: string; readonly demoPassword: string }): Promise<boolean>
  close(): void
}

const TOKEN_LIFETIME = 3600

/** Built-in identity for one machine: users, projects and roles in a SQLite file, scrypt passwords, signed tokens. */
export function openStandalone(options: StandaloneOptions): Standalone {
  const now = options.now ?? Date.now
  const file = openIdentityFile(options.file)
  const passwords = openPasswords(options.passwordCost)
  const registry = openRegistry(file, passwords)
  const checkPassword = passwordCheck(file, passwords, now)
  const tokens = openTokens(file, checkPassword, (options.tokenLifetime ?? TOKEN_LIFETIME) * 1000, now)
  return {
    ...registry,
    tokens,
    provider: {
      challenge: options.authUri === undefined ? undefined : `Keystone uri="${options.authUri}"`,
      authenticate: async (headers) => authenticate(tokens, headers),
      close: async () => file.close(),
    },
    changePassword: async (id, original, password, address) => {
      await checkPassword({ id }, original, address)
      await registry.users.update(id, { password })
    },
    bootstrap: (secrets) => bootstrap(file, passwords, secrets),
    close: () => file.close(),
  }
}

function authenticate(tokens: Tokens, headers: IncomingHttpHeaders): Identity {
  const text = header(headers, 'x-auth-token') ?? header(headers, 'x-storage-token')
  if (text === undefined) throw unauthenticated()
  const serviceText = header(headers, 'x-service-token')
  const service = serviceText === undefined ? undefined : tokens.validate(serviceText)
  // A service may finish what a user began, even when the user's token expires meanwhile.
  const token = tokens.validate(text, { allowExpired: service?.roles.includes('service') ?? false })
  return {
    userId: token.user.id,
    projectId: token.project?.id,
    domainId: undefined,
    userDomainId: DOMAIN.id,
    projectDomainId: token.project && DOMAIN.id,
    roles: token.roles,
    serviceRoles: service?.roles ?? [],
    serviceUserId: service?.user.id,
    serviceProjectId: service?.project?.id,
    systemScope: token.scope.kind === 'system' ? 'all' : undefined,
    isAdminProject: true,
    readOnly: false,
    isAdmin: undefined,
    expiresAt: token.expiresAt,
    token: text,
  }
}

/** An empty header counts as none. */
function header(headers: IncomingHttpHeaders, name: string): string | undefined {
  const value = headers[name]
  return (Array.isArray(value) ? value[0] : value) || undefined
}

/** Who may log in with a password. An unknown user takes the same time, and the same limit, as a wrong password. */
function passwordCheck(file: IdentityFile, passwords: Passwords, now: () => number): PasswordCheck {
  const guard = loginGuard(file, now)
  const byId = file.db.prepare('SELECT id, enabled, password, epoch FROM users WHERE id = ?')
  const byName = file.db.prepare('SELECT id, enabled, password, epoch FROM users WHERE name = ?')
  return async (user, password, address) => {
    const row = ('id' in user ? byId.get(user.id) : byName.get(user.name)) as
      | { id: UserId; enabled: number; password: string | null; epoch: number }
      | undefined
    const who = row?.id ?? ('id' in user ? user.id : user.name)
    const right = await guard.attempt(who, address, async () => {
      const matches = await passwords.verify(password, row?.password ?? undefined)
      return matches && row?.enabled === 1
    })
    if (!row || !right) throw unauthenticated()
    return { userId: row.id, epoch: row.epoch }
  }
}

const FIRST_PROJECTS = {
  admin: 'For those who look after the cloud',
  demo: 'To try things out',
  service: 'For the services themselves',
}
const FIRST_ASSIGNMENTS: readonly (readonly [user: string, project: string | null, role: RoleName])[] = [
  ['admin', 'admin', 'admin'],
  ['admin', null, 'admin'],
  ['demo', 'demo', 'member'],
  ['demo', 'demo', 'reader'],
]

async function bootstrap(
  { db, write }: IdentityFile,
  passwords: Passwords,
  { adminPassword, demoPassword }: { readonly adminPassword: string; readonly demoPassword: string },
): Promise<boolean> {
  const done = db.prepare("SELECT 1 FROM settings WHERE name = 'bootstrapped'")
  if (done.get()) return false
  const users = { admin: await passwords.hash(adminPassword), demo: await passwords.hash(demoPassword) }
  return write(() => {
    if (done.get()) return false
    const user = db.prepare(
      "INSERT OR IGNORE INTO users (id, name, enabled, password, extra) VALUES (?, ?, 1, ?, '{}')",
    )
    const project = db.prepare('INSERT OR IGNORE INTO projects (id, name, enabled, extra) VALUES (?, ?, 1, ?)')
    const assignment = db.prepare(`
      INSERT OR IGNORE INTO assignments (user_id, project_id, role)
      SELECT id, (SELECT id FROM projects WHERE name = ?), ? FROM users WHERE name = ?`)
    for (const [name, hash] of Object.entries(users)) user.run(newId(), name, hash)
    for (const [name, description] of Object.entries(FIRST_PROJECTS)) {
      project.run(newId(), name, JSON.stringify({ description }))
    }
    for (const [name, project, role] of FIRST_ASSIGNMENTS) assignment.run(project, role, name)
    db.exec("INSERT INTO settings (name, value) VALUES ('bootstrapped', 1)")
    return true
  })
}
