import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { freePort, type Product, processTree, root, startProduct, until } from '../test/support/product.ts'

const run = promisify(execFile)

/** One of the two servers that are compared. */
export interface Side {
  readonly name: 'Glance' | 'Glimpse'
  readonly url: string
  /** The SQLite file. */
  readonly database: string
  /** What the URI of an image's data begins with. */
  readonly locations: string
  /** Resolves at the first answer. */
  start(): Promise<void>
  stop(): Promise<void>
  /** Every process of the running server. */
  processes(): readonly number[]
  /** Runs its `glance-manage`. */
  manage(...args: readonly string[]): Promise<void>
}

export interface Sides {
  readonly glance: Side
  readonly glimpse: Side
  /** Of the real Glance. */
  readonly version: string
  /** Runs SQL as root in the MariaDB that both use; `glance` and `glimpse` are their databases. */
  readonly mariadb?: (database: 'mysql' | 'glance' | 'glimpse', sql: string) => Promise<void>
  close(): Promise<void>
}

/** How both servers are configured; two workers, a file store, no cache and no import otherwise. */
export interface SidesOptions {
  readonly workers?: number
  /** Downloads go through an image cache. */
  readonly cache?: boolean
  /** One MariaDB for both, in place of SQLite. */
  readonly mariadb?: boolean
  /** Two file stores, `fast` and `cheap`, and every method of import. */
  readonly imports?: boolean
  /** More options of `[DEFAULT]`. */
  readonly options?: Readonly<Record<string, string>>
  /** The image service of `RegionTwo` in the catalog. */
  readonly otherRegion?: string
}

/** Any port of this machine, for imports and for locations of http stores. */
const FILTER = '[import_filtering_opts]\nallowed_ports = []\nallowed_hosts = [127.0.0.1]\n'
const METHODS = '[glance-direct, web-download, copy-image, glance-download]'

/** Both servers with SQLite, in front of the same stand-in for Keystone. Glance is started, Glimpse not yet. */
export async function openSides(kit: string, dir: string, options: SidesOptions = {}): Promise<Sides> {
  const { workers = 2, cache = false, imports = false, mariadb = false, otherRegion } = options
  const [glancePort, stubPort, glimpsePort, databasePort] = [
    await freePort(),
    await freePort(),
    await freePort(),
    await freePort(),
  ]
  const peer = join(dir, 'glance')
  await mkdir(dir, { recursive: true })
  const extra = join(dir, 'extra.conf')
  const defaults = { ...options.options, ...(imports ? { enabled_import_methods: METHODS } : {}) }
  await writeFile(extra, `[DEFAULT]\n${optionLines(defaults)}${FILTER}`)
  const env = {
    ...process.env,
    PEER_DIR: peer,
    DB: mariadb ? 'mysql' : 'sqlite',
    DB_PORT: String(databasePort),
    WORKERS: String(workers),
    METADEFS: '0',
    CACHE: cache ? '1' : '0',
    IMPORT: imports ? '1' : '0',
    MULTI: imports ? '1' : '0',
    EXTRA: extra,
    STUB_ARGS: otherRegion === undefined ? '' : `--image ${otherRegion}@RegionTwo`,
  }
  const ports = { GLANCE_PORT: String(glancePort), STUB_PORT: String(stubPort) }
  const close = async (): Promise<void> => void (await run(join(kit, 'peer-down.sh'), [], { env }))
  process.once('exit', () => spawn(join(kit, 'peer-down.sh'), [], { env, detached: true, stdio: 'ignore' }))
  await detached(join(kit, 'peer-up.sh'), { ...env, ...ports })
  const facts = JSON.parse(await readFile(join(peer, 'run/server.json'), 'utf8')) as Record<string, string>
  const own = join(dir, 'glimpse')
  const runSql = mariadb ? mariadbOf(join(peer, 'run/mariadb.sock')) : undefined
  await runSql?.('mysql', 'create database glimpse character set utf8mb3; grant all on glimpse.* to glance@127.0.0.1')
  const connection = mariadb
    ? `mysql+pymysql://glance:glance@127.0.0.1:${databasePort}/glimpse?charset=utf8`
    : `sqlite:///${join(own, 'glance.sqlite')}`
  const glimpse = { ...options, options: defaults }
  return {
    glance: glanceSide(facts, peer),
    glimpse: await glimpseSide(own, glimpsePort, stubPort, connection, glimpse),
    version: String(facts['name']),
    ...(runSql ? { mariadb: runSql } : {}),
    close,
  }
}

const mariadbOf =
  (socket: string): NonNullable<Sides['mariadb']> =>
  async (database, sql) => {
    const args = ['--no-defaults', '-uroot', `--socket=${socket}`, database, '-e', sql]
    await run('mariadb', args, { maxBuffer: 1 << 26 })
  }

