import assert from 'node:assert/strict'
import { it } from 'node:test'
import { databaseSuites, OF_MYSQL } from '../../../test/support/database-suites.ts'
import { onServer } from '../../../test/support/on-server.ts'
import { schemaOf } from '../../../test/support/schema-dump.ts'
import { mariadbAvailable, startMariadb } from '../../../test/support/servers/sql.ts'
import { onDatabase } from '../../../test/support/upstream-database.ts'
import type { ProjectId } from '../../domain/ids.ts'
import { imageQuery, newImage } from '../conformance.ts'
import { openDatabase } from './connect.ts'
import { optimize } from './optimize.ts'

onServer('MariaDB', mariadbAvailable(), startMariadb, (server) =>
  databaseSuites(server, { name: 'MariaDB', ...OF_MYSQL }),
)

onServer('MariaDB at a URL as deployments of Glance have it', mariadbAvailable(), startMariadb, (server) => {
  it('serves, whichever character set is named', async (t) => {
    const url = await server().database()
    for (const query of ['charset=utf8', 'charset=utf8mb3', 'charset=utf8mb4', '']) {
      const db = await openDatabase(url.replace('charset=utf8mb4', query))
      t.after(() => db.close())
      const name = `${query} \u00fc \u20ac`
      const { id } = await db.images.insert(newImage({ name }))
      assert.equal((await db.images.get(id, { admin: true, project: undefined })).name, name)
    }
  })
})

const careful = () => startMariadb({ settings: ['--log-bin=log', '--log-bin-trust-function-creators=0'] })
onServer('MariaDB that lets no user make triggers', mariadbAvailable(), careful, (server) => {
  it('serves without them, and has them made when it lets users', async (t) => {
    const url = await server().database()
    const warnings: string[] = []
    const db = await openDatabase(url, { warn: (line) => warnings.push(line) })
    t.after(() => db.close())
    assert.match(warnings.join(), /^4 of \d+ indexes and triggers of Glimpse are not in the database/)
    const { id } = await db.images.insert(newImage())
    await db.members.add(id, 'm' as ProjectId, -1)
    await db.members.setStatus(id, 'm' as ProjectId, 'accepted')
    const shared = await db.images.list(imageQuery(), { admin: false, project: 'm' as ProjectId })
    assert.deepEqual(
      shared.map((image) => image.id),
      [id],
    )
    const tried = onDatabase(url, (connection) => optimize(connection, () => undefined))
    await assert.rejects(tried, /set log_bin_trust_function_creators = 1 there and repeat this/)
    await server().query(url, 'set global log_bin_trust_function_creators = 1')
    await onDatabase(url, (connection) => optimize(connection, () => undefined))
    assert.deepEqual(await server().query(url, 'select member from glimpse_member_images'), ['m'])
    const model = await server().database()
    await (await openDatabase(model)).close()
    assert.equal(await schemaOf(server(), url), await schemaOf(server(), model))
  })
})
