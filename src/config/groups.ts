// The groups of options, named as in Glance's own files, so that such a file works here as it is.
import {
  glimpse_webhook,
  messaging,
  notificationQueue,
  oslo_messaging_notifications,
  oslo_messaging_rabbit,
} from './messaging.ts'
import {
  bool,
  bytes,
  choice,
  dict,
  float,
  integer,
  list,
  multi,
  type OptionGroup,
  oneOf,
  port,
  text,
  wholeNumber,
} from './options.ts'
import { registryClient, registryShared } from './registry.ts'

/** Whether and how this process listens. */
const listening = {
  bind_host: text({ default: '0.0.0.0', help: 'Address to listen on; `::` means every address of IPv6 and IPv4.' }),
  bind_port: port({ default: 9292, help: 'TCP port to listen on.' }),
  backlog: integer({ default: 4096, min: 1, help: 'How many connections may wait to be accepted.' }),
  tcp_keepidle: integer({
    default: 600,
    min: 1,
    help: 'Seconds without traffic after which TCP asks whether the other end of a connection is still there.',
  }),
  workers: integer({
    min: 0,
    help: 'Number of worker processes; 0 serves everything in one process. When not set, one for each CPU, at most 8.',
  }),
  max_header_line: integer({
    default: 16_384,
    min: 0,
    help: 'Longest accepted header line of a request, in bytes; 0 means no limit. Large Keystone tokens need more.',
  }),
  http_keepalive: bool({ default: true, help: 'Keep a connection open after a response, for the next request.' }),
  client_socket_timeout: integer({
    default: 900,
    min: 0,
    help: 'Seconds without a byte from or to a client after which its connection is closed; 0 waits for ever.',
  }),
  graceful_shutdown_timeout: integer({
    default: 60,
    min: 0,
    help: 'Seconds that running requests get to finish when the service stops; 0 waits for ever.',
  }),
} as const satisfies OptionGroup

const LOG_LEVELS =
  'amqp=WARN,boto=WARN,sqlalchemy=WARN,suds=INFO,oslo.messaging=INFO,oslo_messaging=INFO,iso8601=WARN,' +
  'requests.packages.urllib3.connectionpool=WARN,urllib3.connectionpool=WARN,websocket=WARN,' +
  'requests.packages.urllib3.util.retry=WARN,urllib3.util.retry=WARN,keystonemiddleware=WARN,routes.middleware=WARN,' +
  'stevedore=WARN,taskflow=WARN,keystoneauth=WARN,oslo.cache=INFO,oslo_policy=INFO,dogpile.core.dogpile=INFO'

const logging = {
  debug: bool({ default: false, mutable: true, help: 'Also log what is of interest only when looking for an error.' }),
  log_config_append: text({
    mutable: true,
    deprecated: ['log_config'],
    help: 'File with a logging configuration of its own. It replaces the other logging options.',
  }),
  log_date_format: text({ default: '%Y-%m-%d %H:%M:%S', help: 'How the time is written in log lines (strftime).' }),
  log_file: text({ deprecated: ['logfile'], help: 'File to log to; standard error when not set.' }),
  log_dir: text({ deprecated: ['logdir'], help: 'Directory of `log_file`, when that is a relative path.' }),
  use_syslog: bool({ default: false, help: 'Log to syslog.' }),
  use_journal: bool({ default: false, help: 'Log to the journal of systemd.' }),
  syslog_log_facility: text({ default: 'LOG_USER', help: 'Facility under which syslog files the lines.' }),
  use_json: bool({ default: false, help: 'Write each log line as one JSON object.' }),
  use_stderr: bool({ default: false, help: 'Log to standard error in addition to other places.' }),
  log_rotate_interval: integer({
    default: 1,
    help: 'Time after which a new log file is begun, counted in units of `log_rotate_interval_type`.',
  }),
  log_rotate_interval_type: choice(['seconds', 'minutes', 'hours', 'days', 'weekday', 'midnight'], {
    default: 'days',
    ignoreCase: true,
    help: 'Unit of `log_rotate_interval`.',
  }),
  max_logfile_count: integer({ default: 30, help: 'How many rotated log files are kept.' }),
  max_logfile_size_mb: integer({ default: 200, help: 'Size in MiB at which a log file is rotated.' }),
  log_rotation_type: choice(['interval', 'size', 'none'], {
    default: 'none',
    ignoreCase: true,
    help: 'What makes the service begin a new log file: time, size, or nothing.',
  }),
  logging_context_format_string: text({
    default:
      '%(asctime)s.%(msecs)03d %(process)d %(levelname)s %(name)s [%(global_request_id)s %(request_id)s %(user_identity)s] %(instance)s%(message)s',
    help: 'Shape of a log line that belongs to a request.',
  }),
  logging_default_format_string: text({
    default: '%(asctime)s.%(msecs)03d %(process)d %(levelname)s %(name)s [-] %(instance)s%(message)s',
    help: 'Shape of a log line that belongs to no request.',
  }),
  logging_debug_format_suffix: text({
    default: '%(funcName)s %(pathname)s:%(lineno)d',
    help: 'What follows the message of a line at level DEBUG.',
  }),
  logging_exception_prefix: text({
    default: '%(asctime)s.%(msecs)03d %(process)d ERROR %(name)s %(instance)s',
    help: 'What precedes each line of a stack trace.',
  }),
  logging_user_identity_format: text({
    default: '%(user)s %(project)s %(domain)s %(system_scope)s %(user_domain)s %(project_domain)s',
    help: 'Shape of `%(user_identity)s` in `logging_context_format_string`.',
  }),
  default_log_levels: list({
    default: LOG_LEVELS.split(','),
    help: 'Lowest level of what a logger writes, as `logger=LEVEL`.',
  }),
  rate_limit_interval: integer({ default: 0, help: 'Seconds over which log lines are counted; 0 counts nothing.' }),
  rate_limit_burst: integer({ default: 0, help: 'How many log lines `rate_limit_interval` lets through.' }),
  rate_limit_except_level: choice(['CRITICAL', 'ERROR', 'INFO', 'WARNING', 'DEBUG', ''], {
    default: 'CRITICAL',
    help: 'Lines at this level or above are not counted; empty counts all of them.',
  }),
} as const satisfies OptionGroup

