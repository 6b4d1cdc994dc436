// Settings that no declaration asks for: obsolete ones, ones of parts which this service lacks, and mistakes.
import type { OptionGroup } from './options.ts'
import { groupKey, type Setting } from './sources.ts'

/** Options of older releases: they are accepted and ignored. */
const OBSOLETE: Readonly<Record<string, RegExp>> = {
  DEFAULT: oneOf(
    'registry_\\w+|qpid_\\w+|rabbit_\\w+|rpc_\\w+|conn_pool_\\w+|pydev_worker_debug_(host|port)|enable_v[123]_(api|registry)',
    'send_identity_headers|use_user_token|admin_(user|password|tenant_name|role)|auth_(url|region|strategy)|data_api',
    'enable_image_import|allow_additional_image_properties|location_strategy|enforce_secure_rbac|owner_is_tenant',
    'secure_proxy_ssl_header|ca_file|cert_file|key_file|verbose|use_syslog_rfc_format|log_format|use_eventlog',
    'pipe_handle|scrubber_datadir|db_auto_create|sqlalchemy_debug|trace_sqlalchemy|default_store|lock_path',
    'notifier_strategy|sql_connection|digest_algorithm|watch_log_file|publish_errors|log_color',
    'instance_(format|uuid_format)|fatal_deprecations|cache_prefetcher_interval',
  ),
  database: oneOf('min_pool_size|sqlite_db|mysql_enable_ndb|use_tpool'),
  glance_store: oneOf(
    'sheepdog_store_\\w+|mongodb_store_(uri|db)|s3_store_object_buffer_dir|s3_store_\\w*proxy\\w*|os_region_name',
    'store_capabilities_update_min_interval|swift_enable_snet|vmware_(datacenter_path|datastore_name|api_insecure)',
  ),
  healthcheck: oneOf('path'),
  keystone_authtoken: oneOf(
    'identity_uri|admin_(user|password|tenant_name|token)|auth_(host|port|protocol|admin_prefix)|signing_dir',
    'hash_algorithms|check_revocations_for_cached|revocation_cache_time',
  ),
  oslo_messaging_rabbit: oneOf(
    'rabbit_(hosts?|port|userid|password|virtual_host|max_retries)|fake_rabbit|default_\\w+|socket_timeout|tcp_user_timeout',
    'pool_\\w+|host_connection_reconnect_delay|connection_factory|(channel|frame)_max|shared|ssl_options|rpc_\\w+|notification_\\w+',
  ),
  oslo_middleware: oneOf('max_request_body_size|secure_proxy_ssl_header'),
  oslo_policy: oneOf('enforce_scope'),
  store_type_location_strategy: oneOf('store_type_preference'),
  task: oneOf('eventlet_executor_pool_size'),
}

const ADVICE: Readonly<Record<string, string>> = {
  'DEFAULT.location_strategy': 'give each store a weight instead',
  'store_type_location_strategy.store_type_preference': 'give each store a weight instead',
}

/** Options that upstream reads in parts which this service lacks, or with other stores than the configured ones. */
const ELSEWHERE: Readonly<Record<string, RegExp>> = {
  DEFAULT: oneOf('config_source|restore|default_swift_reference|swift_store_\\w+'),
  glance_store: oneOf(
    '(filesystem|https?|rbd|s3|swift|cinder|vmware)_\\w+|rados_connect_timeout|rootwrap_config|default_swift_reference',
  ),
  oslo_middleware: oneOf('http_basic_auth_user_file'),
}

const GROUPS_ELSEWHERE = oneOf(
  'taskflow_executor|profiler\\w*',
  'oslo_(messaging_\\w+|limit|concurrency|reports|cache|versionedobjects|middleware_tracing)',
  'key_manager|barbican\\w*|vault|os_brick|\\w*privsep\\w*|cors\\..+|matchmaker_\\w+|service_user|ssl',
)

function oneOf(...patterns: readonly string[]): RegExp {
  return new RegExp(`^(?:${patterns.join('|')})$`)
}

/** A setting that no declaration asks for. */
export interface UnknownSetting {
  readonly group: string
  readonly name: string
  /** `FILE:LINE` */
  readonly where: string
  /**
   * `removed`: of an older release; `elsewhere`: of a part or a store that is not there; the others are nobody's: an
   * option of a known group, and a group.
   */
  readonly kind: 'removed' | 'elsewhere' | 'option' | 'group'
  /** What has taken the place of a removed option, or the name that may have been meant. */
  readonly hint?: string | undefined
}

