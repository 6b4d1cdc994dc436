import { sql } from 'kysely'
import type { MaintenanceRepository, PurgedTable, PurgeScope, RowKey } from '../database.ts'
import type { Connection } from './session.ts'
import type { Fragment } from './statement.ts'

const ALWAYS = sql`1 = 1`
const NEVER = sql`1 = 0`

/** Where the rows of a table are marked as deleted, and who needs or mentions them. */
interface Marks {
  /** The table with the marks; its key is `id`. */
  readonly table: string
  /** Which of its columns the conditions are about. */
  readonly columns: readonly string[]
  /** Which of its rows count. */
  readonly where: Fragment
  readonly needed: Fragment
  readonly referredTo: Fragment
}

const exists = (from: string, where: Fragment) => sql`exists (select 1 from ${sql.table(from)} where ${where})`
/** The same, asked row by row: a planner makes no join of it, for which it would read a whole table in each batch. */
const any = (from: string, where: Fragment) => sql`(select count(*) from ${sql.table(from)} where ${where}) > 0`

const CHILDREN = ['image_properties', 'image_tags', 'image_locations', 'image_members'] as const

/** An image whose delayed delete has not come to its end can be restored, with all that was its own. */
const ofPendingImage = (table: string) =>
  any('images', sql`images.id = ${sql.ref(`${table}.image_id`)} and images.status = 'pending_delete'`)

const child = (table: string, needed = ofPendingImage(table), ...columns: readonly string[]): Marks => ({
  table,
  columns: ['image_id', ...columns],
  where: ALWAYS,
  needed,
  referredTo: NEVER,
})

const heldTask = any('glimpse_jobs', sql`glimpse_jobs.task = tasks.id`)
const informedTask = exists('task_info', sql`task_info.task_id = tasks.id`)

const MARKS: Readonly<Record<PurgedTable, Marks>> = {
  task_info: { table: 'tasks', columns: [], where: informedTask, needed: heldTask, referredTo: NEVER },
  image_properties: child('image_properties'),
  image_tags: child('image_tags'),
  image_locations: child(
    'image_locations',
    sql`(image_locations.status = 'pending_delete' or ${ofPendingImage('image_locations')})`,
    'status',
  ),
  image_members: child('image_members'),
  tasks: { table: 'tasks', columns: [], where: ALWAYS, needed: heldTask, referredTo: informedTask },
  images: {
    table: 'images',
    columns: ['status'],
    where: ALWAYS,
    needed: sql`(images.status = 'pending_delete'
      or ${any('image_locations', sql`image_id = images.id and image_locations.status = 'pending_delete'`)}
      or ${any('glimpse_claims', sql`glimpse_claims.image_id = images.id`)}
      or ${any('glimpse_jobs', sql`glimpse_jobs.image_id = images.id`)})`,
    referredTo: sql`(${sql.join(
      CHILDREN.map((table) => exists(table, sql`image_id = images.id`)),
      sql` or `,
    )})`,
  },
}

/** Marked, and old enough: a row that was revived may have kept its time (upstream's do). */
const isOld = ({ table, deleted }: { readonly table: string } & Pick<PurgeScope, 'deleted'>): Fragment => {
  const time = sql`case when ${sql.ref(`${table}.deleted`)} then ${sql.ref(`${table}.deleted_at`)} end`
  return 'at' in deleted ? sql`${time} = ${deleted.at}` : sql`${time} < ${deleted.before}`
}

export const maintenanceRepository = ({ prepare, read, write }: Connection): MaintenanceRepository => {
  const parts = ({ table: purged, deleted }: PurgeScope) => {
    const { table, columns, where, needed, referredTo } = MARKS[purged]
    const old = isOld({ table, deleted })
    const free = sql`${old} and not ${needed}`
    return {
      table: sql.table(table),
      columns: sql.join(['id', 'deleted', 'deleted_at', ...columns].map((name) => sql.ref(name))),
      id: sql.ref(`${table}.id`),
      time: sql.ref(`${table}.deleted_at`),
      needed,
      old: sql`${old} and ${where}`,
      free,
      goes: sql`${free} and ${where}`,
      referredTo,
    }
  }

  return {
    survey: (scope, most) =>
      read(async (session) => {
        const { table, time, needed, old, goes, referredTo } = parts(scope)
        const counts = await session.first(
          prepare(sql<{ total: number; kept: number }>`select count(*) as total, count(nullif(needed, 0)) as kept
            from (select case when ${needed} then 1 else 0 end as needed from ${table} where ${old}) as marked`),
        )
        const { total = 0, kept = 0 } = counts ?? {}
        const rows = total - kept
        const last =
          most === undefined || most === 0 || rows <= most
            ? undefined
            : await session.first(
                prepare(sql<{ time: string }>`select ${time} as time from ${table} where ${goes}
                  order by ${time} limit 1 offset ${most - 1}`),
              )
        const held = sql`case when ${referredTo} then 1 else 0 end`
        // Of those that were deleted at the same moment, the free ones go first.
        const oldest = last === undefined ? sql`` : sql`order by ${time}, ${held} limit ${most}`
        const blocked =
          scope.table === 'images' && most !== 0
            ? await session.first(
                prepare(sql`select 1 as found from (select ${held} as held from ${table} where ${goes} ${oldest}) as selected
                  where held = 1 limit 1`),
              )
            : undefined
        return { rows: Math.min(rows, most ?? rows), kept, last: last?.time, blocked: blocked !== undefined }
      }),

    purgeable: (scope, limit, after) =>
      read(async (session) => {
        const { table, columns, id, goes } = parts(scope)
        const from = after === undefined ? ALWAYS : sql`id > ${after}`
        const rows = await session.all(
          prepare(sql<{ key: RowKey; goes: number }>`
            select ${id} as ${sql.ref('key')}, case when ${goes} then 1 else 0 end as goes
            from (select ${columns} from ${table} where ${from} order by id limit ${limit}) as ${table} order by ${id}`),
        )
        return {
          keys: rows.filter((row) => row.goes === 1).map(({ key }) => key),
          next: rows.length < limit ? undefined : rows.at(-1)?.key,
        }
      }),

    purge: (scope, keys) =>
      write(async (session) => {
        if (keys.length === 0) return 0
        const { table, id, free, referredTo } = parts(scope)
        const list = sql.join(keys)
        const rows =
          scope.table === 'task_info'
            ? sql`task_info.task_id in (${list}) and exists (select 1 from ${table} where ${id} = task_info.task_id and ${free})`
            : sql`${id} in (${list}) and ${free} and not ${referredTo}`
        return session.change(prepare(sql`delete from ${sql.table(scope.table)} where ${rows}`))
      }),
  }
}
