import { existsSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { Command } from 'commander'
import type { Config } from '../config/config.ts'
import type { Database } from '../db/database.ts'
import { ServiceError } from '../domain/errors.ts'
import { withConfigOptions } from './config-options.ts'
import type { Report } from './metadefs.ts'
import { addPurge } from './purge.ts'
import { addSchemaCommands } from './schema.ts'

/** The metadata definitions that come with the service. */
const OWN_METADEFS = fileURLToPath(new URL('../../etc/metadefs', import.meta.url))
/** Exit code of a command line that is none. */
const USAGE = 2
const report: Report = { info: (line) => console.log(line), error: (line) => console.error(`ERROR: ${line}`) }

/** glance-manage: the database's schema, and the metadata definitions in it. */
export async function manageCommand(): Promise<Command> {
  const command = new Command()
    .description('Looks after the database.')
    .option('--version [revision]', 'revision of the schema; without a command, the version of this program')
    .exitOverride((end) => process.exit(end.exitCode === 0 ? 0 : USAGE))
  const read = withConfigOptions(command, ['glance-api', 'glance-manage'])
  const db = command.command('db').description('the schema, and the metadata definitions')
  addSchemaCommands(command, db, read)
  addMetadefs(command, db, read)
  addPurge(db, (work) => withDatabase(read(), work))
  return command
}

interface LoadOptions {
  readonly path?: string
  readonly merge?: boolean
  readonly prefer_new?: boolean
  readonly overwrite?: boolean
}

function addMetadefs(command: Command, db: Command, read: () => Config): void {
  const load = async ({ path, merge = false, prefer_new = false, overwrite = false }: LoadOptions) => {
    const { loadMetadefs, loadMode } = await import('./metadefs.ts')
    const config = read()
    const mode = loadMode({ merge, preferNew: prefer_new, overwrite }, report)
    if (mode === undefined) return
    await withDatabase(config, ({ metadefs }) => loadMetadefs(metadefs, path ?? shippedAt(config), mode, report))
  }
  const unload = () => withDatabase(read(), ({ metadefs }) => metadefs.clear())
  const save = async ({ path }: { readonly path?: string }) => {
    const { exportMetadefs } = await import('./metadefs.ts')
    const config = read()
    await withDatabase(config, ({ metadefs }) =>
      exportMetadefs(metadefs, path ?? config.DEFAULT.metadata_source_path, report),
    )
  }

  db.command('load_metadefs')
    .description('load metadata definitions from a file, or the .json files of a folder')
    .option('--path <path>', 'file or folder (default: metadata_source_path)')
    .option('--merge', 'add to namespaces that are there what they lack')
    .option('--prefer_new', 'with --merge: change what is there to what the files say')
    .option('--overwrite', 'with --merge: delete namespaces that are there first')
    .action(load)
  db.command('unload_metadefs').description('delete all metadata definitions').action(unload)
  db.command('export_metadefs')
    .description('write each namespace to a file')
    .option('--path <folder>', 'where (default: metadata_source_path)')
    .action(save)

  command
    .command('db_load_metadefs')
    .description('as "db load_metadefs"')
    .argument('[path]')
    .argument('[merge]')
    .argument('[prefer_new]')
    .argument('[overwrite]')
    .action((path?: string, ...flags: readonly unknown[]) => {
      const [merge, prefer_new, overwrite] = flags.map(isYes)
      return load({
        ...(path ? { path } : {}),
        merge: merge === true,
        prefer_new: prefer_new === true,
        overwrite: overwrite === true,
      })
    })
  command.command('db_unload_metadefs').description('as "db unload_metadefs"').action(unload)
  command
    .command('db_export_metadefs')
    .description('as "db export_metadefs"')
    .argument('[path]')
    .action((path?: string) => save(path ? { path } : {}))
}

const isYes = (text: unknown): boolean => typeof text === 'string' && !/^(|0|f|false|n|no|off|none)$/i.test(text)

/** Where the configuration says; what we bring when there is no such folder. */
function shippedAt(config: Config): string {
  const { metadata_source_path: path } = config.DEFAULT
  return existsSync(path) ? path : OWN_METADEFS
}

async function withDatabase<T>(config: Config, work: (db: Database) => Promise<T>): Promise<T> {
  const { openDatabase } = await import('../db/sql/connect.ts')
  const { connection } = config.database
  if (connection === undefined) throw new ServiceError('invalid', '[database] connection is not set')
  // Whole tables are read, and nobody waits for an answer.
  const db = await openDatabase(config.database, { maintenance: true, warn: (line) => console.error(line) })
  try {
    return await work(db)
  } finally {
    await db.close()
  }
}
