import { Command } from 'commander'
import { ServiceError } from '../domain/errors.ts'
import { withConfigOptions } from './config-options.ts'

/** glance-manage: the database's schema. */
export async function manageCommand(): Promise<Command> {
  const command = new Command().description('Looks after the database.')
  const read = withConfigOptions(command, 'glance-manage')
  const sync = async () => {
    const { openDatabase } = await import('../db/sql/connect.ts')
    const { connection } = read().database
    if (connection === undefined) throw new ServiceError('invalid', '[database] connection is not set')
    const db = await openDatabase(connection)
    await db.close()
    console.log('Database is synced successfully.')
  }
  const db = command.command('db').description('the schema')
  db.command('sync')
    .description('create the tables, or bring them up to date')
    .option('--version <revision>', 'ignored')
    .action(sync)
  command.command('db_sync').description('as "db sync"').argument('[version]').action(sync)
  return command
}
