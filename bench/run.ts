/**
 * Glimpse beside the real Glance: the same requests, identities and kind of database, in turns, in one run.
 *   npm run bench                   every section, into bench/RESULTS.md
 *   npm run bench -- list show      only these
 *   PEER_KIT=DIR                    scripts that start the real Glance (default ../shared/peer)
 *   BENCH_MIB=1024                  size of the image that is uploaded and downloaded
 */
import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { cpus, tmpdir, totalmem } from 'node:os'
import { join, resolve } from 'node:path'
import { createInterface } from 'node:readline'
import { DatabaseSync } from 'node:sqlite'
import { pipeline } from 'node:stream/promises'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { freePort, processTree, root, until } from '../test/support/product.ts'
import { median, type Row, saveSection, table } from './report.ts'
import { cpuOf, memoryOf, openSides, type Side, type Sides } from './sides.ts'

const exec = promisify(execFile)
const kit = resolve(root, process.env['PEER_KIT'] || '../shared/peer')
const MIB = Number(process.env['BENCH_MIB'] ?? 1024)
const REQUESTS = fileURLToPath(new URL('requests.lua', import.meta.url))
const SLOW_CLIENTS = fileURLToPath(new URL('slow-clients.ts', import.meta.url))

/** The stand-in for Keystone reads user, project and roles from the token itself. */
const TENANT = 'bench:bench0:member,reader'
const ADMIN = 'root:admin:admin,member,reader'
const WRITER = 'writer:writers:member,reader'

interface Bench extends Sides {
  readonly dir: string
  /** So many seeded images are in both databases. */
  images: number
}
interface Measured {
  readonly rows: readonly Row[]
  readonly notes?: readonly string[]
}

const SECTIONS: Readonly<Record<string, (bench: Bench) => Promise<Measured>>> = {
  start,
  memory,
  show,
  list,
  patch,
  create,
  upload,
  download,
  slow,
  physical,
}

// ---- sections --------------------------------------------------------------------------------------------------

async function start(bench: Bench): Promise<Measured> {
  await eachSide(bench, (side) => side.stop())
  const seconds = await alternate(bench, 5, async (side) => {
    const began = performance.now()
    await side.start()
    const took = (performance.now() - began) / 1000
    await side.stop()
    return took
  })
  await eachSide(bench, (side) => side.start())
  return { rows: [{ what: 'start to first answer', unit: 's', lessIsBetter: true, ...seconds }] }
}

async function memory(bench: Bench): Promise<Measured> {
  await seedTo(bench, 1000)
  const id = seededImage(bench)
  const idle = await alternate(bench, 1, async (side) => {
    await side.stop()
    await side.start()
    for (let i = 0; i < 20; i += 1) await get(side, '/v2/images?limit=25', TENANT)
    return memoryOf(side) / 2 ** 20
  })
  const loaded = await alternate(bench, 1, async (side) => {
    await wrk(side, TENANT, ['get', '/v2/images?limit=25'], { connections: 32, seconds: 5 })
    await wrk(side, ADMIN, ['get', `/v2/images/${id}`], { connections: 32, seconds: 5 })
    await inTurn(4, () => uploadOne(side, dataFile(bench)))
    return memoryOf(side) / 2 ** 20
  })
  const row = { unit: 'MiB', lessIsBetter: true }
  return {
    rows: [
      { what: 'memory of all processes, idle', ...row, ...idle },
      { what: 'memory of all processes, after load', ...row, ...loaded },
    ],
  }
}

async function show(bench: Bench): Promise<Measured> {
  await seedTo(bench, 1000)
  return await measureRequests(bench, 'show', ADMIN, ['get', `/v2/images/${seededImage(bench)}`], { rounds: 3 })
}

async function list(bench: Bench): Promise<Measured> {
  const results: Measured[] = []
  for (const count of [1000, 10_000, 100_000]) {
    await seedTo(bench, count)
    const deep = seededImage(bench, Math.floor(bench.images / 100))
    const kinds: readonly (readonly [what: string, token: string, path: string])[] = [
      ['tenant, 25', TENANT, '?limit=25'],
      ['admin, 25', ADMIN, '?limit=25'],
      ['tenant, 25, deep page', TENANT, `?limit=25&marker=${deep}`],
      ['tenant, 25, by name', TENANT, '?limit=25&name=ubuntu-22.04'],
      ['tenant, 25, by tag', TENANT, '?limit=25&tag=tag-07'],
      ['tenant, 25, by property', TENANT, '?limit=25&os_distro=debian'],
      ['tenant, 1000', TENANT, '?limit=1000'],
    ]
    for (const [what, token, query] of kinds) {
      const path = `/v2/images${query}`
      const title = `list at ${thousands(bench.images)}: ${what}`
      const measured = await measureRequests(bench, title, token, ['get', path], {
        rounds: 2,
        seconds: count < 100_000 ? 2 : query.includes('1000') ? 15 : 6,
      })
      const same = (await imageIds(bench.glance, path, token)) === (await imageIds(bench.glimpse, path, token))
      results.push(measured, { rows: [], notes: same ? [] : [`${title}: the two servers answer different images`] })
    }
  }
  return together(results)
}

