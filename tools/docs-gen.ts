/**
 * Writes docs/configuration.md, etc/glance-api.conf and etc/glance-registry.conf from the declarations of the options,
 * docs/openapi.json from the route table.
 *   node tools/docs-gen.ts             writes the files
 *   node tools/docs-gen.ts --check     exits 1 if they are not what it would write
 */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname } from 'node:path'
import { fileURLToPath } from 'node:url'
import { v2Document } from '../src/api/v2/document.ts'
import { v2Routes } from '../src/api/v2/routes.ts'
import { COMMON_PROPERTIES } from '../src/api/v2/schemas.ts'
import { GROUPS, storeOptions } from '../src/config/groups.ts'
import { printEntry } from '../src/config/ini.ts'
import type { Option, OptionGroup } from '../src/config/options.ts'
import { registryServer, registryShared } from '../src/config/registry.ts'
import type { Core } from '../src/core/core.ts'

/** Store types: the driver's file, and what it exports. */
const STORE_TYPES = [
  { driver: 'file', exported: 'fileStore' },
  { driver: 'http', exported: 'httpStore' },
] as const

interface Store {
  readonly type: string
  readonly options: OptionGroup
}

async function loadStores(): Promise<readonly Store[]> {
  const stores: Store[] = []
  for (const { driver, exported } of STORE_TYPES) {
    const url = new URL(`../src/store/drivers/${driver}.ts`, import.meta.url)
    if (existsSync(url)) stores.push(((await import(url.href)) as Record<string, Store>)[exported] as Store)
  }
  return stores
}

const optionsOf = (group: OptionGroup) => Object.entries(group) as [name: string, option: Option][]

/** What to know about an option besides its purpose. */
const remarks = ({ secret, mutable, deprecated = [], deprecatedForRemoval }: Option): readonly string[] => [
  ...(secret ? ['Never shown in logs.'] : []),
  ...(mutable ? ['Re-read on SIGHUP.'] : []),
  ...(deprecated.length > 0 ? [`Older name: ${deprecated.join(', ')}.`] : []),
  ...(deprecatedForRemoval === undefined ? [] : [`Deprecated: ${deprecatedForRemoval}.`]),
]

const INTRODUCTION = `# Configuration

Files are written in the dialect of oslo.config, and Glance's own files work as they are. \`glance-api --config-file FILE\`
and \`--config-dir DIRECTORY\` may be given several times; what comes later wins. Without them the service reads
\`glance.conf\` and \`glance-api.conf\`, each where it is found first: \`~/.glance\`, \`~\`, \`/etc/glance\`, \`/etc\`; and the
directories \`glance.conf.d\` and \`glance-api.conf.d\` in the same places. With \`OS_GLANCE_CONFIG_DIR\` set, it reads
\`glance-image-import.conf\` (if there is one) and \`glance-api.conf\` in that directory.

The command line beats the environment, and the environment beats the files. In the environment an option is called
\`OS_<GROUP>__<OPTION>\`, such as \`OS_DEFAULT__BIND_PORT\`.

A value may refer to another option: \`$name\`, \`\${name}\` or \`\${group.name}\`. A \`$\` that stands for itself is written \`$$\`.
There are no comments behind a value; an indented line continues the value above it.

The options of a store stand in the group of its name when \`enabled_backends\` names stores, and in \`[glance_store]\`
otherwise. What the group of a store leaves out is looked up in \`[backend_defaults]\`.
`

/** What glance-registry reads of the options of glance-api, besides its own. */
const REGISTRY_READS = [
  ...['bind_host', 'backlog', 'workers', 'max_header_line', 'http_keepalive', 'client_socket_timeout'],
  ...['graceful_shutdown_timeout', 'debug', 'log_file', 'log_dir', 'use_json', 'limit_param_default', 'api_limit_max'],
  ...['allow_anonymous_access', 'max_request_id_length'],
] as const satisfies readonly (keyof typeof GROUPS.DEFAULT)[]

const REGISTRY_GROUPS: Readonly<Record<string, OptionGroup>> = {
  DEFAULT: { ...registryServer, ...Object.fromEntries(REGISTRY_READS.map((name) => [name, GROUPS.DEFAULT[name]])) },
  glimpse: registryShared,
  database: GROUPS.database,
  paste_deploy: GROUPS.paste_deploy,
  keystone_authtoken: GROUPS.keystone_authtoken,
  oslo_policy: GROUPS.oslo_policy,
  healthcheck: GROUPS.healthcheck,
}

