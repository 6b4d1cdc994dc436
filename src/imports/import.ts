import type { Identity } from '../auth/identity.ts'
import type { ImageChange } from '../db/database.ts'
import type { ImageId, StoreId, TaskId } from '../domain/ids.ts'
import type { Image, ImageStatus } from '../domain/image.ts'
import type { ByteRange, ByteSource } from '../io/bytes.ts'
import type { Tap } from '../io/pump.ts'
import type { Log } from '../log.ts'

/**
 * Where data waits to be imported: files `<directory>/<image id>`, as upstream keeps them, with suffixes for what is
 * made of them. Several workers and nodes may share the directory.
 */
export interface Staging {
  /** Names it in claims and configurations, as upstream does. */
  readonly id: StoreId
  /**
   * All or nothing, and synced to the disk; what an unfinished write of the image left is removed first. Throws
   * `conflict` if there is staged data, `too-large` when the medium is full, `invalid` when the body has not `size`
   * bytes. Resolves with the size.
   */
  write(image: ImageId, body: ByteSource, options: StagingWrite): Promise<number>
  /** Throws `not-found`. */
  read(image: ImageId, range: ByteRange | undefined, signal: AbortSignal): Promise<ByteSource>
  /** Undefined when nothing is staged here. */
  size(image: ImageId): Promise<number | undefined>
  /** The file of the staged data, or `<image id>.suffix` beside it: for programs that need a name, and for new files. */
  path(image: ImageId, suffix?: string): string
  /** The file with the suffix becomes the staged data, atomically. */
  replace(image: ImageId, suffix: string): Promise<void>
  /** Removes all there is of the image, or what nobody has changed for `ageMs`; nothing to remove is no error. */
  remove(image: ImageId, ageMs?: number): Promise<void>
  /** Of what there is something here, whether or not there are such images. */
  list(): Promise<readonly ImageId[]>
  close(): Promise<void>
}

export interface StagingWrite {
  readonly size?: number
  readonly taps?: readonly Tap[]
  readonly signal: AbortSignal
}

/** What the steps of one import share. */
export interface ImportJob {
  readonly task: TaskId
  readonly imageId: ImageId
  /** From 1; more when another worker began before. */
  readonly tries: number
  /** The image as this job last saved or loaded it. */
  readonly image: () => Image
  /** The stores to fill, in order. */
  readonly stores: readonly StoreId[]
  /** Who asked. The token, in what only the process that took the request knows, may be gone after a takeover. */
  readonly requester: Pick<Identity, 'userId' | 'projectId' | 'roles'> & { readonly token?: string | undefined }
  readonly staging: Staging
  readonly log: Log
  /** Bytes that any import may bring: `image_size_cap`, and what the quotas of the owner leave. */
  readonly sizeLimit: number
  /** Saves a change while the job is still ours: throws `conflict` when it is not, `not-found` when the image is gone. */
  save(change: ImageChange, from?: readonly ImageStatus[]): Promise<Image>
  /** Bytes done so far in this step; seen as `Copied N MiB` in the task. Cheap: may be called for every chunk. */
  progress(bytes: number): void
}

/**
 * One step of an import. `run` may be called again after it was interrupted anywhere, or even after it succeeded, in
 * another process: it looks at what is there first. `undo` takes back what `run` did, however far it got, and is not
 * told of an abort: it must end by itself.
 */
export interface Step {
  readonly name: string
  run(signal: AbortSignal): Promise<void>
  undo?(): Promise<void>
}

/** How data comes to be staged. */
export interface ImportMethod {
  /** As clients write it. */
  readonly name: string
  /** What the image must be when it is asked for. */
  readonly from: ImageStatus
  /** Throws `invalid` when a member of `method` in the request is missing or none; asked before policy is. */
  admit?(method: Readonly<Record<string, unknown>>): void
  /**
   * Looks closer at the members of `method`, when all else is accepted and the client still waits. What it returns
   * replaces them in the task's input, and is given to `steps`, maybe in another process.
   * Throws `invalid` with the words for the client. Takes them as they are when absent.
   */
  accept?(method: Readonly<Record<string, unknown>>): Promise<Readonly<Record<string, unknown>>>
  /** What the owner may read of them in the task's input; all of them when absent. */
  shown?(members: Readonly<Record<string, unknown>>): Readonly<Record<string, unknown>>
  /** Brings the data to the staging area; absent where it is there already, or is not staged at all. */
  steps?(job: ImportJob, input: Readonly<Record<string, unknown>>): readonly Step[]
  /**
   * Where the data is read from instead of the staging area, for methods that copy what an active image has. Neither
   * formats nor plugins have anything to say then.
   */
  open?(image: Image, signal: AbortSignal): Promise<ByteSource>
}

/** What is done to staged data before it goes into stores, in the order of `image_import_plugins`. */
export interface ImportPlugin {
  readonly name: string
  step(job: ImportJob): Step
}