const limits = {
  image_member_quota: integer({ default: 128, help: 'Members that an image may have; negative means no limit.' }),
  image_property_quota: integer({
    default: 128,
    help: 'Extra properties that an image may have; negative means no limit.',
  }),
  image_tag_quota: integer({ default: 128, help: 'Tags that an image may have; negative means no limit.' }),
  image_location_quota: integer({ default: 10, help: 'Locations that an image may have; negative means no limit.' }),
  image_size_cap: integer({
    default: 1_099_511_627_776,
    min: 1,
    max: 2 ** 63,
    help: 'Largest image data that can be uploaded, in bytes.',
  }),
  user_storage_quota: bytes({
    default: 0,
    help: 'How much data all images of one owner may have together, every copy counted; 0 means no limit.',
  }),
  use_keystone_limits: bool({
    default: false,
    help: 'Take limits per project from Keystone, as `[oslo_limit]` says; `user_storage_quota` is then not used.',
  }),
  limit_param_default: integer({ default: 25, min: 1, help: 'Images in a page when the request asks for no number.' }),
  api_limit_max: integer({ default: 1000, min: 1, help: 'Most images in a page, whatever the request asks for.' }),
  max_request_id_length: integer({
    default: 64,
    min: 0,
    help: 'Longest X-Openstack-Request-ID taken from a client, in characters.',
  }),
} as const satisfies OptionGroup

const IMPORT_METHODS = ['glance-direct', 'web-download', 'copy-image', 'glance-download'] as const

/** What the service does and shows. */
const service = {
  allow_anonymous_access: bool({
    default: false,
    help: 'Let requests without a token read what everybody may see, instead of answering them with 401.',
  }),
  public_endpoint: text({
    help: 'URL of this service as clients know it, for the links in `/versions`. When not set, the URL of the request.',
  }),
  show_image_direct_url: bool({ default: false, help: "Show where an image's data is, as `direct_url`." }),
  show_multiple_locations: bool({
    default: false,
    deprecatedForRemoval: 'policies decide who may see and change locations',
    help: 'Show all locations of an image, as `locations`, and let clients change them.',
  }),
  hashing_algorithm: text({
    default: 'sha512',
    help: 'Algorithm of the digest kept in `os_hash_value` of new image data.',
  }),
  do_secure_hash: bool({
    default: true,
    help: 'Compute the digest of data that a client added as a location, in the background.',
  }),
  http_retries: integer({ default: 3, help: 'How often the digest of an added location is tried again.' }),
  metadata_encryption_key: text({
    secret: true,
    deprecatedForRemoval: 'it hides locations in the database only, from somebody who can read this file as well',
    help: 'Key (16, 24 or 32 characters) with which locations are encrypted in the database.',
  }),
  property_protection_file: text({
    help: 'File of rules that say who may create, read, update and delete which property. When not set, none is guarded.',
  }),
  property_protection_rule_format: choice(['roles', 'policies'], {
    default: 'roles',
    help: 'Whether the rules in `property_protection_file` name roles or policies.',
  }),
  delayed_delete: bool({
    default: false,
    help: 'Only mark the data of a deleted image; glance-scrubber removes it later.',
  }),
  scrub_time: integer({
    default: 0,
    min: 0,
    help: 'Seconds for which glance-scrubber leaves the data of an image alone that was deleted with `delayed_delete`.',
  }),
  scrub_pool_size: integer({ default: 1, min: 1, help: 'Images whose data glance-scrubber removes at once.' }),
  wakeup_time: integer({ default: 300, min: 0, help: 'Seconds between two passes of glance-scrubber as a daemon.' }),
  daemon: bool({ default: false, help: 'glance-scrubber goes on until it is told to end, as with `--daemon`.' }),
  metadata_source_path: text({
    default: '/etc/glance/metadefs/',
    help: 'Directory of the metadata definitions that glance-manage loads.',
  }),
  default_publisher_id: text({ default: 'image.localhost', help: 'Who notifications say they come from.' }),
  disabled_notifications: list({
    default: [],
    help: 'Notifications which are not sent: single ones such as `image.send`, or all whose name begins with a word, such as `metadef_tag`.',
  }),
} as const satisfies OptionGroup

