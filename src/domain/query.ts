import type { ImageId, TaskId } from './ids.ts'
import type { MemberStatus, Visibility } from './image.ts'

export type Comparison = 'gt' | 'gte' | 'eq' | 'neq' | 'lt' | 'lte'
export const SORT_KEYS = [
  'name',
  'status',
  'container_format',
  'disk_format',
  'size',
  'id',
  'created_at',
  'updated_at',
] as const
export type SortKey = (typeof SORT_KEYS)[number]

/** Columns that a list can be narrowed by with equality, and those which also take `in:`. */
export type ExactColumn =
  | 'name'
  | 'status'
  | 'id'
  | 'container_format'
  | 'disk_format'
  | 'owner'
  | 'checksum'
  | 'os_hash_algo'
  | 'os_hash_value'
  | 'size'
  | 'virtual_size'
  | 'min_ram'
  | 'min_disk'
  | 'protected'
export type RangeColumn = 'size' | 'virtual_size' | 'min_ram' | 'min_disk'

export type ImageFilter =
  /** The column has one of the values (strings, numbers or booleans as the column demands). */
  | { readonly by: 'column'; readonly column: ExactColumn; readonly values: readonly (string | number | boolean)[] }
  /** Bounds are inclusive. */
  | { readonly by: 'range'; readonly column: RangeColumn; readonly min?: number; readonly max?: number }
  | {
      readonly by: 'time'
      readonly column: 'created_at' | 'updated_at'
      readonly comparison: Comparison
      readonly value: Date
    }
  | { readonly by: 'tag'; readonly tag: string }
  | { readonly by: 'property'; readonly name: string; readonly value: string }

export interface ImageQuery {
  /** All must hold. */
  readonly filters: readonly ImageFilter[]
  /**
   * undefined: own, public and accepted shared images (for an admin: all but foreign community ones);
   * `all`: community images too; else only that visibility.
   */
  readonly visibility: Visibility | 'all' | undefined
  /** Which memberships make a shared image part of the list. */
  readonly memberStatus: MemberStatus | 'all'
  readonly hidden: boolean
  /** `created_at` and `id` are appended as tie breakers. NULL sorts as '' or 0. */
  readonly sort: readonly { readonly key: SortKey; readonly descending: boolean }[]
  /** The page begins behind this image. Throws `not-found` if there is none, `forbidden` if it is invisible. */
  readonly marker: ImageId | undefined
  readonly limit: number
}

export const TASK_COLUMNS = ['id', 'type', 'status', 'owner', 'image_id', 'request_id', 'user_id'] as const
export type TaskColumn = (typeof TASK_COLUMNS)[number]

export const TASK_SORT_KEYS = [...TASK_COLUMNS, 'created_at', 'updated_at', 'expires_at'] as const
export type TaskSortKey = (typeof TASK_SORT_KEYS)[number]

export interface TaskQuery {
  /** All must hold. */
  readonly filters: ReadonlyMap<TaskColumn, string>
  /** `created_at` and `id` are appended as tie breakers, in the same direction. NULL sorts as ''. */
  readonly sort: { readonly key: TaskSortKey; readonly descending: boolean }
  /** The page begins behind this task. */
  readonly marker: TaskId | undefined
  readonly limit: number
}
