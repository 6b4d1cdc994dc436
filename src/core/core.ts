import type { Identity } from '../auth/identity.ts'
import type { ProjectLimits } from '../auth/limits.ts'
import type { ImageCache } from '../cache/cache.ts'
import type { Database, Scope, Worker } from '../db/database.ts'
import type { AttemptId } from '../domain/ids.ts'
import type { ImportMethod, ImportPlugin, Staging } from '../imports/import.ts'
import type { Relay } from '../imports/relay.ts'
import type { Runner } from '../imports/runner.ts'
import type { UriFilter } from '../imports/uri-filter.ts'
import type { FormatRules } from '../io/inspection.ts'
import type { KeyManager } from '../keys/key-manager.ts'
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
export interface DataRules extends FormatRules {
  /** os_hash_algo of new data. */
  readonly hashAlgorithm: string
}

/** How locations that clients add are taken. */
export interface LocationRules {
  /** Whether the data is read, and its digests kept (`do_secure_hash`). */
  readonly secureHash: boolean
  /** How often that is tried again. */
  readonly retries: number
}

/** What imports are made of. */
export interface Imports {
  /** Those that are known, for imports that have begun. */
  readonly methods: readonly ImportMethod[]
  /** Names of those that clients may use, in the order of the configuration. */
  readonly offered: readonly string[]
  readonly plugins: readonly ImportPlugin[]
  readonly staging: Staging
  /** Works on imports, and on whatever else outlives its request. */
  readonly runner: Runner
  /** Under which other nodes reach this one; undefined where all share the staging area. */
  readonly selfUrl: string | undefined
  readonly relay: Relay
}

/** The collaborators of every use case, built once by app.ts. */
export interface Core {
  readonly limits: Limits
  /** Undefined unless limits are kept elsewhere; `limits.storage` then counts for nothing. */
  readonly projectLimits?: ProjectLimits | undefined
  readonly dataRules: DataRules
  readonly db: Database
  readonly stores: Stores
  readonly imports: Imports
  readonly locationRules: LocationRules
  /** Whether the data of deleted images is left to glance-scrubber. */
  readonly delayedDelete: boolean
  /** Where imports may fetch data from. */
  readonly uriFilter: Pick<UriFilter, 'admits'>
  readonly policy: PolicyEnforcer
  readonly protection: PropertyProtection
  readonly notifier: Notifier
  readonly keys: KeyManager
  /** Undefined without `image_cache_dir`. */
  readonly cache?: ImageCache | undefined
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
  /** Whether another node sends the request, because it believes that this one has what is needed. */
  readonly relayed?: boolean
}
