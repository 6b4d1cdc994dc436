import { type oslo_messaging_notifications, oslo_messaging_rabbit } from '../../config/messaging.ts'
import type { Option, Values } from '../../config/options.ts'
import { ServiceError } from '../../domain/errors.ts'
import type { Log } from '../../log.ts'
import type { NotifyDriver } from '../driver.ts'
import { type QueueOptions, queued } from '../queue.ts'
import { parseTransportUrl } from '../transport-url.ts'
import { type AmqpOptions, amqpSender, tryHosts } from './amqp.ts'

type RabbitOptions = Values<typeof oslo_messaging_rabbit>

export interface RabbitConfig {
  /** `transport_url` of `[DEFAULT]`, where notifications have none of their own. */
  readonly transportUrl: string
  readonly exchange: string
  readonly notifications: Values<typeof oslo_messaging_notifications>
  readonly rabbit: RabbitOptions
  readonly limits: Pick<QueueOptions, 'maxMessages' | 'maxSize'>
  readonly log: Log
}

/** The driver `messagingv2`, or `messaging` without the envelope. Throws `invalid`. */
export function rabbitDriver(config: RabbitConfig, { envelope }: { readonly envelope: boolean }): NotifyDriver {
  const { rabbit, ...amqp } = brokerOptions(config, envelope)
  const { rabbit_retry_interval: start, rabbit_retry_backoff: step, rabbit_interval_max: max } = rabbit
  return queued(amqpSender(amqp), {
    ...config.limits,
    retries: config.notifications.retry,
    pauseMs: (failures) => Math.min(start + step * (failures - 1), max) * 1000,
    log: config.log,
  })
}

/** Why each host of the broker does not let us in; undefined where it does. Throws `invalid`. */
export const tryRabbit = (config: RabbitConfig): Promise<ReadonlyMap<string, unknown>> =>
  tryHosts(brokerOptions(config, true))

function brokerOptions(config: RabbitConfig, envelope: boolean): AmqpOptions & { readonly rabbit: RabbitOptions } {
  const { notifications, log } = config
  const { scheme, query, ...broker } = parseTransportUrl(notifications.transport_url || config.transportUrl)
  if (!['rabbit', 'kombu'].includes(scheme))
    throw new ServiceError('invalid', `transport_url: ${scheme}:// is not supported, only rabbit://`)
  const rabbit = overridden(config.rabbit, query, log)
  if (rabbit.rabbit_quorum_queue && rabbit.rabbit_ha_queues)
    throw new ServiceError(
      'invalid',
      '[oslo_messaging_rabbit] rabbit_quorum_queue and rabbit_ha_queues exclude each other',
    )
  if (rabbit.rabbit_login_method === 'RABBIT-CR-DEMO')
    throw new ServiceError('invalid', '[oslo_messaging_rabbit] rabbit_login_method = RABBIT-CR-DEMO is not supported')
  if (rabbit.ssl && rabbit.ssl_ca_file === '')
    log.warn("[oslo_messaging_rabbit] ssl without ssl_ca_file: the broker's certificate is not checked")

  return {
    rabbit,
    broker: { ...broker, hosts: shuffled(broker.hosts) },
    exchange: config.exchange,
    topics: notifications.topics,
    envelope,
    durable: rabbit.amqp_durable_queues || rabbit.rabbit_quorum_queue,
    autoDelete: rabbit.amqp_auto_delete,
    queueArguments: queueArguments(rabbit),
    login: rabbit.rabbit_login_method,
    heartbeat: rabbit.heartbeat_timeout_threshold,
    compression: rabbit.kombu_compression || undefined,
    tls: rabbit.ssl
      ? {
          version: TLS_VERSIONS[rabbit.ssl_version],
          ca: rabbit.ssl_ca_file || undefined,
          cert: rabbit.ssl_cert_file || undefined,
          key: rabbit.ssl_key_file || undefined,
          verifyHostname: rabbit.ssl_enforce_hostname_verification,
        }
      : undefined,
    log,
  }
}

const TLS_VERSIONS = {
  '': undefined,
  SSLv23: undefined,
  TLSv1: 'TLSv1',
  TLSv1_1: 'TLSv1.1',
  TLSv1_2: 'TLSv1.2',
  TLSv1_3: 'TLSv1.3',
} as const

/** The options of the configuration, and those of the URL's query instead where it has any. */
function overridden(rabbit: RabbitOptions, query: ReadonlyMap<string, string>, log: Log): RabbitOptions {
  const given = [...query].map(([name, value]) => {
    const option = Object.hasOwn(oslo_messaging_rabbit, name)
      ? (oslo_messaging_rabbit[name as keyof RabbitOptions] as Option)
      : undefined
    if (option === undefined) log.warn(`transport_url: there is no option ${name}`)
    try {
      return option === undefined ? [] : [[name, option.parse([value])] as const]
    } catch (error) {
      throw new ServiceError('invalid', `transport_url: ${name}: ${(error as Error).message}`)
    }
  })
  return { ...rabbit, ...Object.fromEntries(given.flat()) }
}

function queueArguments(rabbit: RabbitOptions): Readonly<Record<string, string | number>> {
  const limits = {
    'x-delivery-limit': rabbit.rabbit_quorum_delivery_limit,
    'x-max-in-memory-length': rabbit.rabbit_quorum_max_memory_length,
    'x-max-in-memory-bytes': rabbit.rabbit_quorum_max_memory_bytes,
  }
  return {
    ...(rabbit.rabbit_ha_queues ? { 'x-ha-policy': 'all' } : {}),
    ...(rabbit.rabbit_quorum_queue
      ? { 'x-queue-type': 'quorum', ...Object.fromEntries(Object.entries(limits).filter(([, limit]) => limit > 0)) }
      : {}),
  }
}

/** So that many services do not begin with the same host. */
const shuffled = <T>(items: readonly T[]): readonly T[] =>
  items
    .map((item) => ({ item, at: Math.random() }))
    .sort((a, b) => a.at - b.at)
    .map(({ item }) => item)
