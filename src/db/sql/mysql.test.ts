import { it } from 'node:test'
import { databaseSuites, OF_MYSQL } from '../../../test/support/database-suites.ts'
import { onServer } from '../../../test/support/on-server.ts'
import { mysqlAvailable, startMysql } from '../../../test/support/servers/sql.ts'

const found = mysqlAvailable()
if (found.ok) {
  onServer('MySQL', found, startMysql, (server) => databaseSuites(server, { name: 'MySQL', ...OF_MYSQL }))
} else {
  // No package of Debian stable: on request, on CI too.
  it('MySQL serves as the database', { skip: found.reason }, () => undefined)
}
