import assert from 'node:assert/strict'
import { after, it, type TestContext } from 'node:test'
import { onServer } from '../../../test/support/on-server.ts'
import { until } from '../../../test/support/product.ts'
import {
  MARIADB_PRIMARY,
  mariadbAvailable,
  postgresAvailable,
  type SqlServer,
  startMariadb,
  startPostgres,
} from '../../../test/support/servers/sql.ts'
import { hasKind } from '../../domain/errors.ts'
import type { ImageId } from '../../domain/ids.ts'
import { imageQuery, newImage } from '../conformance.ts'
import type { Scope } from '../database.ts'
import { openDatabase } from './connect.ts'

const ADMIN: Scope = { admin: true, project: undefined }

/** The order of images that were made in the same second, of which MariaDB keeps no parts. */
const OLDER = '00000000-0000-4000-8000-000000000000' as ImageId
const NEWER = 'eeeeeeee-0000-4000-8000-000000000000' as ImageId

/** How a replica is made, and how it is held back at what it has. */
interface Replication {
  readonly start: (primary: SqlServer) => Promise<SqlServer>
  readonly hold: string
  readonly goOn: string
}

const suite = (server: () => SqlServer, replication: Replication) => {
  let standby: SqlServer | undefined
  after(() => standby?.stop())

  /** A database, the same in the replica, and how to hold the replica back at what it has. */
  const open = async (t: TestContext) => {
    standby ??= await replication.start(server())
    const replica = standby
    const url = await server().database()
    const replicaUrl = url.replace(`:${server().port}/`, `:${replica.port}/`)
    const db = await openDatabase({ connection: url, slave_connection: replicaUrl, max_retries: 0 })
    t.after(() => db.close())
    const has = (id: ImageId) =>
      replica.query(replicaUrl, `select id from images where id = '${id}'`).then(
        (rows) => rows.length === 1,
        () => false, // Not even the table is there yet.
      )
    return {
      db,
      replica,
      caughtUp: (id: ImageId) => until('the replica', () => has(id)),
      hold: () => replica.query(replicaUrl, replication.hold),
      goOn: () => replica.query(replicaUrl, replication.goOn),
    }
  }
  const ids = (images: readonly { readonly id: ImageId }[]) => images.map(({ id }) => id)

  it('comes from the replica, and may be as old as it', async (t) => {
    const { db, caughtUp, hold, goOn } = await open(t)
    const old = await db.images.insert(newImage({ id: OLDER }))
    await caughtUp(old.id)
    assert.deepEqual(ids(await db.images.list(imageQuery(), ADMIN)), [old.id])
    await hold()
    const fresh = await db.images.insert(newImage({ id: NEWER }))
    assert.deepEqual(ids(await db.images.list(imageQuery(), ADMIN)), [old.id])
    // What was just written is shown as it is.
    assert.equal((await db.images.get(fresh.id, ADMIN)).id, fresh.id)
    assert.equal((await db.images.update(old.id, { name: 'new' }, ['queued'])).name, 'new')
    assert.equal((await db.images.get(old.id, ADMIN)).name, 'new')
    // A marker that the replica does not know is no error.
    assert.deepEqual(ids(await db.images.list(imageQuery({ marker: fresh.id }), ADMIN)), [old.id])
    await rejects(db.images.list(imageQuery({ marker: 'ffffffff-0000-4000-8000-000000000000' as ImageId }), ADMIN))
    await goOn()
    await caughtUp(fresh.id)
    assert.deepEqual(ids(await db.images.list(imageQuery(), ADMIN)), [fresh.id, old.id])
  })

  it('comes from the primary while the replica is away', async (t) => {
    const { db, replica, caughtUp, hold } = await open(t)
    const old = await db.images.insert(newImage({ id: OLDER }))
    await caughtUp(old.id)
    assert.deepEqual(ids(await db.images.list(imageQuery(), ADMIN)), [old.id])
    await hold()
    const fresh = await db.images.insert(newImage({ id: NEWER }))
    await replica.halt('SIGKILL')
    assert.deepEqual(ids(await db.images.list(imageQuery(), ADMIN)), [fresh.id, old.id])
    assert.deepEqual(
      await db.tasks.list(
        { filters: new Map(), sort: { key: 'id', descending: false }, marker: undefined, limit: 5 },
        ADMIN,
      ),
      [],
    )
    await replica.start()
  })

  it('comes from the primary when the replica is not there at the start', async (t) => {
    const url = await server().database()
    const nowhere = url.replace(`:${server().port}/`, ':1/')
    const db = await openDatabase({ connection: url, slave_connection: nowhere, max_retries: 0 })
    t.after(() => db.close())
    const { id } = await db.images.insert(newImage())
    assert.deepEqual(ids(await db.images.list(imageQuery(), ADMIN)), [id])
  })
}

onServer('A list of PostgreSQL', postgresAvailable(), startPostgres, (server) =>
  suite(server, {
    start: (primary) => startPostgres({ replicaOf: primary }),
    hold: 'select pg_wal_replay_pause()',
    goOn: 'select pg_wal_replay_resume()',
  }),
)
onServer(
  'A list of MariaDB',
  mariadbAvailable(),
  () => startMariadb({ settings: MARIADB_PRIMARY }),
  (server) =>
    suite(server, {
      start: (primary) => startMariadb({ replicaOf: primary }),
      hold: 'stop slave sql_thread',
      goOn: 'start slave sql_thread',
    }),
)

const rejects = (promise: Promise<unknown>) => assert.rejects(promise, (error) => hasKind(error, 'not-found'))
