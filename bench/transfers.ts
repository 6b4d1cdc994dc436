import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { alternate, type Bench, type Measured, MIB, timed } from './bench.ts'
import type { Row } from './report.ts'
import type { Side } from './sides.ts'

const exec = promisify(execFile)

export interface Transfer {
  run(): Promise<unknown>
  clean(): Promise<void>
}

/** With 1 and 4 streams: MiB/s, and CPU seconds of the server's processes per GiB. */
export async function measureTransfers(
  bench: Bench,
  title: string,
  prepare: (side: Side, streams: number) => Transfer,
): Promise<Measured> {
  const rows: Row[] = []
  for (const streams of [1, 4]) {
    const { glance, glimpse } = await alternate(bench, streams === 1 ? 3 : 2, async (side) => {
      const transfer = prepare(side, streams)
      const { seconds, cpu } = await timed(side.processes, transfer.run)
      await transfer.clean()
      return { rate: (MIB * streams) / seconds, cpu: cpu / ((MIB * streams) / 1024) }
    })
    const what = `${title}, ${streamText(streams)}`
    const of = (key: 'rate' | 'cpu') => ({
      glance: glance.map((one) => one[key]),
      glimpse: glimpse.map((one) => one[key]),
    })
    rows.push({ what, unit: 'MiB/s', lessIsBetter: false, ...of('rate') })
    rows.push({ what: `${what}: CPU`, unit: 's/GiB', lessIsBetter: true, ...of('cpu') })
  }
  return { rows }
}

export const dataFile = ({ dir }: Pick<Bench, 'dir'>): string => join(dir, 'web', 'data.raw')

export async function curl(url: string, token: string, args: readonly string[] = []): Promise<void> {
  const headers = ['-H', `X-Auth-Token: ${token}`, '-H', 'Content-Type: application/octet-stream']
  await exec('curl', ['-sS', '--fail', '-o', '/dev/null', ...headers, ...args, url])
}

export const streamText = (streams: number): string => (streams === 1 ? '1 stream' : `${streams} streams`)
