import type { CachedImage } from '../domain/cached-image.ts'
import type { AttemptId, ImageId, LocationUri, ProjectId, StoreId, TaskId, WorkerId } from '../domain/ids.ts'
import type { Image, ImageStatus, Location, Member, MemberStatus } from '../domain/image.ts'
import type {
  Association,
  AssociationAttributes,
  DefinitionDrafts,
  Definitions,
  MetadefObject,
  MetadefProperty,
  MetadefTag,
  Namespace,
  NamespaceAttributes,
  NamespaceQuery,
  ObjectAttributes,
  PropertyAttributes,
  ResourceType,
  TagAttributes,
  TagQuery,
} from '../domain/metadef.ts'
import type { ImageQuery, TaskQuery } from '../domain/query.ts'
import type { Task, TaskStatus } from '../domain/task.ts'

/** Who is looking. Rows outside the scope do not exist as far as the caller can tell. */
export type Scope =
  | { readonly admin: true; readonly project: ProjectId | undefined }
  | { readonly admin: false; readonly project: ProjectId | undefined }

/** A new image is `queued`, has no data, and is created now. */
export type NewImage = Omit<
  Image,
  | 'createdAt'
  | 'updatedAt'
  | 'status'
  | 'size'
  | 'virtualSize'
  | 'checksum'
  | 'osHashAlgo'
  | 'osHashValue'
  | 'locations'
>

/**
 * Conditions of a change: what the images of the owner may come to by it. Else `too-large`, whose detail is
 * `{ exceeded, usage, limit }`: which of these, what they would have come to, and what they may.
 */
export interface OwnerLimits {
  /** Bytes in all active locations, every copy counted. */
  readonly storageLimit?: number
  /** Bytes of images that are staged, imported, or copied to further stores. */
  readonly stagingLimit?: number
  /** Images. */
  readonly countLimit?: number
  /** Images whose data is on its way. */
  readonly uploadingLimit?: number
}

/** What the images of an owner come to, counted as for `OwnerLimits`. */
export interface OwnerUsage {
  readonly storage: number
  readonly staging: number
  readonly count: number
  readonly uploading: number
}

/** What to change; what is absent stays. `updatedAt` always becomes now. */
export interface ImageChange
  extends OwnerLimits,
    Partial<Omit<Image, 'id' | 'createdAt' | 'updatedAt' | 'tags' | 'properties' | 'locations'>> {
  /** The whole new set. */
  readonly tags?: readonly string[]
  readonly setProperties?: ReadonlyMap<string, string | null>
  readonly unsetProperties?: readonly string[]
  readonly addLocations?: readonly Location[]
  /**
   * The whole new list, each URI once; throws `conflict` unless the present ones are exactly `from`. Which are not in
   * `to` become `pending_delete` until `dropLocation`; of those that are, the metadata may have changed.
   */
  readonly locations?: { readonly from: readonly Location[]; readonly to: readonly Location[] }
}

/**
 * Every method is one atomic unit whose arguments and result are plain data, so that a registry can serve it over
 * RPC. Unknown or invisible images are `not-found`; deleted ones too.
 */
export interface ImageRepository {
  /** Throws `conflict` if the id is taken, even by a deleted image. */
  insert(image: NewImage, limits?: OwnerLimits): Promise<Image>
  get(id: ImageId, scope: Scope): Promise<Image>
  list(query: ImageQuery, scope: Scope): Promise<readonly Image[]>
  /** Compare-and-set: throws `conflict` unless the current status is one of `from`. */
  update(id: ImageId, change: ImageChange, from: readonly ImageStatus[]): Promise<Image>
  /** Bytes in all active locations of the images of `owner`, `except` aside. */
  usage(owner: ProjectId | null, except: ImageId): Promise<number>
  ownerUsage(owner: ProjectId | null): Promise<OwnerUsage>
  /** Adds a tag; adding one that is there is no error. Throws `too-large` if there would be more than `limit` (-1: no limit). */
  addTag(id: ImageId, tag: string, limit: number): Promise<void>
  /** Throws `not-found` also when the tag is not there. */
  removeTag(id: ImageId, tag: string): Promise<void>
  /**
   * Marks the image and everything of it as deleted; its locations become `pending_delete` until `dropLocation`.
   * Where its data is to be kept for a while, an image with locations becomes `pending_delete` itself, and is left to
   * glance-scrubber. Returns the image as it was. Throws `conflict` unless the current status is one of `from`.
   */
  remove(id: ImageId, from: readonly ImageStatus[], keep?: boolean): Promise<Image>
  /** The data at `uri` is gone: a location row that was `pending_delete` becomes `deleted`. */
  dropLocation(id: ImageId, uri: LocationUri): Promise<void>
  /** The data at `uri` stays after all: a location row that was `pending_delete` is `active` again. */
  restoreLocation(id: ImageId, uri: LocationUri): Promise<void>
  /** Locations whose image let them go while their data may still exist, at most `limit`. */
  undropped(limit: number): Promise<readonly { readonly id: ImageId; readonly location: Location }[]>

