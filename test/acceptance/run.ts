/**
 * Black box, over sockets: OpenStack's own suites, its command-line clients and real bootable images against the
 * service as an operator starts it. docs/testing.md tells how to run it and how to read what it prints.
 */
import { execFile, spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { createReadStream, existsSync } from 'node:fs'
import { mkdir, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { promisify } from 'node:util'
import { freePort, type Product, root, startProduct } from '../support/product.ts'
import { judge, type Outcome, parseSkips, type TestResult, type Verdict } from './verdict.ts'

const kit = resolve(root, process.env['ACCEPTANCE_KIT'] || '../shared/acceptance')
const cache = process.env['ACCEPTANCE_CACHE'] ?? '/var/tmp/image-acceptance'
/** `reference` runs the same parts against the real Glance, to prove them. */
const reference = process.env['ACCEPTANCE_TARGET'] === 'reference'
/** Debian's clients and tempest, so that the list of skips is exact everywhere. */
const FROM = { PIP: 'no', TEMPEST_FROM: 'debian', CLIENTS_FROM: 'debian' }
const TEMPEST = 'tempest\\.api\\.image\\.v2'
/** What the clients' steps may expect beyond images themselves, such as `import stores tasks cache locations limits`. */
const FEATURES = 'import stores tasks'
const SECTIONS = ['life', 'formats', 'glance', 'lists', 'share', 'roles']
const IMAGES = [
  { format: 'raw', file: 'boot.raw', qemu: 'raw' },
  { format: 'qcow2', file: 'boot.qcow2', qemu: 'qcow2' },
  { format: 'vmdk', file: 'boot.vmdk', qemu: 'vmdk' },
  { format: 'vhd', file: 'boot.vhd', qemu: 'vpc' },
  { format: 'vhdx', file: 'boot.vhdx', qemu: 'vhdx' },
  { format: 'vdi', file: 'boot.vdi', qemu: 'vdi' },
  { format: 'iso', file: 'boot.iso', qemu: 'raw' },
]

interface Place {
  readonly dir: string
  /** Where keystone-up.sh put a running Keystone. */
  readonly keystone: string
}
interface Service {
  readonly url: string
  stop(): Promise<void>
}

const PARTS: Readonly<Record<string, (place: Place) => Promise<readonly Verdict[]>>> = {
  multi: (place) =>
    withService(place, 'multi', ['cheap', 'fast'], async (url) => [
      await tempest(place, url, 'multi'),
      await clients(place, url),
    ]),
  single: (place) => withService(place, 'single', [], async (url) => [await tempest(place, url, 'single')]),
  images: realImages,
}

async function main(wanted: readonly string[]): Promise<number> {
  const unknown = wanted.find((name) => !(name in PARTS))
  if (unknown !== undefined) {
    console.error(`No part ${unknown}; there are ${Object.keys(PARTS).join(', ')}`)
    return 2
  }
  if (!existsSync(join(kit, 'keystone-up.sh'))) {
    console.error(`acceptance: no kit at ${kit}; ACCEPTANCE_KIT names another folder`)
    return process.env['CI'] === 'true' ? 1 : 0
  }
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => process.exit(130))
  const dir = await mkdtemp(join(tmpdir(), 'glimpse-acceptance-'))
  const keystone = join(dir, 'keystone')
  await script('install.sh', [])
  // Ctrl-C ends Keystone as well.
  process.once('exit', () => spawn(join(kit, 'keystone-down.sh'), [keystone], { detached: true, stdio: 'ignore' }))
  await script('keystone-up.sh', [keystone, String(await freePort())])

  const verdicts: Verdict[] = []
  try {
    for (const name of wanted.length > 0 ? wanted : Object.keys(PARTS)) {
      console.log(`\n== ${name}`)
      verdicts.push(...((await PARTS[name]?.({ dir, keystone })) ?? []))
    }
  } finally {
    await attempt('keystone-down.sh', [keystone])
  }
  return await report(dir, verdicts)
}

async function report(dir: string, verdicts: readonly Verdict[]): Promise<number> {
  console.log('\n== totals')
  for (const { title, passed, problems, notCovered } of verdicts) {
    const listed = notCovered > 0 ? `, ${notCovered} not covered yet` : ''
    console.log(`${title}: ${passed} passed, ${problems.length} failed${listed}`)
    for (const problem of problems) console.log(`  ${problem}`)
  }
  const passed = verdicts.reduce((sum, verdict) => sum + verdict.passed, 0)
  const failed = verdicts.reduce((sum, verdict) => sum + verdict.problems.length, 0)
  console.log(`${passed} passed, ${failed} failed`)
  if (failed > 0) console.log(`Logs are kept in ${dir}`)
  else await rm(dir, { recursive: true, force: true })
  return failed === 0 && passed > 0 ? 0 : 1
}

async function tempest({ dir, keystone }: Place, url: string, title: string): Promise<Verdict> {
  const out = join(dir, `tempest-${title}`)
  const skips = await readSkips('tempest')
  await attempt('tempest.sh', [url, keystone, TEMPEST], { TEMPEST_OUT: out, KNOWN_FAILURES: await listFor(dir, skips) })
  const { tests } = await readJson<{ tests: { name: string; outcome: Outcome; reason: string }[] }>(
    join(out, 'results.json'),
  )
  return judgeRun(`${title}: tempest`, tests, skips)
}

async function clients({ dir, keystone }: Place, url: string): Promise<Verdict> {
  const out = join(dir, 'clients')
  const skips = await readSkips('clients')
  const env = { CLIENTS_OUT: out, FEATURES, KNOWN_FAILURES: await listFor(dir, skips) }
  await attempt('clients.sh', [url, keystone, ...SECTIONS], env)
  const { steps } = await readJson<{ steps: { name: string; outcome: 'ok' | 'FAIL' | 'skip' }[] }>(
    join(out, 'results.json'),
  )
  const outcome = { ok: 'passed', FAIL: 'failed' } as const
  // The kit leaves a step out when FEATURES says so, or when a client has no such command.
  const tests = steps.flatMap((step) =>
    step.outcome === 'skip' ? [] : { name: step.name, outcome: outcome[step.outcome] },
  )
  return judgeRun('multi: clients', tests, skips)
}

/** On the service of day one: no configuration, the identity and the clouds.yaml that it made itself. */
async function realImages(place: Place): Promise<readonly Verdict[]> {
  if (reference)
    return await withService(place, 'images', [], async (url) => {
      await output('/usr/bin/python3', [join(kit, 'keystone_seed.py'), ...(await seedArguments(place.keystone, url))])
      return [await compareImages(place.dir, join(place.keystone, 'clouds.yaml'), 'demo')]
    })
  const data = join(place.dir, 'standalone')
  const port = await freePort()
  const product = await startProduct({
    command: 'glimpse',
    args: ['--data', data, '--port', String(port)],
    port,
    log: join(place.dir, 'standalone.log'),
  })
  try {
    return [await compareImages(place.dir, join(data, 'clouds.yaml'), 'glimpse')]
  } finally {
    await product.stop()
  }
}

async function compareImages(dir: string, clouds: string, cloud: string): Promise<Verdict> {
  const problems: string[] = []
  for (const { format, file, qemu } of IMAGES) {
    const found = await compareImage(join(cache, 'images', file), { format, qemu, dir, clouds, cloud }).catch(
      (error: unknown) => [String(error)],
    )
    console.log(`${found.length === 0 ? 'ok   ' : 'FAIL '} ${format}`)
    problems.push(...found.map((text) => `${format}: ${text}`))
  }
  const failed = new Set(problems.map((text) => text.slice(0, text.indexOf(':'))))
  return { title: 'images', passed: IMAGES.length - failed.size, problems, notCovered: 0 }
}

interface Comparison {
  readonly format: string
  /** What qemu-img calls the format. */
  readonly qemu: string
  readonly dir: string
  readonly clouds: string
  readonly cloud: string
}

/** Uploads `file`, downloads it again, and says how the service's account of it differs from the truth. */
async function compareImage(
  file: string,
  { format, qemu, dir, clouds, cloud }: Comparison,
): Promise<readonly string[]> {
  const openstack = (...args: readonly string[]) =>
    output('/usr/bin/openstack', ['--os-cloud', cloud, 'image', ...args], { OS_CLIENT_CONFIG_FILE: clouds })
  const info = JSON.parse(await output('qemu-img', ['info', '--output=json', file])) as Record<string, unknown>
  const created = JSON.parse(
    await openstack(
      'create',
      '-f',
      'json',
      '--disk-format',
      format,
      '--container-format',
      'bare',
      '--file',
      file,
      format,
    ),
  ) as { id: string }
  const shown = JSON.parse(await openstack('show', '-f', 'json', created.id)) as Record<string, unknown>
  const properties = shown['properties'] as Record<string, unknown>
  const back = join(dir, `back.${format}`)
  await openstack('save', '--file', back, created.id)
  const sha512 = await digest('sha512', file)
  const compare = (what: string, found: unknown, wanted: unknown) =>
    found === wanted ? [] : [`${what} is ${String(found)}, not ${String(wanted)}`]
  const problems = [
    ...compare('status', shown['status'], 'active'),
    ...compare('disk_format', shown['disk_format'], format),
    ...compare('the format that qemu-img sees', info['format'], qemu),
    ...compare('virtual_size', shown['virtual_size'] ?? properties['virtual_size'], info['virtual-size']),
    ...compare('size', shown['size'], (await stat(file)).size),
    ...compare('checksum', shown['checksum'], await digest('md5', file)),
    ...compare('os_hash_value', properties['os_hash_value'], sha512),
    ...compare('sha512 of the download', await digest('sha512', back), sha512),
  ]
  await rm(back)
  return problems
}

async function withService<T>(
  place: Place,
  name: string,
  stores: readonly string[],
  use: (url: string) => Promise<T>,
): Promise<T> {
  const service = await (reference ? startReference(place, name) : startGlimpse(place, name, stores))
  try {
    return await use(service.url)
  } finally {
    await service.stop()
  }
}

async function startGlimpse({ dir, keystone }: Place, name: string, stores: readonly string[]): Promise<Product> {
  const home = join(dir, name)
  await mkdir(home)
  const port = await freePort()
  const file = join(home, 'glance-api.conf')
  await writeFile(file, glanceApiConf(home, port, stores))
  // Tempest wants to find some resource types.
  const definitions = join(root, 'etc/metadefs')
  await output(join(root, 'bin/glance-manage'), ['--config-file', file, 'db', 'load_metadefs', '--path', definitions])
  return await startProduct({
    command: 'glance-api',
    args: ['--config-file', file, '--config-file', join(keystone, 'keystone_authtoken.conf')],
    port,
    log: join(dir, `${name}.log`),
  })
}

/**
 * Debian's tempest uploads random bytes under every format, and the kit's tiny.bin, which stands for several formats,
 * is the head of an ISO image: upstream refuses both unless it is told not to. The part `images` has the default.
 */
const glanceApiConf = (home: string, port: number, stores: readonly string[]): string => `[DEFAULT]
bind_host = 127.0.0.1
bind_port = ${port}
workers = 2
node_staging_uri = file://${home}/staging
${stores.length > 0 ? `enabled_backends = ${stores.map((store) => `${store}:file`).join(', ')}` : ''}
[import_filtering_opts]
allowed_ports = []
[os_glance_staging_store]
filesystem_store_datadir = ${home}/staging
[database]
connection = sqlite:///${home}/glance.sqlite
[image_format]
require_image_format_match = False
[paste_deploy]
flavor = keystone
[glance_store]
${stores.length > 0 ? `default_backend = ${stores.at(-1)}` : `stores = file\ndefault_store = file\nfilesystem_store_datadir = ${home}/images`}
${stores.map((store) => `[${store}]\nfilesystem_store_datadir = ${home}/${store}\n`).join('')}`

async function startReference({ dir, keystone }: Place, name: string): Promise<Service> {
  const home = join(dir, name)
  const port = await freePort()
  await script('reference-up.sh', [keystone, home, String(port)], { DB: 'sqlite' })
  return { url: `http://127.0.0.1:${port}`, stop: () => script('reference-down.sh', [home]) }
}

/** What points the catalog of Keystone at `url`. */
async function seedArguments(keystone: string, url: string): Promise<readonly string[]> {
  const { auth_url, region, password } = await readJson<Record<'auth_url' | 'region' | 'password', string>>(
    join(keystone, 'identity.json'),
  )
  const known = ['--dir', keystone, '--url', auth_url, '--region', region, '--password', password]
  return [...known, '--image', url, '--catalog-only']
}

/** Runs a script of the kit and shows what it prints; the exit code says whether something failed. */
async function attempt(name: string, args: readonly string[], env: NodeJS.ProcessEnv = {}): Promise<number> {
  const child = spawn(join(kit, name), args, {
    stdio: ['ignore', 'inherit', 'inherit'],
    env: { ...process.env, ...FROM, ...env },
  })
  const [code] = await once(child, 'exit')
  return Number(code ?? 1)
}

async function script(name: string, args: readonly string[], env: NodeJS.ProcessEnv = {}): Promise<void> {
  const code = await attempt(name, args, env)
  if (code !== 0) throw new Error(`${name} ended with code ${code}`)
}

async function output(command: string, args: readonly string[], env: NodeJS.ProcessEnv = {}): Promise<string> {
  const options = { env: { ...process.env, ...env }, maxBuffer: 64 * 2 ** 20 }
  return (await promisify(execFile)(command, args, options)).stdout
}

async function digest(algorithm: string, file: string): Promise<string> {
  const hash = createHash(algorithm)
  await pipeline(createReadStream(file), hash)
  return hash.digest('hex')
}

const readJson = async <T>(file: string): Promise<T> => JSON.parse(await readFile(file, 'utf8')) as T

const readSkips = async (section: string): Promise<readonly RegExp[]> => {
  if (reference) return parseSkips(await readFile(join(kit, 'known-failures.txt'), 'utf8'), '')
  return parseSkips(await readFile(new URL('skips.txt', import.meta.url), 'utf8'), section)
}

/** The kit's own list for the real Glance is for all configurations and clients: not every line fits in each run. */
const judgeRun = (title: string, tests: readonly TestResult[], skips: readonly RegExp[]): Verdict => {
  if (!reference) return judge(title, tests, skips)
  const ran = tests.filter(({ outcome }) => outcome !== 'skipped')
  return judge(
    title,
    ran,
    skips.filter((skip) => ran.some(({ name }) => skip.test(name))),
  )
}

/** The list as the kit's scripts take it: it changes how they print a failure. */
async function listFor(dir: string, skips: readonly RegExp[]): Promise<string> {
  const file = join(dir, 'known-failures.txt')
  await writeFile(file, skips.map((skip) => `${skip.source}\n`).join(''))
  return file
}

process.exitCode = await main(process.argv.slice(2))
