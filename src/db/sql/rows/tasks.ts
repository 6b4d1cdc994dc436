import { randomUUID } from 'node:crypto'
import { sql } from 'kysely'
import { type Arguments, type Row, raised } from '../../rows.ts'
import {
  type Commands,
  type Desk,
  dictionary,
  flag,
  isDictionary,
  optionalText,
  reads,
  STAMPED,
  text,
  without,
  writes,
} from './command.ts'
import { limitOf } from './image-list.ts'
import { pageOf, type RowOf, TABLES } from './table.ts'

const INFO = ['input', 'result', 'message']

export const taskCommands: Commands = {
  task_get: reads(['task_id'], ['force_show_deleted'], async (desk, args) =>
    withInfo(desk, await findTask(desk, text(args, 'task_id'), flag(args, 'force_show_deleted'))),
  ),
  // It forgets what has expired first, as it always did.
  task_get_all: writes(
    [],
    ['filters', 'marker', 'limit', 'sort_key', 'sort_dir', 'admin_as_user'],
    async (desk, args) => {
      const { admin, owner } = desk.context
      const filters = isDictionary(args['filters']) ? args['filters'] : {}
      await forgetExpired(desk)
      const everybodys = admin || flag(args, 'admin_as_user') || owner === null
      const conditions = Object.entries(filters).flatMap(([name, value]) =>
        value !== null && Object.hasOwn(TABLES.tasks, name)
          ? [sql`${sql.ref(`tasks.${name}`)} = ${name === 'deleted' ? Boolean(value) : String(value)}`]
          : [],
      )
      const key = optionalText(args, 'sort_key') ?? 'created_at'
      if (!Object.hasOwn(TABLES.tasks, key)) throw raised('InvalidSortKey', 'Sort key supplied was not valid.')
      const descending = (optionalText(args, 'sort_dir') ?? 'desc') !== 'asc'
      const columns = [...new Set([...(key === 'id' ? [] : [key]), 'created_at', 'id'])]
      const marker = optionalText(args, 'marker')
      const where = pageOf(desk, 'tasks', [...(everybodys ? [] : [sql`tasks.owner = ${owner}`]), ...conditions], {
        keys: columns.map((column) => ({ column, descending })),
        marker: marker === null ? undefined : await findTask(desk, marker, Boolean(filters['deleted'])),
        limit: limitOf(args),
      })
      return desk.select(desk.session, 'tasks', where)
    },
  ),
  task_create: writes(['values'], [], async (desk, args) => {
    const values = dictionary(args, 'values')
    const now = desk.now()
    const id = values['id'] ?? randomUUID()
    const columns = { created_at: now, updated_at: now, deleted: false, ...without(values, INFO), id }
    await desk.insert(desk.session, 'tasks', columns)
    await desk.insert(desk.session, 'task_info', { ...infoOf(values), task_id: id })
    return withInfo(desk, await findTask(desk, String(id), false))
  }),
  task_update: writes(['task_id', 'values'], [], async (desk, args) => {
    const values = dictionary(args, 'values')
    const { id } = await findTask(desk, text(args, 'task_id'), false)
    const change = { ...without(values, [...STAMPED, ...INFO, 'id']), deleted: false, updated_at: desk.now() }
    await desk.update(desk.session, 'tasks', change, sql`id = ${id}`)
    const info = infoOf(values)
    if (Object.keys(info).length > 0) await desk.update(desk.session, 'task_info', info, sql`task_id = ${id}`)
    return withInfo(desk, await findTask(desk, text(args, 'task_id'), false))
  }),
  task_delete: writes(['task_id'], [], async (desk, args) => {
    const { id } = await findTask(desk, text(args, 'task_id'), false)
    const now = desk.now()
    await desk.update(desk.session, 'tasks', { deleted: true, deleted_at: now, updated_at: now }, sql`id = ${id}`)
    const [deleted] = await desk.select(desk.session, 'tasks', sql`where id = ${id}`)
    return deleted && withInfo(desk, deleted)
  }),
}

const infoOf = (values: Arguments): Arguments =>
  Object.fromEntries(INFO.flatMap((name) => (Object.hasOwn(values, name) ? [[name, values[name]]] : [])))

/** Throws `TaskNotFound`, and `Forbidden` for one of another project. */
async function findTask(desk: Desk, id: string, showDeleted: boolean): Promise<RowOf<'tasks'>> {
  const { admin, owner } = desk.context
  const living = showDeleted || admin ? sql`` : sql`and deleted = ${false}`
  const [task] = await desk.select(desk.session, 'tasks', sql`where id = ${id} ${living}`)
  if (task === undefined) throw raised('TaskNotFound', `Task with the given id ${id} was not found`)
  if (!admin && task.owner !== null && task.owner !== owner)
    throw raised('Forbidden', `Forbidding request, task ${id} is not visible`)
  return task
}

async function withInfo(desk: Desk, task: RowOf<'tasks'>): Promise<Row> {
  const [info] = await desk.select(desk.session, 'task_info', sql`where task_id = ${task.id}`)
  if (info === undefined) return task
  const { input, result, message } = info
  return { ...task, input, result, message }
}

async function forgetExpired(desk: Desk): Promise<void> {
  const now = desk.now()
  await desk.update(
    desk.session,
    'tasks',
    { deleted: true, deleted_at: now },
    sql`owner = ${desk.context.owner} and deleted = ${false} and expires_at <= ${now}`,
  )
}
