import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { it, type TestContext } from 'node:test'
import { walk } from '../../src/cli/takeover/shadow/course.ts'
import { shadow } from '../../src/cli/takeover/shadow/shadow.ts'
import { openDatabase } from '../../src/db/sql/connect.ts'
import { openRest } from '../../src/io/rest.ts'
import { onServer } from '../support/on-server.ts'
import { startServer, type TestConfig } from '../support/server.ts'
import { glanceVenv, startGlance } from '../support/servers/glance.ts'
import {
  mariadbAvailable,
  postgresAvailable,
  type SqlServer,
  startMariadb,
  startPostgres,
} from '../support/servers/sql.ts'
import { makeUpstream } from '../support/upstream-database.ts'
import { ADMIN, ALICE, asBoth, BOB, populate, sectionsOf, told, withoutGlance } from './deployment.ts'

const STORES = { DEFAULT: { enabled_backends: 'fast:file, cheap:file' }, glance_store: { default_backend: 'fast' } }
const configOf = async (server: SqlServer): Promise<TestConfig> => ({
  ...STORES,
  database: { connection: await server.database() },
})

/** Statements that make a user who may only read, and give more rights step by step. */
interface Grants {
  readonly create: readonly string[]
  readonly write: string
  readonly tables: string
  readonly everything: string
}

/** Looks at a deployment on a server, and finds what is put there. */
function looksAtServer(
  server: () => SqlServer,
  product: RegExp,
  grants: (user: string, database: string) => Grants,
): void {
  const deployed = async (t: TestContext) => {
    const config = await configOf(server())
    const { url, dir, close } = await startServer({ config })
    t.after(close)
    await populate({ url })
    return { file: join(dir, 'glance-api.conf'), connection: config['database']?.['connection'] ?? '' }
  }

  it('finds no problem in a healthy deployment, and changes nothing', async (t) => {
    const { file, connection } = await deployed(t)
    const count = () => server().query(connection, 'select count(*), max(updated_at) from images')
    const before = await count()
    const found = await sectionsOf(file)
    assert.deepEqual(told(found, 'problem'), [])
    const good = told(found, 'ok').join('\n')
    assert.match(good, product)
    assert.match(good, /Database: The schema is that of the present releases/)
    assert.match(good, /Database: Images: 6 active, 2 queued\./)
    assert.match(good, /Database: The indexes and triggers of Glimpse are there\./)
    assert.match(good, /Stores: Store fast: 6 of 6 images, taken at random, are there/)
    assert.deepEqual(await count(), before)
  })

  it('finds out what the user of the database may not do', async (t) => {
    const connection = await makeUpstream(await server().database())
    const dir = await mkdtemp(join(tmpdir(), 'takeover-'))
    t.after(() => rm(dir, { recursive: true, force: true }))
    const url = new URL(connection)
    const user = url.pathname.slice(-12)
    Object.assign(url, { username: user, password: 'pass' })
    const file = join(dir, 'glance-api.conf')
    await writeFile(file, `[database]\nconnection = ${url}\n`)
    const said = async (...statements: readonly string[]) => {
      for (const statement of statements) await server().query(connection, statement)
      const found = await sectionsOf(file)
      return (['problem', 'note'] as const)
        .flatMap((level) => told(found, level))
        .filter((text) => /The user of the database/.test(text))
        .join('\n')
    }
    const { create, write, tables, everything } = grants(user, url.pathname.slice(1))
    const reader = await said(...create)
    assert.match(reader, /may only read/)
    assert.match(reader, /may not create tables/)
    const writer = await said(write)
    assert.doesNotMatch(writer, /may only read/)
    assert.match(writer, /may not create tables/)
    const maker = await said(tables)
    assert.match(maker, /^Database: The user of the database may not make indexes/)
    assert.equal(await said(everything), '')
  })

  it('finds images that cannot be served, and work under way', async (t) => {
    const { file, connection } = await deployed(t)
    const { query } = server()
    await query(connection, `update image_locations set meta_data = '{"store": "gone"}' where id = 1`)
    await query(connection, "update images set status = 'saving' where status = 'queued'")
    const found = await sectionsOf(file)
    const problems = told(found, 'problem')
    assert.equal(problems.length, 1, problems.join('\n'))
    assert.match(problems[0] ?? '', /1 location in store gone/)
    assert.match(told(found, 'note').join('\n'), /being uploaded or imported now: \|.*saving/)
  })
}

onServer('PostgreSQL', postgresAvailable(), startPostgres, (server) => {
  looksAtServer(server, /Database: glance_\w+ at 127\.0\.0\.1:\d+ answers: PostgreSQL \d+/, (user) => ({
    create: [
      `create role "${user}" login password 'pass'`,
      'revoke create on schema public from public',
      `grant select on all tables in schema public to "${user}"`,
    ],
    write: `grant insert, update, delete on all tables in schema public to "${user}"`,
    tables: `grant create on schema public to "${user}"`,
    everything: `alter table images owner to "${user}"`,
  }))

  it('answers as the real Glance on the same database', { skip: withoutGlance() }, async (t) => {
    const python = join(await glanceVenv(), 'bin/python')
    try {
      execFileSync(python, ['-c', 'import psycopg2'], { stdio: 'ignore' })
    } catch {
      return t.skip('the real Glance has no psycopg2')
    }
    const config = await configOf(server())
    // Upstream's schema, and our additions: the real Glance works with both, and so do we.
    await (await openDatabase(config['database']?.['connection'] ?? '')).close()
    const glance = await startGlance({ config })
    t.after(() => glance.stop())
    await populate(glance)
    const folders = Object.fromEntries(
      ['fast', 'cheap'].map((store) => [store, { filesystem_store_datadir: join(glance.dir, store) }]),
    )
    const ours = await startServer({ config: { ...config, ...folders } })
    t.after(() => ours.close())
    const rest = openRest({ name: 'The service', retries: 0 })
    t.after(() => rest.close())
    const result = await shadow({
      ...{ rest, theirs: glance.url, ours: ours.url, course: walk, rate: 1000, limit: 1000 },
      callers: [ADMIN, ALICE, BOB].map((token) => async () => asBoth(token)),
    })
    assert.deepEqual(result.differences, [])
    assert.ok(result.alike > 200, `only ${result.alike} of ${result.asked} alike`)
  })
})

onServer('MariaDB', mariadbAvailable(), startMariadb, (server) => {
  looksAtServer(server, /Database: glance_\w+ at 127\.0\.0\.1:\d+ answers: MariaDB \d+/, (user, database) => ({
    create: [
      `create user '${user}'@'127.0.0.1' identified by 'pass'`,
      `grant select on \`${database.replace('_', '\\_')}\`.* to '${user}'@'127.0.0.1'`,
    ],
    write: `grant insert, update, delete on ${database}.* to '${user}'@'127.0.0.1'`,
    tables: `grant create on ${database}.* to '${user}'@'127.0.0.1'`,
    everything: `grant all on ${database}.* to '${user}'@'127.0.0.1'`,
  }))
})
