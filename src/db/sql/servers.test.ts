import assert from 'node:assert/strict'
import { after, before, describe, it, type TestContext } from 'node:test'
import {
  type Availability,
  mariadbAvailable,
  postgresAvailable,
  type SqlServer,
  startMariadb,
  startPostgres,
} from '../../../test/support/servers/sql.ts'
import { databaseConformance } from '../conformance.ts'
import { metadefConformance } from '../metadef-conformance.ts'
import { openDatabase } from './connect.ts'

const ci = process.env['CI'] === 'true'

const SERVERS: readonly (readonly [name: string, found: Availability, start: () => Promise<SqlServer>])[] = [
  ['PostgreSQL', postgresAvailable(), startPostgres],
  ['MariaDB', mariadbAvailable(), startMariadb],
]

for (const [name, found, start] of SERVERS) {
  if (!found.ok) {
    it(`${name} serves as the database`, { skip: ci ? false : found.reason }, () => assert.fail(found.reason))
    continue
  }
  describe(name, () => {
    let server: SqlServer
    before(async () => {
      server = await start()
    })
    after(() => server.stop())

    const opened = async (t: TestContext, url: string) => {
      const db = await openDatabase(url, { connections: 4 })
      t.after(() => db.close())
      return db
    }
    const open = async (t: TestContext) => opened(t, await server.database())
    const openTwice = async (t: TestContext) => {
      const url = await server.database()
      return [await opened(t, url), await opened(t, url)] as const
    }
    databaseConformance({
      name,
      open,
      openTwice,
      ...(name === 'MariaDB'
        ? {
            timeUnitMs: 1000,
            collated: true,
            skip: {
              '4-byte characters and combining marks survive, and letters differ by case':
                "upstream's columns have three bytes a character, and a collation without case",
              'times are kept to the millisecond': "upstream's columns hold whole seconds",
            },
          }
        : {}),
    })
    metadefConformance({ name, open, openTwice })
  })
}
