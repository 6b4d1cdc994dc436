import { createHash, randomUUID } from 'node:crypto'
import { sql } from 'kysely'
import type { Mark } from './driver.ts'
import type { Connection } from './session.ts'
import { slot } from './statement.ts'

/**
 * Marks for the transactions of one process. Each has a row of `glimpse_writes` to itself, which it sets to its number
 * first of all and which nobody else writes meanwhile; whoever must know what became of it looks at that row.
 */
export interface Marks {
  take(): Mark
  /** The outcome is known, and the row is free for the next one. What is never given back is never used again. */
  giveBack(mark: Mark): void
}

export const marks = (): Marks => {
  const process = randomUUID()
  const free: Mark[] = []
  let rows = 0
  return {
    // The row that was used last is the most likely to be in memory.
    take: () => free.pop() ?? { writer: `${process}.${rows++}`, n: 0 },
    // Two further: the number between is what `happened` leaves when the answer is no.
    giveBack: ({ writer, n }) => void free.push({ writer, n: n + 2 }),
  }
}

const row = ({ writer }: Mark, n: number, now: string) =>
  `insert into glimpse_writes as w (writer, n, at) values ('${writer}', ${n}, ${now})`

/** Statements of PostgreSQL; there is nothing in a mark that would have to be escaped. */
export const POSTGRES_MARKS = {
  /** An upsert looks at one row only: a plain update might read them all, and be in conflict with every other. */
  set: (mark: Mark) =>
    `${row(mark, mark.n, 'extract(epoch from clock_timestamp()) * 1000')}
      on conflict (writer) do update set n = excluded.n, at = excluded.at`,
  /** Returns a row unless the mark is set. It waits for a transaction that has it and has not ended. */
  refuse: (mark: Mark) =>
    `${row(mark, mark.n + 1, 'extract(epoch from clock_timestamp()) * 1000')}
      on conflict (writer) do update set n = excluded.n, at = excluded.at where w.n <> ${mark.n} returning n`,
} as const

/** Statements of MariaDB and MySQL. */
export const MYSQL_MARKS = {
  set: (mark: Mark) =>
    `${row(mark, mark.n, 'unix_timestamp() * 1000').replace(' as w', '')}
      on duplicate key update n = values(n), at = values(at)`,
  refuse: (mark: Mark) =>
    `${row(mark, mark.n + 1, 'unix_timestamp() * 1000').replace(' as w', '')}
      on duplicate key update n = if(n = ${mark.n}, n, values(n)), at = values(at)`,
  /** Changes a row that belongs to the name. */
  guard: (name: string) => `insert into glimpse_writes (writer, n, at)
    values ('${createHash('sha256').update(name).digest('hex')}', 0, unix_timestamp() * 1000)
    on duplicate key update n = n + 1, at = values(at)`,
  look: ({ writer }: Mark) => `select n from glimpse_writes where writer = '${writer}'`,
} as const

/** Nobody asks for the outcome of a write that is so old, and nothing that it guarded is under way. */
const FORGOTTEN_AFTER_MS = 86_400_000

/** Removes the rows of processes that are gone, by the clock of the database. */
export const forgetMarks = async ({ facts, prepare, read, write }: Connection): Promise<void> => {
  const old = sql`at < ${facts.now} - ${sql.lit(FORGOTTEN_AFTER_MS)}`
  const find = prepare(sql<{ writer: string }>`select writer from glimpse_writes where ${old} limit 1000`)
  // By its key, so that no row that somebody uses is looked at.
  const forget = prepare(sql`delete from glimpse_writes where writer = ${slot('writer')} and ${old}`)
  const rows = await read((session) => session.all(find))
  if (rows.length === 0) return
  await write(async (session) => {
    for (const { writer } of rows) await session.change(forget, { writer })
  })
}
