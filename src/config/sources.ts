// Where values come from: command line, environment and files, in this order.
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { ServiceError } from '../domain/errors.ts'
import { parseIni } from './ini.ts'

export interface Sources {
  /** The command, such as `glance-api`; it names the default files. Of several, the later one's beat the earlier's. */
  readonly program: string | readonly string[]
  /** `--config-file` and `--config-dir` in the order given; a later one beats an earlier one. */
  readonly configs?: readonly ({ readonly file: string } | { readonly dir: string })[]
  readonly env?: Readonly<Record<string, string | undefined>>
  /** From the command line: `option` of DEFAULT, or `group.option`. */
  readonly overrides?: Readonly<Record<string, string | readonly string[]>>
  /** The user's home directory. */
  readonly home?: string | undefined
  /** Where the system keeps its configuration: `/etc` unless given. */
  readonly etc?: string
}

/** One value as somebody wrote it. */
export interface Setting {
  readonly group: string
  readonly name: string
  readonly value: string
  /** For messages: `FILE:LINE`, or what else it came from. */
  readonly where: string
}

export type Name = readonly [group: string, name: string]

export interface Settings {
  /** What was read, the strongest last. */
  readonly files: readonly string[]
  readonly inFiles: readonly Setting[]
  /**
   * What is set under any of `names`, the first name winning within a source. Gives the value that counts, or with
   * `all` every value: those of all files together, unless command line or environment replace them.
   */
  find(names: readonly Name[], all?: boolean): readonly Setting[]
  /** Looks for a file or directory beside the configuration files, then in the standard directories. */
  findFile(name: string): string | undefined
}

type Layer = (name: Name) => readonly Setting[]

/** Group names match in any case, save `DEFAULT`, as oslo.config has it. */
export const groupKey = (group: string): string => (group === 'DEFAULT' ? group : group.toLowerCase())

/** Throws `invalid` for a file that is missing or malformed. */
export function loadSettings(sources: Sources): Settings {
  const { files, dirs } = locate(sources)
  const read = files.map((file) =>
    parseIni(readText(file), file).map((one) => ({ ...one, where: `${file}:${one.line}` })),
  )
  const fileLayers = read.map(byName)
  const above = [overrideLayer(sources.overrides ?? {}), envLayer(sources.env ?? {})]
  const from = (layer: Layer, names: readonly Name[]) => names.map(layer).filter((found) => found.length > 0)
  const searched = [...dirs, ...files.map((file) => dirname(file)).reverse(), ...standardDirs(sources)]
  return {
    files,
    inFiles: read.flat(),
    find: (names, all = false) => {
      const strongest = above.flatMap((layer) => from(layer, names))[0]
      if (strongest !== undefined) return all ? strongest : strongest.slice(-1)
      if (all) return fileLayers.flatMap((layer) => from(layer, names).flat())
      return (
        fileLayers
          .flatMap((layer) => from(layer, names).slice(0, 1))
          .at(-1)
          ?.slice(-1) ?? []
      )
    },
    findFile: (name) => search(searched, name),
  }
}

function byName(settings: readonly Setting[]): Layer {
  const index = new Map<string, Setting[]>()
  for (const one of settings) {
    const key = `${groupKey(one.group)}.${one.name}`
    index.set(key, [...(index.get(key) ?? []), one])
  }
  return ([group, name]) => index.get(`${groupKey(group)}.${name}`) ?? []
}

const overrideLayer =
  (overrides: NonNullable<Sources['overrides']>): Layer =>
  ([group, name]) => {
    const given = overrides[group === 'DEFAULT' ? name : `${group}.${name}`] ?? []
    return [given].flat().map((value) => ({ group, name, value, where: 'command line' }))
  }

const envLayer =
  (env: NonNullable<Sources['env']>): Layer =>
  ([group, name]) => {
    const variable = `OS_${group}__${name}`.toUpperCase()
    const value = env[variable]
    return value === undefined ? [] : [{ group, name, value, where: variable }]
  }

const standardDirs = ({ home, env = {}, etc = '/etc' }: Sources): readonly string[] => [
  ...(home ? [join(home, '.glance'), home] : []),
  join(etc, 'glance'),
  etc,
  ...[env['SNAP_COMMON'], env['SNAP']].flatMap((snap) => (snap ? [join(snap, 'etc/glance')] : [])),
]

const search = (dirs: readonly string[], name: string): string | undefined =>
  dirs.map((dir) => resolve(dir, name)).find((path) => existsSync(path))

/** Which files to read, and the directories they come from. */
function locate(sources: Sources): { files: readonly string[]; dirs: readonly string[] } {
  const { configs = [], home } = sources
  const path = (given: string) => resolve(home ? given.replace(/^~(?=\/|$)/, home) : given)
  const standard = (...names: string[]) => names.flatMap((name) => search(standardDirs(sources), name) ?? [])
  const defaultDirs = configs.some((one) => 'dir' in one)
    ? []
    : standard('glance.conf.d', ...programs(sources, '.conf.d'))
  const given = configs.map((one) => ('dir' in one ? { dir: path(one.dir) } : { file: path(one.file) }))
  return {
    files: [
      ...(configs.some((one) => 'file' in one) ? [] : defaultFiles(sources, standard)),
      ...defaultDirs.flatMap(filesIn),
      ...given.flatMap((one) => ('dir' in one ? filesIn(one.dir) : [one.file])),
    ],
    dirs: [...defaultDirs, ...given.flatMap((one) => ('dir' in one ? [one.dir] : []))],
  }
}

/** OS_GLANCE_CONFIG_DIR names the one directory to look into, and then the program's file must be there. */
function defaultFiles(sources: Sources, standard: (...names: string[]) => readonly string[]) {
  const dir = sources.env?.['OS_GLANCE_CONFIG_DIR']?.trim()
  const [own = '', ...more] = programs(sources, '.conf')
  if (!dir) return standard('glance.conf', own, ...more)
  const found = (name: string) => search([dir], name) ?? []
  return [found('glance-image-import.conf'), resolve(dir, own), more.map(found)].flat(2)
}

const programs = ({ program }: Sources, suffix: string): readonly string[] =>
  [program].flat().map((name) => `${name}${suffix}`)

function filesIn(dir: string): readonly string[] {
  const names = orInvalid(`Cannot read configuration directory ${dir}`, () => readdirSync(dir))
  return names
    .filter((name) => name.endsWith('.conf') && !name.startsWith('.'))
    .sort()
    .map((name) => join(dir, name))
}

const readText = (file: string): string =>
  orInvalid(`Cannot read configuration file ${file}`, () => readFileSync(file, 'utf8'))

function orInvalid<T>(message: string, read: () => T): T {
  try {
    return read()
  } catch (cause) {
    throw new ServiceError('invalid', `${message}: ${(cause as NodeJS.ErrnoException).code ?? String(cause)}`, {
      cause,
    })
  }
}
