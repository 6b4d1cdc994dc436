import { join } from 'node:path'
import { judgeRun, kit, readReport, readSkips, show, writeKnown } from '../kit.ts'
import type { Running, Setup } from '../service.ts'
import type { Verdict } from '../verdict.ts'

/** Where a suite or client comes from: Debian's package, or the newer one of our venv. */
export interface Source {
  readonly name: 'debian' | 'pypi'
  /** As the kit takes it: `debian`, or the folder of the venv. */
  readonly from: string
}

const IMAGE = '^tempest\\.api\\.image\\.'
const PLUGIN = '^glance_tempest_plugin\\.'
const LIMITS = '^tempest\\.scenario\\.test_unified_limits\\.'

/** Tempest's own tests of the image service. */
export const tempest = (running: Running, setup: Setup, source: Source): Promise<Verdict> =>
  run(running, setup, source, { suite: 'tempest', regex: IMAGE })

/** What readers, members and administrators may do; needs the new defaults of the policies. */
export const tempestPlugin = (running: Running, setup: Setup, source: Source): Promise<Verdict> =>
  run(running, setup, source, { suite: 'glance-tempest-plugin', regex: PLUGIN })

/** Limits that Keystone keeps; they are registered in its first region only. */
export const tempestLimits = (running: Running, setup: Setup, source: Source): Promise<Verdict> =>
  run(running, setup, source, { suite: 'tempest-limits', regex: LIMITS })

async function run(
  { place, url, second }: Running,
  setup: Setup,
  source: Source,
  { suite, regex }: { readonly suite: string; readonly regex: string },
): Promise<Verdict> {
  const out = join(place.dir, `${suite}-${source.name}`)
  const sections = ['', ` ${source.name}`, ` ${place.name}`, ` ${source.name} ${place.name}`]
  const skips = await readSkips(sections.map((section) => `${suite}${section}`))
  const flag = (on: boolean): string => (on ? '1' : '0')
  await show(place, join(kit, 'tempest.sh'), [url, place.keystone, regex], {
    env: {
      TEMPEST_FROM: source.from,
      TEMPEST_OUT: out,
      KNOWN_FAILURES: await writeKnown(place, skips),
      // Newer tempest has no tests of it.
      API_V1: flag(source.name === 'debian'),
      LOCATIONS: '1',
      STORE_WEIGHT: flag(setup.stores.length > 0),
      // Debian's expects that what is queued is not cached at once, as it is by upstream's newer releases and by ours.
      CACHING: flag(setup.cache === true && source.name !== 'debian'),
      SECURE_HASH: flag(setup.skipHash !== true),
      ENFORCE_SCOPE: flag(setup.newDefaults === true),
      CONVERSION: flag(setup.conversion === true),
      ...(second === undefined ? {} : { IMAGE_URL_2: second }),
    },
  })
  return judgeRun(`${suite} of ${source.name}, ${place.name}`, await readReport(join(out, 'results.json')), skips)
}
