import { sql } from 'kysely'
import { LRUCache } from 'lru-cache'
import { ServiceError } from '../../domain/errors.ts'
import type { TaskColumn, TaskQuery } from '../../domain/query.ts'
import { TASK_TRANSITIONS, type TaskStatus } from '../../domain/task.ts'
import type { TaskRepository } from '../database.ts'
import type { Connection } from './session.ts'
import { type Fragment, type Statement, slot } from './statement.ts'
import { noTask, selectTasks, type TaskRow, taskRows, toTask } from './task-rows.ts'

/** Clients choose the filters. */
const CACHED_SHAPES = 100

const EVERY_STATUS = Object.keys(TASK_TRANSITIONS) as TaskStatus[]

/** The columns that a list is ordered by; both at the end are never NULL, and follow the index. */
const orderColumns = (key: TaskQuery['sort']['key']): readonly Fragment[] => {
  const ties = (['created_at', 'id'] as const).map((name) => sql.ref(name))
  if (key === 'created_at') return ties
  if (key === 'id') return ties.slice(1)
  // Before every time that there is, and after nothing that a text may be.
  const none = key === 'updated_at' || key === 'expires_at' ? sql`'1000-01-01 00:00:00'` : sql`''`
  return [sql`coalesce(${sql.ref(key)}, ${none})`, ...ties]
}

export const taskRepository = (connection: Connection): TaskRepository => {
  const { facts, kysely, prepare, read, write } = connection
  const rows = taskRows(connection)
  // What nobody owns, everybody sees: upstream's rule.
  const owned = sql`owner in ('', ${slot('project')})`
  const kept = sql`(expires_at is null or expires_at > ${facts.timeIn(0)})`
  const pages = new LRUCache<string, Statement<TaskRow>>({ max: CACHED_SHAPES })
  const pageOf = (columns: readonly TaskColumn[], { sort: { key, descending }, marker }: TaskQuery, admin: boolean) => {
    const shape = [columns, key, descending, marker !== undefined, admin].join('|')
    const known = pages.get(shape)
    if (known) return known
    const order = orderColumns(key)
    const values = order.map((_, n) => sql`${slot(`m${n}`)}`)
    const beyond = descending ? sql`<` : sql`>`
    const conditions = [
      kept,
      ...(admin ? [] : [owned]),
      ...columns.map((column) => sql`${sql.ref(column)} = ${slot(column)}`),
      ...(marker === undefined ? [] : [sql`(${sql.join(order)}) ${beyond} (${sql.join(values)})`]),
    ]
    const directed = order.map((column) => sql`${column} ${descending ? sql`desc` : sql`asc`}`)
    const built = prepare(
      sql<TaskRow>`${selectTasks(sql.join(conditions, sql` and `))}
        order by ${sql.join(directed)} limit ${slot('limit')}`,
    )
    pages.set(shape, built)
    return built
  }
  const markers = new Map<string, Statement<Record<`m${number}`, string>>>()
  const markerOf = (key: TaskQuery['sort']['key']) => {
    const known = markers.get(key)
    if (known) return known
    const columns = orderColumns(key).map((column, n) => sql`${column} as ${sql.ref(`m${n}`)}`)
    const built = prepare(
      sql<Record<`m${number}`, string>>`select ${sql.join(columns)} from tasks
        where id = ${slot('id')} and not deleted and (${slot('admin')} or ${owned})`,
    )
    markers.set(key, built)
    return built
  }

  const statements = {
    get: prepare(selectTasks(sql`id = ${slot('id')} and ${kept} and (${slot('admin')} or ${owned})`)),
    ofImage: prepare(
      sql<TaskRow>`${selectTasks(sql`image_id = ${slot('image')} and ${kept} and (${slot('admin')} or ${owned})`)}
        order by created_at, id`,
    ),
    forget: prepare(
      kysely
        .updateTable('tasks')
        .set({ deleted: true, deleted_at: facts.timeIn(0) })
        .where('deleted', '=', false)
        .where('expires_at', '<=', facts.timeIn(0)),
    ),
    expired: prepare(
      kysely
        .selectFrom('tasks')
        .select('id')
        .where('deleted', '=', false)
        .where('expires_at', '<=', facts.timeIn(0))
        .limit(1),
    ),
  }

  return {
    insert: (task, change) =>
      write(async (session) => {
        await rows.insert(session, task)
        if (change) await rows.change(session, task.id, change, EVERY_STATUS)
        return rows.load(session, task.id)
      }),

    get: (id, { admin, project }) =>
      read(async (session) => {
        const row = await session.first(statements.get, { id, admin, project: project ?? '' })
        if (!row) throw noTask(id)
        return toTask(row)
      }),

    list: (query, { admin, project }) =>
      read(async (session) => {
        const { filters, marker, limit, sort } = query
        const base = { admin, project: project ?? '' }
        const behind = marker && (await session.first(markerOf(sort.key), { ...base, id: marker }))
        if (marker !== undefined && !behind) throw noTask(marker)
        const values = { ...base, ...Object.fromEntries(filters), ...(behind || {}), limit }
        const columns = [...filters.keys()].toSorted()
        return (await session.all(pageOf(columns, query, admin), values)).map(toTask)
      }),

    ofImage: (image, { admin, project }) =>
      read(async (session) =>
        (await session.all(statements.ofImage, { image, admin, project: project ?? '' })).map(toTask),
      ),

    update: (id, change, from) =>
      write(async (session) => {
        const changed = await rows.change(session, id, change, from)
        const task = await rows.load(session, id)
        if (!changed)
          throw new ServiceError('conflict', `Task ${id} is ${task.status}`, { detail: { wanted: from.join(', ') } })
        return task
      }),

    forgetExpired: async () => {
      // Looking first, so that a sweep that finds nothing waits for nobody.
      if (!(await read((session) => session.first(statements.expired)))) return
      await write((session) => session.change(statements.forget))
    },
  }
}
