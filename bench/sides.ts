import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { freePort, type Product, processTree, startProduct, until } from '../test/support/product.ts'

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
}

export interface Sides {
  readonly glance: Side
  readonly glimpse: Side
  /** Of the real Glance. */
  readonly version: string
  close(): Promise<void>
}

/** Both servers with two workers, SQLite and a file store, in front of the same stand-in for Keystone. */
export async function openSides(kit: string, dir: string): Promise<Sides> {
  const [glancePort, stubPort, glimpsePort] = [await freePort(), await freePort(), await freePort()]
  const peer = join(dir, 'glance')
  const env = { ...process.env, PEER_DIR: peer, DB: 'sqlite', WORKERS: '2', METADEFS: '0' }
  const ports = { GLANCE_PORT: String(glancePort), STUB_PORT: String(stubPort) }
  const close = async (): Promise<void> => void (await run(join(kit, 'peer-down.sh'), [], { env }))
  process.once('exit', () => spawn(join(kit, 'peer-down.sh'), [], { env, detached: true, stdio: 'ignore' }))
  await detached(join(kit, 'peer-up.sh'), { ...env, ...ports })
  const facts = JSON.parse(await readFile(join(peer, 'run/server.json'), 'utf8')) as Record<string, string>
  return {
    glance: glanceSide(facts, join(peer, 'glance.sqlite')),
    glimpse: await glimpseSide(join(dir, 'glimpse'), glimpsePort, stubPort),
    version: String(facts['name']),
    close,
  }
}

function glanceSide(facts: Record<string, string>, database: string): Side {
  const { url = '', start = '', stop = '', pidfile = '', location_prefix: locations = '' } = facts
  return {
    name: 'Glance',
    url,
    database,
    locations,
    start: async () => {
      await detached(start, process.env)
      await firstAnswer(url)
    },
    stop: async () => void (await run(stop)),
    processes: () => processTree(Number(readFileSync(pidfile, 'utf8'))),
  }
}

async function glimpseSide(dir: string, port: number, stubPort: number): Promise<Side> {
  await mkdir(join(dir, 'images'), { recursive: true })
  const config = join(dir, 'glance-api.conf')
  const database = join(dir, 'glance.sqlite')
  await writeFile(
    config,
    `[DEFAULT]
bind_host = 127.0.0.1
bind_port = ${port}
workers = 2
[database]
connection = sqlite:///${database}
[glance_store]
stores = file
default_store = file
filesystem_store_datadir = ${dir}/images
[paste_deploy]
flavor = keystone
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
  }
}

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

/** Bytes that the processes hold, shared pages divided among those who share them. */
export const memoryOf = (side: Side): number =>
  side.processes().reduce((sum, pid) => {
    const pss = /^Pss:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8'))
    return sum + Number(pss?.[1] ?? 0) * 1024
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
