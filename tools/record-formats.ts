/**
 * Records what the real Glance makes of the format corpus, into test/formats/recorded:
 *
 *     tools/record-formats.ts                the Glance of tools/python-tools.sh, which it starts itself
 *     tools/record-formats.ts archives       the same, and what becomes of archives that are imported
 *     tools/record-formats.ts URL VERSION    one that runs at URL and takes tokens USER:PROJECT:ROLES
 *
 * A Glance of its own is asked twice, with and without `require_image_format_match`; older ones have no such option.
 */
import { writeFile } from 'node:fs/promises'
import { archives, CONFIG, importAll, printOutcomes } from '../test/formats/archives.ts'
import { corpus } from '../test/formats/corpus.ts'
import { ask, MODES, print } from '../test/formats/verdicts.ts'
import { identityHeaders, startGlance } from '../test/support/servers/glance.ts'
import { startPostgres } from '../test/support/servers/sql.ts'

const TOKEN = 'alice:formats:member,reader'
const samples = await corpus()
const [url, version] = process.argv.slice(2)

if (url === 'archives') {
  // SQLite is locked now and then, when work goes on in the background.
  const sql = await startPostgres()
  const glance = await startGlance({ config: { ...CONFIG, database: { connection: await sql.database() } } })
  try {
    const outcomes = await importAll(glance.url, identityHeaders(TOKEN), archives())
    const about = `What Glance ${glance.version} makes of archives. Written by tools/record-formats.ts.`
    await writeFile(recorded(`archives-${glance.version}`), printOutcomes(about, outcomes))
  } finally {
    await glance.stop()
    await sql.stop()
  }
} else if (url !== undefined && version !== undefined) {
  const required = await ask(url, { 'X-Auth-Token': TOKEN }, samples)
  await save(version, [{ required }])
} else {
  let name = ''
  const recordings = await Promise.all(
    MODES.map(async (mode) => {
      const config = { image_format: { require_image_format_match: mode === 'required' ? 'True' : 'False' } }
      const glance = await startGlance({ config })
      name = glance.version
      try {
        return { [mode]: await ask(glance.url, identityHeaders(TOKEN), samples) }
      } finally {
        await glance.stop()
      }
    }),
  )
  await save(name, recordings)
}

type Recording = Readonly<Record<string, Awaited<ReturnType<typeof ask>>>>

function recorded(name: string): URL {
  return new URL(`../test/formats/recorded/${name}.txt`, import.meta.url)
}

async function save(release: string, recordings: readonly Recording[]): Promise<void> {
  const verdicts = samples.map(({ name }) => {
    const modes = recordings.flatMap((each) => Object.entries(each).map(([mode, answers]) => [mode, answers.get(name)]))
    return [name, Object.fromEntries(modes)] as const
  })
  await writeFile(
    recorded(`glance-${release}`),
    print(`What Glance ${release} makes of the corpus. Written by tools/record-formats.ts.`, new Map(verdicts)),
  )
}
