import type { Generated } from 'kysely'

/**
 * Row types: what upstream Glance's columns hold, and the tables of our own. Times are text in UTC, as SQLAlchemy
 * writes it: `YYYY-MM-DD HH:MM:SS.ffffff`. Flags are written as booleans and read as 0 or 1.
 */
type Flag = boolean | number

interface Rows {
  created_at: string
  updated_at: string | null
  deleted_at: string | null
  deleted: Flag
}

export interface ImagesTable extends Rows {
  id: string
  name: string | null
  size: number | null
  virtual_size: number | null
  status: string
  visibility: string
  disk_format: string | null
  container_format: string | null
  checksum: string | null
  os_hash_algo: string | null
  os_hash_value: string | null
  owner: string | null
  min_disk: number
  min_ram: number
  protected: Flag
  os_hidden: Flag
}

interface ChildRows extends Rows {
  id: Generated<number>
  image_id: string
}

export interface PropertiesTable extends ChildRows {
  name: string
  value: string | null
}

export interface TagsTable extends ChildRows {
  value: string
}

export interface LocationsTable extends ChildRows {
  value: string
  /** JSON */
  meta_data: string | null
  status: string
}

export interface MembersTable extends ChildRows {
  member: string
  can_share: Flag
  status: string
}

export interface NodesTable {
  node_reference_id: Generated<number>
  node_reference_url: string
}

export interface CachedTable {
  id: Generated<number>
  image_id: string
  last_accessed: string
  last_modified: string
  size: number
  hits: number
  checksum: string | null
  node_reference_id: number
}

export interface TasksTable extends Rows {
  id: string
  type: string
  status: string
  /** Empty where upstream has none, because the column must not be NULL. */
  owner: string
  expires_at: string | null
  image_id: string | null
  request_id: string | null
  user_id: string | null
}

export interface TaskInfoTable {
  task_id: string
  /** JSON */
  input: string | null
  /** JSON */
  result: string | null
  message: string | null
}

export interface WorkersTable {
  id: string
  node: string
  pid: number
  started_at: number
  /** Milliseconds since 1970 by the clock of the database. */
  expires_at: number
}

export interface ClaimsTable {
  attempt: string
  image_id: string
  worker: string
  store: string
}

export interface JobsTable {
  task: string
  image_id: string
  worker: string
  tries: number
  /** JSON */
  context: string
}

/** Changes that were made for a registry's nodes, which may ask for one again when its answer was lost. */
export interface RequestsTable {
  id: string
  /** What came of it, as `once.ts` wraps it. */
  outcome: string
  /** Milliseconds since 1970 by the clock of the database. */
  made_at: number
}

export interface Tables {
  images: ImagesTable
  image_properties: PropertiesTable
  image_tags: TagsTable
  image_locations: LocationsTable
  image_members: MembersTable
  node_reference: NodesTable
  cached_images: CachedTable
  tasks: TasksTable
  task_info: TaskInfoTable
  glimpse_workers: WorkersTable
  glimpse_claims: ClaimsTable
  glimpse_jobs: JobsTable
  glimpse_requests: RequestsTable
}