/** Where image data goes. */
const data = {
  enabled_backends: dict({
    help: 'Stores, as `name:type,name:type`. Each store has its options in the group of its name, and what is missing there in `[backend_defaults]`. When not set, there is one store, described in `[glance_store]`.',
  }),
  node_staging_uri: text({
    default: 'file:///tmp/staging/',
    help: 'Directory (as a file URI) for data on its way into an image, when `enabled_backends` is not set.',
  }),
  enabled_import_methods: list({
    bounds: true,
    of: oneOf(IMPORT_METHODS),
    default: ['glance-direct', 'web-download', 'copy-image'],
    help: 'Ways of importing an image that clients may use.',
  }),
  worker_self_reference_url: text({
    help: 'URL under which the other nodes reach this one, for data that is staged here. When not set, `public_endpoint`.',
  }),
  image_cache_dir: text({
    help:
      'Directory of the image cache, on a local file system; created when it is missing. When not set, there is no ' +
      'cache. Downloads go through it when `[paste_deploy] flavor` contains caching or cachemanagement.',
  }),
  image_cache_driver: choice(['sqlite', 'xattr', 'centralized_db'], {
    default: 'centralized_db',
    ignoreCase: true,
    help:
      'What keeps the index of the image cache: a local database, extended attributes, or the service database, which ' +
      'then needs `worker_self_reference_url`. One that cannot be used is replaced by sqlite, with a warning.',
  }),
  image_cache_sqlite_db: text({
    default: 'cache.db',
    deprecatedForRemoval: 'the centralized_db driver needs no file',
    help: 'File of the sqlite driver, below `image_cache_dir`.',
  }),
  image_cache_max_size: integer({
    default: 10_737_418_240,
    min: 0,
    help:
      'Most bytes in the image cache, at every moment: what was read longest ago makes way for what comes. Larger ' +
      'images are not cached, and nothing is with 0.',
  }),
  image_cache_stall_time: integer({
    default: 86_400,
    min: 0,
    help:
      'Seconds without a new byte after which an unfinished file of the image cache is taken for abandoned; at least ' +
      '60 while a store is being read.',
  }),
} as const satisfies OptionGroup

