/**
 * Records what the real Glance makes of the format corpus, into test/formats/recorded:
 *
 *     tools/record-formats.ts                the Glance of tools/python-tools.sh, which it starts itself
 *     tools/record-formats.ts URL VERSION    one that runs at URL and takes tokens USER:PROJECT:ROLES
 *
 * A Glance of its own is asked twice, with and without `require_image_format_match`; older ones have no such option.
 */
import { writeFile } from 'node:fs/promises'
import { corpus } from '../test/formats/corpus.ts'
import { ask, MODES, print } from '../test/formats/verdicts.ts'
import { identityHeaders, startGlance } from '../test/support/servers/glance.ts'

const TOKEN = 'alice:formats:member,reader'
const samples = await corpus()
const [url, version] = process.argv.slice(2)

if (url !== undefined && version !== undefined) {
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

async function save(release: string, recordings: readonly Recording[]): Promise<void> {
  const verdicts = samples.map(({ name }) => {
    const modes = recordings.flatMap((each) => Object.entries(each).map(([mode, answers]) => [mode, answers.get(name)]))
    return [name, Object.fromEntries(modes)] as const
  })
  const file = new URL(`../test/formats/recorded/glance-${release}.txt`, import.meta.url)
  await writeFile(
    file,
    print(`What Glance ${release} makes of the corpus. Written by tools/record-formats.ts.`, new Map(verdicts)),
  )
}
