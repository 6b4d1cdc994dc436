import { setTimeout as delay } from 'node:timers/promises'
import { sql } from 'kysely'
import { hasKind, ServiceError } from '../../domain/errors.ts'
import { presentParts } from './catalog.ts'
import { MEMBER_IMAGES, type Part } from './migrations.ts'
import {
  dropText,
  lackingParts,
  memberParts,
  partText,
  readUsableParts,
  setMembersFilled,
  singleParts,
  TRIGGERS_REFUSED,
} from './parts.ts'
import { prepareSchema } from './prepare.ts'
import { errorCode, runText } from './schema-change.ts'
import type { Connection, Session } from './session.ts'

export type Report = (line: string) => void

/** Any number but that of `changeSchema`: work that takes long holds nobody off who starts. */
const LOCK = 4_711_293
/** So long others wait behind a change that waits for its turn; then it lets them go first. */
const TURN_S = 2
/** MySQL builds an index first and then waits for its turn: too short, and all was in vain. */
const INDEX_TURN_S = 10
const PAUSE_MS = 1_000
/** SQLite's writers come one at a time, and do not queue. */
const SQLITE_PAUSE_MS = 20
/** Whoever is in the way for longer is for a person to look into. */
const PATIENCE_MS = 20 * 60_000
/** Rows of image_members at a time. */
const BATCH = 2_000
/** Of a server: changes of a table that cannot be made without holding off its writers. */
const NOT_ONLINE = ['ER_ALTER_OPERATION_NOT_SUPPORTED', 'ER_ALTER_OPERATION_NOT_SUPPORTED_REASON']

/** Nobody else does the same meanwhile. Throws `conflict` if somebody does. SQLite has no such lock, and needs none. */
export const aloneAtIt = async <T>(db: Connection, work: () => Promise<T>): Promise<T> => {
  if (db.facts.name === 'sqlite') return work()
  const mysql = db.facts.name === 'mysql'
  const lock = mysql
    ? sql<{ got: unknown }>`select get_lock(${String(LOCK)}, 0) as got`
    : sql<{ got: unknown }>`select pg_try_advisory_lock(${sql.lit(LOCK)}) as got`
  return db.direct(async (session) => {
    if (!(await session.first(db.prepare(lock)))?.got)
      throw new ServiceError('conflict', 'Another process is changing the indexes of this database')
    try {
      return await work()
    } finally {
      const free = mysql ? sql`select release_lock(${String(LOCK)})` : sql`select pg_advisory_unlock(${sql.lit(LOCK)})`
      await session.all(db.prepare(free))
    }
  })
}

const limitWait = async (db: Connection, session: Session, text: string): Promise<void> => {
  if (db.facts.name === 'mysql') {
    await runText(db, session, `set lock_wait_timeout = ${/\bINDEX\b/.test(text) ? INDEX_TURN_S : TURN_S}`)
    // MariaDB locks tables that refer to this one at the end, and who has written one of them may wait for this one.
    await runText(db, session, 'set innodb_lock_wait_timeout = 1')
  }
  // What PostgreSQL does concurrently waits for transactions, and nobody for it.
  if (db.facts.name === 'postgresql')
    await runText(db, session, `set lock_timeout = '${text.includes('CONCURRENTLY') ? 0 : TURN_S}s'`)
}
const unlimitWait = async (db: Connection, session: Session): Promise<void> => {
  if (db.facts.name === 'mysql')
    await runText(db, session, 'set lock_wait_timeout = default, innodb_lock_wait_timeout = default')
  if (db.facts.name === 'postgresql') await runText(db, session, 'reset lock_timeout')
}

/** Runs one statement that changes the schema, without having others wait for long. */
export const runOnline = async (db: Connection, report: Report, text: string): Promise<void> => {
  const deadline = Date.now() + PATIENCE_MS
  for (let told = false; ; told = true) {
    try {
      await db.direct(async (session) => {
        await limitWait(db, session, text)
        try {
          await runText(db, session, text)
        } finally {
          await unlimitWait(db, session)
        }
      })
      return
    } catch (error) {
      const busy = hasKind(error, 'unavailable') && error.transient
      if (!busy || Date.now() > deadline) throw error
      if (!told) report('  waits for transactions of others to end')
    }
    await delay(db.facts.name === 'sqlite' ? SQLITE_PAUSE_MS : PAUSE_MS)
  }
}

