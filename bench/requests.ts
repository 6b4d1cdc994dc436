import { execFile } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { alternate, type Bench, eachSide, type Measured, type Samples, timed } from './bench.ts'
import type { Row } from './report.ts'
import type { Side } from './sides.ts'

const exec = promisify(execFile)
const REQUESTS = fileURLToPath(new URL('requests.lua', import.meta.url))

export interface Load {
  readonly rate: number
  /** Milliseconds. */
  readonly p50: number
  readonly p99: number
  /** Milliseconds of the server's processes for one request. */
  readonly cpu: number
  readonly failed: number
}

/** wrk with one thread; `what` is requests.lua's. Failed requests do not count. */
export async function wrk(
  side: Side,
  token: string,
  what: readonly string[],
  { connections = 4, seconds = 5 }: { readonly connections?: number; readonly seconds?: number } = {},
): Promise<Load> {
  const args = ['-t1', `-c${connections}`, `-d${seconds}s`, '--timeout', '60s', '-H', `X-Auth-Token: ${token}`]
  let printed = ''
  const { cpu } = await timed(side.processes, async () => {
    printed = (await exec('wrk', [...args, '-s', REQUESTS, side.url, '--', ...what])).stdout
  })
  const found = JSON.parse(printed.slice(printed.lastIndexOf('{'))) as Record<
    'requests' | 'seconds' | 'p50' | 'p99' | 'errors',
    number
  >
  const good = found.requests - found.errors
  // Nothing answered in time is a rate of 0, and no latency at all.
  const of = (value: number): number => (good > 0 ? value : Number.NaN)
  return {
    rate: good / found.seconds,
    p50: of(found.p50),
    p99: of(found.p99),
    cpu: of((cpu * 1000) / good),
    failed: found.errors,
  }
}

export async function measureRequests(
  bench: Bench,
  title: string,
  token: string,
  what: readonly string[],
  { rounds, seconds = 5 }: { readonly rounds: number; readonly seconds?: number },
): Promise<Measured> {
  await eachSide(bench, async (side) => void (await wrk(side, token, what, { seconds: 1 })))
  return requestRows(title, await alternate(bench, rounds, (side) => wrk(side, token, what, { seconds })))
}

export function requestRows(title: string, { glance, glimpse }: Samples<Load>): Measured {
  const row = (what: string, unit: string, key: 'rate' | 'p50' | 'p99' | 'cpu'): Row => ({
    what,
    unit,
    lessIsBetter: key !== 'rate',
    glance: glance.map((load) => load[key]),
    glimpse: glimpse.map((load) => load[key]),
  })
  const failed = (name: string, loads: readonly Load[]): readonly string[] => {
    const count = loads.reduce((sum, load) => sum + load.failed, 0)
    return count === 0 ? [] : [`${title}: ${count} requests to ${name} failed and do not count`]
  }
  return {
    rows: [
      row(title, 'requests/s', 'rate'),
      row(`${title}: median`, 'ms', 'p50'),
      row(`${title}: 99 %`, 'ms', 'p99'),
      row(`${title}: CPU`, 'ms/request', 'cpu'),
    ],
    notes: [...failed('Glance', glance), ...failed('Glimpse', glimpse)],
  }
}
