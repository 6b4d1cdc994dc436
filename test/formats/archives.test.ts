import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { until } from '../support/product.ts'
import { startServer } from '../support/server.ts'
import { archives, CONFIG, expectedOutcome, importAll, parseOutcomes, verdictOf } from './archives.ts'

const hasLha = process.env['CI'] === 'true' || spawnSync('lha').error === undefined

describe('archives that are imported', () => {
  const samples = archives()

  it('become the image in them, or nothing: no bomb, no file of another place, nothing that is staged', async (t) => {
    const server = await startServer({ config: CONFIG })
    t.after(() => server.close())
    const wanted = samples.filter(({ name }) => hasLha || !name.startsWith('lha'))
    const nothingStaged = () =>
      until('nothing is staged', async () => (await readdir(join(server.dir, 'staging'))).length === 0)
    const identity = { 'X-Auth-Token': 'alice:archives:member,reader' }
    const got = await importAll(server.url, identity, wanted, nothingStaged)
    assert.deepEqual(
      [...got],
      wanted.map((sample) => [sample.name, expectedOutcome(sample)]),
    )
    const stored = await readdir(join(server.dir, 'images'))
    assert.equal(stored.length, wanted.filter(({ size }) => size !== undefined).length)
  })

  it('become what the real Glance makes of them, but for those with a reason', async () => {
    const recorded = parseOutcomes(await readFile(new URL('recorded/archives-33.0.0.txt', import.meta.url), 'utf8'))
    assert.deepEqual(
      [...recorded.keys()],
      samples.map(({ name }) => name),
    )
    for (const sample of samples) {
      const same = verdictOf(recorded.get(sample.name) ?? '') === verdictOf(expectedOutcome(sample))
      assert.equal(same, sample.differs === undefined, `${sample.name}: ${recorded.get(sample.name)} there`)
    }
  })
})
