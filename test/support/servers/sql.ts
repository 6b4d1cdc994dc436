import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { globSync, openSync, rmSync, statSync } from 'node:fs'
import { chown, mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir, userInfo } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { promisify } from 'node:util'
import { freePort } from '../product.ts'

const run = promisify(execFile)

/** A real database server on the loopback device, with its data in a folder of its own. */
export interface SqlServer {
  readonly kind: 'postgresql' | 'mysql'
  readonly product: 'postgresql' | 'mariadb' | 'mysql'
  readonly port: number
  readonly pid: () => number
  /** A new, empty database: its SQLAlchemy URL. */
  database(): Promise<string>
  /** Runs SQL in the database of a URL; the rows as text, columns separated by tabs. */
  query(url: string, sql: string): Promise<readonly string[]>
  /** What the server's own tool writes of a database: of its schema, or of its rows. */
  dump(url: string, what: 'schema' | 'rows'): Promise<string>
  /** Ends the process: `SIGKILL` as a crash would, anything else in order. */
  halt(signal?: NodeJS.Signals): Promise<void>
  start(): Promise<void>
  /** Ends the process and deletes everything. */
  stop(): Promise<void>
}

export type Availability = { readonly ok: true } | { readonly ok: false; readonly reason: string }

/** Debian keeps PostgreSQL's server programs out of the path, in a folder per version. */
const postgresBin = (): string | undefined =>
  globSync('/usr/lib/postgresql/*/bin').toSorted((a, b) => b.localeCompare(a, undefined, { numeric: true }))[0]
const MARIADBD = '/usr/sbin/mariadbd'

const isFile = (path: string): boolean => statSync(path, { throwIfNoEntry: false })?.isFile() === true

export const postgresAvailable = (): Availability =>
  postgresBin() === undefined ? { ok: false, reason: 'PostgreSQL is not installed' } : { ok: true }
export const mariadbAvailable = (): Availability =>
  isFile(MARIADBD) ? { ok: true } : { ok: false, reason: 'MariaDB is not installed' }

/** Neither server runs as root: it runs as the user that its package made. */
export async function serverIds(user: string): Promise<{ readonly uid: number; readonly gid: number } | undefined> {
  if (userInfo().uid !== 0) return undefined
  const [uid, gid] = await Promise.all(['-u', '-g'].map(async (flag) => Number((await run('id', [flag, user])).stdout)))
  return { uid: uid as number, gid: gid as number }
}

interface Recipe {
  readonly kind: SqlServer['kind']
  readonly product: SqlServer['product']
  readonly user: string
  readonly prepare: (dir: string, ids: { uid: number; gid: number } | undefined) => Promise<void>
  readonly server: (dir: string, port: number) => readonly [command: string, args: readonly string[]]
  readonly orderly: NodeJS.Signals
  /** Ends it at once, with nothing of it left in the machine's shared memory. */
  readonly quick: NodeJS.Signals
  readonly client: (dir: string, port: number, database: string) => readonly [command: string, args: readonly string[]]
  readonly dump: (dir: string, port: number, what: 'schema' | 'rows') => readonly [command: string, ...args: string[]]
  readonly create: (name: string) => string
  readonly url: (port: number, name: string) => string
}

const nameIn = (url: string): string => /\/(\w+)(?:\?|$)/.exec(url)?.[1] ?? ''

const memory = (): string => (statSync('/dev/shm', { throwIfNoEntry: false })?.isDirectory() ? '/dev/shm' : tmpdir())