  /**
   * Begins to write data: status `queued` becomes `to` (`saving` unless it says otherwise), the size is unknown, and
   * the claim is remembered so that a crash can be undone. Throws `conflict` unless the image is `queued`.
   */
  claim(claim: Claim, limits?: OwnerLimits, to?: 'saving' | 'uploading'): Promise<Image>
  /**
   * Ends a claim, in success or failure: applies `change` and forgets the claim.
   * Throws `conflict` if the claim is not held any more (its worker was taken for dead), `not-found` if the image
   * was deleted meanwhile; the claim is forgotten in that case too. It stays when a limit in `change` refuses.
   */
  settle(claim: Claim, change: ImageChange & { readonly status: ImageStatus }): Promise<Image>
}

export interface MemberRepository {
  /** Status `pending`. Throws `conflict` if it is one already, `too-large` if there would be more than `limit` (-1: no limit). */
  add(image: ImageId, member: ProjectId, limit: number): Promise<Member>
  /** In order of creation. */
  list(image: ImageId): Promise<readonly Member[]>
  /** Throws `not-found`. */
  get(image: ImageId, member: ProjectId): Promise<Member>
  setStatus(image: ImageId, member: ProjectId, status: MemberStatus): Promise<Member>
  remove(image: ImageId, member: ProjectId): Promise<void>
}

/** A running process that may hold claims. */
export interface Worker {
  readonly id: WorkerId
  /** Names the machine since its boot (and the process namespace), so that a neighbour can look whether `pid` lives. */
  readonly node: string
  readonly pid: number
  /** Start time of the process in clock ticks since boot (/proc/PID/stat, field 22): a pid may be used again. */
  readonly startedAt: number
}

/** Image data being written: which worker, into which store. */
export interface Claim {
  readonly attempt: AttemptId
  readonly imageId: ImageId
  readonly worker: WorkerId
  readonly store: StoreId
}

/** Leases by the clock of the database, so that nodes need not agree on the time. */
export interface WorkerRepository {
  /** Announces `worker`, or renews its lease, for `ttlMs` from now. */
  renew(worker: Worker, ttlMs: number): Promise<void>
  /** `renewal` is another number after each renewal. */
  list(): Promise<readonly { readonly worker: Worker; readonly expired: boolean; readonly renewal: number }[]>
  claims(worker: WorkerId): Promise<readonly Claim[]>
  /** Gives a dead worker's claim to `by`, once; false if it was settled or taken meanwhile. */
  takeOver(claim: Claim, by: WorkerId): Promise<boolean>
  /** Forgets a worker without claims and jobs; one that still has some stays. */
  remove(worker: WorkerId): Promise<void>
}

/** A new task is `pending`, has neither result nor message, and is created now. */
export type NewTask = Pick<Task, 'id' | 'type' | 'owner' | 'input' | 'imageId' | 'requestId' | 'userId'>

/** What to change; what is absent stays. `updatedAt` always becomes now. */
export type TaskChange = Partial<Pick<Task, 'status' | 'message' | 'result'>> & {
  /** The task expires so many milliseconds from now. */
  readonly keepMs?: number
}

/** Times by the clock of the database. A task that has expired does not exist. */
export interface TaskRepository {
  /** `change` is made to it at once. */
  insert(task: NewTask, change?: TaskChange): Promise<Task>
  /** Throws `not-found`, for one of another project too. */
  get(id: TaskId, scope: Scope): Promise<Task>
  /** Throws `not-found` for an unknown marker. */
  list(query: TaskQuery, scope: Scope): Promise<readonly Task[]>
  /** Oldest first. */
  ofImage(image: ImageId, scope: Scope): Promise<readonly Task[]>
  /** Compare-and-set: throws `conflict` unless the current status is one of `from`. */
  update(id: TaskId, change: TaskChange, from: readonly TaskStatus[]): Promise<Task>
  /** Marks those that have expired as deleted, so that they can be purged. */
  forgetExpired(): Promise<void>
}

/**
 * Work on an image that outlives its request. Its task holds the image: the property `os_glance_import_task` names it,
 * as upstream's lock does, and so a second job on the image is refused.
 */
