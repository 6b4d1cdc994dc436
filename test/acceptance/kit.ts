import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { createInterface } from 'node:readline'
import { promisify } from 'node:util'
import { root } from '../support/product.ts'
import { judge, parseSkips, type Skip, type TestResult, type Verdict } from './verdict.ts'

/** The scripts that start Keystone and drive tempest and the clients. */
export const kit = resolve(root, process.env['ACCEPTANCE_KIT'] || '../shared/acceptance')
/** What is installed or made once, and used by every run. */
export const cache = process.env['ACCEPTANCE_CACHE'] ?? '/var/tmp/image-acceptance'
/** `reference` runs the same parts against the real Glance, to prove them. */
export const reference = process.env['ACCEPTANCE_TARGET'] === 'reference'

/** Where one part of the run works. Parts run side by side: each has a region of the one Keystone to itself. */
export interface Place {
  /** Of the part, and of its region. */
  readonly name: string
  /** For whatever the part writes. */
  readonly dir: string
  /** The files with which clients and servers log in to this region, as keystone-up.sh writes them. */
  readonly keystone: string
}

/**
 * Gives the catalog the service under which second nodes are listed. Parts that begin at once would each add one, and
 * clients take the nodes of whichever they find first.
 */
export async function addServiceOfSecondNodes(keystone: string): Promise<void> {
  const { auth_url, region, password, image_url } = await readJson<
    Record<'auth_url' | 'region' | 'password' | 'image_url', string>
  >(join(keystone, 'identity.json'))
  const known = ['--dir', keystone, '--url', auth_url, '--region', region, '--password', password, '--image', image_url]
  await output('/usr/bin/python3', [join(kit, 'keystone_seed.py'), ...known, '--image-2', image_url, '--catalog-only'])
}

/** Adds a region whose image service is at `url`, which nobody needs to serve yet. */
export async function addRegion(run: string, keystone: string, name: string, url: string): Promise<Place> {
  const { auth_url, password } = await readJson<Record<'auth_url' | 'password', string>>(
    join(keystone, 'identity.json'),
  )
  await createRegion(auth_url, password, name)
  const dir = join(run, name)
  const files = join(dir, 'keystone')
  await mkdir(files, { recursive: true })
  const known = ['--dir', files, '--url', auth_url, '--region', name, '--password', password, '--image', url]
  await output('/usr/bin/python3', [join(kit, 'keystone_seed.py'), ...known])
  return { name, dir, keystone: files }
}

/** As the system's administrator. A region that is there already is as good. */
async function createRegion(authUrl: string, password: string, id: string): Promise<void> {
  const post = (path: string, body: unknown, token = '') =>
    fetch(`${authUrl}${path}`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', 'x-auth-token': token },
      body: JSON.stringify(body),
    })
  const user = { name: 'admin', domain: { id: 'default' }, password }
  const identity = { methods: ['password'], password: { user } }
  const { headers } = await post('/auth/tokens', { auth: { identity, scope: { system: { all: true } } } })
  const { status } = await post('/regions', { region: { id } }, headers.get('x-subject-token') ?? '')
  if (status !== 201 && status !== 409) throw new Error(`Keystone answers ${status} to a new region`)
}

/** Runs a command and shows what it prints, line by line behind the name of the part; gives its exit code. */
export async function show(
  { name }: { readonly name: string },
  command: string,
  args: readonly string[],
  { cwd, env = {} }: { readonly cwd?: string; readonly env?: NodeJS.ProcessEnv } = {},
): Promise<number> {
  // In a group of its own, which ends with this process.
  const child = spawn(command, args, {
    detached: true,
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, ...env },
    ...(cwd === undefined ? {} : { cwd }),
  })
  const end = (): void => {
    try {
      if (child.pid !== undefined) process.kill(-child.pid, 'SIGTERM')
    } catch {
      // It ended before.
    }
  }
  process.once('exit', end)
  for (const input of [child.stdout, child.stderr])
    createInterface({ input }).on('line', (line) => console.log(`[${name}] ${line}`))
  const [code] = await once(child, 'close')
  process.off('exit', end)
  return Number(code ?? 1)
}

/** Runs a script of the kit, which has to succeed. */
export async function script(
  place: { readonly name: string },
  name: string,
  args: readonly string[],
  env: NodeJS.ProcessEnv = {},
): Promise<void> {
  const code = await show(place, join(kit, name), args, { env })
  if (code !== 0) throw new Error(`${name} ended with code ${code}`)
}

export async function output(command: string, args: readonly string[], env: NodeJS.ProcessEnv = {}): Promise<string> {
  const options = { env: { ...process.env, ...env }, maxBuffer: 64 * 2 ** 20 }
  return (await promisify(execFile)(command, args, options)).stdout
}

export const readJson = async <T>(file: string): Promise<T> => JSON.parse(await readFile(file, 'utf8')) as T

/** What tempest_report.py writes. */
export const readReport = async (file: string): Promise<readonly TestResult[]> =>
  (await readJson<{ tests: readonly TestResult[] }>(file)).tests

/** The lines of these sections of skips.txt; against the real Glance those of the kit's own list. */
export async function readSkips(sections: readonly string[]): Promise<readonly Skip[]> {
  if (!reference) return parseSkips(await readFile(new URL('skips.txt', import.meta.url), 'utf8'), sections)
  const lines = (await readFile(join(kit, 'known-failures.txt'), 'utf8')).split('\n')
  return lines
    .map((line) => line.replace(/#.*/, '').trim())
    .filter((line) => line !== '')
    .map((line) => ({ pattern: new RegExp(line), reason: 'known of the real Glance' }))
}

/** The list as the kit's scripts take it: it changes how they print a failure. */
export async function writeKnown({ dir }: Place, skips: readonly Skip[]): Promise<string> {
  const file = join(dir, 'known-failures.txt')
  await writeFile(file, skips.map(({ pattern }) => `${pattern.source}\n`).join(''))
  return file
}

/** The kit's own list for the real Glance is for all configurations and clients: not every line fits in each run. */
export const judgeRun = (title: string, tests: readonly TestResult[], skips: readonly Skip[]): Verdict => {
  if (!reference) return judge(title, tests, skips)
  const ran = tests.filter(({ outcome }) => outcome !== 'skipped')
  return judge(
    title,
    ran,
    skips.filter(({ pattern }) => ran.some(({ name }) => pattern.test(name))),
  )
}
