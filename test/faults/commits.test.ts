/**
 * Connections to the database are cut between any two messages of a write: it is done once all the same.
 *   COMMIT_CUTS=20 npm run faults    at so many messages of each write, besides the last one; `npm test` has one
 *   COMMIT_SEED=7                    which ones
 */
import assert from 'node:assert/strict'
import { after, before, it } from 'node:test'
import { sql } from 'kysely'
import type { Database } from '../../src/db/database.ts'
import { openDatabase } from '../../src/db/sql/connect.ts'
import { type Connection, connect } from '../../src/db/sql/session.ts'
import { hasKind } from '../../src/domain/errors.ts'
import type { WorkerId } from '../../src/domain/ids.ts'
import { randomFrom } from '../crash/content.ts'
import { type CuttingProxy, type Direction, startCuttingProxy } from '../support/cutting-proxy.ts'
import { onServer } from '../support/on-server.ts'
import { until } from '../support/product.ts'
import {
  mariadbAvailable,
  postgresAvailable,
  type SqlServer,
  startMariadb,
  startPostgres,
} from '../support/servers/sql.ts'
import { VERBS, type Verb } from '../support/verbs.ts'

const cuts = Number(process.env['COMMIT_CUTS'] ?? 1)
const seed = Number(process.env['COMMIT_SEED'] ?? 1)

/** Children before their parents. */
const TABLES = [
  ...['task_info', 'tasks', 'image_properties', 'image_tags', 'image_locations', 'image_members', 'images'],
  ...['metadef_namespace_resource_types', 'metadef_objects', 'metadef_properties', 'metadef_tags'],
  ...['metadef_namespaces', 'metadef_resource_types', 'cached_images', 'node_reference'],
  ...['glimpse_claims', 'glimpse_jobs', 'glimpse_workers', 'glimpse_member_images'],
]

/** Everything in the database that does not differ from one time to the next: no numbers of rows, no times. */
async function contents({ read, prepare }: Connection): Promise<Readonly<Record<string, readonly string[]>>> {
  const plain = ([name, value]: [string, unknown]): [string, unknown] => {
    if (name.endsWith('_at') || name === 'last_accessed') return [name, value === null ? null : 'a time']
    return /(^|_)id$/.test(name) && typeof value === 'number' ? [name, 'a number'] : [name, value]
  }
  const rows = async (table: string) =>
    (await read((session) => session.all(prepare(sql<Record<string, unknown>>`select * from ${sql.table(table)}`))))
      .map((row) => JSON.stringify(Object.fromEntries(Object.entries(row).map(plain))))
      .toSorted()
  const found: Record<string, readonly string[]> = {}
  for (const table of TABLES) found[table] = await rows(table)
  return found
}

const empty = ({ write, prepare }: Connection) =>
  write(async (session) => {
    for (const table of TABLES) await session.change(prepare(sql`delete from ${sql.table(table)}`))
  })

const DIRECTIONS: readonly Direction[] = ['to server', 'to client']

/** The last message, which is the commit or its answer, and some that are picked at random. */
const placesIn = (count: number, random: ReturnType<typeof randomFrom>): readonly number[] =>
  cuts >= count
    ? Array.from({ length: count }, (_, n) => n + 1)
    : [...new Set([...Array.from({ length: cuts }, () => 1 + random.below(count)), count])]

