import { join } from 'node:path'
import { judgeRun, kit, readJson, readSkips, show, writeKnown } from '../kit.ts'
import type { Running } from '../service.ts'
import type { TestResult, Verdict } from '../verdict.ts'
import type { Source } from './tempest.ts'

/** What the service can do beyond images themselves: with less than this the kit leaves steps out. */
const FEATURES = 'import stores tasks cache locations limits'

const OUTCOME = { ok: 'passed', FAIL: 'failed', skip: 'skipped' } as const
interface Step {
  readonly name: string
  readonly outcome: keyof typeof OUTCOME
  readonly note: string
}

/** The `openstack` and `glance` commands through the life of images: all of the kit, or only these sections. */
export async function clients(
  { place, url }: Running,
  source: Source,
  sections: readonly string[] = [],
): Promise<Verdict> {
  const out = join(place.dir, `clients-${source.name}`)
  const skips = await readSkips([`clients ${source.name}`])
  await show(place, join(kit, 'clients.sh'), [url, place.keystone, ...sections], {
    env: { CLIENTS_FROM: source.from, CLIENTS_OUT: out, FEATURES, KNOWN_FAILURES: await writeKnown(place, skips) },
  })
  const { steps } = await readJson<{ steps: readonly Step[] }>(join(out, 'results.json'))
  const tests = steps.map(({ name, outcome, note }): TestResult => ({ name, outcome: OUTCOME[outcome], reason: note }))
  return judgeRun(`command-line clients of ${source.name}`, tests, skips)
}
