import { sql } from 'kysely'
import { ServiceError } from '../../domain/errors.ts'
import { columnNames, tableNames } from './catalog.ts'
import { changeSchema, runText, runTexts } from './schema-change.ts'
import type { Connection, Session } from './session.ts'
import { headsOf, type Level, levelOf, RELEASES } from './upstream-revisions.ts'
import { expandSchema, trainSchema, VERSION_TABLE } from './upstream-schema.ts'

/** The rows of `alembic_version`; none in a database that is not under its control. */
export const readHeads = async (db: Connection, session: Session): Promise<readonly string[]> => {
  if (!(await tableNames(db, session)).has('alembic_version')) return []
  const rows = await session.all(db.prepare(sql<{ version_num: string }>`select version_num from alembic_version`))
  return rows.map(({ version_num }) => version_num)
}

/** How far upstream's schema is; undefined in an empty database. Throws `unavailable` as `levelOf` does. */
export const readLevel = async (db: Connection, session: Session): Promise<Level | undefined> => {
  const heads = await readHeads(db, session)
  if (heads.length > 0) return levelOf(heads)
  const tables = await tableNames(db, session)
  if (!tables.has('images')) return undefined
  // Ours to be finished: made without transactions, and the revision is written last.
  const cutOff = db.facts.name === 'mysql' && tables.has('alembic_version')
  if (cutOff && !(await columnNames(db, session, 'images')).has('is_public')) return undefined
  throw new ServiceError(
    'unavailable',
    'The database has tables of Glance but no revision, as before Ocata: upgrade it with Glance 19.0 or later first',
  )
}

const saveHeads = async (db: Connection, session: Session, level: Level): Promise<void> => {
  const before = await readHeads(db, session)
  const after = headsOf(level)
  const gone = before.filter((head) => !after.includes(head))
  const come = after.filter((head) => !before.includes(head))
  for (let n = 0; n < Math.max(gone.length, come.length); n++) {
    const [old, next] = [gone[n], come[n]]
    const change =
      old === undefined
        ? sql`insert into alembic_version (version_num) values (${next})`
        : next === undefined
          ? sql`delete from alembic_version where version_num = ${old}`
          : sql`update alembic_version set version_num = ${next} where version_num = ${old}`
    await session.change(db.prepare(change))
  }
}

/**
 * Brings upstream's schema at least to a level; an empty database begins as Train left it. Throws `unavailable` for
 * a database that is older than that. Resolves with the revisions then, and whether the database was empty.
 */
export const bringTo = async (
  db: Connection,
  session: Session,
  to: Level,
): Promise<{ readonly heads: readonly string[]; readonly created: boolean }> => {
  const { name } = db.facts
  const found = await readLevel(db, session)
  if (found === undefined) {
    if (!(await tableNames(db, session)).has('alembic_version')) await runText(db, session, VERSION_TABLE)
    await runTexts(db, session, trainSchema(name))
  }
  let { expand, contract } = found ?? { expand: 0, contract: 0 }
  while (expand < to.expand) {
    expand++
    await runTexts(db, session, expandSchema(RELEASES[expand] ?? '', name))
    // A new database has no revision until it is whole: whoever looks meanwhile has to see that.
    if (found) await saveHeads(db, session, { expand, contract })
  }
  // Since Train no release has taken anything away: to contract is to say so.
  contract = Math.max(contract, to.contract)
  await saveHeads(db, session, { expand, contract })
  return { heads: await readHeads(db, session), created: found === undefined }
}

/** The same in a transaction of its own. */
export const upgradeSchema = (db: Connection, to: Level): ReturnType<typeof bringTo> =>
  changeSchema(db, (session) => bringTo(db, session, to))

/** Until Train, the store of a location was its `backend`. */
const OLD_KEY = '"backend":'
const NEW_KEY = '"store":'
/** So many rows at a time, that nobody waits for their locks. */
const BATCH = 1_000

const oldLocations = (db: Connection, after: number, limit: number) => {
  const found = {
    sqlite: sql`instr(meta_data, ${OLD_KEY})`,
    postgresql: sql`position(${OLD_KEY} in meta_data)`,
    // As bytes: its texts do not tell capitals, and `replace` does.
    mysql: sql`instr(cast(meta_data as binary), ${OLD_KEY})`,
  }[db.facts.name]
  return db.prepare(
    sql<{ id: number }>`select id from image_locations where id > ${sql.lit(after)} and ${found} > 0
      order by id limit ${sql.lit(limit)}`,
  )
}

/** Whether rows wait to be migrated. Only the way to Train has such a step. */
export const hasPendingRows = async (db: Connection): Promise<boolean> =>
  db.read(async (session) => {
    const level = await readLevel(db, session)
    if (level === undefined || level.contract >= 0) return false
    return (await session.first(oldLocations(db, 0, 1))) !== undefined
  })

/** Migrates what waits for it, in batches; returns the number of rows. */
export const migrateRows = async (db: Connection): Promise<number> => {
  let rows = 0
  if (!(await hasPendingRows(db))) return rows
  for (let after = 0; ; ) {
    const ids = await db.write(async (session) => {
      const batch = (await session.all(oldLocations(db, after, BATCH))).map(({ id }) => id)
      if (batch.length > 0)
        await session.change(
          db.prepare(
            sql`update image_locations set meta_data = replace(meta_data, ${OLD_KEY}, ${NEW_KEY})
              where id in (${sql.join(batch.map((id) => sql.lit(id)))})`,
          ),
        )
      return batch
    })
    rows += ids.length
    const last = ids.at(-1)
    if (last === undefined) return rows
    after = last
  }
}

/** Says that the database is at a revision, whatever its tables are. */
export const stampRevision = (db: Connection, revision: string): Promise<void> =>
  changeSchema(db, async (session) => {
    if (!(await tableNames(db, session)).has('alembic_version')) await runText(db, session, VERSION_TABLE)
    await session.change(db.prepare(sql`delete from alembic_version`))
    await session.change(db.prepare(sql`insert into alembic_version (version_num) values (${revision})`))
  })
