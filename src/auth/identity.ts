import type { IncomingHttpHeaders } from 'node:http'
import type { ProjectId, UserId } from '../domain/ids.ts'

/** Who is calling, as the identity service says. */
export interface Identity {
  readonly userId: UserId | undefined
  readonly projectId: ProjectId | undefined
  readonly domainId: string | undefined
  readonly userDomainId: string | undefined
  readonly projectDomainId: string | undefined
  /** Lower case. */
  readonly roles: readonly string[]
  /** Roles of the service token that came along, lower case; empty without one. */
  readonly serviceRoles: readonly string[]
  readonly serviceUserId: string | undefined
  readonly serviceProjectId: string | undefined
  /** `all` for a system-scoped token. */
  readonly systemScope: string | undefined
  readonly isAdminProject: boolean
  /** No credentials, but `allow_anonymous_access`: may only read. */
  readonly readOnly: boolean
  /** The flavours without authentication make everybody an admin without a project. */
  readonly isAdmin: boolean | undefined
  /** End of the token's life; undefined when it has none. */
  readonly expiresAt: Date | undefined
  /** The user's own token, for calls to other services on the user's behalf. Never logged. */
  readonly token: string | undefined
}

/** The request, for credentials that are good for some requests only. */
export interface Call {
  readonly method: string
  /** Without the query. */
  readonly path: string
}

/** Who has shown nothing yet. */
export const NOBODY: Identity = {
  userId: undefined,
  projectId: undefined,
  domainId: undefined,
  userDomainId: undefined,
  projectDomainId: undefined,
  roles: [],
  serviceRoles: [],
  serviceUserId: undefined,
  serviceProjectId: undefined,
  systemScope: undefined,
  isAdminProject: true,
  readOnly: false,
  isAdmin: undefined,
  expiresAt: undefined,
  token: undefined,
}

export interface IdentityProvider {
  /** Value of WWW-Authenticate on a 401. */
  readonly challenge: string | undefined
  /**
   * Throws `unauthenticated` on missing or bad credentials, `unavailable` when the identity service does not answer.
   * Credentials that are restricted to certain requests are bad unless `call` is one of them.
   */
  authenticate(headers: IncomingHttpHeaders, signal: AbortSignal, call?: Call): Promise<Identity>
  close(): Promise<void>
}
