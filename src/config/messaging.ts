// The groups of oslo.messaging, and those of notifications that upstream does not have.
import { bool, choice, float, integer, list, multi, type OptionGroup, text } from './options.ts'

/** In `[DEFAULT]`. */
export const messaging = {
  transport_url: text({
    default: 'rabbit://',
    secret: true,
    help: 'Where the message broker is: `rabbit://user:password@host:5672,user:password@other:5672/vhost?option=value`. Options in the query replace those of `[oslo_messaging_rabbit]`.',
  }),
  control_exchange: text({ default: 'glance', help: 'Exchange that notifications are published to.' }),
  executor_thread_pool_size: integer({
    default: 64,
    deprecated: ['rpc_thread_pool_size'],
    help: 'Accepted for compatibility: the service makes no remote calls.',
  }),
  rpc_response_timeout: integer({
    default: 60,
    help: 'Accepted for compatibility: the service makes no remote calls.',
  }),
  rpc_ping_enabled: bool({ default: false, help: 'Accepted for compatibility: the service answers no remote calls.' }),
} as const satisfies OptionGroup

export const oslo_messaging_notifications = {
  driver: multi({
    default: [],
    deprecated: ['DEFAULT.notification_driver'],
    help: 'How others are told of what happens: `messagingv2`, `messaging` (RabbitMQ, with and without an envelope), `webhook`, `log`, `routing`, `test`, `noop`. Several may be given. When not set, nobody is told.',
  }),
  transport_url: text({
    secret: true,
    deprecated: ['DEFAULT.notification_transport_url'],
    help: 'The message broker for notifications. When not set, that of `[DEFAULT]`.',
  }),
  topics: list({
    default: ['notifications'],
    deprecated: ['DEFAULT.notification_topics', 'rpc_notifier2.topics'],
    help: 'Each notification is published under each of these, as `topic.priority`.',
  }),
  retry: integer({
    default: -1,
    help: 'How often a message that the broker did not take is tried again before it is dropped; -1 means for ever. Requests never wait for it.',
  }),
  routing_config: text({
    default: '',
    deprecated: ['DEFAULT.routing_notifier_config'],
    help: 'YAML file that says which driver gets what, for the driver `routing`.',
  }),
} as const satisfies OptionGroup

const rpcOnly = 'Accepted for compatibility: only of use to remote calls or consumers.'