const REGISTRY = `## glance-registry

Its files are \`glance.conf\` and \`glance-registry.conf\`, in the same places. It reads, as described above, the groups
${Object.keys(REGISTRY_GROUPS)
  .filter((name) => !['DEFAULT', 'glimpse'].includes(name))
  .map((name) => `\`[${name}]\``)
  .join(', ')}, \`registry_secret\` of \`[glimpse]\`, and of \`[DEFAULT]\`
${REGISTRY_READS.map((name) => `\`${name}\``).join(', ')}.
Its own options of \`[DEFAULT]\` are these. [registry.md](registry.md) tells how it is used.
`

const printMarkdown = (stores: readonly Store[]): string =>
  [
    INTRODUCTION,
    ...Object.entries(GROUPS).map(([name, group]) => `## [${name}]\n\n${table(group)}`),
    `## Every store\n\n${table(storeOptions)}`,
    ...stores.map(({ type, options }) => `## Stores of type ${type}\n\n${table(options)}`),
    `${REGISTRY}\n${table(registryServer)}`,
  ].join('\n')

const table = (group: OptionGroup): string => {
  const rows = optionsOf(group).map(([name, option]) => {
    const meaning = [option.help, ...remarks(option)].join(' ')
    return [`\`${name}\``, shownDefault(option), option.expects, meaning].map(cell).join('')
  })
  return [
    '| Option | Default | Expects | Meaning |',
    '| --- | --- | --- | --- |',
    ...rows.map((row) => `|${row}`),
    '',
  ].join('\n')
}
const cell = (content: string): string => ` ${content.replaceAll('|', '\\|')} |`

const shownDefault = (option: Option): string => {
  const written = option.print(option.default)
  return written.length === 0 ? 'not set' : written.map((value) => (value === '' ? 'empty' : `\`${value}\``)).join(', ')
}

const sampleHead = (
  program: string,
) => `# Sample configuration of ${program}. Every option stands at its default; <None> means that it is not set.
# docs/configuration.md says more.
`

const printRegistrySample = (): string =>
  [
    sampleHead('glance-registry'),
    ...Object.entries(REGISTRY_GROUPS).map(([name, group]) => `[${name}]\n\n${sampleOptions(group)}`),
  ].join('\n')

const printSample = (stores: readonly Store[]): string =>
  [
    sampleHead('glance-api'),
    ...Object.entries(GROUPS).map(([name, group]) => {
      const more = name === 'glance_store' ? stores.map(sampleStore) : []
      return [`[${name}]\n`, sampleOptions(group), ...more].join('\n')
    }),
  ].join('\n')

const sampleStore = ({ type, options }: Store): string =>
  `${comment(`Stores of type ${type}. When enabled_backends is set, these stand in the group of each store instead.`)}\n\n${sampleOptions(options)}`

const sampleOptions = (group: OptionGroup): string =>
  optionsOf(group)
    .map(([name, option]) => {
      const expects = option.expects === 'text' ? [] : [`Expects ${option.expects}.`]
      const about = [option.help, ...expects, ...remarks(option)].join(' ').replaceAll('`', '')
      const written = option.print(option.default)
      const entries = written.length === 0 ? [`${name} = <None>`] : written.map((value) => printEntry(name, value))
      return `${comment(about)}\n${entries.map((entry) => `#${entry}\n`).join('')}`
    })
    .join('\n')

/** Lines of at most a hundred letters, each behind a number sign. */
const comment = (prose: string): string => prose.replace(/(.{1,98})(?:\s+|$)/g, '# $1\n').trimEnd()

/** The document of a server with one store and upstream's formats. Routes close over the core, and ask it nothing yet. */
function printOpenApi(): string {
  const { disk_formats, container_formats } = GROUPS.image_format
  const schema = {
    diskFormats: disk_formats.default,
    containerFormats: container_formats.default,
    custom: COMMON_PROPERTIES,
  }
  const view = { multiStore: false, showDirectUrl: false, showLocations: false, order: <T>(all: T) => all }
  const core = { stores: { multi: false, all: [] }, imports: { offered: [] }, limits: {} } as unknown as Core
  return `${JSON.stringify(v2Document(v2Routes(core, { schema, view, cacheManagement: false }), schema), undefined, 1)}\n`
}

const stores = await loadStores()
const outputs = {
  'docs/openapi.json': printOpenApi(),
  'docs/configuration.md': printMarkdown(stores),
  'etc/glance-api.conf': printSample(stores),
  'etc/glance-registry.conf': printRegistrySample(),
}
for (const [name, content] of Object.entries(outputs)) {
  const path = fileURLToPath(new URL(`../${name}`, import.meta.url))
  if (!process.argv.includes('--check')) {
    mkdirSync(dirname(path), { recursive: true })
    writeFileSync(path, content)
  } else if (!existsSync(path) || readFileSync(path, 'utf8') !== content) {
    console.error(`${name} is not up to date: run node tools/docs-gen.ts`)
    process.exitCode = 1
  }
}
