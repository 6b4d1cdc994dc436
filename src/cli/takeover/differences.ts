import type { Config } from '../../config/config.ts'

/** A row of docs/differences.md that matters to some configurations only, or that a client is likely to meet. */
export interface Difference {
  /** The first cell of the row. */
  readonly row: string
  /** What it means here, in a sentence. */
  readonly says: string
  /** Options, as `group.name`, that do something else than upstream's; without any, it is clients who may notice. */
  readonly options?: readonly string[]
  applies(config: Config): boolean
}

const always = () => true
const hasCache = ({ DEFAULT, paste_deploy }: Config) =>
  Boolean(DEFAULT.image_cache_dir) && /cach/.test(paste_deploy.flavor ?? '')
const hasStores = ({ DEFAULT }: Config) => Object.keys(DEFAULT.enabled_backends ?? {}).length > 1
const hasQuota = ({ DEFAULT }: Config) => DEFAULT.user_storage_quota > 0 && !DEFAULT.use_keystone_limits
const hasKeystoneLimits = ({ DEFAULT }: Config) => DEFAULT.use_keystone_limits
const hasMemcached = ({ keystone_authtoken }: Config) => keystone_authtoken.memcached_servers.length > 0
const hasNotifications = ({ oslo_messaging_notifications: { driver } }: Config) =>
  driver.some((name) => !['noop', 'test', ''].includes(name))
const hasBroker = ({ oslo_messaging_notifications: { driver } }: Config) =>
  driver.some((name) => name.startsWith('messaging'))
const isMysql = ({ database }: Config) => /^(mysql|mariadb)/.test(database.connection ?? '')
const imports =
  (method: string) =>
  ({ DEFAULT }: Config): boolean =>
    DEFAULT.enabled_import_methods.some((name) => name === method)
const plugs =
  (plugin: string) =>
  ({ image_import_opts }: Config): boolean =>
    image_import_opts.image_import_plugins.includes(plugin)
const sets =
  (...options: readonly (readonly [group: string, name: string])[]) =>
  (config: Config): boolean =>
    options.some(([group, name]) => config.isSet(group, name))

