/**
 * The tests that Glance has for its database drivers, through the client of a registry that it had until Ussuri, against
 * ours: each gets an empty one.
 *
 *     node test/acceptance/registry/run.ts
 *
 * TEST_DATABASE=postgresql or mysql: on such a server. Needs tools/python-tools.sh glance-registry.
 */
import { once } from 'node:events'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { root } from '../../support/product.ts'
import { startRegistry, type TestRegistry } from '../../support/registry.ts'
import { testDatabase } from '../../support/server.ts'
import { judgeRun, output, show } from '../kit.ts'
import { print, type TestResult, type Verdict } from '../verdict.ts'

const NAME = 'registry'

export async function registryDriver(): Promise<Verdict> {
  const venv = (await output(`${root}tools/python-tools.sh`, ['glance-registry'])).trim()
  const dir = await mkdtemp(join(tmpdir(), 'glimpse-registry-'))
  let current: TestRegistry | undefined
  const control = createServer(async (_request, response) => {
    await current?.close()
    current = await startRegistry(await testDatabase('sqlite://'), {
      glimpse: {},
      paste_deploy: { flavor: 'trusted-auth' },
    })
    response.end(new URL(current.url).port)
  }).listen(0, '127.0.0.1')
  try {
    await once(control, 'listening')
    const results = join(dir, 'results')
    const url = `http://127.0.0.1:${(control.address() as AddressInfo).port}`
    const driver = fileURLToPath(new URL('driver.py', import.meta.url))
    await show({ name: NAME }, join(venv, 'bin/python'), [driver, url, results])
    const lines = (await readFile(results, 'utf8')).split('\n').filter((line) => line !== '')
    const tests = lines.map((line) => JSON.parse(line) as TestResult)
    return judgeRun("registry: Glance's tests of database drivers", tests, [])
  } finally {
    control.close()
    control.closeAllConnections()
    await current?.close()
    await rm(dir, { recursive: true, force: true })
  }
}

if (import.meta.main) {
  const verdict = await registryDriver()
  console.log(print(verdict))
  process.exitCode = verdict.problems.length === 0 ? 0 : 1
}
