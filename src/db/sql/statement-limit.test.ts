import assert from 'node:assert/strict'
import { it } from 'node:test'
import { sql } from 'kysely'
import { onServer } from '../../../test/support/on-server.ts'
import { mariadbAvailable, postgresAvailable, startMariadb, startPostgres } from '../../../test/support/servers/sql.ts'
import { hasKind } from '../../domain/errors.ts'
import { isSlow } from './facts.ts'
import { connect } from './session.ts'

const SERVERS = [
  ['PostgreSQL', postgresAvailable(), startPostgres, sql`set statement_timeout = '10ms'`, sql`select pg_sleep(600)`],
  [
    'MariaDB',
    mariadbAvailable(),
    startMariadb,
    sql`set @@session.max_statement_time = 0.01`,
    sql`select count(*) from seq_1_to_1000000000 as a, seq_1_to_1000000000 as b`,
  ],
] as const

for (const [name, available, start, hurry, slow] of SERVERS)
  onServer(`A statement that reads, on ${name},`, available, start, (server) => {
    it('is given up after a time, and its connection goes on', async (t) => {
      const db = await connect(await server().database(), { connections: 1 })
      t.after(() => db.close())
      const limit = {
        postgresql: sql<{ seconds: string }>`select current_setting('statement_timeout') as seconds`,
        mysql: sql<{ seconds: string }>`select concat(round(@@session.max_statement_time), 's') as seconds`,
      }[server().kind]
      assert.equal((await db.read((session) => session.first(db.prepare(limit))))?.seconds, '30s')
      await db.read((session) => session.all(db.prepare(hurry)))
      await assert.rejects(
        db.read((session) => session.all(db.prepare(slow))),
        (error) => hasKind(error, 'unavailable') && isSlow(error),
      )
      assert.equal((await db.read((session) => session.all(db.prepare(sql`select 1`)))).length, 1)
    })
  })