const optionLines = (options: Readonly<Record<string, string>>): string =>
  Object.entries(options)
    .map(([name, value]) => `${name} = ${value}\n`)
    .join('')

function glanceSide(facts: Record<string, string>, dir: string): Side {
  const { url = '', start = '', stop = '', pidfile = '', location_prefix: locations = '' } = facts
  return {
    name: 'Glance',
    url,
    database: join(dir, 'glance.sqlite'),
    locations,
    start: async () => {
      await detached(start, process.env)
      await firstAnswer(url)
    },
    stop: async () => void (await run(stop)),
    processes: () => processTree(Number(readFileSync(pidfile, 'utf8'))),
    manage: async (...args) => {
      const config = ['--config-dir', join(dir, 'conf/none'), '--config-file', join(dir, 'conf/glance-api.conf')]
      const env = { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', LC_ALL: 'C.UTF-8' }
      await run('/usr/bin/glance-manage', [...config, ...args], { env })
    },
  }
}

async function glimpseSide(
  dir: string,
  port: number,
  stubPort: number,
  connection: string,
  { workers = 2, cache = false, imports = false, options = {} }: SidesOptions,
): Promise<Side> {
  for (const folder of ['images', 'cheap', 'staging', 'cache']) await mkdir(join(dir, folder), { recursive: true })
  const config = join(dir, 'glance-api.conf')
  const database = join(dir, 'glance.sqlite')
  await writeFile(
    config,
    `[DEFAULT]
bind_host = 127.0.0.1
bind_port = ${port}
workers = ${workers}
worker_self_reference_url = http://127.0.0.1:${port}
${cache ? `image_cache_dir = ${dir}/cache\nimage_cache_max_size = 21474836480` : ''}
${imports ? 'enabled_backends = fast:file, cheap:file' : ''}
${optionLines(options)}
[database]
connection = ${connection}
${imports ? twoStores(dir) : oneStore(dir)}
${FILTER}[paste_deploy]
flavor = ${cache ? 'keystone+cachemanagement' : 'keystone'}
[keystone_authtoken]
www_authenticate_uri = http://127.0.0.1:${stubPort}/v3
auth_type = password
auth_url = http://127.0.0.1:${stubPort}/v3
username = glance
password = glance
user_domain_name = Default
project_name = service
project_domain_name = Default
`,
  )
  let product: Product | undefined
  return {
    name: 'Glimpse',
    url: `http://127.0.0.1:${port}`,
    database,
    locations: `file://${dir}/images/`,
    start: async () => {
      const args = ['--config-file', config]
      product = await startProduct({ command: 'glance-api', args, port, log: join(dir, 'service.log'), everyMs: 5 })
    },
    stop: async () => {
      await product?.stop()
      product = undefined
    },
    processes: () => (product === undefined ? [] : processTree(product.pid)),
    manage: async (...args) => void (await run(join(root, 'bin/glance-manage'), ['--config-file', config, ...args])),
  }
}

const oneStore = (dir: string): string => `[glance_store]
stores = file, http
default_store = file
filesystem_store_datadir = ${dir}/images`

const twoStores = (dir: string): string => `[glance_store]
default_backend = fast
[fast]
filesystem_store_datadir = ${dir}/images
[cheap]
filesystem_store_datadir = ${dir}/cheap
[os_glance_staging_store]
filesystem_store_datadir = ${dir}/staging`

/** Runs a script that leaves servers behind, which would keep our end of its pipes open. */
async function detached(script: string, env: NodeJS.ProcessEnv): Promise<void> {
  const child = spawn(script, { env, stdio: ['ignore', 'ignore', 'inherit'] })
  const [code] = await once(child, 'exit')
  if (code !== 0) throw new Error(`${script} ended with code ${code}`)
}

const firstAnswer = (url: string): Promise<void> =>
  until(`an answer of ${url}`, async () => (await fetch(`${url}/healthcheck`).catch(() => undefined))?.ok === true, {
    everyMs: 5,
  })

/** Bytes that the living processes hold, shared pages divided among those who share them. */
export const memoryOf = (side: Side): number =>
  side.processes().reduce((sum, pid) => {
    try {
      const pss = /^Pss:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8'))
      return sum + Number(pss?.[1] ?? 0) * 1024
    } catch {
      return sum // It ended meanwhile.
    }
  }, 0)

/** Seconds of CPU, in user and kernel mode, that living processes have used (100 clock ticks make a second). */
export const cpuOf = (pids: readonly number[]): number =>
  pids.reduce((sum, pid) => {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1')
    const [user, system] = stat
      .slice(stat.lastIndexOf(')') + 2)
      .split(' ')
      .slice(11, 13)
    return sum + (Number(user) + Number(system)) / 100
  }, 0)
