import assert from 'node:assert/strict'
import { chmodSync, chownSync, writeFileSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, it, type TestContext } from 'node:test'
import { inspect } from 'node:util'
import { sql } from 'kysely'
import { makeSigner } from '../../../test/support/certificates.ts'
import { onServer } from '../../../test/support/on-server.ts'
import { until } from '../../../test/support/product.ts'
import {
  mariadbAvailable,
  postgresAvailable,
  type SqlServer,
  serverIds,
  startMariadb,
  startPostgres,
} from '../../../test/support/servers/sql.ts'
import { hasKind, ServiceError } from '../../domain/errors.ts'
import { newImage } from '../conformance.ts'
import { openDatabase } from './connect.ts'
import { type Patience, patiently, type Setback } from './patience.ts'
import { type Connection, type ConnectOptions, connect } from './session.ts'
import { slot } from './statement.ts'

const unavailable = (error: unknown): error is ServiceError => hasKind(error, 'unavailable')

describe('patience', () => {
  /** How often something is tried that fails in these ways, one after the other, and then succeeds. */
  const tries = async (setbacks: readonly Setback[], patience: Patience) => {
    let count = 0
    const attempt = async () => {
      count += 1
      if (count <= setbacks.length) throw new Error(`failure ${count}`)
    }
    const ended = await patiently(attempt, () => setbacks[count - 1], patience).then(
      () => 'done',
      () => 'failed',
    )
    return `${ended} after ${count}`
  }
  const many = (setback: Setback) => Array.from({ length: 30 }, () => setback)
  const reconnect = { retries: 30, intervalMs: 0, growing: true, maxIntervalMs: 0 }

  it('is for those who are in the way, and for lost connections, within its time', async () => {
    assert.equal(await tries(['again', 'lost', 'again'], { busyMs: 60_000 }), 'done after 4')
    assert.equal(await tries(many('again'), { busyMs: -1, reconnect }), 'failed after 1')
    assert.equal(await tries([undefined], { busyMs: 60_000, reconnect }), 'failed after 1')
  })

  it('ends soon with a server that only reads, however long others are waited for', async (t) => {
    t.mock.timers.enable({ apis: ['Date'], now: 0 })
    let attempts = 0
    const attempt = async () => {
      attempts += 1
      t.mock.timers.tick(1_000)
      if (attempts < 100) throw new Error('read only')
    }
    await assert.rejects(patiently(attempt, () => 'lost', { busyMs: 600_000 }))
    assert.equal(attempts, 7)
  })

  it('is for servers that are away only where that is wanted, and as often', async () => {
    assert.equal(await tries(['away'], { busyMs: 60_000 }), 'failed after 1')
    assert.equal(await tries(many('away'), { busyMs: 0, reconnect }), 'done after 31')
    assert.equal(await tries(many('away'), { busyMs: 0, reconnect: { ...reconnect, retries: 2 } }), 'failed after 3')
    assert.equal(await tries(many('away'), { busyMs: 0, reconnect: { ...reconnect, retries: -1 } }), 'done after 31')
  })
})

