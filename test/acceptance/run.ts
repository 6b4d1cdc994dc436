/**
 * Black box, over sockets: OpenStack's own suites, its clients and SDKs, and real bootable images against the service as
 * an operator starts it. docs/testing.md tells how to run it and how to read what it prints.
 */
import { spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { freePort } from '../support/product.ts'
import { courseOf, differential } from './differential/run.ts'
import { addServiceOfSecondNodes, kit, reference, script, show } from './kit.ts'
import { openApiConformance } from './openapi/run.ts'
import { makePlainImages } from './plain-images.ts'
import { registryDriver } from './registry/run.ts'
import { schemaComparison } from './schema/run.ts'
import { type Running, type Setup, withService } from './service.ts'
import { clients } from './suites/clients.ts'
import { gophercloud } from './suites/gophercloud.ts'
import { compareImages, imagesOfDayOne } from './suites/images.ts'
import { glanceclient, openstacksdk } from './suites/python.ts'
import { type Source, tempest, tempestLimits, tempestPlugin } from './suites/tempest.ts'
import { takeovers } from './takeover/run.ts'
import { withBoth } from './together.ts'
import { findGo, openVenv } from './venv.ts'
import { print, summary, type Verdict } from './verdict.ts'

/** What all parts share. */
interface Run {
  readonly run: string
  readonly keystone: string
  /** With the suites of PyPI. */
  readonly venv: string
}

const DEBIAN: Source = { name: 'debian', from: 'debian' }
const ofPypi = ({ venv }: Run): Source => ({ name: 'pypi', from: venv })
/** Sections of the kit with commands that Debian's clients do not have. */
const NEWER_COMMANDS = ['life', 'metadefs', 'import']

const STORES = ['cheap', 'fast', 'slow']
/**
 * Without conversion: the kit imports images to find them unchanged. It cannot read a list of stores that the client
 * breaks at another place.
 */
const ALL: Setup = { stores: ['cheap', 'fast'], nodes: 1, cache: true, newDefaults: true, limits: true }
const SETUPS = {
  single: { stores: [], nodes: 2, conversion: true },
  multi: { stores: STORES, nodes: 2, conversion: true, newDefaults: true },
  cache: { stores: STORES, nodes: 2, conversion: true, cache: true, skipHash: true },
  // Without conversion: upstream's knows no vhd.
  together: { stores: STORES, nodes: 1, newDefaults: true },
} satisfies Record<string, Setup>

/** Keystone's first region: the only one with registered limits, and that of clients which do not care for regions. */
const FIRST_REGION = 'clients'
/** The longest first: two parts run at a time. */
const PARTS: Readonly<Record<string, (run: Run) => Promise<readonly Verdict[]>>> = {
  clients: (run) =>
    withService({ ...run, name: FIRST_REGION }, ALL, async (running) => [
      await clients(running, DEBIAN),
      await clients(running, ofPypi(run), NEWER_COMMANDS),
      await tempestLimits(running, ALL, ofPypi(run)),
      await openstacksdk(running, run.venv),
      await glanceclient(running, run.venv),
      await gophercloud(running, await findGo(run.venv)),
    ]),
  multi: (run) => tempestIn(run, 'multi'),
  cache: (run) => tempestIn(run, 'cache'),
  single: (run) => tempestIn(run, 'single'),
  together: async (run) => {
    if (reference) return []
    const setup: Setup = SETUPS.together
    return await withBoth({ ...run, name: 'together' }, setup, async (running) => [
      await tempest(running, setup, ofPypi(run)),
    ])
  },
  // These bring servers of their own, and would be the same against the reference.
  takeover: async () => (reference ? [] : await takeovers()),
  differential: async () => (reference ? [] : [await differential(courseOf(process.env))]),
  openapi: async () => (reference ? [] : [await openApiConformance(process.env)]),
  schema: async () => (reference ? [] : [await schemaComparison()]),
  registry: async () => (reference ? [] : [await registryDriver()]),
  images: async (run) => {
    if (!reference) return [await imagesOfDayOne(join(run.run, 'images'))]
    return await withService({ ...run, name: 'images' }, { stores: [], nodes: 1 }, async ({ place }) => [
      await compareImages(place, join(place.keystone, 'clouds.yaml'), 'demo'),
    ])
  },
}
/** One for each of two cores. */
const LANES = 2

async function tempestIn(run: Run, name: keyof typeof SETUPS): Promise<readonly Verdict[]> {
  const setup: Setup = SETUPS[name]
  const pypi = ofPypi(run)
  return await withService({ ...run, name }, setup, async (running: Running) => [
    await tempest(running, setup, pypi),
    ...(setup.newDefaults ? [await tempestPlugin(running, setup, pypi)] : []),
    await tempest(running, setup, DEBIAN),
  ])
}

async function main(wanted: readonly string[]): Promise<number> {
  const unknown = wanted.find((name) => !(name in PARTS))
  if (unknown !== undefined) {
    console.error(`No part ${unknown}; there are ${Object.keys(PARTS).join(', ')}`)
    return 2
  }
  const missing = (what: string): number => {
    console.error(`acceptance: ${what}`)
    return process.env['CI'] === 'true' ? 1 : 0
  }
  if (!existsSync(join(kit, 'keystone-up.sh'))) return missing(`no kit at ${kit}; ACCEPTANCE_KIT names another folder`)
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => process.exit(130))
  const began = performance.now()
  const setup = { name: 'setup' }
  // Debian's part of it only: what comes from PyPI is in our own venv.
  await script(setup, 'install.sh', [], { PIP: 'no' })
  await makePlainImages(setup)
  let venv: string
  try {
    venv = await openVenv()
  } catch (error) {
    return missing(String(error))
  }
  const run = await mkdtemp(join(tmpdir(), 'glimpse-acceptance-'))
  const keystone = join(run, 'keystone')
  // Ctrl-C ends Keystone as well.
  const down = (): unknown => spawn(join(kit, 'keystone-down.sh'), [keystone], { detached: true, stdio: 'ignore' })
  process.once('exit', down)
  let verdicts: readonly Verdict[]
  try {
    await script(setup, 'keystone-up.sh', [keystone, String(await freePort())], { REGION: FIRST_REGION })
    await addServiceOfSecondNodes(keystone)
    const names = Object.keys(PARTS).filter((name) => wanted.length === 0 || wanted.includes(name))
    verdicts = await runParts({ run, keystone, venv }, names)
  } finally {
    process.off('exit', down)
    await show(setup, join(kit, 'keystone-down.sh'), [keystone])
  }
  return await report(run, verdicts, (performance.now() - began) / 60_000)
}