/** What in `settings` has no effect, given everything that is declared. */
export function classifyUnknown(
  settings: readonly Setting[],
  declared: ReadonlyMap<string, OptionGroup>,
  isUndecided: (group: string) => boolean,
): readonly UnknownSetting[] {
  const known = knownNames(declared)
  return settings.flatMap(({ group, name, where }): readonly UnknownSetting[] => {
    const key = groupKey(group)
    const setting = { group, name, where }
    const options = known.get(key)
    if (options?.has(name)) return []
    if (OBSOLETE[key]?.test(name)) return [{ ...setting, kind: 'removed', hint: ADVICE[`${key}.${name}`] }]
    if (options !== undefined) {
      const hint = nearest(name, options)
      const elsewhere = hint === undefined && ELSEWHERE[key]?.test(name) === true
      return [{ ...setting, kind: elsewhere ? 'elsewhere' : 'option', hint }]
    }
    if (isUndecided(key)) return []
    if (GROUPS_ELSEWHERE.test(key)) return [{ ...setting, kind: 'elsewhere' }]
    return [{ ...setting, kind: 'group', hint: nearest(group, known.keys()) }]
  })
}

/** What an operator should hear about them: a line for the removed options of each group, and one for each mistake. */
export function explainUnknown(unknown: readonly UnknownSetting[]): readonly string[] {
  const removed = unknown.filter(({ kind }) => kind === 'removed')
  const lines = [...new Set(removed.map(({ group }) => group))].flatMap((group) => {
    const ofGroup = removed.filter((one) => one.group === group)
    const gone = ofGroup.filter(({ hint }) => hint === undefined).map(({ name }) => name)
    const replaced = ofGroup.filter(({ hint }) => hint !== undefined)
    return [
      ...(gone.length === 0 ? [] : [`Without effect any more in [${group}]: ${[...new Set(gone)].join(', ')}`]),
      ...replaced.map(({ name, hint }) => `[${group}] ${name} has no effect any more: ${hint}`),
    ]
  })
  const mistakes = unknown.flatMap(({ kind, group, name, where, hint }) => {
    if (kind === 'option')
      return [`${where}: unknown option [${group}] ${name}${hint === undefined ? '' : `, did you mean ${hint}?`}`]
    if (kind !== 'group') return []
    const file = where.replace(/:\d+$/, '')
    return [`${file}: unknown group [${group}]${hint === undefined ? '' : `, did you mean [${hint}]?`}`]
  })
  return [...new Set([...lines, ...mistakes])]
}

function knownNames(declared: ReadonlyMap<string, OptionGroup>): ReadonlyMap<string, ReadonlySet<string>> {
  const known = new Map<string, Set<string>>()
  for (const [group, options] of declared) {
    for (const [name, option] of Object.entries(options)) {
      for (const [inGroup, spelling] of namesOf(group, name, option.deprecated)) {
        const key = groupKey(inGroup)
        known.set(key, (known.get(key) ?? new Set()).add(spelling))
      }
    }
  }
  return known
}

/** Every spelling of an option, the present one first. */
export const namesOf = (group: string, name: string, deprecated: readonly string[] = []) => [
  [group, name] as const,
  ...deprecated.map((old) => {
    const dot = old.lastIndexOf('.')
    return [dot < 0 ? group : old.slice(0, dot), old.slice(dot + 1)] as const
  }),
]

/** The most similar of `names`, if it is so similar that a typing error explains the difference. */
function nearest(written: string, names: Iterable<string>): string | undefined {
  const near = Math.min(Math.max(2, Math.floor(written.length / 4)), (written.length - 1) / 2)
  const found = [...names]
    .map((name) => ({ name, edits: editDistance(written.toLowerCase(), name.toLowerCase()) }))
    .sort((a, b) => a.edits - b.edits)[0]
  return found !== undefined && found.edits <= near ? found.name : undefined
}

/** How many letters must be inserted, removed or replaced to get from `a` to `b`. */
function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, column) => column)
  for (const [index, letter] of [...a].entries()) {
    const next = [index + 1]
    for (let column = 1; column <= b.length; column++) {
      const replaced = (row[column - 1] ?? 0) + (letter === b[column - 1] ? 0 : 1)
      next.push(Math.min(replaced, (row[column] ?? 0) + 1, (next[column - 1] ?? 0) + 1))
    }
    row = next
  }
  return row[b.length] ?? 0
}
