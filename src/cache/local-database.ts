import { rm } from 'node:fs/promises'
import { DatabaseSync, type SQLInputValue } from 'node:sqlite'
import { setTimeout as delay } from 'node:timers/promises'
import { ServiceError } from '../domain/errors.ts'

type Row = Readonly<Record<string, SQLInputValue>>

/** Statements inside one transaction. */
export interface Statements {
  all<T extends Row>(sql: string, ...values: readonly SQLInputValue[]): readonly T[]
  /** Returns the number of changed rows. */
  run(sql: string, ...values: readonly SQLInputValue[]): number
}

/** A small SQLite file that the processes of one node share. */
export interface LocalDatabase {
  /**
   * Runs `work` while nobody else, here or in another process, does: all or nothing, and a process that dies has done
   * nothing. Throws `unavailable` when the others take too long.
   */
  transact<T>(work: (statements: Statements) => T | Promise<T>): Promise<T>
  close(): Promise<void>
}

const PATIENCE_MS = 5000
const BUSY = 5
/** CORRUPT, NOTADB */
const BROKEN = [11, 26] as readonly (number | undefined)[]

/** Primary result code of an error of SQLite. */
const codeOf = (error: unknown): number | undefined =>
  error instanceof Error && 'errcode' in error ? Number(error.errcode) & 0xff : undefined

/**
 * Nothing in such a file is worth waiting for the disk: what it says of the cache can be found out again, so a file
 * that a power failure has spoilt is begun anew. A process that is killed spoils nothing.
 */
export async function openLocalDatabase(path: string, schema: string): Promise<LocalDatabase> {
  const db = open(path) ?? (await begunAnew(path))
  let last: Promise<unknown> = Promise.resolve()
  const statements: Statements = {
    all: <T extends Row>(sql: string, ...values: readonly SQLInputValue[]) =>
      db.prepare(sql).all(...values) as unknown as readonly T[],
    run: (sql, ...values) => Number(db.prepare(sql).run(...values).changes),
  }
  const transaction = async <T>(work: (statements: Statements) => T | Promise<T>): Promise<T> => {
    await patiently(() => db.exec('BEGIN IMMEDIATE'))
    try {
      const result = await work(statements)
      await patiently(() => db.exec('COMMIT'))
      return result
    } catch (error) {
      if (db.isTransaction) db.exec('ROLLBACK')
      throw error
    }
  }
  const transact: LocalDatabase['transact'] = (work) => {
    const turn = last.then(() => transaction(work))
    last = turn.catch(() => undefined)
    return turn
  }
  await transact(({ run }) => run(schema))
  return {
    transact,
    close: async () => {
      await last
      if (db.isOpen) db.close()
    },
  }
}

/** Undefined when the file is spoilt. */
function open(path: string): DatabaseSync | undefined {
  let db: DatabaseSync | undefined
  try {
    db = new DatabaseSync(path, { timeout: 2 })
    db.exec('PRAGMA synchronous = OFF')
    const [check] = db.prepare('PRAGMA quick_check(1)').all()
    if (check?.['quick_check'] === 'ok') return db
  } catch (error) {
    if (codeOf(error) === BUSY && db !== undefined) return db // in use, so in order
    if (!BROKEN.includes(codeOf(error))) {
      throw new ServiceError('invalid', `The file ${path} of the image cache cannot be opened`, { cause: error })
    }
  }
  db?.close()
  return undefined
}

async function begunAnew(path: string): Promise<DatabaseSync> {
  for (const suffix of ['', '-journal', '-wal', '-shm']) await rm(path + suffix, { force: true })
  const db = open(path)
  if (db === undefined) throw new ServiceError('invalid', `The file ${path} of the image cache cannot be used`)
  return db
}

/** Repeats what finds the file busy; waits where others can run meanwhile. */
async function patiently(step: () => void): Promise<void> {
  const deadline = Date.now() + PATIENCE_MS
  for (let pauseMs = 1; ; pauseMs = Math.min(pauseMs * 2, 50)) {
    try {
      return step()
    } catch (cause) {
      if (codeOf(cause) !== BUSY) throw cause
      if (Date.now() > deadline) throw new ServiceError('unavailable', 'The image cache is busy', { cause })
    }
    await delay(pauseMs * (0.5 + Math.random()))
  }
}
