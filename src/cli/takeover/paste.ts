import { readFileSync } from 'node:fs'
import { basename } from 'node:path'
import type { Config } from '../../config/config.ts'
import { parseIni } from '../../config/ini.ts'
import { reason } from '../reason.ts'
import { type Finding, note, ok, problem } from './report.ts'

/** What is to be said of a filter when the pipeline has it. */
interface Filter {
  readonly factory: RegExp
  /** Nothing: this service does the same. */
  readonly says?: () => Finding
  /** Options of its section that need no attention: what is shipped, and what selects the library. */
  readonly quiet?: readonly string[]
}

const KNOWN_FILTERS: readonly Filter[] = [
  { factory: /^oslo_middleware(\.cors)?:(CORS\.factory|filter_factory)$|^egg:oslo\.middleware#cors$/ },
  { factory: /HTTPProxyToWSGI|#http_proxy_to_wsgi$/ },
  { factory: /:VersionNegotiationFilter\.factory$/ },
  { factory: /:(Unauthenticated)?ContextMiddleware\.factory$/ },
  { factory: /^keystone(middleware|client\.middleware)\.auth_token:filter_factory$/, quiet: ['delay_auth_decision'] },
  { factory: /:CacheFilter\.factory$/ },
  { factory: /:CacheManageFilter\.factory$/ },
  // Its path is compared below.
  {
    factory: /oslo_middleware(\.healthcheck)?:Healthcheck|#healthcheck$/,
    quiet: ['path', 'backends', 'disable_by_file_path'],
  },
  { factory: /oslo_middleware(\.request_id)?:RequestId|#request_id$/ },
  {
    factory: /^osprofiler\.web:/,
    quiet: ['hmac_keys', 'enabled'],
    says: () => note('The pipeline has osprofiler, which is not there: requests are not traced.'),
  },
  {
    factory: /:GzipMiddleware\.factory$/,
    says: () =>
      note('The pipeline has the gzip filter: answers are not compressed here.', 'let the proxy in front compress'),
  },
  {
    factory: /(sizelimit|RequestBodySizeLimiter)/,
    says: () =>
      note(
        'The pipeline limits the size of requests; here [glimpse] json_body_limit and image_size_cap do.',
        'set [glimpse] json_body_limit if the default of 1 MiB does not fit',
      ),
  },
]

interface Section {
  readonly kind: string
  readonly name: string
  readonly options: ReadonlyMap<string, string>
}

/** What the paste file of a deployment adds to or takes from the pipelines that this service has. */
export function* checkPaste(config: Config): Iterable<Finding> {
  const file = pasteFile(config)
  if (file === undefined) {
    yield note('There is no paste file. The pipeline follows [paste_deploy] flavor, and needs none.')
    return
  }
  const flavor = config.paste_deploy.flavor ?? ''
  let sections: readonly Section[]
  try {
    sections = readSections(file)
  } catch (error) {
    yield problem(`The paste file cannot be read, so that nobody knows what it adds: ${reason(error)}`)
    return
  }
  const app = flavor === '' ? 'glance-api' : `glance-api-${flavor}`
  const names = filtersOf(sections, app, flavor)
  if (names === undefined) {
    yield problem(`${file} has no application ${app}.`, 'look whether this is the file and the flavor that Glance uses')
    return
  }
  yield ok(`${file}: the pipeline of ${app} is ${[...names].join(' ') || 'empty'}.`)
  const used = [...names].flatMap((name) => sections.filter((one) => one.name === name && one.kind === 'filter'))
  for (const section of used) yield* checkFilter(section)
  yield* checkHealth(config, sections)
  const asksKeystone = used.some((section) => /auth_token/.test(factoryOf(section)))
  if (flavor.includes('keystone') && !asksKeystone)
    yield problem(
      `The pipeline of flavor ${flavor} has no authtoken filter, but Glimpse asks Keystone because of the flavor.`,
      'take keystone out of [paste_deploy] flavor if nobody is to be asked',
    )
  if (!flavor.includes('keystone') && asksKeystone)
    yield problem(
      'The pipeline has the authtoken filter, but the flavor has no keystone: Glimpse would take everybody for an admin.',
      'set [paste_deploy] flavor = keystone',
    )
}

function* checkFilter(section: Section): Iterable<Finding> {
  const factory = factoryOf(section)
  const known = KNOWN_FILTERS.find((filter) => filter.factory.test(factory))
  if (known === undefined) {
    yield problem(
      `The filter ${section.name} (${factory || 'without a factory'}) would be lost: there are no filters of others here.`,
      'do its work in a proxy in front, or do without it',
    )
    return
  }
  if (known.says !== undefined) yield known.says()
  const own = [...section.options.keys()].filter(
    (name) => !SELECTS.test(name) && !(known.quiet ?? []).includes(name) && !/^oslo_config_/.test(name),
  )
  if (own.length > 0)
    yield problem(
      `Options in [filter:${section.name}] are not read: ${own.join(', ')}.`,
      'move them to the group of the configuration file that they are for',
    )
}

/** The shipped file says where the file is that takes a node out of service. */
function* checkHealth(config: Config, sections: readonly Section[]): Iterable<Finding> {
  const wanted = sections
    .filter(({ options }) =>
      /healthcheck/i.test(
        options.get('paste.app_factory') ?? options.get('paste.filter_factory') ?? options.get('use') ?? '',
      ),
    )
    .map(({ options }) => options.get('disable_by_file_path'))
    .find((path) => path !== undefined)
  if (wanted === undefined || wanted === config.healthcheck.disable_by_file_path) return
  yield note(
    `The paste file has the health check look for ${wanted}; Glimpse looks where [healthcheck] says.`,
    `set [healthcheck] disable_by_file_path = ${wanted} if you take nodes out of service by it`,
  )
}

/** The one that is named, or the one that is called like the last configuration file. */
function pasteFile(config: Config): string | undefined {
  const { config_file: named } = config.paste_deploy
  if (named) return config.findFile(named) ?? named
  const last = config.files.at(-1)
  return last === undefined ? undefined : config.findFile(basename(last).replace(/\.conf$/, '-paste.ini'))
}

function readSections(file: string): readonly Section[] {
  const sections = new Map<string, Map<string, string>>()
  for (const { group, name, value } of parseIni(readFileSync(file, 'utf8'), file)) {
    const options = sections.get(group) ?? new Map<string, string>()
    sections.set(group, options.set(name, value))
  }
  return [...sections].map(([title, options]) => {
    const colon = title.indexOf(':')
    return { kind: title.slice(0, Math.max(0, colon)), name: title.slice(colon + 1).trim(), options }
  })
}

const SELECTS = /^(paste\..*_factory|use|set .*)$/
const factoryOf = ({ options }: Section): string =>
  options.get('paste.filter_factory') ?? options.get('paste.filter_app_factory') ?? options.get('use') ?? ''
const words = (text: string | undefined): readonly string[] => (text ?? '').split(/\s+/).filter((word) => word !== '')

/** Names of all filters that requests to `app` pass, in their order. Undefined when there is no such application. */
function filtersOf(sections: readonly Section[], app: string, flavor: string): ReadonlySet<string> | undefined {
  const filters = new Set<string>()
  const seen = new Set<string>()
  const find = (name: string) => sections.find((one) => one.name === name && one.kind !== 'filter' && one.kind !== '')
  const follow = (name: string): void => {
    const section = find(name)
    if (section === undefined || seen.has(name)) return
    seen.add(name)
    const { options } = section
    const byFlavor = /pipeline_factory$/.test(options.get('paste.composite_factory') ?? '')
    const line = words(byFlavor ? (options.get(flavor) ?? options.get('default')) : options.get('pipeline'))
    for (const filter of line.slice(0, -1)) filters.add(filter)
    const last = line.at(-1)
    if (last !== undefined) follow(last)
    for (const [path, target] of options) if (path.startsWith('/')) follow(target)
  }
  if (find(app) === undefined) return undefined
  follow(app)
  return filters
}
