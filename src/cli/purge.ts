import { setTimeout as delay } from 'node:timers/promises'
import { type Command, InvalidArgumentError, Option } from 'commander'
import {
  type Database,
  type MaintenanceRepository,
  PURGED_TABLES,
  type PurgedTable,
  type PurgeScope,
  type RowKey,
} from '../db/database.ts'
import { toText } from '../db/time.ts'
import { startProgress } from './progress.ts'
import { grid } from './table.ts'

export interface PurgeRequest {
  readonly tables: readonly PurgedTable[]
  readonly ageInDays: number
  /** Of each table; undefined: all. */
  readonly maxRows: number | undefined
}

/** Where the lines go that tell an operator what is done. */
type Say = (line: string) => void

interface Flags {
  readonly age_in_days?: number
  readonly max_rows?: number
  readonly dryRun?: boolean
}

/** Adds `db purge` and `db purge_images_table`; `on` opens the database. */
export function addPurge(db: Command, on: (work: (db: Database) => Promise<void>) => Promise<void>): void {
  const add = (name: string, what: string, tables: readonly PurgedTable[], days: number) =>
    db
      .command(name)
      .description(`take rows ${what} out of the database that were deleted long ago`)
      .argument('[age_in_days]', `as --age_in_days`)
      .argument('[max_rows]', 'as --max_rows')
      .addOption(
        new Option('--age_in_days <days>', `only those deleted at least so long ago (default: ${days})`).argParser(
          flagged,
        ),
      )
      .addOption(
        new Option('--max_rows <rows>', 'at most so many of each table, -1 for all (default: 100)').argParser(flagged),
      )
      .option('--dry-run', 'tell how many would go, and leave all')
      .action(async (age: string | undefined, rows: string | undefined, flags: Flags) => {
        const twice = (age && flags.age_in_days !== undefined) || (rows && flags.max_rows !== undefined)
        const request = twice
          ? 'Each value can be given once: as an option, or by its place.'
          : purgeRequest(tables, [age ?? flags.age_in_days ?? days, rows ?? flags.max_rows ?? 100])
        if (typeof request === 'string') {
          console.error(request)
          process.exitCode = 1
          return
        }
        await on(async ({ maintenance }) => {
          if (flags.dryRun === true) {
            console.log(await purgePreview(maintenance, request))
          } else if (!(await purge(maintenance, request, (line) => console.error(line)))) {
            process.exitCode = 1
          }
        })
      })
  add('purge', 'of images, their properties, tags, locations and members, and of tasks,', PURGED_TABLES, 30)
  add('purge_images_table', 'of the table of images itself', ['images'], 180)
}

/** As Python reads a number. */
const whole = (text: string | number): number | undefined =>
  /^\s*[-+]?\d+(_\d+)*\s*$/.test(String(text)) ? Number(String(text).replaceAll('_', '')) : undefined

function flagged(text: string): number {
  const value = whole(text)
  if (value === undefined) throw new InvalidArgumentError(`invalid int value: '${text}'`)
  return value
}

const DAY_MS = 86_400_000
const MAX_INT = 2 ** 31 - 1

/** What was asked for, or in which words it is refused. */
export function purgeRequest(
  tables: readonly PurgedTable[],
  [age, rows]: readonly [age: string | number, rows: string | number],
  now = Date.now(),
): PurgeRequest | string {
  const ageInDays = whole(age)
  if (ageInDays === undefined) return `Invalid int value for age_in_days: ${age}`
  const maxRows = whole(rows)
  if (maxRows === undefined) return `Invalid int value for max_rows: ${rows}`
  if (ageInDays < 0) return 'Must supply a non-negative value for age.'
  if (ageInDays >= now / DAY_MS) return 'Maximal age is count of days since epoch.'
  if (maxRows < -1) return 'Minimal rows limit is -1.'
  if (maxRows > MAX_INT) return `'max_rows' value out of range, must not exceed ${MAX_INT}.`
  return { tables, ageInDays, maxRows: maxRows === -1 ? undefined : maxRows }
}

