import { execFile } from 'node:child_process'
import { mkdir, mkdtemp, readdir, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { promisify } from 'node:util'
import { freePort, startProduct } from '../../support/product.ts'
import { glanceVenv, serveGlance } from '../../support/servers/glance.ts'
import { authtokenSection, type KeystoneServer, startKeystone, type UserName } from '../../support/servers/keystone.ts'
import { type SqlServer, startMariadb, startPostgres } from '../../support/servers/sql.ts'

const run = promisify(execFile)

export type DatabaseKind = 'sqlite' | 'postgresql' | 'mysql'

export interface SiteSetup {
  readonly database: DatabaseKind
  /** More of `[DEFAULT]`. */
  readonly options: Readonly<Record<string, string>>
  /** Where images are fetched from. */
  readonly webPort: number
}

export interface Service {
  /** SIGTERM, and the end. */
  stop(): Promise<void>
  /** kill -9 of all of its processes. */
  kill(): Promise<void>
}

/** Who asks: an administrator, the owner of most images, another project. */
export const CALLERS = { admin: 'admin', owner: 'demo', other: 'alt_demo' } as const satisfies Record<string, UserName>
export type Caller = keyof typeof CALLERS

/** One deployment: a configuration file, a database, stores and a Keystone. Either service serves it, on one port. */
export interface Site {
  readonly url: string
  readonly dir: string
  readonly tokens: Readonly<Record<Caller, string>>
  /** Ids of the callers' projects. */
  readonly projects: Readonly<Record<Caller, string>>
  glance(): Promise<Service>
  glimpse(): Promise<Service>
  /** A command of Glance's, with the site's configuration. */
  tool(name: string, ...args: readonly string[]): Promise<void>
  sql(statement: string): Promise<readonly (readonly string[])[]>
  /** What lies in the stores and the staging area, as `store/file`. */
  files(): Promise<readonly string[]>
  /** Ends everything; the folder stays where somebody has to look at it. */
  close(keep?: boolean): Promise<void>
}

export const STORES = ['cheap', 'fast'] as const
const FOLDERS = [...STORES, 'staging', 'tasks', 'lock']

export async function openSite(setup: SiteSetup): Promise<Site> {
  const dir = await mkdtemp(join(tmpdir(), 'glimpse-takeover-'))
  const closing: (() => Promise<void>)[] = []
  const close = async (keep = false) => {
    for (const step of closing.toReversed()) await step()
    if (!keep) await rm(dir, { recursive: true, force: true, maxRetries: 5 })
  }
  try {
    const venv = await glanceVenv()
    const keystone = await startKeystone()
    closing.push(keystone.stop)
    const { connection, sql, stop } = await openDatabaseOf(setup.database, dir)
    closing.push(stop)
    for (const name of FOLDERS) await mkdir(join(dir, name))
    const port = await freePort()
    const file = join(dir, 'glance-api.conf')
    await writeFile(file, configuration({ dir, port, connection, keystone, venv }, setup))
    const tool = async (name: string, ...args: readonly string[]) => {
      await run(join(venv, 'bin', name), ['--config-file', file, ...args], { cwd: dir, maxBuffer: 1 << 26 })
    }
    await tool('glance-manage', 'db', 'sync')
    await tool('glance-manage', 'db', 'load_metadefs', '--path', join(venv, 'etc/glance/metadefs'))
    return {
      url: `http://127.0.0.1:${port}`,
      dir,
      tokens: await byCaller((user) => keystone.token(user)),
      projects: await byCaller(async (user) => keystone.projects[user] ?? ''),
      glance: () => serveGlance(venv, dir, port),
      glimpse: () =>
        startProduct({ command: 'glance-api', args: ['--config-file', file], port, log: join(dir, 'glimpse.log') }),
      tool,
      sql,
      files: () => filesIn(dir),
      close,
    }
  } catch (error) {
    await close()
    throw error
  }
}

async function byCaller<T>(of: (user: UserName) => Promise<T>): Promise<Record<Caller, T>> {
  const { admin, owner, other } = CALLERS
  return { admin: await of(admin), owner: await of(owner), other: await of(other) }
}

async function filesIn(dir: string): Promise<readonly string[]> {
  const found: string[] = []
  for (const folder of [...STORES, 'staging'])
    for (const name of await readdir(join(dir, folder), { recursive: true }))
      if ((await stat(join(dir, folder, name))).isFile()) found.push(`${folder}/${name}`)
  return found.toSorted((a, b) => a.localeCompare(b))
}

interface SiteDatabase {
  readonly connection: string
  readonly sql: Site['sql']
  stop(): Promise<void>
}

async function openDatabaseOf(kind: DatabaseKind, dir: string): Promise<SiteDatabase> {
  if (kind === 'sqlite') {
    const file = join(dir, 'glance.sqlite')
    const sql = async (statement: string) => {
      const database = new DatabaseSync(file, { timeout: 10_000 })
      try {
        return database
          .prepare(statement)
          .all()
          .map((row) => Object.values(row).map(String))
      } finally {
        database.close()
      }
    }
    return { connection: `sqlite:///${file}`, sql, stop: async () => {} }
  }
  const server: SqlServer = await (kind === 'mysql' ? startMariadb() : startPostgres())
  const connection = await server.database()
  const sql = async (statement: string) => (await server.query(connection, statement)).map((row) => row.split('\t'))
  return { connection, sql, stop: server.stop }
}

interface Parts {
  readonly dir: string
  readonly port: number
  readonly connection: string
  readonly keystone: KeystoneServer
  readonly venv: string
}

/** As an operator of Glance has it: nothing in it is for Glimpse. Of equal stores, either may come first on a server. */
const configuration = ({ dir, port, connection, keystone, venv }: Parts, { options, webPort }: SiteSetup): string => `
[DEFAULT]
bind_host = 127.0.0.1
bind_port = ${port}
workers = 1
enabled_backends = ${STORES.map((store) => `${store}:file, `).join('')}web:http
enabled_import_methods = [glance-direct,web-download,copy-image]
node_staging_uri = file://${dir}/staging
show_multiple_locations = True
show_image_direct_url = True
${Object.entries(options)
  .map(([name, value]) => `${name} = ${value}`)
  .join('\n')}
[database]
connection = ${connection}
[glance_store]
default_backend = fast
${STORES.map((store, n) => `[${store}]\nfilesystem_store_datadir = ${dir}/${store}\nweight = ${n + 1}\n`).join('')}
[os_glance_staging_store]
filesystem_store_datadir = ${dir}/staging
[os_glance_tasks_store]
filesystem_store_datadir = ${dir}/tasks
[task]
work_dir = ${dir}/tasks
[import_filtering_opts]
allowed_hosts = [127.0.0.1]
allowed_ports = [${webPort}]
[paste_deploy]
flavor = keystone
config_file = ${venv}/etc/glance/glance-api-paste.ini
[oslo_policy]
policy_file = ${dir}/policy.yaml
policy_dirs = ${dir}/policy.d
[oslo_concurrency]
lock_path = ${dir}/lock
${authtokenSection(keystone)}`
