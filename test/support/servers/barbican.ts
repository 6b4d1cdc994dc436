import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { accessSync, constants, openSync } from 'node:fs'
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { promisify } from 'node:util'
import { freePort } from '../product.ts'
import { type Availability, authtokenSection, type KeystoneServer, available as keystoneAvailable } from './keystone.ts'

const run = promisify(execFile)

export interface BarbicanServer {
  /** Without a path; it is in Keystone's catalog as `key-manager`. */
  readonly url: string
  /** Keeps a secret as the bearer of `token`; gives its id. */
  store(token: string, secret: { readonly type: string; readonly payload: string }): Promise<string>
  /** The status of a request for what is known of a secret. */
  statusOf(token: string, id: string): Promise<number>
  stop(): Promise<void>
}

const PYTHON = '/usr/bin/python3'
const MANAGE = '/usr/bin/barbican-manage'

/** Whether Barbican, and the Keystone that it needs, are installed here. */
export function available(): Availability {
  try {
    accessSync(MANAGE, constants.X_OK)
  } catch {
    return { ok: false, reason: 'barbican-manage is not installed' }
  }
  return keystoneAvailable()
}

const SERVER = `
import sys
from wsgiref.simple_server import WSGIRequestHandler, make_server
paste, port = sys.argv[1:]
sys.argv = sys.argv[:1]
from paste import deploy

class Quiet(WSGIRequestHandler):
    def log_message(self, *args):
        pass

make_server('127.0.0.1', int(port), deploy.loadapp('config:' + paste), handler_class=Quiet).serve_forever()
`

const PASTE = `
[composite:main]
use = egg:Paste#urlmap
/v1: api
[pipeline:api]
pipeline = authtoken context microversion app
[app:app]
paste.app_factory = barbican.api.app:create_main_app
[filter:context]
paste.filter_factory = barbican.api.middleware.context:ContextMiddleware.factory
[filter:microversion]
paste.filter_factory = barbican.api.middleware.microversion:MicroversionMiddleware.factory
[filter:authtoken]
paste.filter_factory = keystonemiddleware.auth_token:filter_factory
`

const configuration = (dir: string, keystone: KeystoneServer, port: number): string => `
[DEFAULT]
sql_connection = sqlite:///${dir}/barbican.db
db_auto_create = true
host_href = http://127.0.0.1:${port}
log_file = ${dir}/barbican.log
${authtokenSection(keystone)}[oslo_policy]
policy_dirs = ${dir}/policy.d
`

/** Starts a real Barbican over SQLite on a free port, which asks `keystone` about tokens; `demo` may keep secrets there. */
export async function startBarbican(keystone: KeystoneServer): Promise<BarbicanServer> {
  const dir = await mkdtemp(join(tmpdir(), 'glimpse-barbican-'))
  const port = await freePort()
  const url = `http://127.0.0.1:${port}`
  // Barbican looks for its configuration below the home directory.
  await mkdir(join(dir, '.barbican'))
  const config = join(dir, '.barbican', 'barbican.conf')
  await writeFile(config, configuration(dir, keystone, port))
  const paste = join(dir, 'paste.ini')
  await writeFile(paste, PASTE)
  const env = { ...process.env, HOME: dir }
  await run(MANAGE, ['db', 'upgrade', '--db-url', `sqlite:///${dir}/barbican.db`], { cwd: dir, env })

  const log = openSync(join(dir, 'server.log'), 'a')
  const child: ChildProcess = spawn(PYTHON, ['-c', SERVER, paste, String(port)], {
    cwd: dir,
    env,
    stdio: ['ignore', log, log],
  })
  const ended = new Promise((resolve) => child.once('exit', resolve))
  process.once('exit', () => child.kill('SIGKILL'))
  const stop = async () => {
    child.kill('SIGKILL')
    await ended
    await rm(dir, { recursive: true, force: true })
  }
  const answers = () =>
    fetch(`${url}/v1/secrets`).then(
      ({ status }) => status === 401,
      () => false,
    )
  try {
    for (const deadline = Date.now() + 30_000; !(await answers()); await delay(50)) {
      if (child.exitCode !== null || Date.now() > deadline)
        throw new Error(`Barbican does not start:\n${await readFile(join(dir, 'server.log'), 'utf8')}`)
    }
    await enterCatalog(keystone, url)
    await makeCreator(keystone, 'demo')
  } catch (error) {
    await stop()
    throw error
  }
  return {
    url,
    stop,
    async store(token, { type, payload }) {
      const response = await fetch(`${url}/v1/secrets`, {
        method: 'POST',
        headers: { 'x-auth-token': token, 'content-type': 'application/json' },
        body: JSON.stringify({
          name: 'test',
          secret_type: type,
          payload: Buffer.from(payload).toString('base64'),
          payload_content_type: 'application/octet-stream',
          payload_content_encoding: 'base64',
        }),
      })
      if (response.status !== 201) throw new Error(`POST /v1/secrets: ${response.status} ${await response.text()}`)
      const { secret_ref } = (await response.json()) as { secret_ref: string }
      return secret_ref.slice(secret_ref.lastIndexOf('/') + 1)
    },
    async statusOf(token, id) {
      const response = await fetch(`${url}/v1/secrets/${id}`, { headers: { 'x-auth-token': token } })
      await response.body?.cancel()
      return response.status
    },
  }
}

async function enterCatalog(keystone: KeystoneServer, url: string): Promise<void> {
  const { service } = (await keystone.admin('POST', '/services', {
    service: { type: 'key-manager', name: 'barbican' },
  })) as { service: { id: string } }
  const endpoint = { service_id: service.id, interface: 'public', region_id: 'RegionOne', url }
  await keystone.admin('POST', '/endpoints', { endpoint })
}

async function makeCreator(keystone: KeystoneServer, name: string): Promise<void> {
  const { role } = (await keystone.admin('POST', '/roles', { role: { name: 'creator' } })) as { role: { id: string } }
  await keystone.admin('PUT', `/projects/${keystone.projects[name]}/users/${keystone.users[name]}/roles/${role.id}`)
}
