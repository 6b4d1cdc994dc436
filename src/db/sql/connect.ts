import type { Database } from '../database.ts'
import { cachedRepository } from './cached.ts'
import { imageRepository } from './images.ts'
import { jobRepository } from './jobs.ts'
import { memberRepository } from './members.ts'
import { metadefRepository } from './metadefs.ts'
import { migrate } from './migrations.ts'
import { type ConnectOptions, connect } from './session.ts'
import { taskRepository } from './tasks.ts'
import { workerRepository } from './workers.ts'

/** As `[database]` of the configuration has it. */
export interface DatabaseSettings {
  readonly connection?: string | undefined
  readonly sqlite_synchronous?: boolean | undefined
}

/**
 * Opens the database that a SQLAlchemy URL names; an empty one gets the schema. Throws `invalid` for a URL that cannot
 * be served, `unavailable` when the database cannot be opened or its schema is of a release that is too old.
 */
export const openDatabase = async (
  from: string | DatabaseSettings,
  options: Omit<ConnectOptions, 'synchronous'> = {},
): Promise<Database> => {
  const { connection: url = '', sqlite_synchronous: synchronous = true } =
    typeof from === 'string' ? { connection: from } : from
  const connection = await connect(url, { ...options, synchronous })
  try {
    await migrate(connection)
    return {
      images: imageRepository(connection),
      members: memberRepository(connection),
      workers: workerRepository(connection),
      metadefs: metadefRepository(connection),
      cached: cachedRepository(connection),
      tasks: taskRepository(connection),
      jobs: jobRepository(connection),
      close: connection.close,
    }
  } catch (error) {
    await connection.close()
    throw error
  }
}
