import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { type Bench, eachSide, type Measured, MIB, timed, WRITER } from '../bench.ts'
import { removeImages, uploadOne } from '../images.ts'
import { startNginx } from '../nginx.ts'
import { median } from '../report.ts'
import type { Side } from '../sides.ts'
import { curl, dataFile, measureTransfers, streamText } from '../transfers.ts'

const exec = promisify(execFile)

export async function upload(bench: Bench): Promise<Measured> {
  return await measureTransfers(bench, 'upload', (side, streams) => {
    let ids: readonly string[] = []
    return {
      run: async () => {
        ids = await Promise.all(Array.from({ length: streams }, () => uploadOne(side, dataFile(bench))))
      },
      clean: () => removeImages(side, ids),
    }
  })
}

export async function download(bench: Bench): Promise<Measured> {
  const images = new Map<Side, string>()
  await eachSide(bench, async (side) => void images.set(side, await uploadOne(side, dataFile(bench))))
  const measured = await measureTransfers(bench, 'download', (side, streams) => {
    const url = `${side.url}/v2/images/${images.get(side)}/file`
    return { run: () => Promise.all(Array.from({ length: streams }, () => curl(url, WRITER))), clean: async () => {} }
  })
  await eachSide(bench, (side) => removeImages(side, [images.get(side) ?? '']))
  return measured
}

/** What the machine can do: the same hashes without a server, the same download from nginx. */
export async function physical(bench: Bench): Promise<Measured> {
  const file = dataFile(bench)
  const hashing = await exec('bash', [
    '-c',
    `TIMEFORMAT='%R %U %S'; time { openssl dgst -md5 "$0" >/dev/null & openssl dgst -sha512 "$0" >/dev/null & wait; }`,
    file,
  ])
  const [wall = 0, user = 0, system = 0] = hashing.stderr.trim().split(' ').map(Number)
  const gib = MIB / 1024
  const notes = [`openssl md5 and sha512 side by side: ${line(MIB / wall, (user + system) / gib)}`]
  const nginx = await startNginx(bench.dir)
  try {
    for (const streams of [1, 4]) {
      const runs = []
      for (let round = 0; round < 3; round += 1) {
        const { seconds, cpu } = await timed(nginx.processes, () =>
          Promise.all(Array.from({ length: streams }, () => curl(`${nginx.url}/data.raw`, ''))),
        )
        runs.push({ rate: (MIB * streams) / seconds, cpu: cpu / (gib * streams) })
      }
      const [rate, cpu] = [median(runs.map((run) => run.rate)), median(runs.map((run) => run.cpu))]
      notes.push(`nginx with sendfile, download, ${streamText(streams)}: ${line(rate, cpu)}`)
    }
  } finally {
    await nginx.stop()
  }
  return { rows: [], notes }
}

const line = (rate: number, cpu: number): string => `${Math.round(rate)} MiB/s, ${cpu.toFixed(2)} CPU s/GiB`
