import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { setTimeout as delay } from 'node:timers/promises'
import { openDatabase } from '../../src/db/sql/connect.ts'
import { freePort, root, startProduct } from '../../test/support/product.ts'
import { startMariadb, startPostgres } from '../../test/support/servers/sql.ts'
import { chosenDatabases, type Measured } from '../bench.ts'
import { deletedRows } from '../deleted-rows.ts'
import type { Row } from '../report.ts'
import { quantile, type SteadyLoad, steadyLoad } from '../steady.ts'

const DEAD = Number(process.env['BENCH_DEAD'] ?? 110_000)
const LIVING = 20_000
/** Times that the purge takes out a part of it, with a time without purge before each. */
const ROUNDS = 5
/** Requests a second. */
const RATE = Number(process.env['BENCH_RATE'] ?? 200)
const ALONE_MS = 12_000

interface Place {
  readonly kind: 'sqlite' | 'postgresql' | 'mysql'
  readonly url: string
  run(sql: string): Promise<void>
  stop(): Promise<void>
}

const PLACES: Readonly<Record<string, (dir: string) => Promise<Place>>> = {
  SQLite: async (dir) => {
    const file = join(dir, 'purge.sqlite')
    const run = async (sql: string) => {
      const raw = new DatabaseSync(file)
      raw.exec(sql)
      raw.close()
    }
    return { kind: 'sqlite', url: `sqlite:///${file}`, run, stop: () => rm(file) }
  },
  PostgreSQL: async () => serverPlace(await startPostgres({ durable: true, settings: ['max_wal_size=4GB'] })),
  MariaDB: async () => serverPlace(await startMariadb({ durable: true })),
}

async function serverPlace(server: Awaited<ReturnType<typeof startPostgres>>): Promise<Place> {
  const url = await server.database()
  return { kind: server.kind, url, run: async (sql) => void (await server.query(url, sql)), stop: server.stop }
}

/** How quick show stays on each database while `db purge` takes out half a million deleted rows. */
export async function purge({ dir }: { readonly dir: string }): Promise<Measured> {
  const rows: Row[] = []
  const notes: string[] = []
  for (const [name, open] of chosenDatabases(PLACES)) {
    const place = await open(dir)
    try {
      const { turns, purged, seconds } = await onPlace(name, place, join(dir, `purge-${name}`))
      for (const [what, part] of [
        ['median', 0.5],
        ['99 %', 0.99],
      ] as const)
        rows.push({ what: `${name}: show: ${what}`, unit: 'ms', lessIsBetter: true, ...at(turns, part) })
      notes.push(`${name}: ${purged.toLocaleString('en')} rows in ${seconds.toFixed(0)} s`)
    } finally {
      await place.stop()
    }
  }
  return {
    rows,
    names: ['alone', 'purging', 'better by'],
    notes: [
      ...notes,
      `${RATE} requests for single images a second, of ${LIVING.toLocaleString('en')} living ones; latencies in ms, from when each request was due`,
      `${DEAD.toLocaleString('en')} deleted images, each with a property, a tag and a location, every fifth with a member and a task`,
      `alone and during a purge in turns of ${ALONE_MS / 1000} s and a fifth of the rows; medians of the turns`,
      'the servers write to a disk, and wait for it at each commit',
    ],
  }
}

interface Turns {
  readonly alone: readonly (readonly number[])[]
  readonly purging: readonly (readonly number[])[]
}

const at = ({ alone, purging }: Turns, part: number) => ({
  glance: alone.map((latencies) => quantile(latencies, part)),
  glimpse: purging.map((latencies) => quantile(latencies, part)),
})

async function onPlace(name: string, place: Place, dir: string) {
  await mkdir(join(dir, 'images'), { recursive: true })
  await (await openDatabase(place.url)).close()
  for (const sql of deletedRows(place.kind, LIVING, DEAD)) await place.run(sql)
  if (place.kind === 'postgresql') await place.run('vacuum analyze')

  const port = await freePort()
  const conf = join(dir, 'glance-api.conf')
  await writeFile(
    conf,
    `[DEFAULT]\nbind_host = 127.0.0.1\nbind_port = ${port}\nworkers = 2\n[database]\nconnection = ${place.url}
[glance_store]\nfilesystem_store_datadir = ${dir}/images\n[paste_deploy]\nflavor =\n`,
  )
  const config = ['--config-file', conf]
  const product = await startProduct({ command: 'glance-api', args: config, port, log: join(dir, 'service.log') })
  try {
    const response = await fetch(`${product.url}/v2/images?limit=100`)
    const { images } = (await response.json()) as { images: readonly { id: string }[] }
    const paths = images.map(({ id }) => `/v2/images/${id}`)
    const load = steadyLoad(product.url, paths, RATE)
    try {
      await delay(5000)
      const alone: number[][] = []
      const purging: number[][] = []
      let purged = 0
      let seconds = 0
      for (let round = 0; round < ROUNDS; round += 1) {
        load.look()
        await delay(ALONE_MS)
        alone.push(look(name, load))
        const began = performance.now()
        for (const command of ['purge', 'purge_images_table']) purged += await manage(config, command, DEAD / ROUNDS)
        seconds += (performance.now() - began) / 1000
        purging.push(look(name, load))
        const [before, now] = [alone, purging].map((turns) => quantile(turns.at(-1) ?? [], 0.99).toFixed(1))
        console.error(`bench: ${name}: 99 % ${before} ms alone, ${now} ms during ${seconds.toFixed(0)} s in all`)
      }
      return { turns: { alone, purging }, purged, seconds }
    } finally {
      await load.stop()
    }
  } finally {
    await product.stop()
    await rm(dir, { recursive: true, force: true })
  }
}

function look(name: string, load: SteadyLoad): number[] {
  const { latencies, failed } = load.look()
  if (failed > 0) throw new Error(`${name}: ${failed} of ${latencies.length} requests failed`)
  return [...latencies]
}

/** Takes out so many rows of each table; returns how many that were. */
async function manage(config: readonly string[], command: string, most: number): Promise<number> {
  const args = [...config, 'db', command, '--age_in_days', '100', '--max_rows', String(Math.ceil(most))]
  const child = spawn(join(root, 'bin/glance-manage'), args, { stdio: ['ignore', 'inherit', 'pipe'] })
  let said = ''
  child.stderr.on('data', (data: Buffer) => {
    said += data.toString()
  })
  const [code] = await once(child, 'close')
  if (code !== 0) throw new Error(`db ${command} ended with code ${code}: ${said}`)
  return [...said.matchAll(/^Deleted (\d+) row/gm)].reduce((sum, [, count]) => sum + Number(count), 0)
}