async function create(bench: Bench): Promise<Measured> {
  await seedTo(bench, 1000)
  return await measureRequests(bench, `create at ${thousands(bench.images)}`, WRITER, ['create'], { rounds: 3 })
}

async function patch(bench: Bench): Promise<Measured> {
  await seedTo(bench, 1000)
  const ids = join(bench.dir, 'ids')
  const rows = query(bench.glimpse, "SELECT id FROM images WHERE owner = 'bench0' AND status = 'active' LIMIT 50")
  await writeFile(ids, rows.map(({ id }) => `${id}\n`).join(''))
  return await measureRequests(bench, `PATCH at ${thousands(bench.images)}`, TENANT, ['patch', ids], { rounds: 3 })
}

async function upload(bench: Bench): Promise<Measured> {
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

async function download(bench: Bench): Promise<Measured> {
  const images = new Map<Side, string>()
  await eachSide(bench, async (side) => void images.set(side, await uploadOne(side, dataFile(bench))))
  const measured = await measureTransfers(bench, 'download', (side, streams) => {
    const url = `${side.url}/v2/images/${images.get(side)}/file`
    return { run: () => Promise.all(Array.from({ length: streams }, () => curl(url, WRITER))), clean: async () => {} }
  })
  await eachSide(bench, (side) => removeImages(side, [images.get(side) ?? '']))
  return measured
}

/** How quick GET stays while 300 uploads and 300 downloads of 64 KiB/s are open. */
async function slow(bench: Bench): Promise<Measured> {
  await seedTo(bench, 1000)
  const id = seededImage(bench)
  const turnedAway = new Map<string, number>()
  const loads = await alternate(bench, 2, async (side) => {
    const images = [await uploadOne(side, dataFile(bench)), ...(await createImages(side, 300))]
    const clients = spawn(process.execPath, [SLOW_CLIENTS, side.url, WRITER, ...images], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    try {
      let ready = false
      createInterface(clients.stdout).on('line', (line) => {
        if (line === 'ready') ready = true
        else turnedAway.set(side.name, (turnedAway.get(side.name) ?? 0) + 1)
      })
      await until('the slow clients', () => ready)
      return await wrk(side, ADMIN, ['get', `/v2/images/${id}`], { connections: 4, seconds: 8 })
    } finally {
      clients.kill('SIGKILL')
    }
  })
  const { rows, notes = [] } = requestRows('show beside 600 slow clients', loads)
  return {
    rows,
    notes: [...notes, ...[...turnedAway].map(([name, count]) => `${name} turned slow clients away ${count} times`)],
  }
}

/** What the machine can do: the same hashes without a server, the same download from nginx. */
async function physical(bench: Bench): Promise<Measured> {
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

// ---- measuring -------------------------------------------------------------------------------------------------

interface Samples<T> {
  readonly glance: readonly T[]
  readonly glimpse: readonly T[]
}

/** A B A B, so that a slow moment of the machine meets both. */
async function alternate<T>(bench: Bench, rounds: number, measure: (side: Side) => Promise<T>): Promise<Samples<T>> {
  const samples = { glance: [] as T[], glimpse: [] as T[] }
  for (let round = 0; round < rounds; round += 1) {
    samples.glance.push(await measure(bench.glance))
    samples.glimpse.push(await measure(bench.glimpse))
  }
  return samples
}

async function eachSide(bench: Bench, act: (side: Side) => Promise<void>): Promise<void> {
  await act(bench.glance)
  await act(bench.glimpse)
}

interface Load {
  readonly rate: number
  /** Milliseconds. */
  readonly p50: number
  readonly p99: number
  /** Milliseconds of the server's processes for one request. */
  readonly cpu: number
  readonly failed: number
}

/** wrk with one thread; `what` is requests.lua's. Failed requests do not count. */
async function wrk(
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

async function measureRequests(
  bench: Bench,
  title: string,
  token: string,
  what: readonly string[],
  { rounds, seconds = 5 }: { readonly rounds: number; readonly seconds?: number },
): Promise<Measured> {
  await eachSide(bench, async (side) => void (await wrk(side, token, what, { seconds: 1 })))
  return requestRows(title, await alternate(bench, rounds, (side) => wrk(side, token, what, { seconds })))
}

function requestRows(title: string, { glance, glimpse }: Samples<Load>): Measured {
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

interface Transfer {
  run(): Promise<unknown>
  clean(): Promise<void>
}

/** With 1 and 4 streams: MiB/s, and CPU seconds of the server's processes per GiB. */
async function measureTransfers(
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

async function timed(
  processes: () => readonly number[],
  act: () => Promise<unknown>,
): Promise<{ seconds: number; cpu: number }> {
  const before = cpuOf(processes())
  const began = performance.now()
  await act()
  return { seconds: (performance.now() - began) / 1000, cpu: cpuOf(processes()) - before }
}

const together = (parts: readonly Measured[]): Measured => ({
  rows: parts.flatMap(({ rows }) => rows),
  notes: parts.flatMap(({ notes = [] }) => notes),
})
const thousands = (count: number): string => `${count / 1000}k images`
const streamText = (streams: number): string => (streams === 1 ? '1 stream' : `${streams} streams`)
const line = (rate: number, cpu: number): string => `${Math.round(rate)} MiB/s, ${cpu.toFixed(2)} CPU s/GiB`

// ---- doing -----------------------------------------------------------------------------------------------------

/** Fills both databases up to `count` seeded images; never takes any out. */
async function seedTo(bench: Bench, count: number): Promise<void> {
  if (bench.images >= count) return
  await eachSide(bench, async (side) => {
    await side.stop()
    const range = ['--start', String(bench.images), '-n', String(count)]
    const seed = spawn('/usr/bin/python3', [
      join(kit, 'seed_db.py'),
      ...range,
      '--dialect',
      'sqlite',
      '--location-prefix',
      side.locations,
    ])
    const sqlite = spawn('sqlite3', ['-bail', side.database], { stdio: ['pipe', 'inherit', 'inherit'] })
    const ended = once(sqlite, 'exit')
    await pipeline(seed.stdout, sqlite.stdin)
    const [code] = await ended
    if (code !== 0) throw new Error(`Seeding ${side.name} ended with code ${code}`)
    await side.start()
  })
  bench.images = count
}

function query(side: Side, sql: string): readonly { readonly id: string }[] {
  const db = new DatabaseSync(side.database, { readOnly: true, timeout: 5000 })
  try {
    return db.prepare(sql).all() as { id: string }[]
  } finally {
    db.close()
  }
}

/** An active image of the tenant, so many places before the oldest one. */
const seededImage = ({ glimpse }: Bench, offset = 0): string =>
  query(
    glimpse,
    `SELECT id FROM images WHERE owner = 'bench0' AND status = 'active' AND visibility = 'private'
      ORDER BY created_at, id LIMIT 1 OFFSET ${Math.floor(offset)}`,
  )[0]?.id ?? ''

const dataFile = ({ dir }: Pick<Bench, 'dir'>): string => join(dir, 'web', 'data.raw')

async function get(side: Side, path: string, token: string): Promise<string> {
  const response = await fetch(`${side.url}${path}`, { headers: { 'x-auth-token': token } })
  const text = await response.text()
  if (!response.ok) throw new Error(`${side.name}: GET ${path}: ${response.status} ${text}`)
  return text
}

async function imageIds(side: Side, path: string, token: string): Promise<string> {
  const { images } = JSON.parse(await get(side, path, token)) as { images: { id: string }[] }
  return images.map(({ id }) => id).join()
}

const createImages = (side: Side, count: number): Promise<readonly string[]> =>
  inTurn(count, () =>
    persist(`${side.name}: create`, async () => {
      const response = await fetch(`${side.url}/v2/images`, {
        method: 'POST',
        headers: { 'x-auth-token': WRITER, 'content-type': 'application/json' },
        body: JSON.stringify({ name: 'data', disk_format: 'raw', container_format: 'bare' }),
      })
      if (response.status !== 201) throw new Error(`${side.name}: create: ${response.status} ${await response.text()}`)
      return ((await response.json()) as { id: string }).id
    }),
  )

const uploadOne = (side: Side, file: string): Promise<string> =>
  persist(`${side.name}: upload`, async () => {
    const [id = ''] = await createImages(side, 1)
    await curl(`${side.url}/v2/images/${id}/file`, WRITER, ['-X', 'PUT', '-T', file])
    return id
  })

/** Glance on SQLite answers 500 now and then, when two of its workers write at once: a client would come back. */
async function persist<T>(what: string, act: () => Promise<T>): Promise<T> {
  for (let left = 9; ; left -= 1) {
    try {
      return await act()
    } catch (error) {
      if (left === 0) throw error
      console.error(`bench: ${what}, once more: ${String(error).split('\n')[1] ?? String(error)}`)
    }
  }
}

async function removeImages(side: Side, ids: readonly string[]): Promise<void> {
  const remove = async (id: string): Promise<boolean> => {
    const headers = { 'x-auth-token': WRITER }
    const response = await fetch(`${side.url}/v2/images/${id}`, { method: 'DELETE', headers })
    await response.arrayBuffer()
    return response.status === 204 || response.status === 404
  }
  // An upload that was cut off may still be ending.
  for (const id of ids) await until(`the deletion of ${id}`, () => remove(id))
}

async function inTurn<T>(count: number, act: () => Promise<T>): Promise<readonly T[]> {
  const results: T[] = []
  for (let i = 0; i < count; i += 1) results.push(await act())
  return results
}

async function curl(url: string, token: string, args: readonly string[] = []): Promise<void> {
  const headers = ['-H', `X-Auth-Token: ${token}`, '-H', 'Content-Type: application/octet-stream']
  await exec('curl', ['-sS', '--fail', '-o', '/dev/null', ...headers, ...args, url])
}

async function startNginx(dir: string): Promise<Pick<Side, 'url' | 'processes' | 'stop'>> {
  const port = await freePort()
  const config = join(dir, 'nginx.conf')
  await writeFile(
    config,
    // As root, its workers would be somebody who cannot read the folder.
    `${process.getuid?.() === 0 ? 'user root;' : ''}
pid ${dir}/nginx.pid;
error_log ${dir}/nginx.log;
worker_processes 2;
daemon off;
events {}
http {
  access_log off;
  sendfile on;
  client_body_temp_path ${dir}/nginx;
  server { listen 127.0.0.1:${port}; root ${dir}/web; }
}
`,
  )
  const nginx = spawn('/usr/sbin/nginx', ['-p', dir, '-c', config], { stdio: ['ignore', 'inherit', 'inherit'] })
  const url = `http://127.0.0.1:${port}`
  await until('nginx', async () => (await fetch(url).catch(() => undefined)) !== undefined)
  const stop = async (): Promise<void> => {
    nginx.kill()
    await once(nginx, 'exit')
  }
  return { url, processes: () => processTree(Number(nginx.pid)), stop }
}

// ---- main ------------------------------------------------------------------------------------------------------

async function main(wanted: readonly string[]): Promise<number> {
  const unknown = wanted.find((name) => !(name in SECTIONS))
  if (unknown !== undefined) {
    console.error(`No section ${unknown}; there are ${Object.keys(SECTIONS).join(', ')}`)
    return 2
  }
  if (!existsSync(join(kit, 'peer-up.sh'))) {
    console.error(`bench: no scripts for the real Glance at ${kit}; PEER_KIT names another folder`)
    return 1
  }
  const missing = ['/usr/bin/glance-api', '/usr/bin/wrk', '/usr/sbin/nginx'].filter((file) => !existsSync(file))
  if (missing.length > 0) {
    console.error(`bench: no ${missing.join(', ')}; tools/test-servers.sh bench installs them`)
    return 1
  }
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => process.exit(130))
  const dir = await mkdtemp(join(tmpdir(), 'glimpse-bench-'))
  await exec('bash', ['-c', `mkdir -p "$0/web" && head -c ${MIB}M /dev/urandom >"$0/web/data.raw"`, dir])
  const bench: Bench = { ...(await openSides(kit, dir)), dir, images: 0 }
  await bench.glimpse.start()
  try {
    const conditions = await describeRun(bench.version)
    for (const name of wanted.length > 0 ? wanted : Object.keys(SECTIONS)) {
      const { rows, notes = [] } = (await SECTIONS[name]?.(bench)) ?? { rows: [] }
      const body = [rows.length > 0 ? table(rows) : '', notes.map((note) => `- ${note}`).join('\n')].filter(
        (text) => text,
      )
      console.log(`\n${name}\n${body.join('\n')}`)
      await saveSection(new URL('RESULTS.md', import.meta.url), name, [conditions, ...body].join('\n\n'))
    }
  } finally {
    await bench.glimpse.stop()
    await bench.close()
    await rm(dir, { recursive: true, force: true })
  }
  return 0
}

async function describeRun(version: string): Promise<string> {
  const git = async (...args: readonly string[]): Promise<string> =>
    (await exec('git', args, { cwd: root })).stdout.trim()
  const changed = (await git('status', '--porcelain')) === '' ? '' : ' and changes'
  const cpu = `${cpus().length} × ${cpus()[0]?.model ?? 'CPU'}, ${Math.round(totalmem() / 2 ** 30)} GiB`
  const day = new Date().toISOString().slice(0, 10)
  return `${day}, commit ${await git('rev-parse', '--short', 'HEAD')}${changed}, Node ${process.version}, beside ${version}; ${cpu}.`
}

process.exitCode = await main(process.argv.slice(2))
