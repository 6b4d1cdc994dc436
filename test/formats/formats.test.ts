import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { readFile } from 'node:fs/promises'
import { describe, it } from 'node:test'
import { startServer } from '../support/server.ts'
import { corpus, expectedStatus, type Sample } from './corpus.ts'
import { DIFFERENCES } from './differences.ts'
import { type Answer, ask, DECLARED, MODES, type Mode, parse, type Verdicts } from './verdicts.ts'

const recorded = async (release: string): Promise<Verdicts> =>
  parse(await readFile(new URL(`recorded/glance-${release}.txt`, import.meta.url), 'utf8'))

/** Formats under which every sample is uploaded, and not only when the whole corpus is wanted. */
const ALWAYS: readonly string[] = ['raw', 'ami']
const WHOLE = process.env['FORMATS'] === 'all'

const missing = spawnSync('qemu-img', ['--version']).status !== 0 && 'qemu-img is not installed'

describe('the format corpus', { skip: process.env['CI'] === 'true' ? false : missing }, async () => {
  const samples = missing && process.env['CI'] !== 'true' ? [] : await corpus()
  const reference = await recorded('33.0.0')

  it('is recorded whole, from this Glance and from an older one', async () => {
    for (const verdicts of [reference, await recorded('25.1')]) {
      assert.deepEqual([...verdicts.keys()].toSorted(), samples.map(({ name }) => name).toSorted())
    }
  })

  for (const mode of MODES) {
    it(`is answered as expected and as recorded when a match is ${mode}`, async (t) => {
      const config = { image_format: { require_image_format_match: mode === 'required' ? 'True' : 'False' } }
      const server = await startServer({ config })
      t.after(() => server.close())
      const answers = await ask(server.url, { 'X-Auth-Token': 'alice:formats:member,reader' }, samples, wanted)
      const problems = samples.flatMap((sample) => faults(sample, mode, answers.get(sample.name) ?? {}))
      assert.deepEqual(problems, [])
    })
  }

  const wanted = ({ is, or }: Sample): readonly string[] =>
    WHOLE ? DECLARED : DECLARED.filter((each) => ALWAYS.includes(each) || each === is || each === or)

  const faults = (sample: Sample, mode: Mode, answers: Readonly<Record<string, Answer>>): readonly string[] => {
    const theirs = reference.get(sample.name)?.[mode] ?? {}
    const meant = DIFFERENCES.some(({ samples }) => samples.test(sample.name))
    return Object.entries(answers).flatMap(([declared, ours]) => {
      const where = `${sample.name} as ${declared}`
      const expected = expectedStatus(sample, declared, mode === 'required')
      if (!ours.startsWith(String(expected))) return `${where}: answered ${ours}, expected ${expected}`
      if (ours !== theirs[declared] && !meant) return `${where}: answered ${ours}, recorded ${theirs[declared]}`
      return []
    })
  }

  it('differs from what is recorded for every reason on the list', () => {
    const unfounded = DIFFERENCES.filter(
      ({ samples: which, onlySize }) =>
        onlySize !== true && !samples.some((sample) => which.test(sample.name) && differs(sample)),
    )
    assert.deepEqual(
      unfounded.map(({ why }) => why),
      [],
    )
  })

  const differs = (sample: Sample): boolean =>
    MODES.some((mode) =>
      DECLARED.some((declared) => {
        const theirs = reference.get(sample.name)?.[mode]?.[declared] ?? ''
        return !theirs.startsWith(String(expectedStatus(sample, declared, mode === 'required')))
      }),
    )
})
