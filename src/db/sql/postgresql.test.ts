import { databaseSuites } from '../../../test/support/database-suites.ts'
import { onServer } from '../../../test/support/on-server.ts'
import { postgresAvailable, startPostgres } from '../../../test/support/servers/sql.ts'

onServer('PostgreSQL', postgresAvailable(), startPostgres, (server) => databaseSuites(server, { name: 'PostgreSQL' }))
