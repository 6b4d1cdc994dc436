/** What an option without effect means for an operator who sets it. */
export interface Ignored {
  readonly why: string
  /** Whether something that was relied on is not there. */
  readonly matters?: true
}

const LOG_SHAPE: Ignored = { why: 'log lines have one shape: that of the defaults, or JSON with use_json' }
const LOG_FILES: Ignored = { why: 'log files are not rotated by the service: leave it to logrotate, with SIGHUP' }
const SYSLOG: Ignored = {
  why: 'the service logs to log_file or standard error, which systemd passes on',
  matters: true,
}
const POOL: Ignored = { why: 'each process has one connection to each memcached server' }
const MEMCACHE_TLS: Ignored = { why: 'there is no TLS to memcached', matters: true }
const REMOTE: Ignored = { why: 'checks that ask another server deny', matters: true }
const HEALTH: Ignored = { why: '/healthcheck knows disable_by_file_path only', matters: true }
const BARBICAN: Ignored = { why: 'nothing is polled for' }

/**
 * Options that files may have and that nothing reads, by group: the test of coverage finds no others, and each of these.
 * The list only shrinks.
 */
export const IGNORED_OPTIONS: Readonly<Record<string, Ignored>> = {
  'DEFAULT.default_log_levels': { why: 'debug decides for the whole service' },
  'DEFAULT.log_config_append': { why: 'there is no logging configuration in Python’s format', matters: true },
  'DEFAULT.log_date_format': LOG_SHAPE,
  'DEFAULT.log_rotate_interval': LOG_FILES,
  'DEFAULT.log_rotate_interval_type': LOG_FILES,
  'DEFAULT.log_rotation_type': LOG_FILES,
  'DEFAULT.logging_debug_format_suffix': LOG_SHAPE,
  'DEFAULT.logging_default_format_string': LOG_SHAPE,
  'DEFAULT.logging_exception_prefix': LOG_SHAPE,
  'DEFAULT.logging_user_identity_format': LOG_SHAPE,
  'DEFAULT.max_logfile_count': LOG_FILES,
  'DEFAULT.max_logfile_size_mb': LOG_FILES,
  'DEFAULT.rate_limit_burst': { why: 'log lines are not counted' },
  'DEFAULT.rate_limit_except_level': { why: 'log lines are not counted' },
  'DEFAULT.rate_limit_interval': { why: 'log lines are not counted' },
  'DEFAULT.syslog_log_facility': SYSLOG,
  'DEFAULT.tcp_keepidle': { why: 'the time of the system counts (net.ipv4.tcp_keepalive_time)' },
  'DEFAULT.use_journal': SYSLOG,
  'DEFAULT.use_stderr': { why: 'the service logs to one place: log_file, or standard error without it' },
  'DEFAULT.use_syslog': SYSLOG,
  'barbican.number_of_retries': BARBICAN,
  'barbican.retry_delay': BARBICAN,
  'barbican.send_service_user_token': { why: 'certificates are fetched with the token of the user' },
  'database.asyncio_connection': { why: 'connection is used' },
  'database.synchronous_reader': { why: 'lists from slave_connection may be behind, and wait for nothing' },
  'healthcheck.allowed_source_ranges': HEALTH,
  'healthcheck.disable_by_file_paths': HEALTH,
  'healthcheck.enable_by_file_paths': HEALTH,
  'healthcheck.ignore_proxied_requests': HEALTH,
  'image_import_opts.max_parallel_stores': { why: 'an import writes to all of its stores at once' },
  'keystone_authtoken.auth_version': { why: 'version 3 of the Identity API is spoken' },
  'keystone_authtoken.delay_auth_decision': { why: 'allow_anonymous_access decides about requests without a token' },
  'keystone_authtoken.enforce_token_bind': { why: 'Keystone does not bind tokens any more' },
  'keystone_authtoken.memcache_pool_conn_get_timeout': POOL,
  'keystone_authtoken.memcache_pool_maxsize': POOL,
  'keystone_authtoken.memcache_pool_unused_timeout': POOL,
  'keystone_authtoken.memcache_tls_allowed_ciphers': MEMCACHE_TLS,
  'keystone_authtoken.memcache_tls_cafile': MEMCACHE_TLS,
  'keystone_authtoken.memcache_tls_certfile': MEMCACHE_TLS,
  'keystone_authtoken.memcache_tls_keyfile': MEMCACHE_TLS,
  'keystone_authtoken.memcache_use_advanced_pool': POOL,
  'oslo_policy.remote_content_type': REMOTE,
  'oslo_policy.remote_ssl_ca_crt_file': REMOTE,
  'oslo_policy.remote_ssl_client_crt_file': REMOTE,
  'oslo_policy.remote_ssl_client_key_file': REMOTE,
  'oslo_policy.remote_ssl_verify_server_crt': REMOTE,
  'oslo_policy.remote_timeout': REMOTE,
  'paste_deploy.config_file': { why: 'the pipeline follows flavor; what the file adds to it is named below' },
  'task.task_executor': { why: 'both values mean the same' },
  'task.work_dir': { why: 'imports of the tasks API go through the staging area' },
  'wsgi.python_interpreter': { why: 'there is no Python' },
}
