import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { openSync } from 'node:fs'
import { copyFile, mkdir, mkdtemp, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { basename, join, resolve } from 'node:path'
import { promisify } from 'node:util'
import { freePort, root, tail, until } from '../product.ts'
import type { TestConfig } from '../server.ts'

const run = promisify(execFile)

/** The real Glance of PyPI, in a process of its own on the loopback. */
export interface Glance {
  readonly url: string
  /** As `33.0.0`. */
  readonly version: string
  /** Holds the database, the stores and the logs; gone after stop(). */
  readonly dir: string
  stop(): Promise<void>
}

/**
 * Glance's own pipeline without Keystone's middleware: requests bring the headers that it would set, which
 * `identityHeaders` makes of a token.
 */
const paste = (filters: string): string => `[composite:glance-api]
paste.composite_factory = glance.api:root_app_factory
/: api
/healthcheck: healthcheck
[pipeline:api]
pipeline = cors http_proxy_to_wsgi versionnegotiation context ${filters} rootapp
[composite:rootapp]
paste.composite_factory = glance.api:root_app_factory
/: apiversions
/v2: apiv2app
[app:apiversions]
paste.app_factory = glance.api.versions:create_resource
[app:apiv2app]
paste.app_factory = glance.api.v2.router:API.factory
[app:healthcheck]
paste.app_factory = oslo_middleware:Healthcheck.app_factory
[filter:versionnegotiation]
paste.filter_factory = glance.api.middleware.version_negotiation:VersionNegotiationFilter.factory
[filter:cache]
paste.filter_factory = glance.api.middleware.cache:CacheFilter.factory
[filter:cachemanage]
paste.filter_factory = glance.api.middleware.cache_manage:CacheManageFilter.factory
[filter:context]
paste.filter_factory = glance.api.middleware.context:ContextMiddleware.factory
[filter:cors]
use = egg:oslo.middleware#cors
oslo_config_project = glance
[filter:http_proxy_to_wsgi]
paste.filter_factory = oslo_middleware:HTTPProxyToWSGI.factory
`

/** What Keystone's middleware says of the bearer of a token `USER:PROJECT:ROLE,ROLE[:system=all]`. */
export function identityHeaders(token: string): Readonly<Record<string, string>> {
  const [user = '', project = '', roles = '', ...more] = token.split(':')
  return {
    'X-Identity-Status': 'Confirmed',
    'X-User-Id': user,
    'X-User-Domain-Id': 'default',
    'X-Roles': roles,
    ...(project === '' ? {} : { 'X-Project-Id': project, 'X-Project-Domain-Id': 'default' }),
    ...(more.includes('system=all') ? { 'OpenStack-System-Scope': 'all' } : {}),
  }
}

/** The venv, installed from PyPI if it is not there; throws where that cannot be done. */
export const glanceVenv = async (): Promise<string> =>
  (await run(`${root}tools/python-tools.sh`, ['glance'], { timeout: 600_000 })).stdout.trim()

/**
 * Resolves once it answers; `config` is laid over secure RBAC, SQLite and folders of its own. With an `image_cache_dir`
 * there, and whatever the flavor, its pipeline has the cache and the routes that manage it. Throws with the end of its log.
 */
export async function startGlance({ config = {} }: { readonly config?: TestConfig } = {}): Promise<Glance> {
  const venv = await glanceVenv()
  const dir = await mkdtemp(join(tmpdir(), 'glance-'))
  const port = await freePort()
  const url = `http://127.0.0.1:${port}`
  await configure(dir, url, config)
  await database(venv, dir, config['database']?.['connection'])
  const { kill } = await serveGlance(venv, dir, port).catch(async (error: unknown) => {
    await remove(dir)
    throw error
  })
  const stop = async () => {
    await kill()
    await remove(dir)
  }
  return { url, version: basename(venv).replace('glance-', ''), dir, stop }
}

const remove = (dir: string) => rm(dir, { recursive: true, force: true, maxRetries: 5 })

/** Serves what the glance-api.conf in `dir` says; resolves once it answers. Throws with the end of its log. */
export async function serveGlance(venv: string, dir: string, port: number, more: NodeJS.ProcessEnv = {}) {
  const env = { ...process.env, ...more, OS_GLANCE_CONFIG_DIR: dir, PYTHONWARNINGS: 'ignore', TMPDIR: dir }
  const log = join(dir, 'glance.log')
  const out = openSync(log, 'a')
  // One worker with threads: import tasks run beside requests, and SQLite has one writer.
  const server = ['--bind', `127.0.0.1:${port}`, '--workers', '1', '--threads', '4', '--timeout', '120']
  const limits = ['--limit-request-field_size', '0', '--limit-request-line', '0']
  const child = spawn(join(venv, 'bin/gunicorn'), [...server, ...limits, 'glance.wsgi.api:application'], {
    cwd: dir,
    env,
    detached: true,
    stdio: ['ignore', out, out],
  })
  const ended = once(child, 'exit')
  const killGroup = () => {
    try {
      if (child.pid !== undefined) process.kill(-child.pid, 'SIGKILL')
    } catch {
      // Nobody is left in the group.
    }
  }
  process.once('exit', killGroup)
  /** kill -9 of all of its processes. */
  const kill = async () => {
    process.off('exit', killGroup)
    killGroup()
    await ended
  }
  try {
    await until(`Glance on port ${port}`, async () => {
      if (child.exitCode !== null) throw new Error(`glance ended with code ${child.exitCode}`)
      return (await fetch(`http://127.0.0.1:${port}/healthcheck`).catch(() => undefined))?.ok === true
    })
  } catch (error) {
    await kill()
    throw new Error(`${String(error)}\n${tail(log)}`, { cause: error })
  }
  return {
    kill,
    /** SIGTERM, and its end. */
    stop: async () => {
      child.kill('SIGTERM')
      await ended
      await kill()
    },
  }
}

async function configure(dir: string, url: string, config: TestConfig): Promise<void> {
  const stores = (config['DEFAULT']?.['enabled_backends'] ?? '')
    .split(',')
    .flatMap((pair) => pair.split(':')[0]?.trim() || [])
  const folder = (name: string) => ({ filesystem_store_datadir: join(dir, name) })
  const groups: Record<string, Readonly<Record<string, string>>> = {
    DEFAULT: {
      node_staging_uri: `file://${join(dir, 'staging')}`,
      worker_self_reference_url: url,
      enforce_secure_rbac: 'True',
      image_cache_dir: '',
    },
    database: { connection: `sqlite:///${join(dir, 'glance.sqlite')}` },
    glance_store: stores.length > 0 ? {} : { stores: 'file, http', default_store: 'file', ...folder('images') },
    ...Object.fromEntries(stores.map((store) => [store, folder(store)])),
    ...(stores.length > 0
      ? { os_glance_staging_store: folder('staging'), os_glance_tasks_store: folder('tasks') }
      : {}),
    task: { work_dir: join(dir, 'tasks') },
    oslo_policy: { policy_file: join(dir, 'policy.yaml'), enforce_new_defaults: 'True', enforce_scope: 'True' },
    oslo_concurrency: { lock_path: join(dir, 'lock') },
  }
  for (const [group, values] of Object.entries(config)) groups[group] = { ...groups[group], ...values }
  const cache = config['DEFAULT']?.['image_cache_dir']
  if (cache !== undefined) groups['DEFAULT'] = { ...groups['DEFAULT'], image_cache_dir: resolve(dir, cache) }
  groups['paste_deploy'] = { config_file: join(dir, 'paste.ini'), flavor: '' }
  const text = Object.entries(groups).map(([group, values]) =>
    [`[${group}]`, ...Object.entries(values).map(([name, value]) => `${name} = ${value}`)].join('\n'),
  )
  for (const name of ['staging', 'tasks', 'images', 'lock', ...stores, ...(cache === undefined ? [] : [cache])])
    await mkdir(resolve(dir, name), { recursive: true })
  await writeFile(join(dir, 'glance-api.conf'), `${text.join('\n')}\n`)
  await writeFile(join(dir, 'paste.ini'), paste(cache === undefined ? '' : 'cache cachemanage'))
}

/** An empty database of SQLite is made once (it takes seconds), and copied then; one of a server each time. */
async function database(venv: string, dir: string, connection: string | undefined): Promise<void> {
  const sync = () =>
    run(join(venv, 'bin/glance-manage'), ['--config-file', join(dir, 'glance-api.conf'), 'db', 'sync'], { cwd: dir })
  if (connection !== undefined) return void (await sync())
  const template = join(venv, 'empty.sqlite')
  const target = join(dir, 'glance.sqlite')
  if (await stat(template).catch(() => undefined)) return await copyFile(template, target)
  await sync()
  await copyFile(target, template)
}