/** Runs the parts side by side; one that breaks is a verdict too, and stops no other. */
async function runParts(run: Run, names: readonly string[]): Promise<readonly Verdict[]> {
  const verdicts = new Map<string, readonly Verdict[]>()
  const queue = [...names]
  const lane = async (): Promise<void> => {
    for (let name = queue.shift(); name !== undefined; name = queue.shift()) {
      const broken = (error: unknown): readonly Verdict[] => [
        { title: name, passed: 0, skipped: [], problems: [String(error)] },
      ]
      const found = (await PARTS[name]?.(run).catch(broken)) ?? []
      for (const verdict of found) console.log(`[${name}] ${summary(verdict)}`)
      verdicts.set(name, found)
    }
  }
  await Promise.all(Array.from({ length: LANES }, lane))
  return names.flatMap((name) => verdicts.get(name) ?? [])
}

async function report(run: string, verdicts: readonly Verdict[], minutes: number): Promise<number> {
  console.log('\n== totals')
  for (const verdict of verdicts) console.log(print(verdict))
  const passed = verdicts.reduce((sum, verdict) => sum + verdict.passed, 0)
  const failed = verdicts.reduce((sum, verdict) => sum + verdict.problems.length, 0)
  console.log(`${passed} passed, ${failed} failed, in ${Math.round(minutes)} minutes`)
  if (failed > 0) console.log(`Logs are kept in ${run}`)
  else await rm(run, { recursive: true, force: true })
  return failed === 0 && passed > 0 ? 0 : 1
}

process.exitCode = await main(process.argv.slice(2))
