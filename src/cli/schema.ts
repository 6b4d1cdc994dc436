import { existsSync } from 'node:fs'
import { join, resolve } from 'node:path'
import type { Command } from 'commander'
import type { Config } from '../config/config.ts'
import type { Connection } from '../db/sql/session.ts'
import type { Level } from '../db/sql/upstream-revisions.ts'
import { ServiceError } from '../domain/errors.ts'
import { reason } from './reason.ts'

type ReadConfig = (overrides?: Readonly<Record<string, string>>) => Config

/** What a command says when it has nothing to say but that. */
const UP_TO_DATE = 'Database is up to date. No migrations needed.'
const UNCONTROLLED =
  'Database is either not under migration control or under legacy migration control, please run "glance-manage db sync" to place the database under alembic migration control.'

/** Exit codes of `db check`. */
const NEEDS = { expand: 3, migrate: 4, contract: 5 } as const

/** A message for stderr and exit code 1, as upstream ends a command that cannot be. */
class Refusal extends Error {}

/** What the commands do, in the order in which an upgrade needs them; upstream's words throughout. */
interface SchemaCommands {
  version(): Promise<void>
  check(): Promise<void>
  sync(): Promise<void>
  expand(): Promise<void>
  migrate(): Promise<void>
  contract(): Promise<void>
  upgrade(revision: string): Promise<void>
  versionControl(revision: string): Promise<void>
}

const schemaCommands = async (db: Connection, say: (line: string) => void): Promise<SchemaCommands> => {
  const { readHeads, readLevel, upgradeSchema, hasPendingRows, migrateRows, stampRevision } = await import(
    '../db/sql/upstream-migrations.ts'
  )
  const { completeNew, ensureOwnTables } = await import('../db/sql/prepare.ts')
  const { NEWEST_LEVEL, targetOf, isRevision, expandRevision, contractRevision } = await import(
    '../db/sql/upstream-revisions.ts'
  )
  const expanded = expandRevision(NEWEST_LEVEL.expand)
  const contracted = contractRevision(NEWEST_LEVEL.contract)
  const level = () => db.read((session) => readLevel(db, session))
  const isExpanded = (found: Level | undefined) => found?.expand === NEWEST_LEVEL.expand
  const isNewest = (found: Level | undefined) => found?.contract === NEWEST_LEVEL.contract

  /** Upgrades upstream's part, and gives a new database ours. */
  const bring = async (revision: string): Promise<void> => {
    const to = targetOf(revision)
    if (to === undefined) throw new Refusal(`ERROR: Can't locate revision identified by '${revision}'`)
    const { heads, created } = await upgradeSchema(db, to)
    if (created && to.expand === NEWEST_LEVEL.expand) await completeNew(db)
    const revisions = heads.join(', ')
    if (revision === 'heads') say(`Upgraded database, current revision(s): ${revisions}`)
    else say(`Upgraded database to: ${revision}, current revision(s): ${revisions}`)
  }

  const expand = async () => {
    if (isExpanded(await level())) say('Database expansion is up to date. No expansion needed.')
    else await bring(expanded)
  }
  const migrate = async () => {
    if (!isExpanded(await level()))
      throw new Refusal(
        'Data migration did not run. Data migration cannot be run before database expansion. Run database expansion first using "glance-manage db expand"',
      )
    if (await hasPendingRows(db)) say(`Migrated ${await migrateRows(db)} rows`)
    else say('Database migration is up to date. No migration needed.')
  }
  const contract = async () => {
    if (!isExpanded(await level()))
      throw new Refusal(
        'Database contraction did not run. Database contraction cannot be run before database expansion. Run database expansion first using "glance-manage db expand"',
      )
    if (await hasPendingRows(db))
      throw new Refusal(
        'Database contraction did not run. Database contraction cannot be run before data migration is complete. Run data migration using "glance-manage db migrate".',
      )
    await bring(contracted)
  }
  const unlessNewest = (work: () => Promise<void>) => async () => {
    if (isNewest(await level())) say(UP_TO_DATE)
    else await work()
  }

  return {
    version: async () => {
      const heads = await db.read((session) => readHeads(db, session))
      for (const line of heads.length > 0 ? heads : [UNCONTROLLED]) say(line)
    },
    check: async () => {
      const found = await level()
      const needs = (step: keyof typeof NEEDS) => {
        say(
          `Your database is not up to date. Your ${step === 'expand' ? 'first' : 'next'} step is to run \`glance-manage db ${step}\`.`,
        )
        process.exitCode = NEEDS[step]
      }
      if (isNewest(found)) say('Database is up to date. No upgrades needed.')
      else if (!isExpanded(found)) needs('expand')
      else needs((await hasPendingRows(db)) ? 'migrate' : 'contract')
    },
    sync: async () => {
      try {
        if (isNewest(await level())) say(UP_TO_DATE)
        else {
          await expand()
          await migrate()
          await contract()
          say('Database is synced successfully.')
        }
        await ensureOwnTables(db)
      } catch (error) {
        if (!(error instanceof ServiceError)) throw error
        throw new Refusal(`Failed to sync database: ERROR: ${reason(error)}`)
      }
    },
    expand: unlessNewest(expand),
    migrate: unlessNewest(migrate),
    contract: unlessNewest(contract),
    upgrade: bring,
    versionControl: async (revision) => {
      if (!isRevision(revision)) throw new Refusal(`ERROR: Can't locate revision identified by '${revision}'`)
      await stampRevision(db, revision)
      say(`Placed database under migration control at revision: ${revision}`)
    },
  }
}

