import { sql } from 'kysely'
import { ServiceError } from '../../domain/errors.ts'
import { type PresentPart, presentParts, tableNames } from './catalog.ts'
import type { Facts } from './facts.ts'
import { MEMBER_IMAGES, ownTables, PARTS, type Part, TABLES_VERSION } from './migrations.ts'
import { errorCode, runTexts } from './schema-change.ts'
import type { Connection, Session } from './session.ts'

/** MySQL's word for: who may not, and the server keeps a binary log without `log_bin_trust_function_creators`. */
export const TRIGGERS_REFUSED = 'ER_BINLOG_CREATE_ROUTINE_NEED_SUPER'

/** `online` lets others read and write meanwhile, and works outside transactions only. */
export const partText = (database: Facts['name'], { kind, name, table, body }: Part, online: boolean): string => {
  switch (kind) {
    case 'index':
      return `CREATE INDEX ${online && database === 'postgresql' ? 'CONCURRENTLY ' : ''}${name} ON ${table} ${body}${
        online && database === 'mysql' ? ' ALGORITHM=INPLACE LOCK=NONE' : ''
      }`
    case 'column':
      return `ALTER TABLE ${table} ADD COLUMN ${name} ${body}${online ? ', ALGORITHM=INSTANT' : ''}`
    case 'function':
      return `CREATE OR REPLACE FUNCTION ${name}${body}`
    default:
      return `CREATE ${kind.toUpperCase()} ${name} ${body}`
  }
}

const isMemberPart = ({ kind, name }: Part): boolean =>
  name === MEMBER_IMAGES || kind === 'trigger' || kind === 'function'

/** The table of members' images, and what keeps it right. */
export const memberParts = (database: Facts['name']): readonly Part[] => PARTS[database].filter(isMemberPart)
/** Each of the others is of use by itself. */
export const singleParts = (database: Facts['name']): readonly Part[] =>
  PARTS[database].filter((part) => !isMemberPart(part))

/** What `glimpse_schema` remembers. */
const remembered = async (db: Connection, session: Session): Promise<ReadonlyMap<string, number>> => {
  const rows = await session.all(db.prepare(sql<{ part?: string; version: number }>`select * from glimpse_schema`))
  if (rows.some(({ part }) => part === undefined))
    throw new ServiceError(
      'unavailable',
      'The database was opened by this service before it had releases: run "glimpse db revert" once, which keeps all images',
    )
  return new Map(rows.map(({ part = '', version }) => [part, version]))
}

/** Whether the service's own tables are there. Throws `unavailable` for those of a later version of it. */
export const hasOwnTables = async (db: Connection, session: Session): Promise<boolean> => {
  if (!(await tableNames(db, session)).has('glimpse_schema')) return false
  const version = (await remembered(db, session)).get('tables') ?? 0
  if (version > TABLES_VERSION)
    throw new ServiceError('unavailable', 'The database was opened by a later version of this service', {
      detail: { found: version, known: TABLES_VERSION },
    })
  return version === TABLES_VERSION
}

/** Makes the tables without which the service is not safe. */
export const createOwnTables = async (db: Connection, session: Session): Promise<void> => {
  if (await hasOwnTables(db, session)) return
  await runTexts(db, session, ownTables(db.facts.name))
  await session.change(db.prepare(sql`delete from glimpse_schema where part = 'tables'`))
  await session.change(db.prepare(sql`insert into glimpse_schema (part, version) values ('tables', ${TABLES_VERSION})`))
}

/** Remembers whether the table of members' images has its rows. */
export const setMembersFilled = async (db: Connection, session: Session, filled: boolean): Promise<void> => {
  await session.change(db.prepare(sql`delete from glimpse_schema where part = ${MEMBER_IMAGES}`))
  if (filled)
    await session.change(db.prepare(sql`insert into glimpse_schema (part, version) values (${MEMBER_IMAGES}, 1)`))
}

/** The names of what queries can rely on, of what the catalog has; members' images only with all that keeps them right. */
export const usableParts = async (
  db: Connection,
  session: Session,
  present: readonly PresentPart[],
): Promise<ReadonlySet<string>> => {
  const usable = new Set(present.filter(({ whole }) => whole).map(({ name }) => name))
  const kept =
    memberParts(db.facts.name).every(({ name }) => usable.has(name)) &&
    (await remembered(db, session)).has(MEMBER_IMAGES)
  if (!kept) usable.delete(MEMBER_IMAGES)
  return usable
}

export const readUsableParts = async (db: Connection, session: Session): Promise<ReadonlySet<string>> =>
  usableParts(db, session, await presentParts(db, session))

/** Those of our parts that are not in force. */
export const lackingParts = (database: Facts['name'], usable: ReadonlySet<string>): readonly Part[] =>
  PARTS[database].filter(({ name }) => !usable.has(name))

/** Makes all parts in a database that is new, where they cost nothing; what is there already stays. */
export const createParts = async (db: Connection, session: Session): Promise<void> => {
  const database = db.facts.name
  const lacking = lackingParts(database, await readUsableParts(db, session))
  try {
    for (const part of lacking) await runTexts(db, session, [partText(database, part, false)])
    if (lacking.some(isMemberPart)) await setMembersFilled(db, session, true)
  } catch (error) {
    // The service works without; who starts it is told.
    if (errorCode(error) !== TRIGGERS_REFUSED) throw error
  }
}

export const dropText = (database: Facts['name'], { kind, name, table }: PresentPart): string => {
  switch (kind) {
    case 'index':
      if (database === 'mysql') return `ALTER TABLE ${table} DROP INDEX ${name}, ALGORITHM=INPLACE, LOCK=NONE`
      return `DROP INDEX ${database === 'postgresql' ? 'CONCURRENTLY ' : ''}IF EXISTS ${name}`
    case 'column':
      return `ALTER TABLE ${table} DROP COLUMN ${name}`
    case 'trigger':
      return `DROP TRIGGER IF EXISTS ${name}${database === 'postgresql' ? ` ON ${table}` : ''}`
    case 'function':
      return `DROP FUNCTION IF EXISTS ${name}()`
    case 'table':
      return `DROP TABLE IF EXISTS ${name}`
  }
}
