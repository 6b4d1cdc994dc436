import { createHash, randomUUID } from 'node:crypto'
import type { StatementSync } from 'node:sqlite'
import { ServiceError } from '../../domain/errors.ts'
import type { ProjectId, UserId } from '../../domain/ids.ts'
import type { IdentityFile } from './file.ts'
import type { Passwords } from './passwords.ts'

/** The only domain there is. */
export const DOMAIN = { id: 'default', name: 'Default' } as const

export const ROLES = ['admin', 'manager', 'member', 'reader', 'service'] as const
export type RoleName = (typeof ROLES)[number]

const IMPLIED: Partial<Record<RoleName, RoleName>> = { admin: 'manager', manager: 'member', member: 'reader' }

const withImplied = (role: RoleName | undefined): readonly RoleName[] =>
  role === undefined ? [] : [role, ...withImplied(IMPLIED[role])]

/** The roles and all that they imply, in the order of ROLES. */
export function expandRoles(roles: readonly RoleName[]): readonly RoleName[] {
  const all = new Set(roles.flatMap(withImplied))
  return ROLES.filter((role) => all.has(role))
}

/** An id for what has no row in the file: the same on every machine and after every start. */
export const fixedId = (name: string): string => createHash('sha256').update(name).digest('hex').slice(0, 32)

/** What clients may store with a user or project: e-mail address, description, tags … */
export type Extra = Readonly<Record<string, unknown>>

export interface User {
  readonly id: UserId
  readonly name: string
  readonly enabled: boolean
  readonly extra: Extra
}

export interface Project {
  readonly id: ProjectId
  readonly name: string
  readonly enabled: boolean
  readonly extra: Extra
}

export interface Assignment {
  readonly userId: UserId
  /** `undefined`: on the system. */
  readonly projectId: ProjectId | undefined
  readonly role: RoleName
}

export interface Changes {
  readonly name?: string
  readonly enabled?: boolean
  /** Merged into what is there; null takes a key away. */
  readonly extra?: Extra
}

interface Repository<Id extends string, Row, Change extends Changes> {
  /** Sorted by name. */
  list(): readonly Row[]
  /** Throws `not-found`. */
  get(id: string): Row
  /** By id or name. Throws `not-found`. */
  find(idOrName: string): Row
  /** Throws `conflict` when the name is taken, `invalid` when it cannot be one. */
  create(fields: Change & { readonly name: string }): Promise<Row>
  /** Throws `not-found`, `conflict`, `invalid`. */
  update(id: Id, changes: Change): Promise<Row>
  /** Takes the role assignments along. Throws `not-found`. */
  delete(id: Id): void
}

export interface UserChanges extends Changes {
  /** Null: cannot log in with a password. A new one ends all tokens that the user has. */
  readonly password?: string | null
}

export type Users = Repository<UserId, User, UserChanges>
export type Projects = Repository<ProjectId, Project, Changes>

export interface Assignments {
  list(filter?: {
    readonly userId?: string
    readonly projectId?: string
    readonly system?: boolean
    readonly role?: string
  }): readonly Assignment[]
  /** Nothing happens when it is there already. Throws `not-found` for an unknown user or project. */
  grant(assignment: Assignment): void
  /** Throws `not-found` when there is none. */
  revoke(assignment: Assignment): void
}

export interface Registry {
  readonly users: Users
  readonly projects: Projects
  readonly assignments: Assignments
}

interface Row {
  readonly id: string
  readonly name: string
  readonly enabled: number
  readonly extra: string
}

export const newId = <Id extends string>(): Id => randomUUID().replaceAll('-', '') as Id

const notFound = (kind: string, id: string) => new ServiceError('not-found', `Could not find ${kind}: ${id}.`)

const UNIQUE_VIOLATION = 2067

function merge(before: Extra, changes: Extra | undefined): Extra {
  return Object.fromEntries(Object.entries({ ...before, ...changes }).filter(([, value]) => value !== null))
}

export function openRegistry(file: IdentityFile, passwords: Passwords): Registry {
  return { users: openUsers(file, passwords), projects: openProjects(file), assignments: openAssignments(file) }
}