async function startServer(recipe: Recipe, durable: boolean): Promise<SqlServer> {
  // In memory, where there is such a place: a test of a database waits for nothing so much as for the disk.
  const dir = await mkdtemp(join(durable ? tmpdir() : memory(), `glimpse-${recipe.kind}-`))
  const ids = await serverIds(recipe.user)
  if (ids !== undefined) await chown(dir, ids.uid, ids.gid)
  const port = await freePort()
  await recipe.prepare(dir, ids)

  const log = join(dir, 'server.log')
  let child: ChildProcess | undefined
  const killNow = () => {
    child?.kill('SIGKILL')
    rmSync(dir, { recursive: true, force: true })
  }
  process.once('exit', killNow)
  const query = async (name: string, sql: string) => {
    const [command, args] = recipe.client(dir, port, name)
    const { stdout } = await run(command, [...args, sql], { ...ids, maxBuffer: 1 << 28 })
    return stdout.split('\n').filter((line) => line !== '')
  }
  const start = async () => {
    const [command, args] = recipe.server(dir, port)
    const output = openSync(log, 'a')
    const started = spawn(command, args, { cwd: dir, ...ids, stdio: ['ignore', output, output] })
    // It ends with the process, and does not keep it from ending.
    started.unref()
    child = started
    for (const deadline = Date.now() + 60_000; ; await delay(50)) {
      const up = await query(recipe.kind === 'mysql' ? 'mysql' : 'postgres', 'select 1').then(
        () => true,
        () => false,
      )
      if (up) return
      if (started.exitCode !== null || Date.now() > deadline)
        throw new Error(`${recipe.kind} does not start:\n${await readFile(log, 'utf8')}`)
    }
  }
  const halt = async (signal: NodeJS.Signals = recipe.orderly) => {
    const ended = child
    child = undefined
    if (ended === undefined || ended.exitCode !== null || ended.signalCode !== null) return
    const exit = new Promise((resolve) => ended.once('exit', resolve))
    ended.ref()
    ended.kill(signal)
    await exit
  }
  await start()
  return {
    kind: recipe.kind,
    product: recipe.product,
    port,
    pid: () => child?.pid ?? 0,
    database: async () => {
      const name = `glance_${randomBytes(6).toString('hex')}`
      await query(recipe.kind === 'mysql' ? 'mysql' : 'postgres', recipe.create(name))
      return recipe.url(port, name)
    },
    query: (url, sql) => query(nameIn(url), sql),
    dump: async (url, what) => {
      const [command, ...args] = recipe.dump(dir, port, what)
      return (await run(command, [...args, nameIn(url)], { ...ids, maxBuffer: 1 << 28 })).stdout
    },
    halt,
    start,
    stop: async () => {
      process.off('exit', killNow)
      await halt(recipe.quick)
      await rm(dir, { recursive: true, force: true })
    },
  }
}

interface ServerOptions {
  readonly durable?: boolean
  readonly settings?: readonly string[]
}
interface ReplicableOptions extends ServerOptions {
  readonly replicaOf?: SqlServer
}

/** As shipped, with one difference: a test waits for no disk, unless `durable`. A replica streams from its primary. */
export const startPostgres = ({
  durable = false,
  settings = [],
  replicaOf,
}: ReplicableOptions = {}): Promise<SqlServer> => {
  const bin = postgresBin() ?? ''
  return startServer(
    {
      kind: 'postgresql',
      product: 'postgresql',
      user: 'postgres',
      orderly: 'SIGINT',
      quick: 'SIGQUIT',
      prepare: async (dir, ids) => {
        if (replicaOf !== undefined) {
          const from = ['-h', '127.0.0.1', '-p', String(replicaOf.port), '-U', 'glance', '--checkpoint=fast']
          await run(join(bin, 'pg_basebackup'), [...from, '-D', join(dir, 'data'), '-R', '-N'], { cwd: dir, ...ids })
          return
        }
        const args = ['-D', join(dir, 'data'), '-U', 'glance', '--auth=trust', '-E', 'UTF8', '--locale=C.UTF-8', '-N']
        await run(join(bin, 'initdb'), args, { cwd: dir, ...ids })
      },
      server: (dir, port) => [
        join(bin, 'postgres'),
        [
          ...['-D', join(dir, 'data'), '-p', String(port), '-c', 'listen_addresses=127.0.0.1', '-k', dir],
          ...['-c', 'max_connections=200', ...(durable ? [] : ['-c', 'fsync=off'])],
          ...settings.flatMap((setting) => ['-c', setting]),
        ],
      ],
      client: (_dir, port, database) => [
        join(bin, 'psql'),
        [
          ...['-X', '-q', '-A', '-t', '-F', '\t', '-v', 'ON_ERROR_STOP=1', '-h', '127.0.0.1', '-p', String(port)],
          ...['-U', 'glance', '-d', database, '-c'],
        ],
      ],
      dump: (_dir, port, what) => [
        join(bin, 'pg_dump'),
        ...['-h', '127.0.0.1', '-p', String(port), '-U', 'glance', '--no-owner'],
        ...(what === 'schema' ? ['--schema-only'] : ['--data-only', '--inserts']),
      ],
      create: (name) => `create database ${name}`,
      url: (port, name) => `postgresql+psycopg2://glance:secret@127.0.0.1:${port}/${name}`,
    },
    durable,
  )
}

/** MariaDB's tools speak with MySQL too. */
const mysqlTools: Pick<Recipe, 'client' | 'dump' | 'create' | 'url'> = {
  client: (dir, _port, database) => [
    'mariadb',
    ['--no-defaults', '-uroot', `--socket=${join(dir, 'socket')}`, '-N', '-B', database, '-e'],
  ],
  dump: (dir, _port, what) => [
    'mariadb-dump',
    ...['--no-defaults', '-uroot', `--socket=${join(dir, 'socket')}`, '--compact', '--skip-extended-insert'],
    ...(what === 'schema' ? ['--no-data', '--triggers'] : ['--no-create-info', '--skip-triggers']),
  ],
  create: (name) =>
    `create database ${name} character set utf8mb3;
  create user if not exists glance@127.0.0.1 identified by 'secret'; grant all on ${name}.* to glance@127.0.0.1`,
  url: (port, name) => `mysql+pymysql://glance:secret@127.0.0.1:${port}/${name}?charset=utf8mb4`,
}

