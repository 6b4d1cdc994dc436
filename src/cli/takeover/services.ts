import { connect } from 'node:net'
import { join } from 'node:path'
import { isNotifyDriver, tryBroker, withLogin } from '../../app.ts'
import { keystoneLimits } from '../../auth/keystone-limits.ts'
import { openKeystoneSession } from '../../auth/keystone-session.ts'
import type { Config } from '../../config/config.ts'
import { silentLog } from '../../log.ts'
import { parseTransportUrl } from '../../notify/transport-url.ts'
import { reason } from '../reason.ts'
import { type Finding, note, ok, problem } from './report.ts'
import { checkDirectory } from './stores.ts'

const CONNECT_MS = 5000
const TIMEOUT_S = 10

/** Who is asked about tokens and limits. */
export async function* checkIdentity(config: Config): AsyncIterable<Finding> {
  const flavor = config.paste_deploy.flavor ?? ''
  if (!flavor.includes('keystone')) {
    yield note(
      `[paste_deploy] flavor is ${flavor === '' ? 'not set' : flavor}: nobody is asked for a token, and everybody is an admin.`,
      'set it to keystone unless that is meant',
    )
    return
  }
  const options = withLogin(config, config.keystone_authtoken)
  yield* checkLogin(options)
  yield* checkMemcached(config)
  if (config.DEFAULT.use_keystone_limits) yield* checkLimits(config)
}

async function* checkLogin(options: Config['keystone_authtoken']): AsyncIterable<Finding> {
  const quick = { http_connect_timeout: TIMEOUT_S, http_request_max_retries: 0 }
  try {
    const keystone = openKeystoneSession(
      { ...options, ...quick },
      { warn: () => undefined, group: 'keystone_authtoken' },
    )
    try {
      // Keystone shows one's own token to everybody, so that this says no more than that the login works.
      const token = await keystone.token()
      const answer = await keystone.get('/auth/tokens?nocatalog', { 'x-subject-token': token })
      const roles = rolesOf(answer.body)
      yield ok(
        `Keystone at ${options.auth_url} lets the service log in${roles.length === 0 ? '' : ` (roles ${roles.join(', ')})`}.`,
      )
      if (!roles.some((role) => /^(service|admin)$/i.test(role)))
        yield note(
          'The user of the service has neither the role service nor admin: Keystone may not let it validate tokens.',
          'give it the role service in its project',
        )
    } finally {
      await keystone.close()
    }
  } catch (error) {
    yield problem(
      `The service cannot log in to Keystone at ${options.auth_url ?? '(not set)'}: ${reason(error)}`,
      'look at [keystone_authtoken]: auth_url, username, password, project and domains',
    )
  }
}

function rolesOf(body: string): readonly string[] {
  try {
    const { token } = JSON.parse(body) as { token: { roles?: readonly { name: string }[] } }
    return (token.roles ?? []).map(({ name }) => name)
  } catch {
    return []
  }
}

async function* checkMemcached(config: Config): AsyncIterable<Finding> {
  const {
    memcached_servers: servers,
    memcache_security_strategy: strategy,
    memcache_secret_key,
  } = config.keystone_authtoken
  if (servers.length === 0)
    yield note('There is no memcached: each process asks Keystone for itself about each token.', undefined)
  if (strategy !== 'None' && !memcache_secret_key)
    yield problem(`memcache_security_strategy = ${strategy} needs memcache_secret_key.`)
  for (const server of servers) {
    const [, v6, v4, port = '11211'] = /^(?:inet6?:)?(?:\[([^\]]+)\]|([^:[\]]+))(?::(\d+))?$/.exec(server.trim()) ?? []
    const host = v6 ?? v4
    if (host === undefined) yield problem(`memcached_servers: ${server} is not host:port.`)
    else {
      const error = await failureOf(host, Number(port))
      yield error === undefined
        ? ok(`memcached at ${server} can be reached.`)
        : note(`memcached at ${server} cannot be reached: ${error}.`, 'tokens are then checked with Keystone each time')
    }
  }
}