const makeOnline = async (db: Connection, report: Report, part: Part): Promise<void> => {
  const database = db.facts.name
  await runOnline(db, report, partText(database, part, true)).catch(async (error: unknown) => {
    if (!NOT_ONLINE.includes(errorCode(error))) throw error
    report('  this server holds writers off meanwhile')
    await runOnline(db, report, partText(database, part, false))
  })
}

/** Copies the living members by id, so that nobody waits for more than a batch. */
const fillMembers = async (db: Connection): Promise<number> => {
  const { name } = db.facts
  const [ignore, end] = {
    sqlite: [sql`or ignore`, sql``],
    postgresql: [sql``, sql`on conflict do nothing`],
    mysql: [sql`ignore`, sql``],
  }[name] as [ReturnType<typeof sql>, ReturnType<typeof sql>]
  let rows = 0
  for (let after = 0; ; ) {
    const last = await db.write(async (session) => {
      // A member that leaves at this moment waits, so that its trigger finds what it has to forget. Those who have
      // looked already and are serializable, as we are, fail and try again. MySQL locks what it copies by itself.
      if (name === 'postgresql') {
        await runText(db, session, `set local lock_timeout = '${TURN_S}s'`)
        await runText(db, session, 'lock table image_members in share mode')
      }
      const batch = sql<{ last: number | null }>`select max(id) as last from
        (select id from image_members where id > ${sql.lit(after)} order by id limit ${sql.lit(BATCH)}) as batch`
      const last = (await session.first(db.prepare(batch)))?.last
      if (last === undefined || last === null) return undefined
      rows += await session.change(
        db.prepare(sql`insert ${ignore} into glimpse_member_images (member, status, created_at, image_id)
          select m.member, m.status, i.created_at, i.id from image_members m join images i on i.id = m.image_id
          where m.id > ${sql.lit(after)} and m.id <= ${sql.lit(last)} and m.deleted = ${false} ${end}`),
      )
      return last
    })
    if (last === undefined) return rows
    after = last
  }
}

/** From the beginning, whatever an earlier try has left: without its triggers, the table's rows mean nothing. */
const makeMembers = async (db: Connection, report: Report): Promise<void> => {
  const present = await db.read((session) => presentParts(db, session))
  await db.write((session) => setMembersFilled(db, session, false))
  for (const part of memberParts(db.facts.name))
    if (part.kind === 'function' || !present.some(({ name }) => name === part.name)) await makeOnline(db, report, part)
    else if (part.kind === 'table') await db.write((session) => runText(db, session, `DELETE FROM ${part.name}`))
  const rows = await fillMembers(db)
  await db.write((session) => setMembersFilled(db, session, true))
  report(`  ${rows} rows`)
}

/**
 * Adds what makes lists quick, piece by piece, while others use the database; what is there already stays, and what
 * was cut off is made anew. Throws `unavailable` for a schema that the service could not use, `conflict` when another
 * process is at it.
 */
export const optimize = async (db: Connection, report: Report): Promise<void> => {
  await prepareSchema(db)
  await aloneAtIt(db, async () => {
    const present = await db.read((session) => presentParts(db, session))
    const usable = await db.read((session) => readUsableParts(db, session))
    const lacking = lackingParts(db.facts.name, usable)
    const single = singleParts(db.facts.name).filter((part) => lacking.includes(part))
    const steps = single.length + (usable.has(MEMBER_IMAGES) ? 0 : 1)
    for (const [n, part] of single.entries()) {
      report(`${n + 1} of ${steps}: ${part.kind} ${part.name} of ${part.table}`)
      const broken = present.find(({ name }) => name === part.name)
      if (broken) await runOnline(db, report, dropText(db.facts.name, broken))
      await makeOnline(db, report, part)
    }
    if (usable.has(MEMBER_IMAGES)) return
    report(`${steps} of ${steps}: table ${MEMBER_IMAGES} and its triggers`)
    await makeMembers(db, report).catch((error: unknown) => {
      if (errorCode(error) !== TRIGGERS_REFUSED) throw error
      throw new ServiceError(
        'unavailable',
        'The server refuses triggers to this user: set log_bin_trust_function_creators = 1 there and repeat this; the rest is done',
        { cause: error },
      )
    })
  })
}