const database = {
  connection: text({
    secret: true,
    help: 'URL of the database, such as `mysql+pymysql://user:password@host/glance` or `sqlite:////var/lib/glance/glance.sqlite`.',
  }),
  slave_connection: text({ secret: true, help: 'URL of a replica that lists of images and tasks are read from.' }),
  asyncio_connection: text({ secret: true, help: 'Accepted for compatibility: `connection` is used.' }),
  asyncio_slave_connection: text({ secret: true, help: 'Another name of `slave_connection`, where that is not set.' }),
  connection_parameters: text({ default: '', help: 'Parameters added to the URL, as `name=value&name=value`.' }),
  backend: text({ default: 'sqlalchemy', help: 'Accepted for compatibility.' }),
  sqlite_synchronous: bool({ default: true, help: 'Let SQLite wait until its data has reached the disk.' }),
  synchronous_reader: bool({
    default: true,
    help: 'Accepted and without effect: lists from `slave_connection` may be behind, all else sees every write.',
  }),
  mysql_sql_mode: text({
    default: 'TRADITIONAL',
    help: 'SQL mode of each MySQL session; empty leaves that of the server.',
  }),
  mysql_wsrep_sync_wait: integer({ help: 'Value of wsrep_sync_wait in each session of a Galera cluster.' }),
  connection_recycle_time: integer({
    default: 3600,
    deprecated: ['idle_timeout'],
    help: 'Seconds after which a connection is replaced by a new one when it is next used.',
  }),
  max_pool_size: integer({ default: 5, help: 'Connections that are kept open; 0 means no limit.' }),
  max_overflow: integer({
    default: 50,
    help: 'Connections opened beyond `max_pool_size` under load; -1 means no limit. A server has as many for reading as for writing.',
  }),
  pool_timeout: integer({ help: 'Seconds to wait for a free connection.' }),
  max_retries: integer({
    default: 10,
    help: 'How often the service tries to reach the database when it starts; -1 means for ever.',
  }),
  retry_interval: integer({ default: 10, help: 'Seconds between these attempts.' }),
  use_db_reconnect: bool({
    default: false,
    help: 'Let requests wait for a server that cannot be reached. A connection that was lost is replaced in any case.',
  }),
  db_retry_interval: integer({ default: 1, help: 'Seconds before a server that cannot be reached is tried again.' }),
  db_inc_retry_interval: bool({ default: true, help: 'Double this time after each attempt.' }),
  db_max_retry_interval: integer({ default: 10, help: 'Longest such time, in seconds.' }),
  db_max_retries: integer({ default: 20, help: 'How often it is tried again; -1 means for ever.' }),
  connection_debug: integer({
    default: 0,
    min: 0,
    max: 100,
    help: 'From 50 on, every SQL statement is logged, without its values.',
  }),
  connection_trace: bool({
    default: false,
    help: 'Say in a comment of each statement which line of code it comes from.',
  }),
} as const satisfies OptionGroup

const paste_deploy = {
  flavor: text({
    help: 'Which pipeline serves requests, such as `keystone` or `keystone+caching`. When not set, nobody is asked for a token.',
  }),
  config_file: text({
    help: 'The paste file. When not set, the one named like the last configuration file, such as `glance-api-paste.ini`.',
  }),
} as const satisfies OptionGroup

const glance_store = {
  default_backend: text({
    help: 'Store that takes image data when a request names none. Required with `enabled_backends`.',
  }),
  stores: list({
    default: ['file', 'http'],
    deprecatedForRemoval: 'use enabled_backends',
    help: 'Store types in use when `enabled_backends` is not set.',
  }),
  default_store: choice(
    [
      ...(['file', 'filesystem', 'http', 'https', 'swift', 'swift+http', 'swift+https', 'swift+config'] as const),
      ...(['rbd', 'cinder', 'vsphere', 's3'] as const),
    ],
    {
      default: 'file',
      deprecatedForRemoval: 'use default_backend',
      help: 'Store type that takes image data when `enabled_backends` is not set.',
    },
  ),
} as const satisfies OptionGroup

/** What the group of every store may hold, whatever its type. */
export const storeOptions = {
  store_description: text({ help: 'What users read about this store.' }),
  weight: integer({
    default: 0,
    help: 'Of several copies of an image, the one in the store of most weight is read first.',
  }),
} as const satisfies OptionGroup

/** Of the reserved store for data on its way into an image. */
const os_glance_staging_store = {
  filesystem_store_datadir: text({
    default: '/var/lib/glance/os_glance_staging_store',
    help: 'Directory for data on its way into an image, when `enabled_backends` is set. Nodes may share it.',
  }),
} as const satisfies OptionGroup

/** How this service logs in to Keystone; `auth_section` may name another group that holds these. */
export const keystonePlugin = {
  auth_type: text({
    deprecated: ['auth_plugin'],
    help: 'How this service logs in: `password` or `v3applicationcredential`.',
  }),
  auth_url: text({ help: 'URL of Keystone, for this service itself.' }),
  username: text({ deprecated: ['user_name'], help: 'Name of the user that this service logs in as.' }),
  user_id: text({ help: 'Id of this user, instead of name and domain.' }),
  password: text({ secret: true, help: 'Password of this user.' }),
  user_domain_id: text({ help: 'Id of the domain of this user.' }),
  user_domain_name: text({ help: 'Name of the domain of this user.' }),
  project_id: text({ deprecated: ['tenant_id'], help: 'Id of the project that this service works in.' }),
  project_name: text({ deprecated: ['tenant_name'], help: 'Name of this project.' }),
  project_domain_id: text({ help: 'Id of the domain of this project.' }),
  project_domain_name: text({ help: 'Name of the domain of this project.' }),
  domain_id: text({ help: 'Id of the domain that the token is for, instead of a project.' }),
  domain_name: text({ help: 'Name of this domain.' }),
  system_scope: text({ help: '`all` asks for a token for the whole system, instead of a project.' }),
  trust_id: text({ help: 'Id of the trust that the token is for.' }),
  default_domain_id: text({ help: 'Id of the domain of user and project where nothing else is said.' }),
  default_domain_name: text({ help: 'Name of the domain of user and project where nothing else is said.' }),
  token: text({ secret: true, help: 'Token to use as it is, instead of a password.' }),
  application_credential_id: text({ help: 'Id of the application credential to log in with, instead of a password.' }),
  application_credential_name: text({ help: "Name of this application credential, beside its user's name." }),
  application_credential_secret: text({ secret: true, help: 'Secret of this application credential.' }),
} as const satisfies OptionGroup