/** Facts of docs/differences.md; a test holds them to it. */
export const DIFFERENCES: readonly Difference[] = [
  // --- options
  {
    row: '`[database] slave_connection`',
    options: ['database.slave_connection'],
    applies: sets(['database', 'slave_connection']),
    says: 'Lists of images and tasks are read from it, and may be as old as it is behind; upstream reads nothing from it.',
  },
  {
    row: 'whose `user_storage_quota` counts',
    options: ['DEFAULT.user_storage_quota'],
    applies: hasQuota,
    says: 'It counts for the owner of an image, not for the project of the caller.',
  },
  {
    row: 'uploads of one owner at once',
    options: ['DEFAULT.user_storage_quota'],
    applies: hasQuota,
    says: 'Uploads at once cannot exceed it together: the last one to end is refused.',
  },
  {
    row: "Keystone's limits",
    options: ['DEFAULT.use_keystone_limits'],
    applies: hasKeystoneLimits,
    says: 'A limit holds to the byte; upstream lets the upload pass that exceeds it.',
  },
  {
    row: 'Keystone is away with `use_keystone_limits`',
    options: ['DEFAULT.use_keystone_limits'],
    applies: hasKeystoneLimits,
    says: 'What was last known of a project holds while Keystone is away.',
  },
  {
    row: 'TLS to memcached',
    options: ['keystone_authtoken.memcache_tls_enabled'],
    applies: ({ keystone_authtoken }) => keystone_authtoken.memcache_tls_enabled,
    says: 'memcached is not used at all: tokens are remembered by each process.',
  },
  {
    row: '`metadata_encryption_key`: locations from before the key',
    options: ['DEFAULT.metadata_encryption_key'],
    applies: ({ DEFAULT }) => Boolean(DEFAULT.metadata_encryption_key),
    says: 'Locations from before the key are read as they are; upstream fails with them.',
  },
  {
    row: '`metadata_encryption_key` that is not that of the database',
    options: ['DEFAULT.metadata_encryption_key'],
    applies: ({ DEFAULT }) => Boolean(DEFAULT.metadata_encryption_key),
    says: 'With another key than that of the database, the service does not start.',
  },
  {
    row: '`delayed_delete`: a location that is removed from an image',
    options: ['DEFAULT.delayed_delete'],
    applies: ({ DEFAULT }) => DEFAULT.delayed_delete,
    says: 'It is about deleted images; the data of a location that is removed from an image goes at once.',
  },
  {
    row: 'request id longer than `max_request_id_length`',
    options: ['DEFAULT.max_request_id_length'],
    applies: sets(['DEFAULT', 'max_request_id_length']),
    says: 'A request with a longer id gets 431; upstream fails with 500.',
  },
  {
    row: '`max_parallel_stores`',
    options: ['image_import_opts.max_parallel_stores'],
    applies: sets(['image_import_opts', 'max_parallel_stores']),
    says: 'All stores are filled at once from one reading.',
  },
  {
    row: '`[import_filtering_opts] allowed_hosts`, `disallowed_hosts`',
    options: ['import_filtering_opts.allowed_hosts', 'import_filtering_opts.disallowed_hosts'],
    applies: sets(['import_filtering_opts', 'allowed_hosts'], ['import_filtering_opts', 'disallowed_hosts']),
    says: 'They hold for http locations too, when these are added and each time they are read.',
  },
  {
    row: '`disallowed_hosts`',
    options: ['import_filtering_opts.disallowed_hosts'],
    applies: ({ import_filtering_opts }) => import_filtering_opts.disallowed_hosts.length > 0,
    says: 'Other spellings of the same address are refused as well.',
  },
  {
    row: 'schemes of web-download',
    options: ['import_filtering_opts.allowed_schemes', 'import_filtering_opts.disallowed_schemes'],
    applies: ({ import_filtering_opts: { allowed_schemes } }) =>
      allowed_schemes.some((scheme) => !['http', 'https'].includes(scheme)) || allowed_schemes.length === 0,
    says: 'web-download speaks http and https only.',
  },
  {
    row: 'image cache: `image_cache_max_size`',
    options: ['DEFAULT.image_cache_max_size'],
    applies: hasCache,
    says: 'It is never exceeded, so that no cron job is needed; larger images are not cached.',
  },
  {
    row: '`kombu_compression = bz2`, `rabbit_login_method = RABBIT-CR-DEMO`',
    options: ['oslo_messaging_rabbit.kombu_compression', 'oslo_messaging_rabbit.rabbit_login_method'],
    applies: ({ oslo_messaging_rabbit: { kombu_compression, rabbit_login_method } }) =>
      kombu_compression === 'bz2' || rabbit_login_method === 'RABBIT-CR-DEMO',
    says: 'Messages are not compressed with bz2; RABBIT-CR-DEMO is refused.',
  },
  {
    row: 'a plugin in `image_import_plugins` that is not there',
    options: ['image_import_opts.image_import_plugins'],
    applies: ({ image_import_opts }) => image_import_opts.image_import_plugins.length > 0,
    says: 'One that is not there keeps the service from starting; upstream leaves it out.',
  },
  {
    row: '`load_metadefs` without a path, and no folder at `metadata_source_path`',
    options: ['DEFAULT.metadata_source_path'],
    applies: sets(['DEFAULT', 'metadata_source_path']),
    says: 'Where the folder is missing, load_metadefs loads the definitions that come with the service.',
  },

  // --- what clients notice: always
  {
    row: 'data that is not of the stated format is accepted',
    applies: ({ image_format }) => image_format.require_image_format_match,
    says: 'Data that is not of the stated disk_format is refused with 415, as by newer releases.',
  },
  {
    row: 'a qcow2 file with a backing or data file is accepted',
    applies: always,
    says: 'qcow2 files with a backing or a data file are refused with 415.',
  },
  {
    row: 'explanation of some 403 and 409',
    applies: always,
    says: 'Some texts of 403 and 409 are shorter: the reason stands alone.',
  },
  { row: '204 answers', applies: always, says: 'Answers 204 have no Content-Type and no Content-Length.' },
  { row: 'Range of data in an http store', applies: always, says: 'Ranges of data in an http store are served.' },
  {
    row: 'sorting by a text or size: none, empty and 0',
    applies: always,
    says: 'Lists sorted by name or size take none, empty and 0 as the same.',
  },
  { row: 'JSON bodies', applies: always, says: 'JSON bodies have a limit: [glimpse] json_body_limit.' },
  {
    row: 'version list ends at 2.16',
    applies: always,
    says: 'The version list is that of the newest Glance: 2.17, with a cache 2.18.',
  },
  {
    row: '`schema-image.json` is missing',
    applies: (config) => config.findFile('schema-image.json') === undefined,
    says: 'There is no schema-image.json: the properties that upstream’s packages declare are declared here.',
  },
  {
    row: 'SIGTERM',
    applies: always,
    says: 'Transfers finish when the service stops, within graceful_shutdown_timeout.',
  },

  // --- what they notice with this configuration
  {
    row: 'Keystone does not answer',
    applies: ({ paste_deploy }) => (paste_deploy.flavor ?? '').includes('keystone'),
    says: 'While Keystone is away, requests get 503 instead of 401.',
  },
  {
    row: 'whose limits in Keystone count',
    applies: hasKeystoneLimits,
    says: 'Limits are those of the owner of an image, not of the project of the caller.',
  },
  {
    row: 'tokens in memcached',
    applies: hasMemcached,
    says: 'A revoked token may live 5 seconds longer than memcached remembers it.',
  },
  {
    row: 'locations of an import into several stores',
    applies: hasStores,
    says: 'An import into several stores shows all of its locations at once, at its end.',
  },
  {
    row: 'reserved stores in `DELETE /v2/stores/{store}/{image}`',
    applies: hasStores,
    says: 'Reserved stores are no stores for clients.',
  },
  {
    row: 'copy-image',
    applies: (config) => imports('copy-image')(config) && hasStores(config),
    says: 'copy-image stages nothing: it reads the image while it writes.',
  },
  {
    row: 'user, password and query of `uri` in tasks and messages',
    applies: imports('web-download'),
    says: 'Tasks do not show the user, password and query of a web-download’s address.',
  },
  {
    row: 'properties that `glance-download` copies',
    applies: imports('glance-download'),
    says: 'glance-download copies extra properties only, no base attributes.',
  },
  {
    row: 'decompression without limit',
    applies: plugs('image_decompression'),
    says: 'Decompression stops at the size that the image may have.',
  },
  {
    row: 'time of `qemu-img convert`',
    applies: plugs('image_conversion'),
    says: 'A conversion may take [glimpse] import_program_timeout at most.',
  },
  {
    row: 'locations in the answer to PATCH',
    applies: ({ DEFAULT }) => DEFAULT.show_multiple_locations,
    says: 'PATCH of locations answers as every later answer shows them.',
  },
  {
    row: 'property names that hold `os_glance` elsewhere than at their beginning',
    applies: ({ DEFAULT }) => Boolean(DEFAULT.property_protection_file),
    says: 'Only names that begin with os_glance are free of property protection.',
  },
  {
    row: 'image cache: ranges',
    applies: hasCache,
    says: 'Ranges are served from the image cache.',
  },
  {
    row: 'image cache: first download',
    applies: hasCache,
    says: 'The first download of an image has a Content-Length.',
  },
  {
    row: 'image cache: concurrent downloads of what is not cached',
    applies: hasCache,
    says: 'However many want an image that is not cached, the store is read once.',
  },
  {
    row: 'times of MySQL and MariaDB, which hold whole seconds',
    applies: isMysql,
    says: 'Times are cut to the second, not rounded.',
  },
  {
    row: "text that upstream's columns of MySQL cannot hold",
    applies: isMysql,
    says: 'Text that the columns of MySQL cannot hold is refused with 400.',
  },
  {
    row: 'a message broker that is away',
    applies: hasBroker,
    says: 'Requests never wait for the message broker; messages do, in a queue of [glimpse] notification_queue_length.',
  },
  {
    row: '`timestamp` of notifications',
    applies: hasNotifications,
    says: 'Times in notifications are to the millisecond.',
  },
  {
    row: 'a download that its client ends early',
    applies: hasNotifications,
    says: 'A download that its client ends early is told as image.send of priority error.',
  },
]

/** What clients may notice of a switch with this configuration. */
export const noticedBy = (config: Config): readonly Difference[] =>
  DIFFERENCES.filter(({ options, applies }) => options === undefined && applies(config))
