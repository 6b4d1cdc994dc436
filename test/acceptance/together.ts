import { execFile } from 'node:child_process'
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { freePort, startProduct } from '../support/product.ts'
import { glanceVenv, serveGlance } from '../support/servers/glance.ts'
import { startRoundRobin } from '../support/servers/nginx.ts'
import { startMariadb } from '../support/servers/sql.ts'
import { addRegion } from './kit.ts'
import { glanceApiConf, type Running, type Setup, withNames } from './service.ts'

/**
 * The real Glance and Glimpse at once: one MariaDB, one set of stores, one staging area, and a proxy in front of both
 * that sends every request to the one which did not have the last. Glance makes the database.
 */
export async function withBoth<T>(
  { run, keystone, name }: { readonly run: string; readonly keystone: string; readonly name: string },
  setup: Setup,
  use: (running: Running) => Promise<T>,
): Promise<T> {
  const front = await freePort()
  const url = `http://127.0.0.1:${front}`
  const place = await addRegion(run, keystone, name, url)
  const home = join(place.dir, 'service')
  const venv = await glanceVenv()
  const stopping: (() => Promise<void>)[] = []
  try {
    const database = await startMariadb()
    stopping.push(database.stop)
    const connection = await database.database()
    const authtoken = await readFile(join(place.keystone, 'keystone_authtoken.conf'), 'utf8')
    for (const folder of ['staging', 'lock', ...setup.stores]) await mkdir(join(home, folder), { recursive: true })
    const prepare = async (who: string) => {
      const port = await freePort()
      const dir = join(home, who)
      for (const folder of [dir, join(home, `tasks-${who}`)]) await mkdir(folder)
      const file = join(dir, 'glance-api.conf')
      const own = glanceApiConf({ name: who, home, port, connection, staging: 'staging' }, setup)
      await writeFile(file, `${own}\n${ofGlance(venv, home, dir)}\n${authtoken}`)
      return { port, dir, file }
    }
    const theirs = await prepare('glance')
    const ours = await prepare('glimpse')
    for (const command of [['sync'], ['load_metadefs', '--path', join(venv, 'etc/glance/metadefs')]])
      await promisify(execFile)(join(venv, 'bin/glance-manage'), ['--config-file', theirs.file, 'db', ...command])

    const env = await withNames(home)
    const glance = await serveGlance(venv, theirs.dir, theirs.port, env)
    stopping.push(glance.stop)
    const glimpse = await startProduct({
      command: 'glance-api',
      args: ['--config-file', ours.file],
      port: ours.port,
      log: join(place.dir, 'glimpse.log'),
      env,
    })
    stopping.push(glimpse.stop)
    const proxy = await startRoundRobin(
      front,
      [theirs, ours].map(({ port }) => `127.0.0.1:${port}`),
    )
    stopping.push(proxy.stop)
    return await use({ place, url, second: `http://127.0.0.1:${theirs.port}` })
  } finally {
    for (const stop of stopping.toReversed()) await stop()
  }
}

/** What Glance wants to have, and Glimpse lets stand. */
const ofGlance = (venv: string, home: string, dir: string): string => `
[paste_deploy]
config_file = ${venv}/etc/glance/glance-api-paste.ini
[oslo_concurrency]
lock_path = ${home}/lock
[oslo_policy]
policy_file = ${dir}/policy.yaml
policy_dirs = ${dir}/policy.d
[task]
work_dir = ${dir}
`
