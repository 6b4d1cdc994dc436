import { spawn } from 'node:child_process'
import type { Readable } from 'node:stream'
import { ServiceError } from '../domain/errors.ts'

export interface ProcessLimits {
  readonly cpuSeconds: number
  /** Bytes of address space. */
  readonly memory: number
  /** Bytes of the largest file it may write; Infinity for no limit. */
  readonly fileSize: number
  readonly wallSeconds: number
}

export interface ProcessOptions extends ProcessLimits {
  readonly signal: AbortSignal
  /** Takes what it prints; gathered (up to 1 MiB) when absent. */
  readonly output?: (bytes: Readable) => Promise<void>
}

export interface Ended {
  /** Null when it was killed. */
  readonly code: number | null
  readonly killedBy: NodeJS.Signals | null
  readonly stdout: string
  readonly stderr: string
}

const GATHERED = 1_048_576

/**
 * Runs a program that reads data of strangers, under limits of the kernel (prlimit of util-linux). It ends with the
 * signal, and even when this process is killed (setpriv of util-linux). Throws the signal's reason, `timeout`,
 * `unavailable` when one of the programs is not installed, and the error of `output`.
 */
export async function runLimited(
  program: string,
  args: readonly string[],
  { cpuSeconds, memory, fileSize, wallSeconds, signal, output }: ProcessOptions,
): Promise<Ended> {
  signal.throwIfAborted()
  const limits = [
    `--cpu=${Math.ceil(cpuSeconds)}`,
    `--as=${memory}`,
    ...(Number.isFinite(fileSize) ? [`--fsize=${Math.floor(fileSize)}`] : []),
    '--core=0',
  ]
  const child = spawn('setpriv', ['--pdeathsig', 'KILL', 'prlimit', ...limits, '--', program, ...args], {
    stdio: ['ignore', 'pipe', 'pipe'],
    // Of our own environment, which may hold secrets, it needs no more; and messages in English.
    env: { LC_ALL: 'C', PATH: process.env['PATH'] ?? '/usr/bin:/bin' },
  })
  const wall = AbortSignal.timeout(wallSeconds * 1000)
  const stop = AbortSignal.any([signal, wall])
  const kill = () => void child.kill('SIGKILL')
  stop.addEventListener('abort', kill, { once: true })
  const ended = new Promise<Pick<Ended, 'code' | 'killedBy'>>((resolve, reject) => {
    child.once('close', (code, killedBy) => resolve({ code, killedBy }))
    child.once('error', (cause) => reject(notInstalled('setpriv', cause)))
  })
  const stdout = output === undefined ? gather(child.stdout) : output(child.stdout).then(() => '')
  // A taker that fails must not leave the program waiting at a full pipe.
  stdout.catch(kill)
  try {
    const [end, printed, stderr] = await Promise.all([ended, stdout, gather(child.stderr)])
    signal.throwIfAborted()
    if (wall.aborted) throw new ServiceError('timeout', `${program} took longer than ${wallSeconds} seconds`)
    if (end.code === 127 || /failed to execute/.test(stderr)) throw notInstalled(program)
    return { ...end, stdout: printed, stderr }
  } finally {
    stop.removeEventListener('abort', kill)
    kill()
    await ended.catch(() => undefined)
  }
}

const notInstalled = (program: string, cause?: unknown) =>
  new ServiceError('unavailable', `The program ${program} is not installed`, { cause })

/** The beginning of it; the rest is read and dropped. */
async function gather(stream: Readable): Promise<string> {
  const chunks: Buffer[] = []
  let size = 0
  for await (const chunk of stream as AsyncIterable<Buffer>) {
    if (size < GATHERED) chunks.push(chunk)
    size += chunk.length
  }
  return Buffer.concat(chunks).toString().slice(0, GATHERED)
}
