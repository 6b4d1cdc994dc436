import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { connect } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import { freePort, freeze } from '../product.ts'
import type { Availability } from './keystone.ts'

export interface MemcachedServer {
  /** `host:port` */
  readonly address: string
  /** Stops it where it is: connections stay, and nobody answers once this is done. */
  freeze(): Promise<void>
  thaw(): void
  /** Everything that it keeps, by key. */
  items(): Promise<ReadonlyMap<string, string>>
  /** A command in memcached's own language; gives the answer. */
  command(text: string, end: RegExp): Promise<string>
  halt(): Promise<void>
  start(): Promise<void>
}

export function available(): Availability {
  try {
    execFileSync('memcached', ['--version'], { stdio: 'ignore' })
    return { ok: true }
  } catch {
    return { ok: false, reason: 'memcached is not installed' }
  }
}

/** Starts a real memcached on a free port of the loopback device. */
export async function startMemcached(): Promise<MemcachedServer> {
  const port = await freePort()
  let child: ChildProcess | undefined

  const command = (text: string, end: RegExp): Promise<string> =>
    new Promise((resolve, reject) => {
      const socket = connect(port, '127.0.0.1')
      let answer = ''
      socket.setEncoding('utf8').on('error', reject)
      socket.on('data', (part: string) => {
        answer += part
        if (end.test(answer)) {
          socket.end()
          resolve(answer)
        }
      })
      socket.write(`${text}\r\n`)
    })
  const start = async () => {
    // -u is for root only, and ignored otherwise.
    const started = spawn('memcached', ['-l', '127.0.0.1', '-p', String(port), '-U', '0', '-u', 'nobody', '-m', '16'], {
      stdio: 'ignore',
    })
    child = started
    process.once('exit', () => started.kill('SIGKILL'))
    for (const deadline = Date.now() + 10_000; ; await delay(20)) {
      const up = await command('version', /VERSION.*\r\n/).then(
        () => true,
        () => false,
      )
      if (up) return
      if (Date.now() > deadline || started.exitCode !== null) throw new Error('memcached does not start')
    }
  }
  await start()
  return {
    address: `127.0.0.1:${port}`,
    freeze: async () => {
      if (child?.pid !== undefined) await freeze(child.pid)
    },
    thaw: () => void child?.kill('SIGCONT'),
    command,
    items: async () => {
      const list = await command('lru_crawler metadump all', /END\r\n$/)
      const keys = [...list.matchAll(/^key=(\S+)/gm)].map(([, key = '']) => decodeURIComponent(key))
      const found = await Promise.all(
        keys.map(async (key) => {
          const [, value = ''] = /^VALUE [^\n]*\n(.*)\r\nEND\r\n$/s.exec(await command(`get ${key}`, /END\r\n$/)) ?? []
          return [key, value] as const
        }),
      )
      return new Map(found)
    },
    halt: async () => {
      const ended = child
      child = undefined
      if (ended === undefined || ended.exitCode !== null) return
      const exit = new Promise((resolve) => ended.once('exit', resolve))
      ended.kill('SIGKILL')
      await exit
    },
    start,
  }
}
