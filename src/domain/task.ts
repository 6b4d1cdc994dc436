import type { ImageId, ProjectId, TaskId, UserId } from './ids.ts'

export const TASK_TYPES = ['import', 'api_image_import', 'location_import'] as const
export type TaskType = (typeof TASK_TYPES)[number]

/** Which status may follow which (glance/domain/__init__.py, `Task`). */
export const TASK_TRANSITIONS = {
  pending: ['processing', 'failure'],
  processing: ['success', 'failure'],
  success: [],
  failure: [],
} as const satisfies Record<string, readonly string[]>
export type TaskStatus = keyof typeof TASK_TRANSITIONS

/** A unit of work that outlives its request. */
export interface Task {
  readonly id: TaskId
  readonly type: TaskType
  readonly status: TaskStatus
  readonly owner: ProjectId | null
  /** JSON: what was asked for. */
  readonly input: unknown
  /** JSON: what came of it; null until there is something. */
  readonly result: unknown
  /** Progress while it runs, the reason when it failed: written for the owner. */
  readonly message: string
  /** When a finished task is forgotten; null until it has finished. */
  readonly expiresAt: Date | null
  readonly createdAt: Date
  readonly updatedAt: Date
  readonly imageId: ImageId | null
  /** Of the request that asked for it. */
  readonly requestId: string | null
  readonly userId: UserId | null
}