const suite = (server: () => SqlServer) => {
  let raw: Connection
  let direct: Database
  let proxy: CuttingProxy
  let through: string
  let db: Database
  before(async () => {
    const url = await server().database()
    direct = await openDatabase(url)
    raw = await connect(url)
    proxy = await startCuttingProxy(server().kind, server().port)
    through = url.replace(`:${server().port}/`, `:${proxy.port}/`)
    db = await openDatabase(through)
  })
  after(async () => {
    for (const one of [direct, raw, db]) await one.close()
    await proxy.close()
  })
  const prepare = async (verb: Verb) => {
    await empty(raw)
    await verb.before?.(direct)
  }

  const cold = () => {
    proxy.setDown(true)
    proxy.setDown(false)
  }
  /** New connections of each kind, which know no statements: the same messages each time, and those of the verb alone. */
  const fresh = async (of = db) => {
    cold()
    await of.workers.list()
    await of.workers.remove('nobody' as WorkerId)
  }
  /** Everything as it should be after the verb, and how many messages that takes. */
  const measured = async (verb: Verb, begin: () => unknown, by = db) => {
    await prepare(verb)
    await begin()
    proxy.reset()
    await verb.run(by)
    const counts = { 'to server': proxy.count('to server'), 'to client': proxy.count('to client') }
    return { counts, wanted: await contents(raw) }
  }
  /** Returns whether it took so many messages that there was a cut. */
  const runCut = async (verb: Verb, direction: Direction, place: number, wanted: unknown) => {
    await prepare(verb)
    await fresh()
    proxy.reset()
    proxy.cutAt(direction, place)
    await verb.run(db).catch((error: unknown) => {
      throw new Error(`cut at message ${place} ${direction}`, { cause: error })
    })
    const isCut = proxy.hasCut()
    proxy.reset()
    assert.deepEqual(await contents(raw), wanted, `cut at message ${place} ${direction}`)
    return isCut
  }

  for (const [index, verb] of VERBS.entries()) {
    it(`${verb.name} happens once, wherever its connection is cut`, async () => {
      await prepare(verb)
      const before = await contents(raw)
      let { counts, wanted } = await measured(verb, fresh)
      assert.notDeepEqual(wanted, before)
      const random = randomFrom(seed * 1000 + index)
      // It took more messages when they were counted, if what an old connection had left was in its way.
      for (const direction of DIRECTIONS)
        for (const place of placesIn(counts[direction], random))
          while (!(await runCut(verb, direction, Math.min(place, counts[direction]), wanted)))
            counts = (await measured(verb, fresh)).counts
    })
  }

  const [update] = VERBS.filter(({ name }) => name === 'images.update') as [Verb]

  it('a connection that is cut while it is made is 503, or replaced', async () => {
    const { counts, wanted } = await measured(update, cold)
    for (const direction of DIRECTIONS) {
      for (let place = 1; place <= Math.min(counts[direction], 15 * cuts); place++) {
        await prepare(update)
        const absent = await contents(raw)
        cold()
        proxy.reset()
        proxy.cutAt(direction, place)
        const done = await update.run(db).then(
          () => true,
          (error: unknown) => {
            assert.ok(hasKind(error, 'unavailable') && error.detail['outcome'] === undefined, String(error))
            return false
          },
        )
        proxy.reset()
        assert.deepEqual(await contents(raw), done ? wanted : absent, `cut at message ${place} ${direction}`)
      }
    }
    await fresh()
  })

  it('a commit that was lost on its way cannot arrive any more once it was said to have failed', async () => {
    const { counts, wanted } = await measured(update, fresh)
    await prepare(update)
    await fresh()
    proxy.reset()
    proxy.holdAt(counts['to server'])
    const running = update.run(db)
    await until('the cut', () => proxy.hasCut())
    // The server knows nothing of the cut, and holds the row for the old connection, so that the question has to wait.
    await until('the question', () => isAsked(server(), through))
    proxy.deliver()
    await running
    assert.deepEqual(await contents(raw), wanted)
  })

  it('an outcome that nobody can tell in time is 503, and the change is whole or absent', async () => {
    const hasty = await openDatabase(through, { outcomeMs: 300 })
    try {
      await prepare(update)
      const absent = await contents(raw)
      const { counts, wanted: whole } = await measured(update, () => fresh(hasty), hasty)
      for (const direction of DIRECTIONS) {
        // Where the pool had another connection at hand, the cut meets something before the commit.
        await until('a cut commit', async () => {
          await prepare(update)
          await fresh(hasty)
          proxy.reset()
          proxy.cutAt(direction, counts[direction], true)
          const error: unknown = await update.run(hasty).catch((cause: unknown) => cause)
          assert.ok(!proxy.hasCut() || hasKind(error, 'unavailable'), String(error))
          const unknown = hasKind(error, 'unavailable') && error.detail['outcome'] === 'unknown'
          proxy.setDown(false)
          const done = unknown ? direction === 'to client' : !proxy.hasCut()
          proxy.reset()
          assert.deepEqual(await contents(raw), done ? whole : absent)
          return unknown
        })
      }
      // Others go on, and so does this process.
      await prepare(update)
      await update.run(hasty)
      assert.deepEqual(await contents(raw), whole)
    } finally {
      await hasty.close()
    }
  })

  it('a server that cannot be reached is 503 at once, and is used again when it is back', async () => {
    const [insert] = VERBS as [Verb]
    await prepare(insert)
    proxy.setDown(true)
    await assert.rejects(insert.run(db), (error) => hasKind(error, 'unavailable'))
    await assert.rejects(db.workers.list(), (error) => hasKind(error, 'unavailable'))
    proxy.setDown(false)
    await insert.run(db)
    assert.equal((await contents(raw))['images']?.length, 1)
  })
}

/** Whether somebody waits for a row of the outcomes. */
async function isAsked(server: SqlServer, url: string): Promise<boolean> {
  const [found] = await server.query(
    url,
    server.kind === 'postgresql'
      ? "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and query like '%glimpse_writes%'"
      : "select count(*) from information_schema.processlist where state = 'Update' and info like 'insert into glimpse_writes%'",
  )
  return found !== '0'
}

onServer('a cut connection to PostgreSQL', postgresAvailable(), startPostgres, suite)
onServer('a cut connection to MariaDB', mariadbAvailable(), startMariadb, suite)
