import { ServiceError } from '../domain/errors.ts'
import { GROUPS, storeOptions } from './groups.ts'
import { printEntry } from './ini.ts'
import type { Option, OptionGroup, Values } from './options.ts'
import { groupKey, loadSettings, type Setting, type Settings, type Sources } from './sources.ts'
import { classifyUnknown, explainUnknown, namesOf, type UnknownSetting } from './unknown.ts'

/** Every option of every group, frozen, and the ways to the rest. */
export type Config = { readonly [Group in keyof typeof GROUPS]: Values<(typeof GROUPS)[Group]> } & ConfigTools

export interface ConfigTools {
  /** The files that were read, the strongest last. */
  readonly files: readonly string[]
  /**
   * Values of a group that only the configuration names, such as a store's. A store's group falls back to
   * `[backend_defaults]`. Throws `invalid` for a wrong value.
   */
  group<Group extends OptionGroup>(name: string, options: Group): Values<Group>
  /** What the group of a store says whatever the store's type. */
  storeGroup(name: string): Values<typeof storeOptions>
  /** What the operator should change. Complete once every group has been asked for. */
  warnings(): readonly string[]
  /** The part of the warnings that is about older names of options. */
  deprecations(): readonly string[]
  /** What stands in the files and has no effect. Complete once every group has been asked for. */
  unknown(): readonly UnknownSetting[]
  /** Whether anybody has set the option, under any of its names. */
  isSet(group: string, name: string): boolean
  /** Groups and options known so far. */
  declared(): ReadonlyMap<string, OptionGroup>
  /** Where `name` (a file or directory) is: beside the configuration files or in the standard directories. */
  findFile(name: string): string | undefined
}

/**
 * Reads the configuration. Throws one `invalid` with a single line for the operator when a file cannot be read or a
 * value is wrong; with `wrong`, that hears about each wrong value, and the default stands in for it. Reads small files
 * synchronously: meant for start and reload.
 */
export function readConfig(sources: Sources, wrong?: (message: string) => void): Config {
  const settings = loadSettings(sources)
  const declared = new Map<string, OptionGroup>(Object.entries(GROUPS))
  const stores = new Set<string>()
  const notes = new Set<string>()
  const reader = createReader({ settings, declared, stores, note: (warning) => notes.add(warning), wrong })

  const groups = Object.fromEntries(Object.entries(GROUPS).map(([name, options]) => [name, reader(name, options)])) as {
    [Group in keyof typeof GROUPS]: Values<(typeof GROUPS)[Group]>
  }
  for (const store of Object.keys(groups.DEFAULT.enabled_backends ?? {})) stores.add(groupKey(store))

  const group: Config['group'] = (name, options) => {
    const shared = stores.has(groupKey(name)) ? [name, BACKEND_DEFAULTS] : [name]
    for (const one of shared) declared.set(one, { ...declared.get(one), ...options })
    return reader(name, options)
  }
  // Store types are loaded after the configuration: until then nobody knows what their groups may hold.
  const isUndecided = (key: string) => stores.has(key) || key === BACKEND_DEFAULTS || key.startsWith('os_glance_')
  const unknown = () => classifyUnknown(settings.inFiles, declared, isUndecided)
  return Object.freeze({
    ...groups,
    files: settings.files,
    group,
    storeGroup: (name: string) => group(name, storeOptions),
    warnings: () => [...notes, ...explainUnknown(unknown())],
    deprecations: () => [...notes],
    unknown,
    isSet: (name: string, option: string) => {
      const found = declared.get(name)?.[option]
      return settings.find(namesOf(name, option, (found as Option | undefined)?.deprecated)).length > 0
    },
    declared: () => declared,
    findFile: settings.findFile,
  })
}

const BACKEND_DEFAULTS = 'backend_defaults'

interface Reading {
  readonly settings: Settings
  readonly declared: ReadonlyMap<string, OptionGroup>
  /** Keys of the groups that fall back to `[backend_defaults]`. */
  readonly stores: ReadonlySet<string>
  note(warning: string): void
  /** Hears of wrong values, which are errors where nobody does. */
  readonly wrong: ((message: string) => void) | undefined
}

type Reader = <Group extends OptionGroup>(group: string, options: Group) => Values<Group>

