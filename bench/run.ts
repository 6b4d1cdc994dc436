/**
 * Glimpse beside the real Glance: the same requests, identities and kind of database, in turns, in one run.
 *   npm run bench                       every section, into bench/RESULTS.md
 *   npm run bench -- list show          only these
 *   npm run bench -- --trial storm      printed, and RESULTS.md stays as it is
 *   PEER_KIT=DIR                        scripts that start the real Glance (default ../shared/peer)
 *   BENCH_MIB=1024                      size of the image that is uploaded, downloaded and imported
 *   BENCH_CLIENTS=500                   clients of the boot storm
 *   BENCH_DEAD=110000                   deleted images to purge, of some five rows each
 *   BENCH_DATABASES=SQLite,MariaDB      where to purge them, and to list a million images (default: these and PostgreSQL)
 *   BENCH_FILLED=URL,URL                databases of 1,000 and 1,000,000 images that were filled before
 */
import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { chmod, mkdtemp, rm } from 'node:fs/promises'
import { cpus, tmpdir, totalmem } from 'node:os'
import { join, resolve } from 'node:path'
import { parseArgs, promisify } from 'node:util'
import { root } from '../test/support/product.ts'
import { type Bench, type Measured, MIB } from './bench.ts'
import { saveSection, table } from './report.ts'
import { catalogue } from './sections/catalogue.ts'
import { download, physical, upload } from './sections/data.ts'
import { imports } from './sections/imports.ts'
import { members } from './sections/members.ts'
import { create, list, patch, show } from './sections/metadata.ts'
import { metadefs } from './sections/metadefs.ts'
import { policy } from './sections/policy.ts'
import { purge } from './sections/purge.ts'
import { registry } from './sections/registry.ts'
import { memory, slow, start } from './sections/service.ts'
import { sizes } from './sections/sizes.ts'
import { storm } from './sections/storm.ts'
import { openSides } from './sides.ts'

const exec = promisify(execFile)
const kit = resolve(root, process.env['PEER_KIT'] || '../shared/peer')

const SECTIONS: Readonly<Record<string, (bench: Bench) => Promise<Measured>>> = {
  start,
  memory,
  policy,
  show,
  list,
  members,
  sizes,
  catalogue1k: catalogue(1000),
  catalogue10k: catalogue(10_000),
  catalogue100k: catalogue(100_000),
  catalogue1m: catalogue(1_000_000),
  metadefs,
  patch,
  create,
  upload,
  download,
  imports,
  storm,
  slow,
  registry,
  purge,
  physical,
}

async function main(wanted: readonly string[], trial: boolean): Promise<number> {
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
  // MariaDB is a user of its own.
  await chmod(dir, 0o711)
  await exec('bash', ['-c', `mkdir -p "$0/web" && head -c ${MIB}M /dev/urandom >"$0/web/data.raw"`, dir])
  const bench: Bench = { ...(await openSides(kit, dir)), dir, kit, images: 0 }
  try {
    await bench.glimpse.start()
    const conditions = await describeRun(bench.version)
    for (const name of wanted.length > 0 ? wanted : Object.keys(SECTIONS)) {
      const { rows, names, notes = [] } = (await SECTIONS[name]?.(bench)) ?? { rows: [] }
      const body = [rows.length > 0 ? table(rows, names) : '', notes.map((note) => `- ${note}`).join('\n')].filter(
        (text) => text,
      )
      console.log(`\n${name}\n${body.join('\n')}`)
      if (!trial) await saveSection(new URL('RESULTS.md', import.meta.url), name, [conditions, ...body].join('\n\n'))
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

const { positionals, values } = parseArgs({ allowPositionals: true, options: { trial: { type: 'boolean' } } })
process.exitCode = await main(positionals, values.trial === true)