const scopeOf = (table: PurgedTable, ageInDays: number): PurgeScope => ({
  table,
  deleted: { before: toText(new Date(Date.now() - ageInDays * DAY_MS)) },
})

const BLOCKED =
  'rows of other tables still refer to some of these images: "db purge" with the same age and --max_rows -1 goes first'

/** What a purge would take out, for people to read. */
export async function purgePreview(
  db: MaintenanceRepository,
  { tables, ageInDays, maxRows }: PurgeRequest,
): Promise<string> {
  const rows: string[][] = []
  const notes: string[] = []
  for (const table of tables) {
    const survey = await db.survey(scopeOf(table, ageInDays), maxRows)
    rows.push([table, String(survey.rows), String(survey.kept)])
    if (survey.blocked) notes.push(`Nothing of ${table} can go: ${BLOCKED}`)
  }
  return [grid(['Table', 'Would go', 'Still needed'], rows, ['Would go', 'Still needed']), ...notes].join('\n')
}

/** Takes out what was deleted long enough ago, table by table. False when foreign keys are in the way of it. */
export async function purge(
  db: MaintenanceRepository,
  { tables, ageInDays, maxRows }: PurgeRequest,
  say: Say,
  start = startProgress,
): Promise<boolean> {
  for (const table of tables) {
    say(`Purging deleted rows older than ${ageInDays} day(s) from table ${table}`)
    const scope = scopeOf(table, ageInDays)
    const { rows, kept, last, blocked } = await db.survey(scope, maxRows)
    if (blocked) {
      say(`Nothing was deleted from table ${table}: ${BLOCKED}`)
      say('Purge command failed, check glance-manage logs for more details.')
      return false
    }
    const progress = start(table, rows)
    // The oldest first; of those that went at the same moment as the last of them, as many as there is room for.
    const parts: readonly PurgeScope[] =
      last === undefined
        ? [scope]
        : [
            { table, deleted: { before: last } },
            { table, deleted: { at: last } },
          ]
    let gone = 0
    for (const part of parts)
      for await (const count of batches(db, part, () => rows - gone)) {
        gone += count
        progress.advance(count)
      }
    progress.end(`Deleted ${gone} row(s) from table ${table}`)
    if (kept > 0) say(`Kept ${kept} row(s) of table ${table} that are old enough, but still needed`)
  }
  return true
}

/** Rows looked up at once; that takes no lock. */
const LOOKED_UP = 2000
/** Rows of one transaction: as many as take about so long, so that whoever wants one of them hardly waits. */
const BATCH_MS = 20
const MAX_BATCH = 1000
/** Of fewer, most of the time would go into the transactions themselves. */
const MIN_BATCH = 100
/** How long to leave the database alone, in times of what the batch took: it takes longer when the server is busy. */
const REST = 4
const LONGEST_REST_MS = 200

/** Deletes at most `left()` rows, in transactions of a moment each, and yields how many went with each. */
async function* batches(db: MaintenanceRepository, scope: PurgeScope, left: () => number): AsyncGenerator<number> {
  let size = MIN_BATCH
  for (let after: RowKey | undefined, ended = false; !ended && left() > 0; ) {
    const { keys, next } = await db.purgeable(scope, LOOKED_UP, after)
    for (let from = 0; from < keys.length && left() > 0; ) {
      const batch = keys.slice(from, from + Math.min(size, left()))
      from += batch.length
      const began = performance.now()
      yield await db.purge(scope, batch)
      const took = performance.now() - began
      if (took > BATCH_MS) size = Math.max(MIN_BATCH, size >> 1)
      else if (took < BATCH_MS / 2) size = Math.min(MAX_BATCH, size << 1)
      await delay(Math.min(took * REST, LONGEST_REST_MS))
    }
    after = next
    ended = next === undefined
  }
}
