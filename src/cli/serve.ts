import cluster, { type Worker as Child } from 'node:cluster'
import { mkdirSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { join, resolve } from 'node:path'
import type { App } from '../app.ts'
import type { Standalone } from '../auth/standalone.ts'
import { type Config, describe } from '../config/config.ts'
import { REGISTRY_API, registryServer } from '../config/registry.ts'
import { isInMemory } from '../db/sql/url.ts'
import { ServiceError } from '../domain/errors.ts'
import type { Log } from '../log.ts'

type ReadConfig = (overrides?: Readonly<Record<string, string>>) => Config

export interface StandaloneServeOptions {
  readonly data: string
  readonly host: string
  readonly port: number
  readonly workers?: number
}
export interface ConfiguredServeOptions {
  readonly logFile?: string
  readonly showConfig?: boolean
}

const identityFile = (data: string): string => join(data, 'identity.sqlite')

/** Opens the built-in identity of a data folder. */
export async function openStandaloneIn(data: string, authUri?: string): Promise<Standalone> {
  const { openStandalone } = await import('../auth/standalone.ts')
  mkdirSync(data, { recursive: true, mode: 0o750 })
  return openStandalone({ file: identityFile(data), ...(authUri === undefined ? {} : { authUri }) })
}

/** `glimpse`: everything in one folder, no configuration needed. */
export async function serveStandalone(read: ReadConfig, options: StandaloneServeOptions): Promise<void> {
  const data = resolve(options.data)
  const url = `http://${options.host.includes(':') ? `[${options.host}]` : options.host}:${options.port}`
  const config = read({
    bind_host: options.host,
    bind_port: String(options.port),
    workers: String(options.workers ?? availableParallelism()),
    'database.connection': `sqlite:///${join(data, 'glance.sqlite')}`,
    'glance_store.filesystem_store_datadir': join(data, 'images'),
    log_file: join(data, 'glimpse.log'),
  })
  const authUri = `${url}/identity/v3`
  await run(config, {
    identity: () => openStandaloneIn(data, authUri),
    prepare: async () => {
      const { writeClouds } = await import('./clouds.ts')
      const standalone = await openStandaloneIn(data, authUri)
      try {
        return await writeClouds(standalone, data, authUri)
      } finally {
        standalone.close()
      }
    },
    greet: (clouds) => printBanner(url, data, clouds),
  })
}

/** `glance-api`: as upstream's configuration files say. */
export async function serveConfigured(read: ReadConfig, options: ConfiguredServeOptions): Promise<void> {
  const config = read(options.logFile === undefined ? {} : { log_file: options.logFile })
  if (options.showConfig) {
    process.stdout.write(describe(config))
    return
  }
  await run(config, {})
}

/** `glance-registry`: the database for API nodes, as upstream's configuration files of Ussuri say. */
export async function serveRegistry(read: ReadConfig, options: ConfiguredServeOptions): Promise<void> {
  const config = read(options.logFile === undefined ? {} : { log_file: options.logFile })
  // Before anything is shown or served: its options are read over those of glance-api.
  const { bind_port: port } = config.group('DEFAULT', registryServer)
  if (options.showConfig) {
    process.stdout.write(describe(config))
    return
  }
  const open = async (log: Log) => (await import('../registry-app.ts')).openRegistry(config, log)
  await run(config, { name: 'glance.registry', port, open })
}

interface Serving {
  /** Of the log; `glance.api` by default. */
  readonly name?: string
  /** Where `bind_port` has another meaning than for glance-api. */
  readonly port?: number
  /** What is served; the Image API by default. */
  readonly open?: (log: Log) => Promise<Pick<App, 'http' | 'close'>>
  /** Opens the built-in identity, where that is used. */
  readonly identity?: () => Promise<Standalone>
  /** Done once, before the first worker starts. */
  readonly prepare?: () => Promise<string | undefined>
  /** Told once everything answers. */
  readonly greet?: (prepared: string | undefined) => void
}

async function run(config: Config, serving: Serving): Promise<void> {
  if (cluster.isWorker) return work(config, serving)
  // Images are nobody else's business: files get 0640, folders 0750, as upstream's umask has it.
  process.umask(0o027)
  const prepared = await serving.prepare?.()
  const workers = config.DEFAULT.workers ?? Math.min(availableParallelism(), 8)
  if (workers > 1 && config.DEFAULT.data_api !== REGISTRY_API && isInMemory(config.database.connection))
    throw new ServiceError(
      'invalid',
      `[database] connection: a database in memory is one process's, and ${workers} workers would have one each: name a file, or set workers = 0`,
    )
  if (workers === 0) {
    await work(config, serving)
    serving.greet?.(prepared)
    return
  }
  supervise(config, workers, () => serving.greet?.(prepared))
}

async function openApi(config: Config, log: Log, serving: Serving): Promise<App> {
  const { openApp } = await import('../app.ts')
  const standalone = await serving.identity?.()
  return openApp({ config, log, ...(standalone === undefined ? {} : { standalone }) })
}

/** Serves in this process until it is told to stop. */
async function work(config: Config, serving: Serving): Promise<void> {
  const { DEFAULT: options } = config
  const { openLog } = await import('../log.ts')
  const { name = 'glance.api', port = options.bind_port } = serving
  const log = openLog({ name, debug: options.debug, json: options.use_json, file: logFile(config, name) })
  const app = await (serving.open?.(log) ?? openApi(config, log, serving))
  // One worker's word is enough for what all of them were given.
  if (!cluster.isWorker || cluster.worker?.id === 1) for (const warning of config.warnings()) log.warn(warning)
  await new Promise<void>((resolve, reject) => {
    app.http.server.once('error', (cause: NodeJS.ErrnoException) => {
      const where = `${options.bind_host}:${port}`
      reject(
        new ServiceError(
          'invalid',
          cause.code === 'EADDRINUSE' ? `${where} is in use already` : `Cannot listen on ${where}: ${cause.message}`,
        ),
      )
    })
    app.http.server.listen({ host: options.bind_host, port, backlog: options.backlog }, resolve)
  })

  let stopping = false
  const stop = () => {
    if (stopping) return
    stopping = true
    void app
      .close(options.graceful_shutdown_timeout * 1000)
      .catch((error: unknown) => log.error('Cannot stop in good order', error))
      .then(() => {
        log.flush()
        process.exit(0)
      })
  }
  process.on('SIGTERM', stop)
  process.on('SIGINT', stop)
  process.on('SIGHUP', () => undefined) // the primary replaces workers
  process.on('disconnect', stop) // the primary is gone, and the listening socket with it
  process.on('message', (message) => message === 'stop' && stop())
}

const logFile = ({ DEFAULT: { log_file, log_dir } }: Config, name: string): string | undefined => {
  if (log_file === undefined)
    return log_dir === undefined ? undefined : join(log_dir, `${name.replaceAll('.', '-')}.log`)
  return log_dir === undefined ? log_file : resolve(log_dir, log_file)
}

/** Pause before a dead worker is replaced, and before one is that died without having served. */
const RESPAWN_MS = 100
const RETRY_MS = 5000
/** What stays of the grace period for closing files and the database. */
const CLOSING_MS = 5000

/** Keeps `count` workers running, replaces them on SIGHUP, and stops with them. */
function supervise(config: Config, count: number, ready: () => void): void {
  let stopping = false
  const listening = new Set<Child>()
  // Requests leave little behind that lives: a young generation of 12 MiB is enough, and 100 MiB less than the default.
  cluster.setupPrimary({ execArgv: [...process.execArgv, '--max-semi-space-size=4'] })
  const { UV_THREADPOOL_SIZE = '8', MALLOC_ARENA_MAX = '2' } = process.env
  // Few arenas: each thread's own would keep what passing image data once needed.
  const fork = () => cluster.fork({ UV_THREADPOOL_SIZE, MALLOC_ARENA_MAX })

  // One that is dying anyway need not hear it.
  const tellToStop = (child: Child) => child.send('stop', () => undefined)
  /** A worker that has ended stays in the cluster's list until its channel is closed too. */
  const living = () =>
    Object.values(cluster.workers ?? {}).filter((child) => child !== undefined && !child.isDead()) as Child[]

  cluster.on('listening', (child) => {
    listening.add(child)
    served = true
    if (stopping) tellToStop(child) // one that was still starting has not heard it
    if (listening.size === count && !greeted) {
      greeted = true
      ready()
    }
  })
  /** Whether any worker ever answered: then what ends one is no fault of the configuration. */
  let served = false
  let greeted = false
  cluster.on('exit', (child, code) => {
    const hadServed = listening.delete(child)
    const left = living().length
    if (stopping || replaced.delete(child)) {
      if (stopping && left === 0) process.exit(process.exitCode ?? 0)
      return
    }
    if (!served) {
      // It could not even start, and has said why; another one would fare no better.
      process.exitCode = code || 1 // null when a signal killed it
      stop('SIGTERM')
      if (left === 0) process.exit(process.exitCode)
      return
    }
    console.error(`WARNING: worker ${child.process.pid} died, starting another one`)
    setTimeout(() => stopping || fork(), hadServed ? RESPAWN_MS : RETRY_MS)
  })

  const replaced = new Set<Child>()
  const stop = (signal: NodeJS.Signals) => {
    if (stopping) {
      if (signal === 'SIGINT') process.exit(130) // a second Ctrl-C does not wait
      return
    }
    stopping = true
    const children = living()
    children.forEach(tellToStop)
    if (children.length === 0) process.exit(process.exitCode ?? 0)
    const graceMs = config.DEFAULT.graceful_shutdown_timeout * 1000
    if (graceMs === 0) return
    const killAll = () => {
      for (const child of children) child.process.kill('SIGKILL')
    }
    setTimeout(killAll, graceMs + config.glimpse.notification_drain_timeout * 1000 + CLOSING_MS).unref()
  }
  process.on('SIGTERM', stop)
  process.on('SIGINT', stop)
  process.on('SIGHUP', () => {
    // New workers read the new configuration; each old one goes when its successor answers.
    for (const old of [...listening]) {
      const successor = fork()
      successor.once('listening', () => {
        replaced.add(old)
        tellToStop(old)
      })
    }
  })
  // What keeps one from starting keeps all of them: the first says so for the rest, and serves the sooner for being alone.
  fork().once('listening', () => {
    for (let started = 1; started < count && !stopping; started++) fork()
  })
}

function printBanner(url: string, data: string, clouds: string | undefined): void {
  const bold = process.stdout.isTTY ? (text: string) => `\x1b[1m${text}\x1b[0m` : (text: string) => text
  const lines = [
    '',
    `${bold('Glimpse')} is ready.`,
    '',
    `  Image API   ${url}`,
    `  Identity    ${url}/identity/v3`,
    `  Data        ${data}`,
    `  Log         ${join(data, 'glimpse.log')}`,
    '',
    ...(clouds === undefined
      ? ['  Clients     clouds.yaml is missing; "glimpse identity user set --password" gives a new password']
      : [`  export OS_CLIENT_CONFIG_FILE=${clouds}`, '  openstack --os-cloud glimpse image list']),
    '',
    '  Ctrl-C stops it.',
    '',
  ]
  process.stdout.write(`${lines.join('\n')}\n`)
}
