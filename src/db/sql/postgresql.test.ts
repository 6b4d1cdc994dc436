import assert from 'node:assert/strict'
import { it } from 'node:test'
import { databaseSuites } from '../../../test/support/database-suites.ts'
import { onServer } from '../../../test/support/on-server.ts'
import { schemaOf } from '../../../test/support/schema-dump.ts'
import { postgresAvailable, startPostgres } from '../../../test/support/servers/sql.ts'
import { makeUpstream, onDatabase } from '../../../test/support/upstream-database.ts'
import { openDatabase } from './connect.ts'
import { optimize } from './optimize.ts'

onServer('PostgreSQL', postgresAvailable(), startPostgres, (server) => {
  databaseSuites(server, { name: 'PostgreSQL' })

  it('optimize makes an index anew whose making was cut off', async () => {
    const [url, model] = [await makeUpstream(await server().database()), await server().database()]
    await (await openDatabase(model)).close()
    for (const n of [1, 2])
      await server().query(
        url,
        `insert into tasks (id, type, status, owner, created_at, deleted) values ('${n}', 'a', 'a', 'a', now(), false)`,
      )
    const unique = server().query(url, 'create unique index concurrently glimpse_tasks_expires on tasks (deleted)')
    await assert.rejects(unique)
    const broken = 'select count(*) from pg_index where not indisvalid'
    assert.deepEqual(await server().query(url, broken), ['1'])
    await onDatabase(url, (db) => optimize(db, () => undefined))
    assert.deepEqual(await server().query(url, broken), ['0'])
    assert.equal(await schemaOf(server(), url), await schemaOf(server(), model))
  })
})