type Run = (commands: SchemaCommands, revision: string | undefined) => Promise<void>

/** Each with its name behind `db`; the older names have `db_` before it. */
const COMMANDS: readonly (readonly [name: string, description: string, run: Run, takesRevision?: true])[] = [
  ['version', 'print the revisions of the schema', (db) => db.version()],
  ['check', 'say what is to be done: exit code 3 is expand, 4 migrate, 5 contract', (db) => db.check()],
  ['sync', 'create the tables, or bring them up to date', (db) => db.sync(), true],
  ['expand', 'add what is new, while older services run', (db) => db.expand()],
  ['migrate', 'move data to where the new schema has it', (db) => db.migrate()],
  ['contract', 'drop what is old, after the last older service', (db) => db.contract()],
  ['upgrade', 'bring the schema to a revision', (db, revision = 'heads') => db.upgrade(revision), true],
  [
    'version_control',
    'say that the schema is at a revision, and change nothing else',
    (db, revision = 'liberty') => db.versionControl(revision),
    true,
  ],
]

/**
 * Adds the commands that look after upstream's schema to `program`, and to `db` of it. The option `--version` of
 * `program` names a revision, because that is where it is found wherever it stands.
 */
export function addSchemaCommands(program: Command, db: Command, read: () => Config): void {
  for (const [name, description, run, takesRevision] of COMMANDS) {
    const action = async (given?: unknown) => {
      const { version } = program.opts<{ version?: string | true }>()
      const revision = typeof version === 'string' ? version : typeof given === 'string' ? given : undefined
      await withConnection(read(), async (connection) =>
        run(await schemaCommands(connection, (line) => console.log(line)), takesRevision && revision),
      )
    }
    const modern = db.command(name).description(description)
    const older = program.command(`db_${name}`).description(`as "db ${name}"`)
    for (const command of [modern, older]) {
      if (takesRevision) command.argument('[version]', name === 'sync' ? 'ignored' : 'revision')
      command.action(action)
    }
  }
}

/** Runs `work` on the database of a configuration; what upstream refuses with a sentence is one line, and code 1. */
export async function withConnection(config: Config, work: (db: Connection) => Promise<void>): Promise<void> {
  const { reachDatabase } = await import('../db/sql/connect.ts')
  const connection = await reachDatabase(config.database, { warn: (line) => console.error(line) })
  try {
    await work(connection)
  } catch (error) {
    if (!(error instanceof Refusal)) throw error
    console.error(error.message)
    process.exitCode = 1
  } finally {
    await connection.close()
  }
}

/** `glimpse db optimize` and `revert`: what this service adds to upstream's schema, and takes away again. */
export function addPartsCommands(program: Command, read: ReadConfig): void {
  const db = program.command('db').description('What Glimpse adds to the database of a Glance')
  const say = (line: string) => console.log(line)
  const config = () => {
    const given = read()
    if (given.database.connection !== undefined) return given
    const file = join(resolve(program.opts<{ data: string }>().data), 'glance.sqlite')
    if (!existsSync(file))
      throw new ServiceError('not-found', `${file} is not there, and no configuration names another`)
    return read({ 'database.connection': `sqlite:///${file}` })
  }
  db.command('optimize')
    .description('add the indexes and triggers that make lists quick, while services run')
    .action(() =>
      withConnection(config(), async (connection) => {
        const { optimize } = await import('../db/sql/optimize.ts')
        await optimize(connection, say)
        say('Everything is there. Services that are running use it after a restart.')
      }),
    )
  db.command('revert')
    .description("drop everything of Glimpse's, so that only Glance's own schema is left")
    .option('--force', 'also while services run, or uploads and imports wait for recovery')
    .action(({ force = false }: { readonly force?: boolean }) =>
      withConnection(config(), async (connection) => {
        const { revert } = await import('../db/sql/revert.ts')
        await revert(connection, say, { force })
        say('Nothing of Glimpse is left in the database.')
      }),
    )
}
