import { sql } from 'kysely'
import { ServiceError } from '../../domain/errors.ts'
import { type PartKind, type PresentPart, presentParts, tableNames } from './catalog.ts'
import { aloneAtIt, type Report, runOnline } from './optimize.ts'
import { dropText } from './parts.ts'
import { runText } from './schema-change.ts'
import type { Connection } from './session.ts'

/** What uses others goes first. */
const ORDER: readonly PartKind[] = ['trigger', 'function', 'index', 'column', 'table']

const countOf = async (db: Connection, what: ReturnType<typeof sql>): Promise<number> =>
  (await db.read((session) => session.first(db.prepare(sql<{ n: number }>`select count(*) as n from ${what}`))))?.n ?? 0

const requireIdle = async (db: Connection): Promise<void> => {
  const tables = await db.read((session) => tableNames(db, session))
  if (!tables.has('glimpse_jobs')) return
  const workers = await countOf(db, sql`glimpse_workers where expires_at > ${db.facts.now}`)
  if (workers > 0)
    throw new ServiceError(
      'conflict',
      `${workers} processes serve from this database: stop them first (one that was killed counts for as long as lease_ttl)`,
    )
  const work = (await countOf(db, sql`glimpse_claims`)) + (await countOf(db, sql`glimpse_jobs`))
  if (work > 0)
    throw new ServiceError(
      'conflict',
      `${work} uploads or imports of processes that died wait for recovery: start the service once, or give them up with --force`,
    )
}

/**
 * Drops everything of ours, by its name and whichever version made it, so that upstream's own schema is left. Refused
 * as `conflict`, unless `force`, while services run and while work of dead ones waits for recovery, because only these
 * tables know of it.
 */
export const revert = async (db: Connection, report: Report, { force = false } = {}): Promise<void> => {
  if (!force) await requireIdle(db)
  await aloneAtIt(db, async () => {
    const present = await db.read((session) => presentParts(db, session))
    // The table that says what is there goes last, so that what is cut off can be repeated.
    const place = ({ kind, name }: PresentPart) => ORDER.indexOf(kind) * 2 + (name === 'glimpse_schema' ? 1 : 0)
    for (const part of present.toSorted((a, b) => place(a) - place(b))) {
      report(
        part.kind === 'table' || part.kind === 'function'
          ? `${part.kind} ${part.name}`
          : `${part.kind} ${part.name} of ${part.table}`,
      )
      await runOnline(db, report, dropText(db.facts.name, part))
    }
  })
  // As upstream has it; another process that has the file open keeps it as it is, and may.
  if (db.facts.name === 'sqlite')
    await db.direct((session) => runText(db, session, 'PRAGMA journal_mode = DELETE')).catch(() => undefined)
}
