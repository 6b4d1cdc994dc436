import type { TestContext } from 'node:test'
import { cachedConformance } from '../../src/db/cached-conformance.ts'
import { type DatabaseHarness, databaseConformance } from '../../src/db/conformance.ts'
import type { Database } from '../../src/db/database.ts'
import { maintenanceConformance } from '../../src/db/maintenance-conformance.ts'
import { metadefConformance } from '../../src/db/metadef-conformance.ts'
import { openDatabase } from '../../src/db/sql/connect.ts'
import { taskConformance } from '../../src/db/task-conformance.ts'
import { schemaSuite } from './schema-suite.ts'
import type { SqlServer } from './servers/sql.ts'
import { makeUpstream } from './upstream-database.ts'

const openDirectly = async (t: TestContext, url: string) => {
  const db = await openDatabase(url, { connections: 4 })
  t.after(() => db.close())
  return db
}

/** What MariaDB and MySQL do otherwise, with upstream's columns. */
export const OF_MYSQL = {
  timeUnitMs: 1000,
  collated: true,
  skip: {
    '4-byte characters and combining marks survive, and letters differ by case':
      "upstream's columns have three bytes a character, and a collation without case",
    'times are kept to the millisecond': "upstream's columns hold whole seconds",
  },
} as const

/** Everything that a database must do, on a server. */
export function databaseSuites(
  server: () => SqlServer,
  traits: Omit<DatabaseHarness, 'open' | 'openTwice'>,
  opened: (t: TestContext, url: string) => Promise<Database> = openDirectly,
): void {
  const harness: DatabaseHarness = {
    ...traits,
    open: async (t) => opened(t, await server().database()),
    openTwice: async (t) => {
      const url = await server().database()
      return [await opened(t, url), await opened(t, url)]
    },
  }
  databaseConformance(harness)
  databaseConformance({
    ...harness,
    name: `${traits.name} without our indexes and triggers`,
    open: async (t) => opened(t, await makeUpstream(await server().database())),
    openTwice: async (t) => {
      const url = await makeUpstream(await server().database())
      return [await opened(t, url), await opened(t, url)]
    },
  })
  schemaSuite(server)
  metadefConformance(harness)
  taskConformance(harness)
  cachedConformance(harness)
  maintenanceConformance(harness)
}
