import type { Identity } from '../auth/identity.ts'
import type { Database, Scope, Worker } from '../db/database.ts'
import type { AttemptId } from '../domain/ids.ts'
import type { Log } from '../log.ts'
import type { Notifier } from '../notify/notifier.ts'
import type { PolicyEnforcer } from '../policy/enforcer.ts'
import type { PropertyProtection } from '../policy/property-protection.ts'
import type { Stores } from '../store/stores.ts'

/** Numbers an operator may set; -1 means no limit. */
export interface Limits {
  readonly properties: number
  readonly tags: number
  readonly members: number
  readonly locations: number
  /** Bytes of image data. */
  readonly imageSize: number
  /** Bytes in all images of one owner. */
  readonly storage: number
  readonly pageDefault: number
  readonly pageMax: number
}

/** What an upload must be, and how it is digested. */
export interface DataRules {
  /** os_hash_algo of new data. */
  readonly hashAlgorithm: string
  /** Whether the data must be of the format that the image states. */
  readonly requireFormatMatch: boolean
  readonly vmdkAllowedTypes: readonly string[]
  readonly gptNonfatal: readonly string[]
}

/** The collaborators of every use case, built once by app.ts. */
export interface Core {
  readonly limits: Limits
  readonly dataRules: DataRules
  readonly db: Database
  readonly stores: Stores
  readonly policy: PolicyEnforcer
  readonly protection: PropertyProtection
  readonly notifier: Notifier
  readonly worker: Worker
  /** How long the owner can look up a task that has ended, in milliseconds. */
  readonly taskKeepMs: number
  /** Uploads that this process is busy with; a claim of ours that is not among them was left behind. */
  readonly attempts: Set<AttemptId>
  readonly log: Log
}

export interface RequestContext {
  readonly requestId: string
  readonly identity: Identity
  readonly isAdmin: boolean
  readonly scope: Scope
  readonly signal: AbortSignal
}
