import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, it } from 'node:test'
import { revert } from '../../src/db/sql/revert.ts'
import { onServer } from '../support/on-server.ts'
import { root, until } from '../support/product.ts'
import { schemaOf } from '../support/schema-dump.ts'
import {
  mariadbAvailable,
  postgresAvailable,
  type SqlServer,
  startMariadb,
  startPostgres,
} from '../support/servers/sql.ts'
import { onDatabase } from '../support/upstream-database.ts'

const dir = mkdtempSync(join(tmpdir(), 'glimpse-manage-'))
after(() => rmSync(dir, { recursive: true }))

interface Running {
  readonly child: ChildProcess
  readonly said: () => string
  readonly code: Promise<number | null>
}

/** glance-manage in a process of its own, with options of `[database]` besides the URL. */
const manage = (url: string, command: string, ...options: readonly string[]): Running => {
  const conf = join(dir, 'glance-api.conf')
  writeFileSync(conf, ['[database]', `connection = ${url}`, 'max_retries = 0', ...options, ''].join('\n'))
  const child = spawn(join(root, 'bin/glance-manage'), ['--config-file', conf, ...command.split(' ')])
  let said = ''
  for (const stream of [child.stdout, child.stderr]) stream?.on('data', (data: Buffer) => (said += data.toString()))
  return { child, said: () => said, code: new Promise((resolve) => child.once('close', resolve)) }
}

const suite = (server: () => SqlServer) => {
  const done = async (url: string, command: string, ...options: readonly string[]) => {
    const running = manage(url, command, ...options)
    assert.equal(await running.code, 0, running.said())
    return running.said()
  }

  it('tells in one line why the server refuses, and not the password', async () => {
    const url = (await server().database()).replace(/glance_\w+/, 'glance_none').replace(':secret@', ':s3cret@')
    for (const command of ['db sync', 'db check', 'db purge']) {
      const { code, said } = manage(url, command)
      assert.equal(await code, 1)
      assert.match(said(), /^ERROR: The database is not available: .+\n$/)
      assert.doesNotMatch(said(), /s3cret/)
    }
  })

  it('waits for a server that is away, as max_retries and retry_interval say', async () => {
    const url = await server().database()
    await server().halt()
    let running: Running
    try {
      const refused = manage(url, 'db version')
      assert.equal(await refused.code, 1)
      assert.match(refused.said(), /^ERROR: The database is not available: .+\n$/)
      running = manage(url, 'db sync', 'max_retries = -1', 'retry_interval = 0')
      await until('an attempt', () => /cannot be reached/.test(running.said()))
    } finally {
      await server().start()
    }
    assert.equal(await running.code, 0, running.said())
    assert.match(running.said(), /Database is synced successfully/)
  })

  it('makes the schema, however often it was killed, and with others at it', async () => {
    const model = await server().database()
    await done(model, 'db sync')
    const url = await server().database()
    const tables = async () => (await server().query(url, TABLES[server().kind])).length
    for (const count of [1, 5, 12]) {
      const { child, code } = manage(url, 'db sync')
      await Promise.race([until('some tables', async () => (await tables()) >= count), code])
      child.kill('SIGKILL')
      await code
    }
    await Promise.all([done(url, 'db sync'), done(url, 'db sync'), done(url, 'db expand')])
    assert.equal(await done(url, 'db check'), 'Database is up to date. No upgrades needed.\n')
    // What is ours may have been cut off after upstream's part was whole; the service says so, and goes without.
    for (const one of [url, model]) await onDatabase(one, (db) => revert(db, () => undefined))
    assert.equal(await schemaOf(server(), url), await schemaOf(server(), model))
  })
}

const TABLES = {
  postgresql: "select table_name from information_schema.tables where table_schema = 'public'",
  mysql: 'select table_name from information_schema.tables where table_schema = database()',
} as const

onServer('glance-manage with PostgreSQL', postgresAvailable(), startPostgres, suite)
onServer('glance-manage with MariaDB', mariadbAvailable(), startMariadb, (server) => {
  suite(server)

  it('purges without the limit that statements of requests have', async () => {
    const url = await server().database()
    await server().query(url, "set global log_output = 'TABLE', general_log = 1")
    assert.equal(await manage(url, 'db purge').code, 0)
    const asked = (text: string) =>
      server().query(
        url,
        `select 1 from mysql.general_log where argument like '%${text}%' and user_host like 'glance%'`,
      )
    assert.ok((await asked('image_properties')).length > 0)
    assert.deepEqual(await asked('max_statement_time = 30'), [])
  })

  it('does not change the schema without its turn', async () => {
    const url = await server().database()
    const holder = server().query(url, "select get_lock('4711292', 0), sleep(600)")
    holder.catch(() => undefined)
    const HOLDER = "get_lock(''4711292'', 0), sleep"
    const waiting = async (what: string) =>
      (await server().query(url, `select id from information_schema.processlist where info like 'select ${what}%'`))[0]
    await until('the lock', async () => (await waiting(HOLDER)) !== undefined)
    const sync = manage(url, 'db sync')
    const turn = "get_lock(''4711292'', 1"
    await until('the turn', async () => (await waiting(turn)) !== undefined)
    await server().query(url, `kill query ${await waiting(turn)}`)
    assert.equal(await sync.code, 1)
    assert.match(sync.said(), /Another process has been changing the schema/)
    const holding = await waiting(HOLDER)
    await server().query(url, `kill ${holding}`)
  })
})