const keystone_authtoken = {
  www_authenticate_uri: text({
    deprecated: ['auth_uri'],
    help: 'URL of Keystone that is told to clients without a token.',
  }),
  auth_section: text({ help: 'Group that holds the options of this login instead of this one.' }),
  ...keystonePlugin,
  auth_version: text({ help: 'Version of the Keystone API to use. When not set, the newest that both know.' }),
  interface: text({ default: 'internal', help: 'Which kind of endpoint of Keystone to use.' }),
  region_name: text({ help: 'Region in which to look for Keystone.' }),
  delay_auth_decision: bool({
    default: false,
    help: 'Let requests with a bad token pass as unidentified, and leave the decision to what follows.',
  }),
  http_connect_timeout: integer({ help: 'Seconds to wait for an answer of Keystone.' }),
  http_request_max_retries: integer({ default: 3, help: 'How often a request to Keystone is repeated.' }),
  timeout: integer({ help: 'Seconds that a request to Keystone may take in all.' }),
  cache: text({ help: 'Accepted for compatibility.' }),
  certfile: text({ help: 'File of the certificate that this service shows to Keystone.' }),
  keyfile: text({ help: 'File of the key of this certificate.' }),
  cafile: text({ help: 'File of the certificates by which Keystone is known. When not set, those of the system.' }),
  insecure: bool({ default: false, help: "Accept any certificate of Keystone's. For tests only." }),
  memcached_servers: list({
    default: [],
    deprecated: ['memcache_servers'],
    help: 'Memcached servers, as `host:port`, that share what is known about tokens.',
  }),
  token_cache_time: integer({
    default: 300,
    help: 'Seconds for which the answer about a token is remembered; -1 asks Keystone every time.',
  }),
  memcache_security_strategy: choice(['None', 'MAC', 'ENCRYPT'], {
    default: 'None',
    ignoreCase: true,
    help: 'Whether what memcached keeps is signed, encrypted or neither.',
  }),
  memcache_secret_key: text({ secret: true, help: 'Key for `memcache_security_strategy`.' }),
  memcache_tls_enabled: bool({
    default: false,
    help: 'Talk to memcached over TLS, which is not there yet: memcached is then not used, with a warning.',
  }),
  memcache_tls_cafile: text({ help: 'File of the certificates by which memcached is known.' }),
  memcache_tls_certfile: text({ help: 'File of the certificate that this service shows to memcached.' }),
  memcache_tls_keyfile: text({ help: 'File of the key of this certificate.' }),
  memcache_tls_allowed_ciphers: text({ help: 'Ciphers to offer to memcached.' }),
  memcache_pool_dead_retry: integer({
    default: 300,
    help: 'Seconds after which a memcached server that failed is tried again.',
  }),
  memcache_pool_maxsize: integer({
    default: 10,
    help: 'Accepted for compatibility: each process has one connection to each server.',
  }),
  memcache_pool_socket_timeout: integer({ default: 3, help: 'Seconds to wait for memcached; half a second at most.' }),
  memcache_pool_unused_timeout: integer({ default: 60, help: 'Accepted for compatibility.' }),
  memcache_pool_conn_get_timeout: integer({ default: 10, help: 'Accepted for compatibility.' }),
  memcache_use_advanced_pool: bool({ default: true, help: 'Accepted for compatibility.' }),
  memcache_sasl_enabled: bool({ default: false, help: 'Log in to memcached.' }),
  memcache_username: text({ default: '', help: 'User name for memcached.' }),
  memcache_password: text({ default: '', secret: true, help: 'Password for memcached.' }),
  include_service_catalog: bool({ default: true, help: 'Ask Keystone for the catalog along with each token.' }),
  enforce_token_bind: text({ default: 'permissive', help: 'Accepted for compatibility.' }),
  service_token_roles: list({
    default: ['service'],
    help: 'A service token counts when its user has one of these roles.',
  }),
  service_token_roles_required: bool({
    default: true,
    help: 'Whether `service_token_roles` is enforced. Otherwise every valid token is a service token.',
  }),
  service_type: text({
    help: "Type of this service in Keystone's catalog, `image`. Access rules of application credentials need it.",
  }),
} as const satisfies OptionGroup

