import { connectDatabase } from '../../src/db/sql/connect.ts'
import type { Connection } from '../../src/db/sql/session.ts'
import { upgradeSchema } from '../../src/db/sql/upstream-migrations.ts'
import { type Level, NEWEST_LEVEL } from '../../src/db/sql/upstream-revisions.ts'

/** Works on the connection that commands have, and closes it. */
export async function onDatabase<T>(url: string, work: (connection: Connection) => Promise<T>): Promise<T> {
  const connection = await connectDatabase({ connection: url })
  try {
    return await work(connection)
  } finally {
    await connection.close()
  }
}

/** Gives an empty database upstream's schema, and nothing of ours. */
export async function makeUpstream(url: string, level: Level = NEWEST_LEVEL): Promise<string> {
  await onDatabase(url, (connection) => upgradeSchema(connection, level))
  return url
}