export const oslo_messaging_rabbit = {
  amqp_durable_queues: bool({ default: false, help: 'Declare exchange and queues as durable.' }),
  amqp_auto_delete: bool({ default: false, help: 'Declare exchange and queues as auto-delete.' }),
  rpc_conn_pool_size: integer({ default: 30, min: 1, help: rpcOnly }),
  conn_pool_min_size: integer({ default: 2, help: rpcOnly }),
  conn_pool_ttl: integer({ default: 1200, help: rpcOnly }),
  ssl: bool({ default: false, deprecated: ['rabbit_use_ssl'], help: 'Talk to the broker over TLS.' }),
  ssl_version: choice(['', 'SSLv23', 'TLSv1', 'TLSv1_1', 'TLSv1_2', 'TLSv1_3'], {
    default: '',
    ignoreCase: true,
    deprecated: ['kombu_ssl_version'],
    help: 'The one version of TLS to use; empty, like `SSLv23`, leaves it to both ends.',
  }),
  ssl_key_file: text({
    default: '',
    deprecated: ['kombu_ssl_keyfile'],
    help: 'File of the key of `ssl_cert_file`.',
  }),
  ssl_cert_file: text({
    default: '',
    deprecated: ['kombu_ssl_certfile'],
    help: 'File of the certificate that this service shows to the broker.',
  }),
  ssl_ca_file: text({
    default: '',
    deprecated: ['kombu_ssl_ca_certs'],
    help: 'File of the certificates by which the broker is known. When empty, any certificate of the broker is accepted.',
  }),
  ssl_enforce_hostname_verification: bool({
    default: true,
    help: "Whether the broker's certificate must be for its host name. Only with `ssl_ca_file`.",
  }),
  ssl_enforce_fips_mode: bool({ default: false, help: 'Accepted for compatibility.' }),
  heartbeat_in_pthread: bool({ default: false, help: 'Accepted for compatibility.' }),
  kombu_reconnect_delay: float({ default: 1, min: 0, help: rpcOnly }),
  kombu_reconnect_splay: float({ default: 0, min: 0, help: rpcOnly }),
  kombu_compression: text({
    help: 'How messages are compressed: `gzip` or `zlib` (the same), `brotli` or `zstd`. When not set, not at all.',
  }),
  kombu_missing_consumer_retry_timeout: integer({
    default: 60,
    deprecated: ['kombu_reconnect_timeout'],
    help: rpcOnly,
  }),
  kombu_failover_strategy: choice(['round-robin', 'shuffle'], {
    default: 'round-robin',
    help: 'Accepted for compatibility: the hosts of `transport_url` are tried in turn, beginning with any of them.',
  }),
  rabbit_login_method: choice(['PLAIN', 'AMQPLAIN', 'EXTERNAL', 'RABBIT-CR-DEMO'], {
    default: 'AMQPLAIN',
    help: 'How this service logs in to the broker; `EXTERNAL` is by its certificate. `RABBIT-CR-DEMO` is not supported.',
  }),
  rabbit_retry_interval: integer({
    default: 1,
    min: 1,
    help: 'Seconds before the broker is tried again for the first time.',
  }),
  rabbit_retry_backoff: integer({
    default: 2,
    min: 0,
    help: 'Seconds by which this time grows with each further attempt.',
  }),
  rabbit_interval_max: integer({ default: 30, min: 1, help: 'Longest such time, in seconds.' }),
  rabbit_ha_queues: bool({ default: false, help: 'Declare queues with `x-ha-policy: all`, for RabbitMQ before 3.0.' }),
  rabbit_quorum_queue: bool({
    default: false,
    help: 'Declare queues as quorum queues, which are always durable. Not together with `rabbit_ha_queues`.',
  }),
  rabbit_transient_quorum_queue: bool({ default: false, help: rpcOnly }),
  rabbit_quorum_delivery_limit: integer({
    default: 0,
    help: 'How often a quorum queue delivers a message that is not acknowledged before it drops it; 0 means no limit.',
  }),
  rabbit_quorum_max_memory_length: integer({
    default: 0,
    deprecated: ['rabbit_quroum_max_memory_length'],
    help: 'How many messages a quorum queue keeps in memory; 0 means no limit.',
  }),
  rabbit_quorum_max_memory_bytes: integer({
    default: 0,
    deprecated: ['rabbit_quroum_max_memory_bytes'],
    help: 'How many bytes of messages a quorum queue keeps in memory; 0 means no limit.',
  }),
  rabbit_transient_queues_ttl: integer({ default: 1800, min: 0, help: rpcOnly }),
  rabbit_qos_prefetch_count: integer({ default: 0, help: rpcOnly }),
  heartbeat_timeout_threshold: integer({
    default: 60,
    min: 0,
    help: 'Seconds of silence after which a connection to the broker is taken for lost; 0 waits for ever.',
  }),
  heartbeat_rate: integer({
    default: 3,
    help: 'Accepted for compatibility: a heartbeat is sent in each half of that time.',
  }),
  direct_mandatory_flag: bool({ default: true, help: rpcOnly }),
  enable_cancel_on_failover: bool({ default: false, help: rpcOnly }),
  use_queue_manager: bool({ default: false, help: rpcOnly }),
  hostname: text({ help: rpcOnly }),
  processname: text({ help: rpcOnly }),
  rabbit_stream_fanout: bool({ default: false, help: rpcOnly }),
} as const satisfies OptionGroup

export const glimpse_webhook = {
  urls: list({
    default: [],
    secret: true,
    help: 'Where the driver `webhook` posts notifications to. Each of these has its own queue.',
  }),
  secret: text({
    secret: true,
    help: 'Key with which each request is signed, as text or as `whsec_` and base64. When not set, requests are not signed.',
  }),
  mode: choice(['structured', 'binary'], {
    default: 'structured',
    help: 'Whether the attributes of a CloudEvent stand in the body, where the signature covers them, or in headers.',
  }),
  timeout: float({ default: 10, min: 0.001, help: 'Seconds that a receiver gets to answer.' }),
  retry: integer({
    default: 20,
    min: -1,
    help: 'How often a notification that a receiver did not take is tried again before it is dropped; -1 means for ever.',
  }),
  retry_interval: float({
    default: 1,
    min: 0.001,
    help: 'Seconds before the first of these; the time doubles with each.',
  }),
  retry_interval_max: float({ default: 30, min: 0.001, help: 'Longest such time, in seconds.' }),
  ca_file: text({ help: 'File of the certificates by which receivers are known. When not set, those of the system.' }),
} as const satisfies OptionGroup

/** In `[glimpse]`. */
export const notificationQueue = {
  notification_queue_length: integer({
    default: 10_000,
    min: 1,
    help: 'Notifications that wait in a process for a broker or receiver that is away. What comes when so many wait is dropped, with a warning.',
  }),
  notification_queue_size: integer({
    default: 67_108_864,
    min: 1,
    help: 'The same as a size: characters in all messages that wait.',
  }),
  notification_drain_timeout: float({
    default: 5,
    min: 0,
    help: 'Seconds that the service, when it stops, gives waiting notifications to be delivered.',
  }),
} as const satisfies OptionGroup