/** How the service asks Keystone for limits; it must be able to read those of all projects. */
const oslo_limit = {
  endpoint_id: text({ help: 'Id of the endpoint of this service in Keystone, whose limits count.' }),
  endpoint_service_type: text({ help: 'Type of the service that has this endpoint, when `endpoint_id` is not set.' }),
  endpoint_service_name: text({ help: 'Name of this service.' }),
  endpoint_region_name: text({ help: 'Region of this endpoint.' }),
  endpoint_interface: choice(['public', 'publicURL', 'internal', 'internalURL', 'admin', 'adminURL'], {
    default: 'public',
    help: 'Kind of this endpoint.',
  }),
  auth_section: text({ help: 'Group that holds the options of this login instead of this one.' }),
  ...keystonePlugin,
  certfile: text({ help: 'File of the certificate that this service shows to Keystone.' }),
  keyfile: text({ help: 'File of the key of this certificate.' }),
  cafile: text({ help: 'File of the certificates by which Keystone is known. When not set, those of the system.' }),
  insecure: bool({ default: false, help: "Accept any certificate of Keystone's. For tests only." }),
  timeout: integer({ help: 'Seconds to wait for an answer of Keystone.' }),
} as const satisfies OptionGroup

const oslo_policy = {
  enforce_new_defaults: bool({
    default: true,
    help: 'Use only the present default rules. Otherwise what an older default allowed is allowed as well.',
  }),
  policy_file: text({ default: 'policy.yaml', help: 'File of rules that replace defaults.' }),
  policy_dirs: multi({ default: ['policy.d'], help: 'Directory of further such files.' }),
  policy_default_rule: text({ default: 'default', help: 'Rule that decides when another is not defined.' }),
  remote_content_type: choice(['application/x-www-form-urlencoded', 'application/json'], {
    default: 'application/x-www-form-urlencoded',
    help: 'How the question is put to a remote server that decides. No effect: such checks deny.',
  }),
  remote_ssl_verify_server_crt: bool({
    default: false,
    help: 'Check the certificate of the remote server. No effect.',
  }),
  remote_ssl_ca_crt_file: text({ help: 'File of the certificates by which the remote server is known. No effect.' }),
  remote_ssl_client_crt_file: text({ help: 'File of the certificate that is shown to the remote server. No effect.' }),
  remote_ssl_client_key_file: text({ help: 'File of the key of this certificate. No effect.' }),
  remote_timeout: float({ default: 60, min: 0, help: 'Seconds to wait for the remote server. No effect.' }),
} as const satisfies OptionGroup

const CORS_REQUEST_HEADERS =
  'Content-MD5,X-Image-Meta-Checksum,X-Storage-Token,Accept-Encoding,X-Auth-Token,X-Identity-Status,X-Roles,' +
  'X-Service-Catalog,X-User-Id,X-Tenant-Id,X-OpenStack-Request-ID'

const cors = {
  allowed_origin: list({
    default: [],
    help: 'Web sites, as `https://host:port`, whose scripts may use the service. When empty, the service takes no part in CORS.',
  }),
  allow_credentials: bool({ default: true, help: 'Whether these scripts may send credentials.' }),
  expose_headers: list({
    default: ['X-Image-Meta-Checksum', 'X-Auth-Token', 'X-Subject-Token', 'X-Service-Token', 'X-OpenStack-Request-ID'],
    help: 'Response headers that these scripts may read.',
  }),
  max_age: integer({ default: 3600, help: 'Seconds for which a browser remembers what it may send.' }),
  allow_methods: list({
    default: ['GET', 'PUT', 'POST', 'DELETE', 'PATCH'],
    help: 'Request methods that these scripts may use.',
  }),
  allow_headers: list({
    default: CORS_REQUEST_HEADERS.split(','),
    help: 'Request headers that these scripts may set.',
  }),
} as const satisfies OptionGroup

const healthcheck = {
  detailed: bool({ default: false, help: 'Say why, and something about the machine. Not for the public.' }),
  backends: list({
    default: [],
    help: 'Checks to make: `disable_by_file`, `disable_by_files_ports`, `enable_by_files`.',
  }),
  allowed_source_ranges: list({ default: [], help: 'Networks that may ask; empty means every one.' }),
  ignore_proxied_requests: bool({ default: false, help: 'Do not answer requests that came through a proxy.' }),
  disable_by_file_path: text({
    help: 'While this file exists, the check answers 503, so that a load balancer looks elsewhere.',
  }),
  disable_by_file_paths: list({ default: [], help: 'The same for single ports, as `port:path`.' }),
  enable_by_file_paths: list({ default: [], help: 'Files that must exist for the check to answer 200.' }),
} as const satisfies OptionGroup