const asTested = (dir: string, port: number, durable: boolean): readonly string[] => [
  // A server that starts clears its folder for temporary tables, whoever made them.
  ...[`--tmpdir=${dir}`, '--bind-address=127.0.0.1', `--port=${port}`, `--socket=${join(dir, 'socket')}`],
  ...['--skip-name-resolve', '--max-connections=200', '--innodb-buffer-pool-size=256M'],
  ...(durable ? [] : ['--innodb-flush-log-at-trx-commit=0']),
]

/** Of a MariaDB that has replicas: they repeat its binary log from the beginning, and are read only. */
export const MARIADB_PRIMARY = ['--log-bin=log', '--server-id=1'] as const
const MARIADB_REPLICA = ['--server-id=2', '--relay-log=relay', '--read-only'] as const

const follow = async (replica: SqlServer, primary: SqlServer): Promise<void> => {
  await primary.query(
    '/mysql',
    "create user replica@127.0.0.1 identified by 'secret'; grant replication slave on *.* to replica@127.0.0.1",
  )
  await replica.query(
    '/mysql',
    `change master to master_host = '127.0.0.1', master_port = ${primary.port}, master_user = 'replica',
      master_password = 'secret', master_connect_retry = 1, master_use_gtid = slave_pos; start slave`,
  )
}

/**
 * As shipped, with one difference: a test waits for no disk, unless `durable`. A replica wants a primary that was
 * started with `MARIADB_PRIMARY`.
 */
export const startMariadb = async ({
  durable = false,
  settings = [],
  replicaOf,
}: ReplicableOptions = {}): Promise<SqlServer> => {
  const base = (dir: string) => ['--no-defaults', `--datadir=${join(dir, 'data')}`]
  const server = await startServer(
    {
      kind: 'mysql',
      product: 'mariadb',
      user: 'mysql',
      orderly: 'SIGTERM',
      quick: 'SIGKILL',
      prepare: async (dir, ids) => {
        const args = [...base(dir), '--skip-test-db', '--auth-root-authentication-method=normal']
        await run('mariadb-install-db', args, { cwd: dir, ...ids })
      },
      server: (dir, port) => [
        MARIADBD,
        [
          ...base(dir),
          ...asTested(dir, port, durable),
          ...['--character-set-server=utf8mb4', '--log-bin-trust-function-creators=1'],
          ...(replicaOf === undefined ? [] : MARIADB_REPLICA),
          ...settings,
        ],
      ],
      ...mysqlTools,
    },
    durable,
  )
  if (replicaOf !== undefined) await follow(server, replicaOf)
  return server
}

/** Where `tools/mysql-server.sh` has put MySQL. */
const mysqlRoot = (): string | undefined => process.env['MYSQL_ROOT'] || undefined

export const mysqlAvailable = (): Availability =>
  mysqlRoot() === undefined ? { ok: false, reason: 'MYSQL_ROOT names no MySQL: see npm run mysql' } : { ok: true }

/** With its own libraries, which are newer than the machine's. As shipped, with one difference, as the others. */
export const startMysql = ({ durable = false, settings = [] }: ServerOptions = {}): Promise<SqlServer> => {
  const root = mysqlRoot() ?? ''
  const libraries = join(root, 'usr/lib/x86_64-linux-gnu')
  const loader = join(libraries, 'ld-linux-x86-64.so.2')
  const mysqld = (dir: string): readonly string[] => [
    ...['--library-path', libraries, join(root, 'usr/sbin/mysqld'), '--no-defaults', `--datadir=${join(dir, 'data')}`],
    ...[`--basedir=${join(root, 'usr')}`, `--lc-messages-dir=${join(root, 'usr/share/mysql')}`],
  ]
  return startServer(
    {
      kind: 'mysql',
      product: 'mysql',
      user: 'nobody',
      orderly: 'SIGTERM',
      quick: 'SIGKILL',
      prepare: async (dir, ids) => {
        await run(loader, [...mysqld(dir), '--initialize-insecure'], { cwd: dir, ...ids })
      },
      server: (dir, port) => [
        loader,
        [
          ...mysqld(dir),
          ...asTested(dir, port, durable),
          ...['--mysqlx=OFF', '--secure-file-priv=', '--skip-log-bin'],
          ...settings,
        ],
      ],
      ...mysqlTools,
    },
    durable,
  )
}
