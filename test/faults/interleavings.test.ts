/**
 * Two nodes do things to the same images at once, in made-up courses of events on each database; after each, what must
 * always be true is. That this can fail was seen by hand: without the comparison in a compare-and-set, or with weaker
 * transactions, it does within a few hundred courses.
 *   INTERLEAVINGS=10000 npm run faults    courses on each database
 *   INTERLEAVINGS_SEED=7                  which ones
 */
import assert from 'node:assert/strict'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import type { Database } from '../../src/db/database.ts'
import { openDatabase } from '../../src/db/sql/connect.ts'
import { type Connection, connect } from '../../src/db/sql/session.ts'
import { hasKind } from '../../src/domain/errors.ts'
import { randomFrom } from '../crash/content.ts'
import { onServer } from '../support/on-server.ts'
import { galeraAvailable, startGalera } from '../support/servers/galera.ts'
import { mariadbAvailable, postgresAvailable, startMariadb, startPostgres } from '../support/servers/sql.ts'
import { type Course, openCourse } from './course.ts'

const courses = Number(process.env['INTERLEAVINGS'] ?? 100)
const seed = Number(process.env['INTERLEAVINGS_SEED'] ?? 1)
/** So many courses run beside each other: each is in the others' way where indexes and locks are concerned. */
const LANES = 4

async function run(course: Course, nodes: readonly Database[], raw: Connection): Promise<void> {
  for (let wave = 0; wave < 3; wave += 1) {
    const deeds = course.wave()
    await Promise.all(
      deeds.map(async ({ name, node, after, act }) => {
        if (after > 0) await delay(after)
        try {
          await act(nodes[node] as Database)
        } catch (error) {
          // Somebody was faster. Nothing else is fair: no deadlock shows, nothing is unavailable.
          assert.ok(hasKind(error, 'conflict', 'not-found', 'too-large'), `${name}: ${String(error)}`)
        }
      }),
    )
    assert.deepEqual(await course.wrongs(raw), [], course.story())
  }
}

/** `urls` has the place of the database at each node. */
const suite = (urls: () => Promise<readonly [string, string]>) => {
  let nodes: readonly Database[]
  let raw: Connection
  before(async () => {
    const [one, two] = await urls()
    const options = { connections: 12, synchronous: false }
    nodes = [await openDatabase(one, options), await openDatabase(two, options)]
    // What a node of a cluster has not applied yet is waited for.
    raw = await connect(one, one === two ? {} : { syncWait: 1 })
  })
  after(async () => {
    for (const one of [...nodes, raw]) await one.close()
  })

  it(`every invariant holds in ${courses} interleavings (seed ${seed})`, {
    timeout: 60_000 + courses * 1000,
  }, async () => {
    let next = 0
    const totals = new Map<string, number>()
    const lane = async () => {
      while (next < courses) {
        const number = next++
        const course = await openCourse(nodes[0] as Database, number, randomFrom(seed * 1_000_003 + number))
        await run(course, nodes, raw)
        for (const name of course.successes()) totals.set(name, (totals.get(name) ?? 0) + 1)
      }
    }
    await Promise.all(Array.from({ length: LANES }, lane))
    // Each kind of deed has succeeded, so that something was tried.
    if (courses >= 100)
      for (const name of [
        'claim',
        'publish',
        'queue again',
        'deactivate',
        'add tag',
        'add member',
        'begin',
        'finish',
        'remove',
      ])
        assert.ok((totals.get(name) ?? 0) > 0, `${name} never happened: ${JSON.stringify([...totals])}`)
  })
}

const twice = async (url: string) => [url, url] as const

describe('two nodes on SQLite', () => {
  let dir: string
  before(async () => {
    dir = await mkdtemp(join(tmpdir(), 'glimpse-interleavings-'))
  })
  after(() => rm(dir, { recursive: true }))
  suite(() => twice(`sqlite:///${join(dir, 'glance.sqlite')}`))
})
onServer('two nodes on PostgreSQL', postgresAvailable(), startPostgres, (server) =>
  suite(async () => twice(await server().database())),
)
onServer('two nodes on MariaDB', mariadbAvailable(), startMariadb, (server) =>
  suite(async () => twice(await server().database())),
)
onServer('two nodes, each on a node of Galera', galeraAvailable(), startGalera, (cluster) =>
  suite(() => cluster().database()),
)