const oslo_middleware = {
  enable_proxy_headers_parsing: bool({
    default: false,
    help: 'Believe Forwarded and X-Forwarded-* headers. Only behind a proxy that replaces what clients send.',
  }),
} as const satisfies OptionGroup

const image_format = {
  container_formats: list({
    default: ['ami', 'ari', 'aki', 'bare', 'ovf', 'ova', 'docker', 'compressed'],
    deprecated: ['DEFAULT.container_formats'],
    help: 'Values of `container_format` that clients may use.',
  }),
  disk_formats: list({
    default: ['ami', 'ari', 'aki', 'vhd', 'vhdx', 'vmdk', 'raw', 'qcow2', 'vdi', 'iso', 'ploop'],
    deprecated: ['DEFAULT.disk_formats'],
    help: 'Values of `disk_format` that clients may use.',
  }),
  vmdk_allowed_types: list({
    default: ['streamOptimized', 'monolithicSparse'],
    help: 'Kinds of VMDK that may be uploaded; when empty, none.',
  }),
  require_image_format_match: bool({
    default: true,
    help: 'Refuse image data that is not of the format which its image states.',
  }),
  gpt_safety_checks_nonfatal: list({
    default: [],
    help: 'Checks of a GPT disk, such as `mbr`, which only warn when they fail.',
  }),
} as const satisfies OptionGroup

const task = {
  task_time_to_live: integer({
    default: 48,
    deprecated: ['DEFAULT.task_time_to_live'],
    help: 'Hours for which a finished task can be looked up.',
  }),
  task_executor: choice(['taskflow', 'eventlet'], {
    default: 'taskflow',
    help: 'Accepted for compatibility; both values mean the same.',
  }),
  work_dir: text({
    help: 'Accepted and without effect: imports of the tasks API go through the staging area, as others do.',
  }),
} as const satisfies OptionGroup

const wsgi = {
  task_pool_threads: integer({
    default: 16,
    min: 1,
    help: 'Background tasks, such as imports, that run at once in a process.',
  }),
  python_interpreter: text({ help: 'Accepted for compatibility.' }),
} as const satisfies OptionGroup

const networkPort = wholeNumber({ min: 1, max: 65_535 })

/** A list of what may not be used counts only where the list of what may be used is empty. */
const import_filtering_opts = {
  allowed_schemes: list({
    bounds: true,
    default: ['http', 'https'],
    help: 'Schemes of the URLs that web-download may use.',
  }),
  disallowed_schemes: list({
    bounds: true,
    default: [],
    help: 'Schemes it may not use; only looked at when `allowed_schemes` is empty.',
  }),
  allowed_hosts: list({
    bounds: true,
    default: [],
    help: 'Hosts that web-download may use, and http locations lead to; when empty, every host.',
  }),
  disallowed_hosts: list({
    bounds: true,
    default: [],
    help: 'Hosts that they may not use; only looked at when `allowed_hosts` is empty.',
  }),
  allowed_ports: list({ bounds: true, of: networkPort, default: [80, 443], help: 'Ports that web-download may use.' }),
  disallowed_ports: list({
    bounds: true,
    of: networkPort,
    default: [],
    help: 'Ports it may not use; only looked at when `allowed_ports` is empty.',
  }),
} as const satisfies OptionGroup

const image_import_opts = {
  image_import_plugins: list({
    bounds: true,
    default: [],
    help: 'What is done to the data of every import, in this order: `image_decompression`, `image_conversion`, `inject_image_metadata`, `no_op`, or the absolute path of a module or the name of a package that brings a plugin.',
  }),
  max_parallel_stores: integer({
    default: 1,
    min: 1,
    help: 'Accepted and without effect: an import reads its data once and writes to all of its stores at the same time.',
  }),
} as const satisfies OptionGroup

const glance_download_properties = {
  extra_properties: list({
    bounds: true,
    default: ['hw_', 'trait:', 'os_distro', 'os_secure_boot', 'os_type'],
    help: 'Beginnings of the names of properties that glance-download copies. Those of `os_glance` are never copied.',
  }),
} as const satisfies OptionGroup

