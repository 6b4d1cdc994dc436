import assert from 'node:assert/strict'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { it } from 'node:test'
import { pathToFileURL } from 'node:url'
import { median, saveSection, table } from './report.ts'

it('median() is the middle value, or the mean of the two in the middle', () => {
  assert.equal(median([3, 1, 2]), 2)
  assert.equal(median([4, 1, 2, 3]), 2.5)
  assert.equal(median([Number.NaN, 7]), 7)
})

it('table() says how many times better Glimpse is, whichever way better is', () => {
  const rows = [
    { what: 'show', unit: 'requests/s', lessIsBetter: false, glance: [100], glimpse: [2000] },
    { what: 'memory', unit: 'MiB', lessIsBetter: true, glance: [300], glimpse: [150] },
  ]
  assert.equal(
    table(rows),
    [
      '|                  | Glance | Glimpse | better by |',
      '|------------------|-------:|--------:|----------:|',
      '| show, requests/s |    100 |   2,000 |     20.0× |',
      '| memory, MiB      |    300 |     150 |     2.00× |',
    ].join('\n'),
  )
})

it('saveSection() replaces its own section and leaves the others alone', async (t) => {
  const dir = await mkdtemp(join(tmpdir(), 'glimpse-report-'))
  t.after(() => rm(dir, { recursive: true }))
  const file = pathToFileURL(join(dir, 'RESULTS.md'))
  await writeFile(file, '# Measured\n\nText.\n')
  for (const [name, body] of [
    ['list', 'old'],
    ['show', 'fast'],
    ['list', 'new'],
  ] as const)
    await saveSection(file, name, body)
  assert.equal(await readFile(file, 'utf8'), '# Measured\n\nText.\n\n## list\n\nnew\n\n## show\n\nfast\n')
})