const suite = (server: () => SqlServer) => {
  const mysql = () => server().kind === 'mysql'
  let url: string
  before(async () => {
    url = await server().database()
    await (await openDatabase(url)).close()
  })
  const opened = async (t: TestContext, options: ConnectOptions, to = url) => {
    const connection = await connect(to, options)
    t.after(() => connection.close())
    return connection
  }
  const one = async ({ read, prepare }: Connection, expression: string) =>
    (await read((session) => session.first(prepare(sql<{ it: unknown }>`select ${sql.raw(expression)} as it`))))?.it
  const session = () => (mysql() ? 'connection_id()' : 'pg_backend_pid()')
  const count = async () =>
    Number(
      (
        await server().query(
          url,
          mysql()
            ? "select count(*) from information_schema.processlist where user = 'glance'"
            : "select count(*) from pg_stat_activity where application_name = 'glimpse'",
        )
      )[0],
    )

  it('max_pool_size and max_overflow bound the connections, pool_timeout the wait for one', async (t) => {
    const connection = await opened(t, { connections: 2, waitMs: 300 })
    let free = () => {}
    const held = new Promise<void>((resolve) => {
      free = resolve
    })
    const holders = [0, 1].map(() => connection.read(() => held))
    await until('both connections', async () => (await count()) === 2)
    await assert.rejects(one(connection, '1'), unavailable)
    free()
    await Promise.all(holders)
    await Promise.all(Array.from({ length: 20 }, () => one(connection, '1')))
    assert.equal(await count(), 2)
  })

  it('connections beyond max_pool_size are closed again', async (t) => {
    const connection = await opened(t, { connections: 5, keptConnections: 1 })
    await Promise.all(Array.from({ length: 20 }, () => one(connection, '1')))
    await until('the end of the overflow', async () => (await count()) === 1)
  })

  it('connection_recycle_time has old connections replaced', async (t) => {
    const [kept, recycled] = [await opened(t, {}), await opened(t, { recycleMs: 20 })]
    const first = await one(kept, session())
    const other = await one(recycled, session())
    await until('another one', async () => (await one(recycled, session())) !== other)
    assert.equal(await one(kept, session()), first)
  })

  it('max_retries and retry_interval have the service wait for a server at its start', async () => {
    await server().halt()
    let started = false
    try {
      const settings = { connection: url, retry_interval: 0 }
      await assert.rejects(openDatabase({ ...settings, max_retries: 2 }), unavailable)
      const warned: string[] = []
      const opening = openDatabase({ ...settings, max_retries: -1 }, { warn: (text) => void warned.push(text) })
      await until('some attempts', () => warned.length > 3)
      await server().start()
      started = true
      await (await opening).close()
      assert.match(String(warned[0]), /cannot be reached/)
    } finally {
      if (!started) await server().start()
    }
  })

  it('a server that refuses is told at once, in its words, and nothing of the password', async () => {
    const wrong = [
      url.replace(/\/glance_\w+/, '/glance_none'),
      ...(mysql() ? [url.replace(':secret@', ':s3cret@')] : []),
    ]
    for (const connection of wrong)
      await assert.rejects(openDatabase({ connection, max_retries: -1 }), (error) => {
        assert.ok(unavailable(error) && error.detail['reason'] === 'denied', String(error))
        assert.match(String(error.cause), /glance_none|Access denied/)
        assert.doesNotMatch(inspect(error, { depth: 10 }), /s3cret/)
        return true
      })
  })

  it('use_db_reconnect has requests wait for a server, as often as db_max_retries says', async () => {
    const settings = { connection: url, use_db_reconnect: true, db_retry_interval: 0 }
    const patient = await openDatabase({ ...settings, db_max_retries: -1 })
    const hasty = await openDatabase({ ...settings, db_max_retries: 3 })
    try {
      await server().halt()
      await assert.rejects(hasty.images.insert(newImage()), unavailable)
      const row = newImage()
      const waiting = patient.images.insert(row)
      await server().start()
      assert.equal((await waiting).id, row.id)
      assert.equal((await hasty.images.get(row.id, { admin: true, project: undefined })).id, row.id)
    } finally {
      await patient.close()
      await hasty.close()
    }
  })

  it('connection_trace says where a statement comes from, connection_debug logs them without their values', async () => {
    const lines: string[] = []
    const debug = (text: string) => void lines.push(text)
    const db = await openDatabase({ connection: url, connection_trace: true, connection_debug: 50 }, { debug })
    await db.images.insert(newImage({ name: 'a secret name' }))
    await db.close()
    assert.ok(
      lines.some((line) => /^insert into [`"]images.* \/\* sql\/image-writer\.ts:\d+ \*\/$/s.test(line)),
      lines.join('\n'),
    )
    assert.ok(!lines.join().includes('secret'))
  })

  it('a statement of a transaction that has been silent for too long, and is over, is repeated', async (t) => {
    const connection = await opened(t, {})
    let attempts = 0
    const change = connection.prepare(sql`delete from glimpse_workers where id = 'nobody'`)
    await connection.write(async (session) => {
      attempts += 1
      await session.change(change)
      if (attempts > 1) return
      // As the server would.
      const [id] = await server().query(url, mysql() ? HOLDERS.mysql : HOLDERS.postgresql)
      await server().query(url, mysql() ? `kill ${id}` : `select pg_terminate_backend(${id})`)
      await session.change(change)
    })
    assert.equal(attempts, 2)
  })

  it('a database that has lost our tables is written to all the same', async (t) => {
    const place = await server().database()
    const connection = await opened(t, {}, place)
    const run = (text: string) => connection.write((session) => session.change(connection.prepare(sql.raw(text))))
    await run('create table t (n integer)')
    assert.equal(await run('insert into t values (1)'), 1)
    assert.equal(await one(connection, '(select count(*) from t)'), 1)
  })
}

const HOLDERS = {
  postgresql: "select pid from pg_stat_activity where state = 'idle in transaction' and query like '%nobody%'",
  mysql: `select trx_mysql_thread_id from information_schema.innodb_trx where trx_state = 'RUNNING'`,
} as const

onServer('connections to PostgreSQL', postgresAvailable(), startPostgres, (server) => {
  suite(server)

  it('a server that forgets statements, as poolers do, is asked without names from then on', async () => {
    const connection = await connect(await server().database(), { connections: 1 })
    try {
      const twice = connection.fixed(sql<{ it: number }>`select ${slot<number>('n')}::integer * 2 as it`)
      const ask = (n: number) => connection.read((session) => session.first(twice, { n }))
      assert.equal((await ask(1))?.it, 2)
      await connection.direct((session) => session.change(connection.prepare(sql`deallocate all`)))
      for (const n of [2, 3]) assert.equal((await ask(n))?.it, 2 * n)
    } finally {
      await connection.close()
    }
  })
})
onServer('connections to MariaDB', mariadbAvailable(), startMariadb, (server) => {
  suite(server)

  it('mysql_sql_mode and mysql_wsrep_sync_wait are those of each session', async () => {
    const url = await server().database()
    const modeOf = async (options: ConnectOptions) => {
      const connection = await connect(url, options)
      try {
        const ask = connection.prepare(
          sql<{ mode: string; wait: number }>`select @@sql_mode as mode, @@wsrep_sync_wait as wait`,
        )
        return await connection.write((session) => session.first(ask))
      } finally {
        await connection.close()
      }
    }
    assert.match(String((await modeOf({}))?.mode), /TRADITIONAL/)
    assert.equal((await modeOf({ sqlMode: 'NO_BACKSLASH_ESCAPES,ANSI_QUOTES' }))?.mode, 'ANSI_QUOTES')
    assert.match(String((await modeOf({ sqlMode: '' }))?.mode), /STRICT_TRANS_TABLES/)
    assert.deepEqual([(await modeOf({}))?.wait, (await modeOf({ syncWait: 3 }))?.wait], [0, 3])
  })
})

describe('TLS', () => {
  let dir: string
  let files: { readonly key: string; readonly crt: string }
  before(async () => {
    dir = await mkdtemp(join(tmpdir(), 'glimpse-tls-'))
    const { id } = makeSigner(dir, 'rsa')
    files = { key: join(dir, `${id}.key`), crt: join(dir, `${id}.crt`) }
    chmodSync(dir, 0o755)
  })
  after(() => rm(dir, { recursive: true }))
  const owned = async (user: string) => {
    const ids = await serverIds(user)
    if (ids !== undefined) for (const file of [files.key, files.crt]) chownSync(file, ids.uid, ids.gid)
    chmodSync(files.key, 0o600)
  }
  /** Whether the connection of a URL is encrypted; what was wrong when there is none. */
  const tlsOf = async (url: string): Promise<boolean | string> => {
    const connection = await connect(url)
    const ask = url.startsWith('postgres')
      ? sql<{ it: unknown }>`select ssl as it from pg_stat_ssl where pid = pg_backend_pid()`
      : sql<{ it: unknown }>`select (select variable_value from information_schema.session_status
          where variable_name = 'Ssl_cipher') <> '' as it`
    try {
      return Boolean((await connection.read((session) => session.first(connection.prepare(ask))))?.it)
    } catch (error) {
      return error instanceof ServiceError ? String(error.cause) : String(error)
    } finally {
      await connection.close()
    }
  }

  onServer(
    'of PostgreSQL',
    postgresAvailable(),
    async () => {
      await owned('postgres')
      return startPostgres({ settings: ['ssl=on', `ssl_cert_file=${files.crt}`, `ssl_key_file=${files.key}`] })
    },
    (server) => {
      it('is used as sslmode says, and where nothing is said', async () => {
        const url = await server().database()
        assert.equal(await tlsOf(url), true)
        assert.equal(await tlsOf(`${url}?sslmode=disable`), false)
        assert.equal(await tlsOf(`${url}?sslmode=require`), true)
        assert.equal(await tlsOf(`${url}?sslmode=verify-ca&sslrootcert=${files.crt}`), true)
        assert.match(
          String(await tlsOf(`${url}?sslmode=verify-full&sslrootcert=${files.crt}`)),
          /IP: 127.0.0.1|altnames/i,
        )
        assert.match(String(await tlsOf(`${url}?sslmode=verify-ca`)), /self.signed/)
        assert.match(String(await tlsOf(`${url}?sslmode=verify-full&sslrootcert=system`)), /self.signed/)
        await assert.rejects(tlsOf(`${url}?sslmode=verify_full`), /sslmode is none of/)
      })
    },
  )
  onServer('of PostgreSQL without any', postgresAvailable(), startPostgres, (server) => {
    it('is done without, unless it is required', async () => {
      const url = await server().database()
      assert.equal(await tlsOf(url), false)
      assert.match(String(await tlsOf(`${url}?sslmode=require`)), /does not support SSL/)
    })
  })
  onServer(
    'of MariaDB',
    mariadbAvailable(),
    async () => {
      await owned('mysql')
      return startMariadb({ settings: [`--ssl-cert=${files.crt}`, `--ssl-key=${files.key}`, `--ssl-ca=${files.crt}`] })
    },
    (server) => {
      it('is used when certificates are given', async () => {
        const url = await server().database()
        assert.equal(await tlsOf(url), false)
        assert.equal(await tlsOf(`${url}&ssl_ca=${files.crt}&ssl_check_hostname=false`), true)
        assert.match(String(await tlsOf(`${url}&ssl_ca=${files.crt}`)), /IP: 127.0.0.1|altnames/i)
        // Deployment tools write it alone, and mean the authorities of the system.
        assert.match(String(await tlsOf(`${url}&ssl_verify_cert=true`)), /self.signed/)
        assert.equal(await tlsOf(`${url}&ssl_ca=${files.crt}&ssl_verify_cert=true`), true)
        assert.equal(await tlsOf(`${url}&ssl_check_hostname=false`), true)
        const file = join(dir, 'my.cnf')
        writeFileSync(file, `[tripleo]\nssl-ca=${files.crt}\n`)
        const fromFile = `${url}&read_default_file=${file}&read_default_group=tripleo`
        assert.equal(await tlsOf(`${fromFile}&ssl_check_hostname=false`), true)
        assert.match(String(await tlsOf(fromFile)), /IP: 127.0.0.1|altnames/i)
        await server().query(url, 'set global require_secure_transport = on')
        assert.notEqual(await tlsOf(url), false)
        assert.equal(await tlsOf(`${url}&ssl_ca=${files.crt}&ssl_check_hostname=false`), true)
      })
    },
  )
})