const image_conversion = {
  output_format: choice(['qcow2', 'raw', 'vmdk'], {
    default: 'raw',
    help: 'Format that the plugin `image_conversion` makes of imported images. Discs (`iso`) stay as they are.',
  }),
} as const satisfies OptionGroup

const inject_metadata_properties = {
  ignore_user_roles: list({
    default: ['admin'],
    help: 'The plugin `inject_image_metadata` leaves images alone that are imported by users with one of these roles.',
  }),
  inject: dict({ help: 'Properties, as `name:value`, that it gives to the other images; none of `os_glance`.' }),
} as const satisfies OptionGroup

const key_manager = {
  backend: text({
    default: 'barbican',
    deprecated: ['api_class'],
    help: 'What keeps certificates and keys. Only Barbican is known: with another, the service warns and asks nobody.',
  }),
} as const satisfies OptionGroup

const barbican = {
  barbican_endpoint: text({ help: 'URL of Barbican. When not set, what the catalog says.' }),
  barbican_api_version: text({ help: 'Version of the API to use. When not set, `v1`.' }),
  auth_endpoint: text({
    deprecated: ['key_manager.auth_url'],
    help: 'URL of Keystone, which has the catalog. When not set, `auth_url` of `[keystone_authtoken]`.',
  }),
  barbican_endpoint_type: choice(['public', 'internal', 'admin'], {
    default: 'public',
    help: 'Which kind of endpoint of Barbican to use.',
  }),
  barbican_region_name: text({ help: 'Region in which to look for Barbican.' }),
  verify_ssl: bool({ default: true, help: "Check the certificate of Barbican's server." }),
  verify_ssl_path: text({
    help: 'File of the certificates by which this server is known. When not set, those of the system.',
  }),
  retry_delay: integer({ default: 1, help: 'Accepted for compatibility: nothing is polled for.' }),
  number_of_retries: integer({ default: 60, help: 'Accepted for compatibility: nothing is polled for.' }),
  send_service_user_token: bool({ default: false, help: 'Accepted for compatibility.' }),
} as const satisfies OptionGroup

/** What upstream has no option for. */
const glimpse = {
  lease_ttl: integer({
    default: 15,
    min: 1,
    help: 'Seconds after which the other processes take over the work of one that has fallen silent.',
  }),
  sweep_interval: integer({
    default: 30,
    min: 1,
    help: 'Seconds between two searches for what processes that died have left behind.',
  }),
  certificate_dir: text({
    help: 'Directory of the certificates that images are signed with, as `UUID.crt`, `.pem` or `.der`. When not set, the key manager has them.',
  }),
  limit_cache_time: integer({
    default: 0,
    min: 0,
    help: "Seconds for which Keystone's limits of a project are believed; 0 asks for each image and upload.",
  }),
  import_addresses: choice(['any', 'network', 'public'], {
    default: 'network',
    help: 'Addresses that web-download and http locations may lead to, whatever name leads there: `network` is all but loopback and link-local ones, where the services and the metadata of this machine answer (hosts in `allowed_hosts` may have these, too); `public` leaves out private and all other special ones as well.',
  }),
  import_stall_timeout: integer({
    default: 60,
    min: 1,
    max: 86_400,
    help: 'Seconds without a byte after which the connection of a download counts as broken. There is no limit for the whole.',
  }),
  import_retries: integer({
    default: 5,
    min: 0,
    help: 'Failures in a row, with less than a MiB between them, after which a download is given up.',
  }),
  import_connections: integer({
    default: 4,
    min: 1,
    max: 64,
    help: 'Connections of one download, where the server can send parts.',
  }),
  import_program_timeout: integer({
    default: 14_400,
    min: 1,
    max: 2_000_000,
    help: 'Seconds that a program such as qemu-img may work on one image, by the clock and of the processor.',
  }),
  json_body_limit: integer({ default: 1_048_576, min: 1, help: 'Largest JSON body of a request, in bytes.' }),
  ...registryShared,
  ...notificationQueue,
} as const satisfies OptionGroup

export const GROUPS = {
  DEFAULT: { ...listening, ...logging, ...limits, ...service, ...messaging, ...data, ...registryClient },
  glimpse,
  glimpse_webhook,
  database,
  paste_deploy,
  glance_store,
  keystone_authtoken,
  oslo_limit,
  oslo_policy,
  oslo_messaging_notifications,
  oslo_messaging_rabbit,
  cors,
  healthcheck,
  oslo_middleware,
  image_format,
  task,
  wsgi,
  import_filtering_opts,
  image_import_opts,
  key_manager,
  barbican,
  glance_download_properties,
  image_conversion,
  inject_metadata_properties,
  os_glance_staging_store,
} as const satisfies Readonly<Record<string, OptionGroup>>