function createReader(reading: Reading): Reader {
  const { note, wrong } = reading
  const value = (group: string, name: string, option: Option): unknown => {
    const found = lookUp(reading, group, name, option)
    const last = found.at(-1)
    if (last === undefined) return option.default
    for (const setting of found) noteDeprecation(setting, group, name, option, note)
    try {
      return option.parse(found.map((one) => interpolate(reading, one.value, group, [`${group}.${name}`])))
    } catch (error) {
      const shown = option.secret
        ? '****'
        : found
            .map((one) => one.value)
            .join(', ')
            .replaceAll('\n', '\\n')
      const message = `${last.where}: [${group}] ${name} = ${shown}: ${(error as Error).message}`
      if (wrong === undefined) throw new ServiceError('invalid', message)
      wrong(message)
      return option.default
    }
  }
  return <Group extends OptionGroup>(group: string, options: Group) =>
    Object.freeze(
      Object.fromEntries(Object.entries(options).map(([name, option]) => [name, value(group, name, option as Option)])),
    ) as Values<Group>
}

const lookUp = ({ settings, stores }: Reading, group: string, name: string, option: Option): readonly Setting[] =>
  (stores.has(groupKey(group)) ? [group, BACKEND_DEFAULTS] : [group])
    .map((from) => settings.find(namesOf(from, name, option.deprecated), option.kind === 'multi'))
    .find((found) => found.length > 0) ?? []

function noteDeprecation(setting: Setting, group: string, name: string, option: Option, note: Reading['note']): void {
  const old = `Deprecated: Option "${setting.name}" from group "${setting.group}" is deprecated`
  const moved = groupKey(setting.group) !== groupKey(group) && setting.group !== BACKEND_DEFAULTS
  if (moved || setting.name !== name) note(`${old}. Use option "${name}" from group "${group}".`)
  if (option.deprecatedForRemoval !== undefined) note(`${old} for removal: ${option.deprecatedForRemoval}`)
}

const REFERENCE = /\$\$|\\\$|\$(?:\{([a-z_][\w.]*)\}|([a-z_][\w.]*))/gi

/** Replaces `$name`, `${name}` and `${group.name}` by what these options are set to. */
const interpolate = (reading: Reading, text: string, group: string, within: readonly string[]): string =>
  text.replace(REFERENCE, (_, braced: string | undefined, bare: string | undefined) => {
    const name = braced ?? bare
    return name === undefined ? '$' : refer(reading, name, group, within)
  })

function refer(reading: Reading, reference: string, group: string, within: readonly string[]): string {
  const dot = reference.indexOf('.')
  const places =
    dot < 0
      ? [[group, reference] as const, ['DEFAULT', reference] as const]
      : [[reference.slice(0, dot), reference.slice(dot + 1)] as const]
  for (const [inGroup, name] of places) {
    const key = `${inGroup}.${name}`
    const options = reading.declared.get(inGroup)
    const option = options !== undefined && Object.hasOwn(options, name) ? (options[name] as Option) : undefined
    // An option that only upstream knows may still be referred to.
    const found =
      option === undefined ? reading.settings.find([[inGroup, name]]) : lookUp(reading, inGroup, name, option)
    const last = found.at(-1)
    if (last === undefined && option === undefined) continue
    if (within.includes(key)) throw new Error('expected a value that does not refer to itself')
    if (last !== undefined) return interpolate(reading, last.value, inGroup, [...within, key])
    return option?.print(option.default).join('\n') ?? ''
  }
  throw new Error('expected the name of an option after $; a $ that stands for itself is written $$')
}

/** Every option with its value, in the form of a file, references resolved and secrets masked. */
export const describe = (config: Config): string =>
  [...config.declared()]
    .map(([name, options]) => `[${name}]\n${describeGroup(options, config.group(name, options))}`)
    .join('\n')

const describeGroup = (options: OptionGroup, values: Readonly<Record<string, unknown>>): string =>
  Object.entries(options)
    .map(([name, option]) => {
      const written = (option as Option).print(values[name])
      if (written.length === 0) return `# ${name} is not set\n`
      return written.map((value) => `${printEntry(name, option.secret ? '****' : value)}\n`).join('')
    })
    .join('')
