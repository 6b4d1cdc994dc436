import { ServiceError } from '../../domain/errors.ts'
import { PARTS } from './migrations.ts'
import { createOwnTables, createParts, hasOwnTables, lackingParts, readUsableParts } from './parts.ts'
import { changeSchema } from './schema-change.ts'
import type { Connection, Session } from './session.ts'
import { bringTo, readLevel } from './upstream-migrations.ts'
import { headsOf, type Level, NEWEST_LEVEL, SERVABLE } from './upstream-revisions.ts'

export interface PreparedSchema {
  /** The parts of ours that queries can rely on. */
  readonly parts: ReadonlySet<string>
  /** What upstream's schema is behind, in a line; undefined when it is not. */
  readonly lag: string | undefined
  /** What an operator should know, in a line each. */
  readonly warnings: readonly string[]
}

const at = (level: Level): string => `The database schema is at ${headsOf(level).join(', ')}`
const NEWEST_HEAD = headsOf(NEWEST_LEVEL).join()

/** All of ours, where there are no rows yet. */
const createOurs = async (db: Connection, session: Session): Promise<void> => {
  await createOwnTables(db, session)
  await createParts(db, session)
}

/** Makes everything in an empty database, at once where the database can. */
const createAll = (db: Connection): Promise<void> =>
  changeSchema(db, async (session) => {
    await bringTo(db, session, NEWEST_LEVEL)
    await createOurs(db, session)
  })

/** Throws `unavailable`, with what to do, where the service could not work. */
const requireServable = (level: Level): void => {
  if (level.expand < SERVABLE)
    throw new ServiceError('unavailable', `${at(level)}, and has to be at ${NEWEST_HEAD}: run "glance-manage db sync"`)
}

const survey = async (db: Connection, session: Session) => {
  const level = await readLevel(db, session)
  if (level === undefined) return undefined
  requireServable(level)
  return { level, tables: await hasOwnTables(db, session), parts: await readUsableParts(db, session) }
}

/**
 * Makes a database ready to be served from: an empty one gets everything, one of upstream's the small tables without
 * which the service is not safe, and nothing else. Upstream can go on with it. Any number of processes may do this at
 * once. Throws `unavailable` for a schema that is too old, or newer than the service.
 */
export const prepareSchema = async (db: Connection): Promise<PreparedSchema> => {
  let found = await db.read((session) => survey(db, session))
  if (found === undefined) await createAll(db)
  else if (!found.tables) await changeSchema(db, (session) => createOwnTables(db, session))
  // Somebody may be making them at this moment, and MySQL shows what is half done.
  const unfinished = db.facts.name === 'mysql' && found && lackingParts('mysql', found.parts).length > 0
  if (unfinished) await changeSchema(db, async () => undefined)
  if (unfinished || !found?.tables) found = await db.read((session) => survey(db, session))
  if (found === undefined) throw new ServiceError('unavailable', 'The database was emptied meanwhile')
  return described(db, found)
}

/** The same of a database that is only to be read: nothing is made. Throws `unavailable` for an empty one, too. */
export const readSchema = async (db: Connection): Promise<PreparedSchema> => {
  const found = await db.read((session) => survey(db, session))
  if (found === undefined) throw new ServiceError('unavailable', 'The database is empty')
  return described(db, found)
}

const described = (db: Connection, found: NonNullable<Awaited<ReturnType<typeof survey>>>): PreparedSchema => {
  const lacking = lackingParts(db.facts.name, found.parts).length
  const lag =
    found.level.expand === NEWEST_LEVEL.expand
      ? undefined
      : `${at(found.level)}: without ${NEWEST_HEAD} it has no tables for centralized_db, the image cache's driver; "glance-manage db sync" adds them`
  const slow =
    lacking === 0
      ? []
      : [
          `${lacking} of ${PARTS[db.facts.name].length} indexes and triggers of Glimpse are not in the database: lists are slower than need be until "glimpse db optimize" adds them`,
        ]
  return { parts: found.parts, lag, warnings: [...(lag === undefined ? [] : [lag]), ...slow] }
}

/** The small tables alone, where a service can be served by the schema at all. */
export const ensureOwnTables = async (db: Connection): Promise<void> => {
  if (!(await db.read((session) => survey(db, session)))?.tables)
    await changeSchema(db, (session) => createOwnTables(db, session))
}

/** Our part of a database that a command has just made; upstream's schema stays where it is. */
export const completeNew = (db: Connection): Promise<void> => changeSchema(db, (session) => createOurs(db, session))
