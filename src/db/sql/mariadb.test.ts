import { databaseSuites } from '../../../test/support/database-suites.ts'
import { onServer } from '../../../test/support/on-server.ts'
import { mariadbAvailable, startMariadb } from '../../../test/support/servers/sql.ts'

onServer('MariaDB', mariadbAvailable(), startMariadb, (server) =>
  databaseSuites(server, {
    name: 'MariaDB',
    timeUnitMs: 1000,
    collated: true,
    skip: {
      '4-byte characters and combining marks survive, and letters differ by case':
        "upstream's columns have three bytes a character, and a collation without case",
      'times are kept to the millisecond': "upstream's columns hold whole seconds",
    },
  }),
)
