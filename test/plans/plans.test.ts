/*
 * How each database finds the pages of a catalogue, compared with what is written down beside this file.
 *   UPDATE_GOLDEN=1 node --test test/plans/plans.test.ts      writes it anew
 *   PLAN_IMAGES=1000000 node --test test/plans/plans.test.ts  a larger catalogue, with plans of its own
 */
import assert from 'node:assert/strict'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, it, type TestContext } from 'node:test'
import { filledDatabase, filledFile, type Kind } from '../support/catalogue.ts'
import { onServer } from '../support/on-server.ts'
import { BOUNDED, COMMON, RARE, SERVED, SORTED } from '../support/pages.ts'
import { mariadbAvailable, postgresAvailable, startMariadb, startPostgres } from '../support/servers/sql.ts'
import { explainer } from './explain.ts'

const IMAGES = Number(process.env['PLAN_IMAGES'] ?? 10_000)

/** Each plan once, with the pages that are found by it. */
async function plansOf(t: TestContext, kind: Kind, url: string): Promise<string> {
  const { plan, close } = await explainer(kind, url, IMAGES)
  t.after(close)
  const pages = new Map<string, string[]>()
  for (const who of ['admin', 'large', 'small'] as const)
    for (const [list, deep] of [
      [['', ...SORTED, ...SERVED, ...RARE, ...COMMON, ...BOUNDED], false],
      [['', ...SORTED], true],
    ] as const)
      for (const page of list) {
        const text = (await plan(who, page, deep)).join('\n')
        const title = `${who} ?${page}${deep ? ' behind a marker' : ''}`
        pages.set(text, [...(pages.get(text) ?? []), title])
      }
  return [...pages].map(([text, titles]) => `${titles.map((title) => `# ${title}`).join('\n')}\n${text}\n`).join('\n')
}

async function compare(kind: Kind, plans: string): Promise<void> {
  const file = new URL(`${kind}-${IMAGES}.txt`, import.meta.url)
  if (process.env['UPDATE_GOLDEN']) return await writeFile(file, plans)
  assert.equal(plans, await readFile(file, 'utf8'))
}

describe('the plans of SQLite', () => {
  it('are those written down', async (t) => {
    const dir = await mkdtemp(join(tmpdir(), 'glimpse-plans-'))
    t.after(() => rm(dir, { recursive: true }))
    await compare('sqlite', await plansOf(t, 'sqlite', await filledFile(join(dir, 'glance.sqlite'), IMAGES)))
  })
})

/** It counts all rows, so that its guesses are the same each time. */
const counting = () => startPostgres({ settings: ['autovacuum=off', 'default_statistics_target=3000'] })

onServer('The plans of PostgreSQL', postgresAvailable(), counting, (server) => {
  it('are those written down', async (t) => {
    await compare('postgresql', await plansOf(t, 'postgresql', await filledDatabase(server(), IMAGES)))
  })
})

onServer('The plans of MariaDB', mariadbAvailable(), startMariadb, (server) => {
  it('are those written down', async (t) => {
    await compare('mysql', await plansOf(t, 'mysql', await filledDatabase(server(), IMAGES)))
  })
})
