/**
 * Who may import whom (docs/design.md): prints `core/a.ts must not import store/drivers/s3.ts` and exits 1.
 *   node tools/check-imports.ts [FOLDER]     FOLDER is `src` unless given
 */
import { globSync, readFileSync } from 'node:fs'
import { posix } from 'node:path'

const GROUND = ['domain/', 'io/', 'config/', 'log.ts']
const HOUSES = ['store/', 'db/', 'auth/', 'policy/', 'notify/', 'cache/', 'keys/']
/** What a house shows to the others. */
const INTERFACES = [
  ...['store/driver.ts', 'store/store.ts', 'store/stores.ts', 'db/database.ts', 'auth/identity.ts'],
  'auth/limits.ts',
  ...['policy/rules.ts', 'policy/enforcer.ts', 'policy/enforce.ts', 'policy/target.ts'],
  ...['policy/property-protection.ts', 'notify/notifier.ts', 'cache/cache.ts', 'cache/driver.ts'],
  'keys/key-manager.ts',
]
/** What both ends of the way to a registry know. */
const REGISTRY = ['db/remote.ts', 'db/codec.ts', 'db/methods.ts', 'db/request.ts']

interface Rule {
  readonly may: readonly string[]
  readonly mayType?: readonly string[]
}

/** A folder or file, and what it may import; the first line that fits counts. Packages: see KEPT. */
const RULES: readonly (readonly [of: string, rule: Rule])[] = [
  ['domain/', { may: ['domain/'] }],
  ['io/', { may: ['domain/', 'io/'] }],
  ['config/', { may: ['domain/', 'config/'] }],
  ['log.ts', { may: GROUND }],
  ['store/drivers/', { may: [...GROUND, 'store/driver.ts'] }],
  ['notify/drivers/', { may: [...GROUND, 'notify/'] }],
  ['cache/drivers/', { may: [...GROUND, 'cache/driver.ts', 'cache/local-database.ts'], mayType: ['db/database.ts'] }],
  ...HOUSES.map((house) => [house, { may: [...GROUND, house], mayType: INTERFACES }] as const),
  ['imports/', { may: [...GROUND, 'imports/'], mayType: INTERFACES }],
  ['core/', { may: [...GROUND, ...INTERFACES, 'core/', 'imports/'] }],
  ['api/registry.ts', { may: [...GROUND, ...INTERFACES, 'api/', 'core/', 'auth/', ...REGISTRY] }],
  ['api/registry/', { may: [...GROUND, 'api/', 'core/', 'auth/', 'db/rows.ts'], mayType: INTERFACES }],
  ['api/', { may: [...GROUND, 'api/', 'core/', 'auth/'], mayType: INTERFACES }],
  ['cli/', { may: [...GROUND, ...HOUSES, 'cli/', 'core/', 'app.ts', 'registry-app.ts'] }],
  ['app.ts', { may: [''] }],
  ['registry-app.ts', { may: [''] }],
]

/** What only these may import. */
const KEPT: Readonly<Record<string, readonly string[]>> = {
  'store/drivers/': ['app.ts'],
  'cache/drivers/': ['app.ts'],
  'notify/drivers/': ['app.ts', 'notify/drivers/'],
  'db/sql/': ['app.ts', 'registry-app.ts', 'cli/', 'db/sql/'],
  'node:sqlite': ['db/sql/', 'auth/standalone/', 'cache/local-database.ts'],
  kysely: ['db/sql/'],
  amqplib: ['notify/drivers/'],
  fastify: ['api/http/server.ts'],
}

interface Import {
  readonly from: string
  /** A file below the folder, or a package. */
  readonly to: string
  readonly typeOnly: boolean
}

const IMPORT =
  /^\s*(?:import|export)(\s+type)?\b[^'"()]*?\bfrom\s*'([^']+)'|^\s*import\s+'([^']+)'|\bimport\(\s*'([^']+)'\s*\)/gm

function importsOf(folder: string, from: string): readonly Import[] {
  return [...readFileSync(posix.join(folder, from), 'utf8').matchAll(IMPORT)].map(([, type, ...names]) => {
    const name = names.find((found) => found !== undefined) ?? ''
    const to = name.startsWith('.') ? posix.join(posix.dirname(from), name) : name
    return { from, to, typeOnly: type !== undefined }
  })
}

const isIn = (file: string, places: readonly string[]): boolean =>
  places.some((place) => file === place || (/\/$|^$/.test(place) && file.startsWith(place)))

function isAllowed({ from, to, typeOnly }: Import, files: ReadonlySet<string>): boolean {
  if (Object.entries(KEPT).some(([place, by]) => isIn(to, [place]) && !isIn(from, by))) return false
  if (!files.has(to)) return !to.startsWith('.')
  const rule = RULES.find(([of]) => isIn(from, [of]))?.[1]
  return rule !== undefined && (isIn(to, rule.may) || (typeOnly && isIn(to, rule.mayType ?? [])))
}

/** Each cycle as the files along it. Types may refer to each other: they are gone when the program runs. */
function cyclesOf(imports: readonly Import[]): readonly string[] {
  const found: string[] = []
  const done = new Set<string>()
  const visit = (file: string, path: readonly string[]): void => {
    if (path.includes(file)) found.push([...path.slice(path.indexOf(file)), file].join(' > '))
    if (path.includes(file) || done.has(file)) return
    for (const { from, to, typeOnly } of imports) if (from === file && !typeOnly) visit(to, [...path, file])
    done.add(file)
  }
  for (const { from } of imports) visit(from, [])
  return found
}

const folder = process.argv[2] ?? 'src'
const files = new Set(globSync('**/*.ts', { cwd: folder }).filter((file) => !file.endsWith('.test.ts')))
const imports = [...files].flatMap((file) => importsOf(folder, file))
const problems = [
  ...[...files].filter((file) => posix.basename(file) === 'index.ts').map((file) => `${file} must not be: no barrels`),
  ...imports.filter((one) => !isAllowed(one, files)).map(({ from, to }) => `${from} must not import ${to}`),
  ...cyclesOf(imports).map((path) => `${path} must not be: no cycles`),
]
for (const problem of problems) console.error(problem)
process.exitCode = problems.length === 0 ? 0 : 1
