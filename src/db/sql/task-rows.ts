import { sql } from 'kysely'
import { ServiceError } from '../../domain/errors.ts'
import type { ImageId, ProjectId, TaskId, UserId } from '../../domain/ids.ts'
import type { Task, TaskStatus, TaskType } from '../../domain/task.ts'
import type { NewTask, TaskChange } from '../database.ts'
import { fromText } from '../time.ts'
import type { Connection, Session } from './session.ts'
import { type Fragment, slot } from './statement.ts'

export interface TaskRow {
  readonly id: string
  readonly type: string
  readonly status: string
  readonly owner: string
  readonly expires_at: string | null
  readonly created_at: string
  readonly updated_at: string | null
  readonly image_id: string | null
  readonly request_id: string | null
  readonly user_id: string | null
  readonly input: string | null
  readonly result: string | null
  readonly message: string | null
}

const parse = (json: string | null): unknown => {
  try {
    return JSON.parse(json ?? 'null')
  } catch {
    return null
  }
}
/** ASCII only, as upstream writes it: the column of a MySQL of old may hold no character beyond the BMP. */
const print = (value: unknown): string | null =>
  value === null || value === undefined
    ? null
    : JSON.stringify(value).replace(/[^\0-\x7f]/g, (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, '0')}`)

export const toTask = (row: TaskRow): Task => ({
  id: row.id as TaskId,
  type: row.type as TaskType,
  status: row.status as TaskStatus,
  owner: row.owner === '' ? null : (row.owner as ProjectId),
  input: parse(row.input),
  result: parse(row.result),
  message: row.message ?? '',
  expiresAt: row.expires_at === null ? null : fromText(row.expires_at),
  createdAt: fromText(row.created_at),
  updatedAt: fromText(row.updated_at ?? row.created_at),
  imageId: row.image_id as ImageId | null,
  requestId: row.request_id,
  userId: row.user_id as UserId | null,
})

/** Tasks with all their columns. */
export const selectTasks = (where: Fragment) => sql<TaskRow>`
  select id, type, status, owner, expires_at, created_at, updated_at, image_id, request_id, user_id,
    input, result, message
  from tasks left join task_info on task_info.task_id = tasks.id where not deleted and ${where}`

export const noTask = (id: TaskId) => new ServiceError('not-found', `Could not find task ${id}`)

/** Reads and writes tasks inside a transaction; one that has expired is still there until it is forgotten. */
export const taskRows = ({ facts, kysely, fixed: prepare }: Connection) => {
  const id = slot<string>('id')
  const now = facts.timeIn(0)
  const expires = facts.timeIn(slot('keepMs'))
  const statements = {
    one: prepare(selectTasks(sql`id = ${id}`)),
    insert: prepare(
      kysely.insertInto('tasks').values({
        id,
        type: slot('type'),
        status: 'pending',
        owner: slot('owner'),
        image_id: slot('imageId'),
        request_id: slot('requestId'),
        user_id: slot('userId'),
        expires_at: null,
        created_at: now,
        updated_at: now,
        deleted: false,
        deleted_at: null,
      }),
    ),
    insertInfo: prepare(
      kysely.insertInto('task_info').values({ task_id: id, input: slot('input'), result: null, message: '' }),
    ),
    update: prepare(
      sql`update tasks set status = coalesce(${slot('status')}, status), updated_at = ${now},
        expires_at = coalesce(${expires}, expires_at)
        where id = ${id} and not deleted and status in (${facts.elements(slot('from'))})`,
    ),
    updateInfo: prepare(
      sql`update task_info set message = coalesce(${slot('message')}, message),
        result = coalesce(${slot('result')}, result) where task_id = ${id}`,
    ),
  }

  const find = async (session: Session, id: TaskId): Promise<Task | undefined> => {
    const row = await session.first(statements.one, { id })
    return row && toTask(row)
  }
  const load = async (session: Session, id: TaskId): Promise<Task> => {
    const task = await find(session, id)
    if (!task) throw noTask(id)
    return task
  }
  /** Whether the status was one of `from`. */
  const change = async (session: Session, id: TaskId, change: TaskChange, from: readonly TaskStatus[]) => {
    const { status = null, message = null, result, keepMs = null } = change
    const values = { id, status, keepMs, from: JSON.stringify(from) }
    if ((await session.change(statements.update, values)) === 0) return false
    if (message !== null || result !== undefined)
      await session.change(statements.updateInfo, { id, message, result: print(result) })
    return true
  }
  const insert = async (session: Session, { input, owner, ...task }: NewTask): Promise<void> => {
    await session.change(statements.insert, { ...task, owner: owner ?? '' })
    await session.change(statements.insertInfo, { id: task.id, input: print(input) })
  }
  return { find, load, change, insert }
}
