import { globSync } from 'node:fs'
import { copyFile, cp, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { homedir, tmpdir } from 'node:os'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import type { TestContext } from 'node:test'
import type { ReadConfig } from '../../src/cli/config-options.ts'
import { inspectDeployment } from '../../src/cli/takeover/check.ts'
import type { Finding, Level, Section } from '../../src/cli/takeover/report.ts'
import { readConfig } from '../../src/config/config.ts'
import type { TestConfig } from '../support/server.ts'
import { type Glance, identityHeaders } from '../support/servers/glance.ts'

export const ADMIN = 'root:adm:admin,member,reader'
export const ALICE = 'alice:p1:member,reader'
export const BOB = 'bob:p2:member,reader'

/** Why there is no real Glance here; on CI it is installed when it is missing. */
export function withoutGlance(): string | false {
  const home =
    process.env['PYTHON_TOOLS'] ?? join(process.env['XDG_CACHE_HOME'] ?? join(homedir(), '.cache'), 'glimpse')
  if (process.env['CI'] === 'true' || globSync('glance-*/complete', { cwd: home }).length > 0) return false
  return 'the real Glance is not installed (tools/python-tools.sh glance)'
}

/** A token as both sides understand it. */
export const asBoth = (token: string): Readonly<Record<string, string>> => ({
  'X-Auth-Token': token,
  ...identityHeaders(token),
})

/** Images in several statuses and visibilities, members and metadata definitions, made through the API. */
export async function populate({ url }: Pick<Glance, 'url'>): Promise<void> {
  const call = async (token: string, method: string, path: string, body?: unknown, type = 'application/json') => {
    const sent = typeof body === 'string' || body === undefined ? body : JSON.stringify(body)
    const answer = await fetch(`${url}/v2${path}`, {
      method,
      headers: { ...asBoth(token), 'content-type': type },
      ...(sent === undefined ? {} : { body: sent }),
    })
    const text = await answer.text()
    if (!answer.ok) throw new Error(`${method} ${path}: ${answer.status} ${text}`)
    return answer.status === 204 ? {} : (JSON.parse(text) as { readonly id: string })
  }
  const visibilities = ['shared', 'public', 'private', 'community']
  for (let number = 0; number < 8; number++) {
    const visibility = visibilities[number % visibilities.length]
    const owner = visibility === 'public' ? ADMIN : number % 3 === 0 ? BOB : ALICE
    const { id } = (await call(owner, 'POST', '/images', {
      ...(number % 5 === 0 ? {} : { name: `image ${number} ü` }),
      ...{ visibility, disk_format: 'raw', container_format: 'bare' },
      ...{ tags: ['all', `t${number}`], os_distro: number % 2 === 0 ? 'debian' : 'alpine' },
    })) as { readonly id: string }
    if (number % 4 !== 2)
      await call(owner, 'PUT', `/images/${id}/file`, 'x'.repeat(1 + 100 * number), 'application/octet-stream')
    if (visibility === 'shared')
      for (const member of ['p1', 'p2', 'p3']) await call(owner, 'POST', `/images/${id}/members`, { member })
  }
  await call(ADMIN, 'POST', '/metadefs/namespaces', {
    namespace: 'OS::Test',
    ...{ display_name: 'Test', visibility: 'public' },
    objects: [{ name: 'one', properties: { size: { type: 'integer', title: 'Size' } } }],
    properties: { colour: { type: 'string', title: 'Colour' } },
    tags: [{ name: 'first' }],
    resource_type_associations: [{ name: 'OS::Glance::Image' }],
  })
}

/** A copy of a deployment on SQLite, with something changed in it. */
export interface Variant {
  readonly dir: string
  readonly config: string
  /** Runs SQL in its database. */
  sql(text: string): void
  sections(): Promise<readonly Section[]>
}

/** The folder is that of a `startGlance`; `config` is laid over its configuration. */
export async function variant(t: TestContext, glance: Glance, config: TestConfig = {}): Promise<Variant> {
  const dir = await mkdtemp(join(tmpdir(), 'takeover-'))
  t.after(() => rm(dir, { recursive: true, force: true }))
  for (const name of await readdir(glance.dir))
    if (/^glance\.sqlite|^paste\.ini$/.test(name)) await copyFile(join(glance.dir, name), join(dir, name))
    else if (['fast', 'cheap', 'staging'].includes(name))
      await cp(join(glance.dir, name), join(dir, name), { recursive: true })
  const file = join(dir, 'glance-api.conf')
  const original = (await readFile(join(glance.dir, 'glance-api.conf'), 'utf8')).replaceAll(glance.dir, dir)
  // Groups that come twice are one, and the later value wins.
  const more = Object.entries(config).map(([group, values]) =>
    [`[${group}]`, ...Object.entries(values ?? {}).map(([name, value]) => `${name} = ${value}`)].join('\n'),
  )
  await writeFile(file, `${original}${more.join('\n')}\n`)
  const sql = (text: string) => {
    const database = new DatabaseSync(join(dir, 'glance.sqlite'), { enableForeignKeyConstraints: false })
    // Locations name the folder of the store.
    database.exec(`update image_locations set value = replace(value, '${glance.dir}', '${dir}')`)
    database.exec(text)
    database.close()
  }
  sql('')
  return { dir, config: file, sql, sections: () => sectionsOf(file) }
}

/** A copy of the database alone: everything else is that of the deployment itself. */
export async function databaseCopy(t: TestContext, glance: Glance): Promise<Pick<Variant, 'dir' | 'config' | 'sql'>> {
  const dir = await mkdtemp(join(tmpdir(), 'takeover-'))
  t.after(() => rm(dir, { recursive: true, force: true }))
  const file = join(dir, 'glance.sqlite')
  const original = new DatabaseSync(join(glance.dir, 'glance.sqlite'), { readOnly: true })
  original.exec(`vacuum into '${file}'`)
  original.close()
  const config = join(dir, 'glance-api.conf')
  const text = await readFile(join(glance.dir, 'glance-api.conf'), 'utf8')
  await writeFile(config, `${text}[database]\nconnection = sqlite:///${file}\n`)
  const sql = (change: string) => {
    const database = new DatabaseSync(file)
    database.exec(change)
    database.close()
  }
  return { dir, config, sql }
}

export const reader =
  (file: string): ReadConfig =>
  (overrides = {}, { wrong } = {}) =>
    readConfig({ program: 'glance-api', configs: [{ file }], home: tmpdir(), etc: tmpdir(), overrides }, wrong)

export async function sectionsOf(file: string): Promise<readonly Section[]> {
  const sections: Section[] = []
  for await (const section of inspectDeployment(reader(file), 100)) sections.push(section)
  return sections
}

/** `Title: text` of the findings of a level, with advice and details. */
export const told = (sections: readonly Section[], level: Level): readonly string[] =>
  sections.flatMap(({ title, findings }) =>
    findings.filter((one) => one.level === level).map((one) => `${title}: ${inWords(one)}`),
  )
const inWords = ({ text, advice, details = [] }: Finding): string => [text, ...details, advice ?? ''].join(' | ')
