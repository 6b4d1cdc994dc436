import { sql } from 'kysely'
import { ServiceError } from '../../domain/errors.ts'
import type { Connection, Session } from './session.ts'

/** Any number, the same in all processes: those who would change the schema wait for each other. */
const LOCK = 4_711_292
const LOCK_SECONDS = 120

/** What is there already is no error: it can be done again. */
const UNMARKED = { marked: false } as const

/** One transaction, where the database has such of its schema; nobody else of ours changes the schema meanwhile. */
export const changeSchema = <T>(db: Connection, work: (session: Session) => Promise<T>): Promise<T> =>
  db.write(async (session) => {
    if (db.facts.name === 'postgresql') {
      // What it sees is to be of the time after the wait.
      await runText(db, session, 'set transaction isolation level read committed')
      await session.all(db.prepare(sql`select pg_advisory_xact_lock(${sql.lit(LOCK)})`))
    }
    if (db.facts.name !== 'mysql') return work(session)
    const lock = sql<{ got: unknown }>`select get_lock(${String(LOCK)}, ${sql.lit(LOCK_SECONDS)}) as got`
    if (!(await session.first(db.prepare(lock)))?.got)
      throw new ServiceError('conflict', 'Another process has been changing the schema of this database for a while')
    try {
      return await work(session)
    } finally {
      await session.all(db.prepare(sql`select release_lock(${String(LOCK)})`))
    }
  }, UNMARKED)

/** MySQL commits each change of the schema by itself: after a crash, what is there already is no error. */
const ALREADY = ['ER_TABLE_EXISTS_ERROR', 'ER_DUP_KEYNAME', 'ER_DUP_FIELDNAME', 'ER_TRG_ALREADY_EXISTS', 'ER_DUP_ENTRY']

/** What the driver calls an error; '' for errors that are no database's. */
export const errorCode = (error: unknown): string =>
  error instanceof Error && 'code' in error ? String(error.code) : ''

export const runText = async (db: Connection, session: Session, text: string): Promise<void> => {
  await session.change(db.prepare(sql.raw(text)))
}

/** One after the other; what an earlier try has made already is left as it is. */
export const runTexts = async (db: Connection, session: Session, texts: readonly string[]): Promise<void> => {
  for (const text of texts)
    await runText(db, session, text).catch((error: unknown) => {
      if (db.facts.name !== 'mysql' || !ALREADY.includes(errorCode(error))) throw error
    })
}