/** Why no connection can be made; undefined when one can. */
const failureOf = (host: string, port: number): Promise<string | undefined> =>
  new Promise((resolve) => {
    const socket = connect({ host, port, timeout: CONNECT_MS })
    const end = (why?: string) => {
      socket.destroy()
      resolve(why)
    }
    socket.once('connect', () => end())
    socket.once('timeout', () => end('no answer'))
    socket.once('error', (error) => end(reason(error)))
  })

async function* checkLimits(config: Config): AsyncIterable<Finding> {
  const warnings: string[] = []
  try {
    const limits = keystoneLimits(withLogin(config, config.oslo_limit), { warn: (message) => warnings.push(message) })
    try {
      const found = await limits.of(null)
      const shown = Object.entries(found).map(([name, limit]) => `${name}: ${limit}`)
      yield ok('Limits registered in Keystone:', shown)
      for (const warning of warnings)
        yield problem(
          `${warning}, so that nothing can be uploaded.`,
          'register it in Keystone (openstack registered limit create)',
        )
    } finally {
      await limits.close()
    }
  } catch (error) {
    yield problem(`Keystone does not tell the limits: ${reason(error)}`, 'look at [oslo_limit]')
  }
}

/** Who is told of what happens. */
export async function* checkNotifications(config: Config): AsyncIterable<Finding> {
  const { driver: names, topics, transport_url } = config.oslo_messaging_notifications
  const drivers = new Set(names.filter((name) => name !== 'noop' && name !== ''))
  if (drivers.size === 0) {
    yield ok('Nobody is told of what happens (no driver).')
    return
  }
  for (const name of drivers)
    if (!isNotifyDriver(name)) yield problem(`There is no driver ${name}: nobody is told by it.`)
  const known = [...drivers].filter(isNotifyDriver)
  if (known.length > 0) yield ok(`Drivers: ${known.join(', ')}.`)
  if (!known.some((name) => name.startsWith('messaging'))) return
  try {
    const { scheme, vhost } = parseTransportUrl(transport_url || config.DEFAULT.transport_url)
    for (const [host, error] of await tryBroker(config, silentLog))
      yield error === undefined
        ? ok(`${scheme}://${host} lets the service log in to ${vhost}; no message was sent.`)
        : problem(
            `${scheme}://${host} cannot be used: ${reason(error)}`,
            'look at transport_url and [oslo_messaging_rabbit]; messages wait meanwhile, up to notification_queue_length',
          )
    yield ok(`Messages go to exchange ${config.DEFAULT.control_exchange}, topics ${topics.join(', ')}.`)
  } catch (error) {
    yield problem(`The service would not start with this message broker: ${reason(error)}`)
  }
}

/** Image data near by. */
export async function* checkCache(config: Config): AsyncIterable<Finding> {
  const { image_cache_dir, image_cache_driver, image_cache_sqlite_db, worker_self_reference_url } = config.DEFAULT
  const wanted = /cach/.test(config.paste_deploy.flavor ?? '')
  if (!wanted && !image_cache_dir) {
    yield ok('There is no image cache.')
    return
  }
  if (!image_cache_dir) {
    yield note('[paste_deploy] flavor asks for the image cache, but image_cache_dir is not set: there is none.')
    return
  }
  if (!wanted) yield note('image_cache_dir is set, but downloads go through it only with caching in the flavor.')
  yield* checkDirectory('Image cache', image_cache_dir, 'nothing')
  if (image_cache_driver === 'centralized_db' && !worker_self_reference_url)
    yield problem(
      'image_cache_driver is centralized_db, which needs worker_self_reference_url.',
      'set worker_self_reference_url on each node, or image_cache_driver = sqlite',
    )
  else
    yield ok(
      `Its index is kept by ${image_cache_driver}${image_cache_driver === 'sqlite' ? ` in ${join(image_cache_dir, image_cache_sqlite_db)}` : ''}.`,
    )
}
