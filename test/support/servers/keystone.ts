import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { createCipheriv, createDecipheriv, createHash, createHmac, randomBytes } from 'node:crypto'
import { accessSync, constants, openSync, readFileSync } from 'node:fs'
import { copyFile, mkdir, mkdtemp, readFile, rename, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { delimiter, join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { promisify } from 'node:util'
import { freePort } from '../product.ts'

const run = promisify(execFile)

export const PASSWORD = 'secret'
const REGION = 'RegionOne'
/** Each user with a project of its roles there; `demo` and `reader` share one. */
const USERS = {
  admin: { project: 'admin', roles: ['admin'] },
  demo: { project: 'demo', roles: ['member'] },
  alt_demo: { project: 'alt_demo', roles: ['member'] },
  reader: { project: 'demo', roles: ['reader'] },
  glance: { project: 'service', roles: ['service', 'admin'] },
  nova: { project: 'service', roles: ['service'] },
} as const
export type UserName = keyof typeof USERS

export type TokenScope = 'project' | 'system' | 'unscoped' | { readonly project: string } | { readonly domain: string }

export interface KeystoneServer {
  /** Ends in `/v3`. */
  readonly url: string
  /** Ids by name. */
  readonly users: Readonly<Record<string, string>>
  readonly projects: Readonly<Record<string, string>>
  /** A new token, by default for the user's own project. */
  token(user: UserName, scope?: TokenScope): Promise<string>
  /** The same token, had it been issued so long ago that it expired an hour before now. */
  aged(token: string): Promise<string>
  /** A request as the system's admin. Rejects unless it succeeds. */
  admin(method: string, path: string, body?: unknown): Promise<unknown>
  /** A request as the bearer of a token. Rejects unless it succeeds. */
  call(token: string, method: string, path: string, body?: unknown, headers?: Record<string, string>): Promise<unknown>
  /** Halts the process; what it knows is kept for `start()`. */
  halt(): Promise<void>
  start(): Promise<void>
  /** Ends the process and deletes everything. */
  stop(): Promise<void>
}

export type Availability = { readonly ok: true } | { readonly ok: false; readonly reason: string }

/** Whether Keystone is installed here. */
export function available(): Availability {
  return installed() === undefined ? { ok: false, reason: 'keystone-manage is not installed' } : { ok: true }
}

/** The command that administers Keystone, and the Python that it runs with. */
function installed(): { readonly manage: string; readonly python: string } | undefined {
  for (const dir of (process.env['PATH'] ?? '').split(delimiter)) {
    const manage = join(dir, 'keystone-manage')
    try {
      accessSync(manage, constants.X_OK)
      const python = /^#! *(\S*python\S*)/.exec(readFileSync(manage, 'utf8'))?.[1]
      if (python !== undefined) return { manage, python }
    } catch {
      // not in this directory
    }
  }
  return undefined
}

/** Serves Keystone by the reference server of Python: one thread, so that SQLite never meets a second writer
 * and the cache in memory is never out of date. */
const SERVER = `
import sys
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server
# Keystone reads what is left of the command line.
port = int(sys.argv.pop())
try:
    from keystone.wsgi.api import application
except ImportError:
    from keystone.server.wsgi import initialize_public_application
    application = initialize_public_application()

class Server(WSGIServer):
    request_queue_size = 128

class Quiet(WSGIRequestHandler):
    def log_message(self, *args):
        pass

make_server('127.0.0.1', port, application, Server, Quiet).serve_forever()
`

/**
 * Starts a real Keystone on a free port of the loopback device, with SQLite and Fernet tokens in a directory of its own.
 * The prepared database is kept in the temporary directory for the next time.
 */
export async function startKeystone(): Promise<KeystoneServer> {
  const tools = installed()
  if (tools === undefined) throw new Error('Keystone is not installed')
  const dir = await mkdtemp(join(tmpdir(), 'glimpse-keystone-'))
  const port = await freePort()
  const url = `http://127.0.0.1:${port}/v3`
  const fernet = await writeKeys(join(dir, 'fernet-keys'))
  await writeKeys(join(dir, 'credential-keys'))
  const config = join(dir, 'keystone.conf')
  await writeFile(config, configuration(dir, port))
  const fresh = await prepareDatabase(tools, dir, config)

  let child: ChildProcess | undefined
  const halt = async () => {
    const ended = child
    child = undefined
    if (ended === undefined || ended.exitCode !== null || ended.signalCode !== null) return
    const exit = new Promise((resolve) => ended.once('exit', resolve))
    ended.kill('SIGKILL')
    await exit
  }
  const start = async () => {
    const log = openSync(join(dir, 'server.log'), 'a')
    const started = spawn(tools.python, ['-c', SERVER, String(port)], {
      cwd: dir,
      env: { ...process.env, OS_KEYSTONE_CONFIG_FILES: config },
      stdio: ['ignore', log, log],
    })
    child = started
    process.once('exit', () => started.kill('SIGKILL'))
    const deadline = Date.now() + 30_000
    while (
      !(await fetch(url).then(
        (response) => response.ok,
        () => false,
      ))
    ) {
      if (started.exitCode !== null || Date.now() > deadline) {
        throw new Error(`Keystone does not start:\n${await readFile(join(dir, 'server.log'), 'utf8')}`)
      }
      await delay(50)
    }
  }

  const send = async (method: string, path: string, headers: Record<string, string>, body?: unknown) => {
    const response = await fetch(`${url}${path}`, {
      method,
      headers: { 'content-type': 'application/json', ...headers },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    })
    const answer = await response.text()
    if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${answer}`)
    return { headers: response.headers, body: answer === '' ? undefined : (JSON.parse(answer) as unknown) }
  }
  const token = async (user: UserName, scope: TokenScope = 'project') => {
    const domain = { id: 'default' }
    const identity = { methods: ['password'], password: { user: { name: user, domain, password: PASSWORD } } }
    const auth = { identity, scope: scopeOf(user, scope) }
    const { headers } = await send('POST', '/auth/tokens', {}, { auth })
    return headers.get('x-subject-token') ?? ''
  }
  const call: KeystoneServer['call'] = async (bearer, method, path, body, headers = {}) =>
    (await send(method, path, { 'x-auth-token': bearer, ...headers }, body)).body
  let adminToken: Promise<string> | undefined
  const admin: KeystoneServer['admin'] = async (method, path, body) => {
    adminToken ??= token('admin', 'system')
    return call(await adminToken, method, path, body)
  }
  const stop = async () => {
    await halt()
    await rm(dir, { recursive: true, force: true })
  }

  try {
    await start()
    if (fresh !== undefined) {
      await seed(admin)
      await halt()
      await copyFile(join(dir, 'keystone.db'), `${fresh}.${process.pid}`)
      await rename(`${fresh}.${process.pid}`, fresh)
      await start()
    }
    return {
      url,
      users: await idsOf(admin, 'users'),
      projects: await idsOf(admin, 'projects'),
      token,
      aged: async (text) => ageToken(text, fernet),
      admin,
      call,
      halt,
      start,
      stop,
    }
  } catch (error) {
    await stop()
    throw error
  }
}

type Admin = KeystoneServer['admin']

function scopeOf(user: UserName, scope: TokenScope): unknown {
  if (scope === 'unscoped') return 'unscoped'
  if (scope === 'system') return { system: { all: true } }
  if (typeof scope === 'object' && 'domain' in scope) return { domain: { id: scope.domain } }
  const name = scope === 'project' ? USERS[user].project : scope.project
  return { project: { name, domain: { id: 'default' } } }
}

const configuration = (dir: string, port: number): string => `
[DEFAULT]
log_file = ${dir}/keystone.log
public_endpoint = http://127.0.0.1:${port}/
[database]
connection = sqlite:///${dir}/keystone.db
sqlite_synchronous = false
[token]
provider = fernet
[fernet_tokens]
key_repository = ${dir}/fernet-keys
[fernet_receipts]
key_repository = ${dir}/fernet-keys
[credential]
key_repository = ${dir}/credential-keys
[cache]
enabled = true
backend = dogpile.cache.memory
[identity]
password_hash_rounds = 4
[oslo_policy]
policy_file = ${dir}/policy.yaml
policy_dirs = ${dir}/policy.d
`

/** Copies the prepared database; without one, makes it and says where it belongs once it is complete. */
async function prepareDatabase(
  { manage }: { readonly manage: string },
  dir: string,
  config: string,
): Promise<string | undefined> {
  const { stdout, stderr } = await run(manage, ['--version'])
  const version = createHash('sha256')
    .update(`${stdout}${stderr}${JSON.stringify(USERS)}${SEED}`)
    .digest('hex')
    .slice(0, 16)
  const prepared = join(tmpdir(), `glimpse-keystone-${version}.db`)
  const exists = await stat(prepared).then(
    () => true,
    () => false,
  )
  if (exists) {
    await copyFile(prepared, join(dir, 'keystone.db'))
    return undefined
  }
  await run(manage, ['--config-file', config, 'db_sync'])
  // The catalog's endpoint must not name the port, which differs the next time.
  const endpoint = ['public', 'internal', 'admin'].flatMap((face) => [
    `--bootstrap-${face}-url`,
    '$(public_endpoint)sv3',
  ])
  const bootstrap = ['bootstrap', '--bootstrap-password', PASSWORD, '--bootstrap-region-id', REGION, ...endpoint]
  await run(manage, ['--config-file', config, ...bootstrap])
  return prepared
}

/** Changes whenever `seed` makes something else of a database. */
const SEED = 1

/** Creates the users and what they need. */
async function seed(admin: Admin): Promise<void> {
  const ensure = async (plural: string, row: { readonly name: string } & Record<string, unknown>): Promise<string> => {
    const known = (await idsOf(admin, plural))[row.name]
    if (known !== undefined) return known
    const singular = plural.slice(0, -1)
    const created = (await admin('POST', `/${plural}`, { [singular]: row })) as Record<string, { readonly id: string }>
    return created[singular]?.id ?? ''
  }
  for (const [name, { project, roles }] of Object.entries(USERS)) {
    const projectId = await ensure('projects', { name: project, domain_id: 'default' })
    const userId = await ensure('users', { name, domain_id: 'default', password: PASSWORD })
    for (const role of roles) {
      const roleId = await ensure('roles', { name: role })
      await admin('PUT', `/projects/${projectId}/users/${userId}/roles/${roleId}`)
    }
  }
  const glance = await ensure('users', { name: 'glance' })
  const reader = await ensure('roles', { name: 'reader' })
  await admin('PUT', `/system/users/${glance}/roles/${reader}`)
}

async function idsOf(admin: Admin, plural: string): Promise<Record<string, string>> {
  const list = (await admin('GET', `/${plural}`)) as Record<
    string,
    readonly { readonly name: string; readonly id: string }[]
  >
  return Object.fromEntries((list[plural] ?? []).map(({ name, id }) => [name, id]))
}

/** Two Fernet keys, as `keystone-manage` writes them; gives the one that signs. */
async function writeKeys(dir: string): Promise<Buffer> {
  await mkdir(dir, { mode: 0o700 })
  const keys = [randomBytes(32), randomBytes(32)] as const
  for (const [n, key] of keys.entries()) {
    await writeFile(join(dir, String(n)), key.toString('base64').replaceAll('+', '-').replaceAll('/', '_'), {
      mode: 0o600,
    })
  }
  return keys[1]
}

/** A Fernet token: version, time of issue, IV, AES-128-CBC of the payload, HMAC. The payload says when it expires. */
function ageToken(token: string, key: Buffer): string {
  const sealed = Buffer.from(token, 'base64url')
  const decipher = createDecipheriv('aes-128-cbc', key.subarray(16), sealed.subarray(9, 25))
  const payload = Buffer.concat([decipher.update(sealed.subarray(25, -32)), decipher.final()])
  const now = Date.now() / 1000
  // In msgpack, a double follows the byte 0xcb.
  const at = [...payload.keys()].find(
    (n) => payload[n] === 0xcb && n + 9 <= payload.length && Math.abs(payload.readDoubleBE(n + 1) - now) < 1e6,
  )
  if (at === undefined) throw new Error('no expiry in this token')
  payload.writeDoubleBE(Math.floor(now) - 3600, at + 1)

  const header = Buffer.from(sealed.subarray(0, 25))
  header.writeBigUInt64BE(header.readBigUInt64BE(1) - 7200n, 1)
  const cipher = createCipheriv('aes-128-cbc', key.subarray(16), header.subarray(9))
  const body = Buffer.concat([header, cipher.update(payload), cipher.final()])
  return Buffer.concat([body, createHmac('sha256', key.subarray(0, 16)).update(body).digest()]).toString('base64url')
}

/** Enters the image service into the catalog, with registered limits; gives the ids of service and endpoint. */
export async function registerLimits(
  { admin }: KeystoneServer,
  limits: Readonly<Record<string, number>>,
): Promise<{ readonly service: string; readonly endpoint: string }> {
  const { service } = (await admin('POST', '/services', { service: { type: 'image', name: 'glance' } })) as {
    service: { id: string }
  }
  const url = 'http://127.0.0.1:9292'
  const { endpoint } = (await admin('POST', '/endpoints', {
    endpoint: { service_id: service.id, interface: 'public', region_id: REGION, url },
  })) as { endpoint: { id: string } }
  const registered_limits = Object.entries(limits).map(([resource_name, default_limit]) => ({
    service_id: service.id,
    region_id: REGION,
    resource_name,
    default_limit,
  }))
  await admin('POST', '/registered_limits', { registered_limits })
  return { service: service.id, endpoint: endpoint.id }
}

/** Gives a project limits of its own; they must be registered. */
export const limitProject = (
  { admin }: KeystoneServer,
  service: string,
  project: string,
  limits: Readonly<Record<string, number>>,
): Promise<unknown> =>
  admin('POST', '/limits', {
    limits: Object.entries(limits).map(([resource_name, resource_limit]) => ({
      service_id: service,
      region_id: REGION,
      project_id: project,
      resource_name,
      resource_limit,
    })),
  })

/** A service's group `[keystone_authtoken]`, by which it asks about tokens. */
export const authtokenSection = ({ url }: Pick<KeystoneServer, 'url'>): string => `[keystone_authtoken]
auth_type = password
auth_url = ${url}
www_authenticate_uri = ${url}
username = glance
password = ${PASSWORD}
user_domain_id = default
project_name = service
project_domain_id = default
`
