/**
 * Compares what glance-manage does to a database with what the real one of tools/python-tools.sh does: new databases,
 * and such of every release from Train on with rows in them. Then the real service works on a database with our
 * indexes and triggers, and on one that was reverted.
 *
 *     node test/acceptance/schema/run.ts [sqlite|postgresql|mariadb|mysql …]
 *
 * With MYSQL_ROOT (tools/mysql-server.sh) on MySQL too.
 */
import { execFile } from 'node:child_process'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { isDeepStrictEqual, promisify } from 'node:util'
import { RELEASES } from '../../../src/db/sql/upstream-revisions.ts'
import { root } from '../../support/product.ts'
import { type Databases, rowsOf, schemaOf, sqliteFiles, upstreamsSchemaOf } from '../../support/schema-dump.ts'
import { startGlance } from '../../support/servers/glance.ts'
import { type GlanceManage, openGlanceManage } from '../../support/servers/glance-manage.ts'
import { mysqlAvailable, startMariadb, startMysql, startPostgres } from '../../support/servers/sql.ts'
import { trainRows } from '../../support/train-rows.ts'
import type { Verdict } from '../verdict.ts'
import { useGlance } from './service.ts'

const run = promisify(execFile)

/** The revisions that upstream's tool is told to go to, one after the other, before there are rows. */
const STARTS: Readonly<Record<string, readonly string[]>> = {
  'half way to Train': ['rocky_contract02', 'train_expand01'],
  ...Object.fromEntries(RELEASES.map((release) => [release, [`${release}_contract01`]])),
  'half way to Wallaby': ['ussuri_contract01', 'wallaby_expand01'],
  'half way to 2024.1': ['zed_contract01', '2024_1_expand01'],
}

/** The database of a server, or a file, and our commands on it. */
interface Bench {
  readonly databases: Databases
  readonly theirs: GlanceManage
  ours(url: string, command: 'glance-manage' | 'glimpse', ...args: readonly string[]): Promise<void>
}

/** Of all products of databases, or of some. */
export async function schemaComparison(wanted: readonly string[] = []): Promise<Verdict> {
  const passed: string[] = []
  const problems: string[] = []
  const check = async (title: string, work: () => Promise<string | undefined>) => {
    const problem = await work().catch((error: unknown) => String(error))
    if (problem === undefined) passed.push(title)
    else problems.push(`${title}: ${problem}`)
  }
  const dir = await mkdtemp(join(tmpdir(), 'schema-'))
  const theirs = await openGlanceManage()
  try {
    const ours: Bench['ours'] = async (url, command, ...args) => {
      const conf = join(dir, 'glance.conf')
      await writeFile(conf, `[database]\nconnection = ${url}\n`)
      await run(join(root, 'bin', command), ['--config-file', conf, ...args])
    }
    const starts = {
      sqlite: async () => ({ ...sqliteFiles(dir), stop: async () => undefined }),
      postgresql: () => startPostgres(),
      mariadb: () => startMariadb(),
      ...(mysqlAvailable().ok ? { mysql: () => startMysql() } : {}),
    }
    for (const [product, start] of Object.entries(starts)) {
      if (wanted.length > 0 && !wanted.includes(product)) continue
      const databases = await start()
      try {
        await compare({ databases, theirs, ours }, check)
      } finally {
        await databases.stop()
      }
    }
  } finally {
    await theirs.stop()
    await rm(dir, { recursive: true })
  }
  return { title: 'schema: beside glance-manage', passed: passed.length, skipped: [], problems }
}

async function compare(
  bench: Bench,
  check: (title: string, work: () => Promise<string | undefined>) => Promise<void>,
): Promise<void> {
  const { databases, ours, theirs } = bench
  const { kind, product } = databases
  await check(`${product}, new`, async () => {
    const [a, b] = [await databases.database(), await databases.database()]
    await ours(a, 'glance-manage', 'db', 'sync')
    await upstream(theirs, b, 'db', 'sync')
    if ((await upstreamsSchemaOf(databases, a)) !== (await schemaOf(databases, b))) return 'the schemas differ'
    await ours(a, 'glimpse', 'db', 'revert')
    return difference(bench, a, b)
  })
  for (const [title, revisions] of Object.entries(STARTS))
    await check(`${product}, ${title}`, async () => {
      const urls = [await databases.database(), await databases.database()] as const
      for (const url of urls) {
        for (const revision of revisions) await upstream(theirs, url, 'db', 'upgrade', '--version', revision)
        for (const statement of trainRows(kind)) await databases.query(url, statement)
      }
      const [a, b] = urls
      await ours(a, 'glance-manage', 'db', 'sync')
      if (title === 'half way to Train') await migrateAsTrain(bench, b)
      await upstream(theirs, b, 'db', 'sync')
      await ours(a, 'glimpse', 'db', 'revert')
      return difference(bench, a, b)
    })
  await check(`${product}, the real service on our additions and after they were dropped`, async () => {
    const url = await databases.database()
    await ours(url, 'glance-manage', 'db', 'sync')
    for (const step of ['with', 'without']) {
      if (step === 'without') await ours(url, 'glimpse', 'db', 'revert')
      const glance = await startGlance({ config: { database: { connection: url } } })
      try {
        await useGlance(glance.url)
      } catch (error) {
        return `${step} our additions: ${String(error)}`
      } finally {
        await glance.stop()
      }
    }
    const { stdout } = await theirs.run(url, 'db', 'sync')
    return stdout === 'Database is up to date. No migrations needed.\n' ? undefined : stdout
  })
}

/** Only Train's own tool migrates its data. In SQLite it finds none, because it counts rows before it reads them. */
async function migrateAsTrain({ databases, theirs }: Bench, url: string): Promise<void> {
  if (databases.kind !== 'sqlite') await theirs.migrateData(url, 'train')
  else await databases.query(url, `update image_locations set meta_data = replace(meta_data, '"backend":', '"store":')`)
}

async function upstream(theirs: GlanceManage, url: string, ...args: readonly string[]): Promise<void> {
  const { code, stderr } = await theirs.run(url, ...args)
  if (code !== 0) throw new Error(`${args.join(' ')}: ${stderr}`)
}

async function difference({ databases }: Bench, a: string, b: string): Promise<string | undefined> {
  const schemas = [await schemaOf(databases, a), await schemaOf(databases, b)] as const
  if (schemas[0] !== schemas[1]) return `the schemas differ:\n${lineThatDiffers(...schemas)}`
  const rows = [await rowsOf(databases, a), await rowsOf(databases, b)] as const
  return isDeepStrictEqual(...rows)
    ? undefined
    : `the rows differ:\n${lineThatDiffers(rows[0].join('\n'), rows[1].join('\n'))}`
}

function lineThatDiffers(ours: string, theirs: string): string {
  const other = theirs.split('\n')
  const lines = ours.split('\n')
  const n = lines.findIndex((line, at) => line !== other[at])
  return `ours:   ${lines[n]}\ntheirs: ${other[n]}`
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { passed, problems } = await schemaComparison(process.argv.slice(2))
  console.log([`${passed} passed, ${problems.length} failed`, ...problems].join('\n'))
  process.exitCode = problems.length > 0 ? 1 : 0
}
