import { spawn } from 'node:child_process'
import { randomInt } from 'node:crypto'
import { once } from 'node:events'
import { openSync, readdirSync, readFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { fileURLToPath } from 'node:url'

export const root = fileURLToPath(new URL('../..', import.meta.url))

/** The service as a user starts it, in processes of its own. */
export interface Product {
  readonly url: string
  /** Of the command that was started, which leads a process group. */
  readonly pid: number
  /** Every living process of the service: the first one, then its workers. */
  processes(): readonly number[]
  /** kill -9 of all of them at once; resolves when they are gone. */
  kill(): Promise<void>
  /** SIGTERM, then waits for the drain to end. Throws if it does not end, or ends badly. */
  stop(): Promise<void>
}

export interface ProductOptions {
  /** A file below `bin/`. */
  readonly command: string
  readonly args: readonly string[]
  readonly port: number
  /** File that takes what the service prints. */
  readonly log: string
  readonly env?: NodeJS.ProcessEnv
  /** How often to ask whether it is up. */
  readonly everyMs?: number
}

/** Resolves once the service answers /healthcheck; throws with the end of its log if it never does. */
export async function startProduct({ command, args, port, log, env, everyMs = 20 }: ProductOptions): Promise<Product> {
  const out = openSync(log, 'a')
  const child = spawn(`${root}bin/${command}`, args, {
    detached: true,
    stdio: ['ignore', out, out],
    env: { ...process.env, ...env },
  })
  const ended = once(child, 'exit') as Promise<[number | null, NodeJS.Signals | null]>
  const [pid] = await Promise.race([once(child, 'spawn').then(() => [child.pid as number] as const), failure(child)])
  const killGroup = (): void => {
    try {
      process.kill(-pid, 'SIGKILL')
    } catch {
      // Nobody is left in the group.
    }
  }
  process.once('exit', killGroup)
  const kill = async (): Promise<void> => {
    process.off('exit', killGroup)
    killGroup()
    await ended
    await until('the end of every worker', () => processesOf(pid).length === 0)
  }
  const url = `http://127.0.0.1:${port}`
  try {
    const isUp = (): Promise<boolean> => {
      if (child.exitCode !== null) throw new Error(`${command} ended with code ${child.exitCode}`)
      return isHealthy(url)
    }
    await until(`${command} at ${url}`, isUp, { everyMs })
  } catch (error) {
    await kill()
    throw new Error(`${String(error)}\n${tail(log)}`, { cause: error })
  }
  return {
    url,
    pid,
    processes: () => processesOf(pid),
    kill,
    stop: async () => {
      process.kill(pid, 'SIGTERM')
      await until(`the end of ${command} after SIGTERM`, () => child.exitCode !== null || child.signalCode !== null)
      const left = processesOf(pid).length
      await kill()
      if (child.exitCode !== 0 || left > 0)
        throw new Error(
          `${command} left ${left} processes and code ${child.exitCode ?? child.signalCode}\n${tail(log)}`,
        )
    },
  }
}

async function failure(child: ReturnType<typeof spawn>): Promise<never> {
  const [error] = await once(child, 'error')
  throw error
}

const isHealthy = (url: string): Promise<boolean> =>
  fetch(`${url}/healthcheck`, { signal: AbortSignal.timeout(2000) }).then(
    (response) => response.ok,
    () => false,
  )

export const tail = (file: string, lines = 20): string =>
  readFileSync(file, 'utf8').split('\n').slice(-lines).join('\n')

interface ProcessFacts {
  readonly pid: number
  readonly parent: number
  readonly group: number
  readonly state: string
}

function facts(pid: number): ProcessFacts | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
    const [state = '', parent, group] = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
    return { pid, state, parent: Number(parent), group: Number(group) }
  } catch {
    return undefined // It ended meanwhile.
  }
}

const everyProcess = (): readonly ProcessFacts[] =>
  readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map((name) => facts(Number(name)))
    .filter((found) => found !== undefined)
    .filter(({ state }) => state !== 'Z')

/** The living processes of the group that `leader` leads, itself first. */
const processesOf = (leader: number): readonly number[] =>
  everyProcess()
    .filter(({ group }) => group === leader)
    .map(({ pid }) => pid)
    .sort((a, b) => Number(b === leader) - Number(a === leader) || a - b)

/** `root` and all its descendants, whatever groups they are in. */
export function processTree(root: number): readonly number[] {
  const all = everyProcess()
  const found = all.filter(({ pid }) => pid === root).map(({ pid }) => pid)
  for (const pid of found) found.push(...all.filter(({ parent }) => parent === pid).map((child) => child.pid))
  return found
}

/** Waits until `condition` holds. Throws if it does not within `seconds`. */
export async function until(
  what: string,
  condition: () => boolean | Promise<boolean>,
  { seconds = 60, everyMs = 20 }: { readonly seconds?: number; readonly everyMs?: number } = {},
): Promise<void> {
  const end = performance.now() + seconds * 1000
  while (!(await condition())) {
    if (performance.now() > end) throw new Error(`Waited ${seconds} s in vain for ${what}`)
    await new Promise((resolve) => setTimeout(resolve, everyMs))
  }
}

/** Stops a process where it is, and waits until no thread of it runs: the signal alone is sent, not delivered. */
export async function freeze(pid: number): Promise<void> {
  process.kill(pid, 'SIGSTOP')
  const tasks = `/proc/${pid}/task`
  await until(`process ${pid} to stand still`, () =>
    readdirSync(tasks).every((task) => /\) T /.test(readFileSync(`${tasks}/${task}/stat`, 'utf8'))),
  )
}

/**
 * A port of 127.0.0.1 that nobody listens on now. It is below Linux's range of the ports that connections get
 * (ip_local_port_range: 32768 and up): no connection takes it before the server is there, or while it is away.
 */
export async function freePort(): Promise<number> {
  for (;;) {
    const port = randomInt(12_000, 32_000)
    const server = createServer().listen(port, '127.0.0.1')
    const free = await once(server, 'listening').then(
      () => true,
      () => false,
    )
    if (!free) continue
    server.close()
    await once(server, 'close')
    return port
  }
}