export interface Job {
  readonly task: TaskId
  readonly imageId: ImageId
  readonly worker: WorkerId
  /** From 1; one more each time that another worker takes it over. */
  readonly tries: number
  /** JSON that the job needs and its task does not show. */
  readonly context: unknown
}

/** A step of a job: of the image, of the task, or of both, in one unit. */
export interface JobChange {
  readonly image?: ImageChange
  /** The statuses of the image that `image` is for; any by default. */
  readonly from?: readonly ImageStatus[]
  readonly task?: TaskChange
}

export interface JobStart {
  readonly task: NewTask
  /** The image to work on, or one that comes to be with the job. */
  readonly image: ImageId | NewImage
  readonly worker: WorkerId
  readonly context: unknown
  readonly change: JobChange
  /** What becomes of a stale task that held the image. */
  readonly preempted: TaskChange & { readonly status: 'failure' }
}

export interface JobRepository {
  /**
   * In one unit: inserts the task, gives it the image, and makes `change`. Throws `not-found` without the image,
   * `conflict` if another task holds it, unless that one is stale: unknown, or without a job of ours and not updated
   * for 60 minutes (120 while pending). A stale one becomes `preempted` if it has not ended, and its stores leave the
   * image's two lists of stores (glance/api/v2/images.py, `_enforce_import_lock`).
   */
  begin(start: JobStart): Promise<{
    readonly job: Job
    readonly image: Image
    readonly task: Task
    readonly preempted: Task | undefined
  }>
  /**
   * Saves a step. Throws `conflict` when the job is not this worker's any more, its task does not hold the image any
   * more, or the image's status is not one of `from`; `not-found` when the image was deleted.
   */
  advance(job: Job, change: JobChange): Promise<{ readonly image: Image; readonly task: Task }>
  /**
   * Ends a job: saves the last step, gives the image back and forgets the job. An image that was deleted meanwhile is
   * undefined, and no error; a task that was to succeed has failed then. Throws `conflict` when the job is not this
   * worker's any more, or the image's status is not one of `from`, and nothing has changed; also when the task does not
   * hold the image any more: then the job is forgotten, the image stays as it is, and a task that has not ended fails.
   */
  finish(job: Job, change: JobChange): Promise<{ readonly image: Image | undefined; readonly task: Task }>
  list(worker: WorkerId): Promise<readonly Job[]>
  /** Gives a dead worker's job to `by`, once, with one more try; undefined if it ended or was taken meanwhile. */
  takeOver(job: Job, by: WorkerId): Promise<Job | undefined>
}

/** Definitions of one kind, by name within a namespace. An unknown namespace is `not-found`. */
export interface DefinitionRepository<Item, Attributes> {
  /** Ordered by name. */
  list(namespace: string): Promise<readonly Item[]>
  /** Throws `not-found`. */
  get(namespace: string, name: string): Promise<Item>
  /** Throws `conflict` if the name is taken. */
  insert(namespace: string, attributes: Attributes): Promise<Item>
  /** Forgets what was said before. Throws `not-found`, and `conflict` if the new name is another's. */
  replace(namespace: string, name: string, attributes: Attributes): Promise<Item>
  /** Throws `not-found`. */
  remove(namespace: string, name: string): Promise<void>
  clear(namespace: string): Promise<void>
}

export interface TagRepository extends DefinitionRepository<MetadefTag, TagAttributes> {
  page(namespace: string, query: TagQuery): Promise<readonly MetadefTag[]>
  /** Adds all of them, or takes them for all there are. Throws `conflict`, and nothing has changed. */
  insertAll(namespace: string, tags: readonly TagAttributes[], mode: 'append' | 'replace'): Promise<void>
}

/** What becomes of a namespace that is there already when one is loaded from a file. */
export type LoadMode = 'skip' | 'merge' | 'prefer-new' | 'overwrite'

export interface MetadefRepository {
  /** All or nothing. Throws `conflict` if a name is taken. */
  insert(namespace: NamespaceAttributes, definitions: DefinitionDrafts): Promise<Namespace>
  /** Throws `not-found` also for a private one of another project. */
  get(name: string, scope: Scope): Promise<Namespace>
  list(
    query: NamespaceQuery,
    scope: Scope,
  ): Promise<readonly { readonly namespace: Namespace; readonly associations: readonly Association[] }[]>
  /** What is in it stays. Throws `conflict` if the new name is another's. */
  replace(name: string, attributes: NamespaceAttributes): Promise<Namespace>
  /** With all that is in it; resource types stay. */
  remove(name: string): Promise<void>
  /** All that is in a namespace; tags newest first, associations in the order of creation. */
  contents(namespace: string): Promise<Definitions>
  /** Resource types that come to be are protected. Returns whether anything was written. */
  load(namespace: NamespaceAttributes, definitions: DefinitionDrafts, mode: LoadMode): Promise<boolean>
  /** Removes all metadata definitions and resource types. */
  clear(): Promise<void>
  readonly objects: DefinitionRepository<MetadefObject, ObjectAttributes>
  readonly properties: DefinitionRepository<MetadefProperty, PropertyAttributes>
  readonly tags: TagRepository
  /** By resource type; a type that is not known comes to be. */
  readonly associations: {
    list(namespace: string): Promise<readonly Association[]>
    /** Throws `conflict` if there is one with this type. */
    insert(namespace: string, association: AssociationAttributes): Promise<Association>
    /** Throws `not-found`. */
    remove(namespace: string, resourceType: string): Promise<void>
  }
  /** In the order of creation. */
  resourceTypes(): Promise<readonly ResourceType[]>
}

