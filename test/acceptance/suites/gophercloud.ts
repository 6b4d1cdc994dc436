import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { judgeRun, kit, readSkips, show } from '../kit.ts'
import type { Running } from '../service.ts'
import type { TestResult, Verdict } from '../verdict.ts'

const VERSION = 'v2.15.0'
const OUTCOME = { PASS: 'passed', FAIL: 'failed', SKIP: 'skipped' } as const

/** gophercloud's acceptance tests of the image service, as an administrator, built by `go`. */
export async function gophercloud({ place, url }: Running, go: string): Promise<Verdict> {
  await show(place, join(kit, 'gophercloud.sh'), [url, place.keystone], {
    env: { GO: go, GOPHERCLOUD_FROM: `module@${VERSION}` },
  })
  const log = await readFile(join(place.keystone, 'gophercloud/run.log'), 'utf8')
  const tests = [...log.matchAll(/^--- (PASS|FAIL|SKIP): (\S+)/gm)].map(
    ([, outcome, name]): TestResult => ({
      name: `gophercloud: ${name}`,
      outcome: OUTCOME[outcome as keyof typeof OUTCOME],
    }),
  )
  return judgeRun('gophercloud', tests, await readSkips(['gophercloud']))
}
