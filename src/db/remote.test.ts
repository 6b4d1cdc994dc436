import { describe, type TestContext } from 'node:test'
import { databaseSuites } from '../../test/support/database-suites.ts'
import { onServer } from '../../test/support/on-server.ts'
import { openBehindRegistry } from '../../test/support/registry.ts'
import { postgresAvailable, startPostgres } from '../../test/support/servers/sql.ts'
import { cachedConformance } from './cached-conformance.ts'
import { type DatabaseHarness, databaseConformance } from './conformance.ts'
import { metadefConformance } from './metadef-conformance.ts'
import { newFile } from './sql/fixtures.ts'
import { taskConformance } from './task-conformance.ts'

const fileOf = async (t: TestContext) => `sqlite:///${await newFile(t)}`

const harness: DatabaseHarness = {
  name: 'SQLite behind a registry',
  open: async (t) => openBehindRegistry(t, await fileOf(t)),
  openTwice: async (t) => {
    const url = await fileOf(t)
    return [await openBehindRegistry(t, url), await openBehindRegistry(t, url)]
  },
}

describe('a registry', () => {
  databaseConformance(harness)
  metadefConformance(harness)
  taskConformance(harness)
  cachedConformance(harness)
  // As long as all of the other suites together: `npm run registry`.
  if (process.env['REGISTRY_SUITES'] !== 'all') return
  onServer('PostgreSQL behind a registry', postgresAvailable(), startPostgres, (server) =>
    databaseSuites(server, { name: 'PostgreSQL behind a registry' }, openBehindRegistry),
  )
})