/** Which node has which images in its cache. Nodes go by the address under which the others reach them. */
export interface CachedRepository {
  /** One that is known already is no error. */
  addNode(node: string): Promise<void>
  /** What a node has, or of that the one image, in the order of recording. An unknown node has nothing. */
  list(node: string, image?: ImageId): Promise<readonly CachedImage[]>
  /** Records an image, in place of what is recorded of it. Throws `not-found` for an unknown node. */
  put(node: string, cached: CachedImage): Promise<void>
  /** Counts a hit, or records `first` where nothing is. Throws `not-found` for an unknown node. */
  touch(node: string, first: CachedImage): Promise<void>
  /** Nothing to remove is no error. */
  remove(node: string, image: ImageId): Promise<void>
  /** The nodes that have it. */
  nodes(image: ImageId): Promise<readonly string[]>
}

/** Images that are deleted, but whose data waits: those in `pending_delete`. */
export interface DelayedDeleteRepository {
  /** Those that were deleted before that, oldest first. */
  over(before: Date, limit: number): Promise<readonly ImageId[]>
  /** The image is `deleted`, and what is returned `undropped`. Nothing is returned where somebody else was first. */
  end(id: ImageId): Promise<readonly Location[]>
  /** The image is active again, with all that went with it. Throws `not-found`, and `conflict` unless it waits. */
  restore(id: ImageId): Promise<Image>
}

/** What a purge takes out, in the order that foreign keys ask for. */
export const PURGED_TABLES = [
  'task_info',
  'image_properties',
  'image_tags',
  'image_locations',
  'image_members',
  'tasks',
] as const

/** Images are purged apart: once the row of one is gone, its id can be given to another (OSSN-0075). */
export type PurgedTable = (typeof PURGED_TABLES)[number] | 'images'

/**
 * Rows of a table that were marked as deleted before a time, or at that very time (`YYYY-MM-DD HH:MM:SS.ffffff`, UTC).
 * Info of a task goes by the time of its task.
 */
export interface PurgeScope {
  readonly table: PurgedTable
  readonly deleted: { readonly before: string } | { readonly at: string }
}

export type RowKey = string | number

export interface PurgeSurvey {
  /** That would go: `most` of them, if there are more. */
  readonly rows: number
  /** That stay although they are old enough, because the service still needs them. */
  readonly kept: number
  /** When the last of the `most` oldest ones was deleted; undefined where all would go. */
  readonly last: string | undefined
  /** Whether one that would go is still referred to by a row of another table. */
  readonly blocked: boolean
}

/**
 * What is needed stays, however old: locations whose data may still exist, whatever belongs to an image in
 * `pending_delete`, and images and tasks that a worker has a claim or a job on. So does what others refer to.
 */
export interface MaintenanceRepository {
  survey(scope: PurgeScope, most?: number): Promise<PurgeSurvey>
  /**
   * Looks at `limit` rows, in the order of their keys, from behind `after` on. Returns those of `scope`, and where to go
   * on; nowhere at the end.
   */
  purgeable(
    scope: PurgeScope,
    limit: number,
    after?: RowKey,
  ): Promise<{ readonly keys: readonly RowKey[]; readonly next: RowKey | undefined }>
  /** Takes out those of the rows that are still of `scope`, and returns how many. */
  purge(scope: PurgeScope, keys: readonly RowKey[]): Promise<number>
}

export interface Database {
  readonly images: ImageRepository
  readonly members: MemberRepository
  readonly workers: WorkerRepository
  readonly metadefs: MetadefRepository
  readonly cached: CachedRepository
  readonly tasks: TaskRepository
  readonly jobs: JobRepository
  readonly maintenance: MaintenanceRepository
  readonly delayed: DelayedDeleteRepository
  close(): Promise<void>
}
