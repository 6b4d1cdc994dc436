import { unusableParts } from '../../app.ts'
import type { Config } from '../../config/config.ts'
import type { UnknownSetting } from '../../config/unknown.ts'
import { silentLog } from '../../log.ts'
import { DIFFERENCES } from './differences.ts'
import { IGNORED_OPTIONS } from './ignored-options.ts'
import { checkPaste } from './paste.ts'
import { type Finding, few, note, ok, problem } from './report.ts'

/**
 * What the files say that is not understood, is ignored, or means something else here. `wrong` are the values that
 * could not be read; to be called when every group has been asked for.
 */
export async function* checkConfiguration(config: Config, wrong: readonly string[]): AsyncIterable<Finding> {
  if (config.files.length === 0)
    yield problem('No configuration file was found.', 'name Glance’s with --config-file or --config-dir')
  else yield ok('These files were read, the strongest last:', config.files)

  for (const message of wrong) yield problem(`A value that cannot be read keeps the service from starting: ${message}`)
  for (const message of await unusableParts(config, silentLog))
    yield problem(`This keeps the service from starting: ${message}`)
  yield* mistakes(config.unknown())
  yield* removed(config.unknown())
  yield* elsewhere(config.unknown())
  yield* ignored(config)
  yield* changed(config)
  if (config.deprecations().length > 0)
    yield note(
      'Older names still work, here as in Glance:',
      undefined,
      few(config.deprecations().map((line) => line.replace(/^Deprecated: Option /, ''))),
    )
  yield* newDefaults(config)
  yield* checkPaste(config)
}

const shown = ({ group, name, where }: UnknownSetting): string => `[${group}] ${name} (${where})`
const unique = (texts: readonly string[]): readonly string[] => [...new Set(texts)]

function* mistakes(unknown: readonly UnknownSetting[]): Iterable<Finding> {
  for (const one of unknown) {
    const meant = one.hint === undefined ? undefined : `did you mean ${one.hint}?`
    if (one.kind === 'option') {
      const what = one.hint === undefined ? 'Nobody knows the option' : 'Probably misspelled:'
      yield note(`${what} ${shown(one)}. It has no effect, in Glance neither.`, meant)
    }
  }
  const groups = new Map(unknown.filter(({ kind }) => kind === 'group').map((one) => [one.group, one]))
  for (const [group, { hint, where }] of groups)
    yield note(
      `Nobody knows the group [${group}] (${where.replace(/:\d+$/, '')}). It has no effect.`,
      hint === undefined ? undefined : `did you mean [${hint}]?`,
    )
}

function* removed(unknown: readonly UnknownSetting[]): Iterable<Finding> {
  const gone = unknown.filter(({ kind }) => kind === 'removed')
  const plain = unique(gone.filter(({ hint }) => hint === undefined).map(({ group, name }) => `[${group}] ${name}`))
  if (plain.length > 0)
    yield note('Options of older releases, which the newest Glance ignores too:', 'take them out', few(plain, 20))
  for (const one of gone) if (one.hint !== undefined) yield note(`${shown(one)} is of older releases.`, one.hint)
}

/** What upstream has options for, and this service lacks. */
const LACKING: readonly (readonly [group: RegExp, says: string])[] = [
  [/^profiler/, 'There is no osprofiler: requests are not traced.'],
  [/^oslo_messaging_(kafka|amqp)/, 'There is no message broker but RabbitMQ.'],
  [/^oslo_reports/, 'There are no reports of the running process.'],
  [/^vault/, 'Vault is not known: certificates are in Barbican, or in a folder.'],
  [/^taskflow_executor/, 'There is no TaskFlow: the service runs [wsgi] task_pool_threads tasks at once itself.'],
  [/^oslo_middleware$/, 'There is no HTTP Basic authentication.'],
]

function* elsewhere(unknown: readonly UnknownSetting[]): Iterable<Finding> {
  const options = unknown.filter(({ kind }) => kind === 'elsewhere')
  const explained = new Map<string, string[]>()
  for (const { group, name } of options) {
    const why = LACKING.find(([lacking]) => lacking.test(group.toLowerCase()))?.[1] ?? ''
    explained.set(why, [...(explained.get(why) ?? []), `[${group}] ${name}`])
  }
  for (const [why, names] of explained)
    yield why === ''
      ? ok('Options of stores and programs that are not in use here, and without effect:', few(unique(names)))
      : note(why, undefined, few(unique(names)))
}

function* ignored(config: Config): Iterable<Finding> {
  const harmless = new Map<string, string[]>()
  for (const [key, { why, matters }] of Object.entries(IGNORED_OPTIONS)) {
    const [group = '', name = ''] = key.split('.')
    if (!config.isSet(group, name) || key === 'paste_deploy.config_file') continue
    if (isOff(config, group, name)) continue
    if (matters) yield note(`[${group}] ${name} has no effect: ${why}.`)
    else harmless.set(why, [...(harmless.get(why) ?? []), `[${group}] ${name}`])
  }
  const lines = [...harmless].map(([why, names]) => `${names.join(', ')}: ${why}`)
  if (lines.length > 0) yield ok('Options that Glance has and that are ignored here, without harm:', lines)
}

/** Whether the option is set to what holds without it. */
const isOff = (config: Config, group: string, name: string): boolean => {
  const value = (config as unknown as Record<string, Record<string, unknown>>)[group]?.[name]
  return value === false || value === '' || (Array.isArray(value) && value.length === 0)
}

function* changed(config: Config): Iterable<Finding> {
  for (const { options, says, applies } of DIFFERENCES) {
    if (options === undefined || !applies(config)) continue
    const names = options
      .filter((key) => config.isSet(key.slice(0, key.indexOf('.')), key.slice(key.indexOf('.') + 1)))
      .map((key) => `[${key.replace('.', '] ')}`)
    if (names.length > 0) yield note(`${names.join(', ')} means something else here. ${says}`)
  }
}

interface NewDefault {
  readonly group: string
  readonly name: string
  readonly says: string
  readonly applies?: (config: Config) => boolean
}

/** Defaults that upstream has changed: who comes from an older release and has not set them meets the new ones. */
const NEW_DEFAULTS: readonly NewDefault[] = [
  {
    group: 'oslo_policy',
    name: 'enforce_new_defaults',
    says: 'It is true by default, as in newer releases; those before 2023.1 took false, which allows what older default rules allowed.',
  },
  {
    group: 'DEFAULT',
    name: 'image_cache_driver',
    says: 'It is centralized_db by default, as in newer releases; older ones took sqlite.',
    applies: ({ DEFAULT }) => Boolean(DEFAULT.image_cache_dir),
  },
  {
    group: 'image_format',
    name: 'require_image_format_match',
    says: 'It is true by default, as in newer releases; older ones took data of any format.',
  },
]

function* newDefaults(config: Config): Iterable<Finding> {
  for (const { group, name, says, applies } of NEW_DEFAULTS)
    if (!config.isSet(group, name) && applies?.(config) !== false)
      yield note(`[${group}] ${name} is not set. ${says}`, 'set it to what you want, whatever the release')
}