/** What users and projects have in common. The methods that write are to be called inside `file.write`. */
function openTable<Id extends string>({ db }: IdentityFile, kind: 'user' | 'project', longestName: number) {
  const all = db.prepare(`SELECT id, name, enabled, extra FROM ${kind}s ORDER BY name`)
  const byId = db.prepare(`SELECT id, name, enabled, extra FROM ${kind}s WHERE id = ?`)
  const byName = db.prepare(`SELECT id, name, enabled, extra FROM ${kind}s WHERE name = ?`)
  const insert = db.prepare(`INSERT INTO ${kind}s (name, enabled, extra, id) VALUES (?, ?, ?, ?)`)
  const update = db.prepare(`UPDATE ${kind}s SET name = ?, enabled = ?, extra = ? WHERE id = ?`)
  const remove = db.prepare(`DELETE FROM ${kind}s WHERE id = ?`)

  const parse = (row: unknown) => {
    const { id, name, enabled, extra } = row as Row
    return { id: id as Id, name, enabled: enabled === 1, extra: JSON.parse(extra) as Extra }
  }
  const found = (id: string, row: unknown) => {
    if (row === undefined) throw notFound(kind, id)
    return parse(row)
  }
  function put(statement: StatementSync, row: ReturnType<typeof parse>) {
    const { id, name, enabled, extra } = row
    if (name.trim() === '' || name.length > longestName) {
      throw new ServiceError('invalid', `The name of a ${kind} has 1 to ${longestName} characters, not only spaces.`)
    }
    try {
      statement.run(name, Number(enabled), JSON.stringify(extra), id)
    } catch (error) {
      if ((error as { errcode?: number }).errcode !== UNIQUE_VIOLATION) throw error
      throw new ServiceError('conflict', `There already is a ${kind} named '${name}' in domain ${DOMAIN.id}.`)
    }
    return row
  }

  const get = (id: string) => found(id, byId.get(id))
  return {
    read: {
      list: () => all.all().map(parse),
      get,
      find: (idOrName: string) => found(idOrName, byId.get(idOrName) ?? byName.get(idOrName)),
    },
    insert: ({ name, enabled = true, extra }: Changes & { readonly name: string }) =>
      put(insert, { id: newId<Id>(), name, enabled, extra: merge({}, extra) }),
    update: (id: Id, changes: Changes) => {
      const before = get(id)
      const { name = before.name, enabled = before.enabled } = changes
      return put(update, { id, name, enabled, extra: merge(before.extra, changes.extra) })
    },
    delete: (id: Id) => {
      if (remove.run(id).changes === 0) throw notFound(kind, id)
    },
  }
}

function openUsers(file: IdentityFile, passwords: Passwords): Users {
  const { db, write } = file
  const table = openTable<UserId>(file, 'user', 255)
  const setPassword = db.prepare('UPDATE users SET password = ? WHERE id = ?')
  const endTokens = db.prepare('UPDATE users SET epoch = epoch + 1 WHERE id = ?')
  const hashed = async (password: string | null | undefined) =>
    typeof password === 'string' ? await passwords.hash(password) : password
  return {
    ...table.read,
    create: async ({ password, ...fields }) => {
      const hash = await hashed(password)
      return write(() => {
        const user = table.insert(fields)
        setPassword.run(hash ?? null, user.id)
        return user
      })
    },
    update: async (id, { password, ...changes }) => {
      const hash = await hashed(password)
      return write(() => {
        const user = table.update(id, changes)
        if (hash !== undefined) setPassword.run(hash, id)
        // They stay dead when a disabled user is enabled again.
        if (hash !== undefined || !user.enabled) endTokens.run(id)
        return user
      })
    },
    delete: (id) => write(() => table.delete(id)),
  }
}

function openProjects(file: IdentityFile): Projects {
  const { write } = file
  const table = openTable<ProjectId>(file, 'project', 64)
  return {
    ...table.read,
    create: async (fields) => write(() => table.insert(fields)),
    update: async (id, changes) => write(() => table.update(id, changes)),
    delete: (id) => write(() => table.delete(id)),
  }
}

function openAssignments(file: IdentityFile): Assignments {
  const { db, write } = file
  const all = db.prepare(`
    SELECT user_id, project_id, role FROM assignments
    JOIN users ON users.id = user_id LEFT JOIN projects ON projects.id = project_id
    WHERE user_id = coalesce(:user, user_id) AND coalesce(project_id, '') = coalesce(:project, project_id, '')
    AND role = coalesce(:role, role) ORDER BY users.name, projects.name, role`)
  const userExists = db.prepare('SELECT 1 FROM users WHERE id = ?')
  const projectExists = db.prepare('SELECT 1 FROM projects WHERE id = ?')
  const insert = db.prepare('INSERT OR IGNORE INTO assignments (user_id, project_id, role) VALUES (?, ?, ?)')
  const remove = db.prepare(
    "DELETE FROM assignments WHERE user_id = ? AND coalesce(project_id, '') = coalesce(?, '') AND role = ?",
  )
  return {
    list: ({ userId, projectId, system, role } = {}) =>
      all.all({ user: userId ?? null, project: system ? '' : (projectId ?? null), role: role ?? null }).map((row) => ({
        userId: row['user_id'] as UserId,
        projectId: (row['project_id'] ?? undefined) as ProjectId | undefined,
        role: row['role'] as RoleName,
      })),
    grant: ({ userId, projectId, role }) =>
      write(() => {
        if (!userExists.get(userId)) throw notFound('user', userId)
        if (projectId !== undefined && !projectExists.get(projectId)) throw notFound('project', projectId)
        insert.run(userId, projectId ?? null, role)
      }),
    revoke: ({ userId, projectId, role }) => {
      if (write(() => remove.run(userId, projectId ?? null, role).changes) > 0) return
      throw new ServiceError(
        'not-found',
        `Could not find role assignment with role: ${role}, user: ${userId}, project or system: ${projectId ?? 'system'}.`,
      )
    },
  }
}
