import { it } from 'node:test'
import { databaseSuites } from '../../../test/support/database-suites.ts'
import { onServer } from '../../../test/support/on-server.ts'
import { mysqlAvailable, startMysql } from '../../../test/support/servers/sql.ts'

const found = mysqlAvailable()
if (found.ok) {
  onServer('MySQL', found, startMysql, (server) =>
    databaseSuites(server, {
      name: 'MySQL',
      timeUnitMs: 1000,
      collated: true,
      skip: {
        '4-byte characters and combining marks survive, and letters differ by case':
          "upstream's columns have three bytes a character, and a collation without case",
        'times are kept to the millisecond': "upstream's columns hold whole seconds",
      },
    }),
  )
} else {
  // No package of Debian stable: on request, on CI too.
  it('MySQL serves as the database', { skip: found.reason }, () => undefined)
}
