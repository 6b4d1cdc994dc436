import { createCipheriv, createDecipheriv, createHmac, hash, randomBytes, timingSafeEqual } from 'node:crypto'
import { crc32 } from 'node:zlib'
import memjs from 'memjs'
import { ServiceError } from '../domain/errors.ts'

export interface TokenCacheOptions {
  /** `host`, `host:port`, `[::1]:port`, `inet6:[::1]:port`; none means that nothing is shared. */
  readonly memcached_servers?: readonly string[] | undefined
  /** Seconds; 0 or less remembers nothing. */
  readonly token_cache_time?: number | undefined
  readonly memcache_security_strategy?: 'None' | 'MAC' | 'ENCRYPT' | undefined
  readonly memcache_secret_key?: string | undefined
  readonly memcache_tls_enabled?: boolean | undefined
  /** Seconds for which a server that failed is left alone. */
  readonly memcache_pool_dead_retry?: number | undefined
  /** Seconds; half a second is the most. */
  readonly memcache_pool_socket_timeout?: number | undefined
  readonly memcache_sasl_enabled?: boolean | undefined
  readonly memcache_username?: string | undefined
  readonly memcache_password?: string | undefined
}

/** What Keystone said of tokens, as JSON, shared with other processes and nodes. No method rejects. */
export interface TokenCache {
  /** Undefined when nothing is known, or nobody can be asked. */
  get(token: string): Promise<string | undefined>
  /** Whether it is kept. */
  set(token: string, answer: string): Promise<boolean>
  close(): void
}

/** Tokens are checked for every request, which must not wait for a memcached that is silent. */
const LONGEST_WAIT_S = 0.5
/** Largest item that memcached takes by default, less its overhead. */
const LARGEST = 1_000_000

/**
 * The servers of `[keystone_authtoken] memcached_servers`, with keys and values as other services write them. Undefined
 * when there are none to use. Throws `invalid` when the options are wrong.
 */
export function openTokenCache(
  options: TokenCacheOptions,
  { warn, now }: { readonly warn: (message: string) => void; readonly now: () => number },
): TokenCache | undefined {
  const { memcached_servers: addresses = [], token_cache_time: expires = 300 } = options
  if (addresses.length === 0 || expires <= 0) return undefined
  if (options.memcache_tls_enabled) {
    warn('memcache_tls_enabled: there is no TLS to memcached here, so memcached is not used')
    return undefined
  }
  const seal = sealing(options)
  const servers = addresses.map((address) => openServer(address, options, { warn, now }))
  /** Whose key it is, as python-memcached counts. */
  const serverOf = (key: string) => servers[((crc32(key) >>> 16) & 0x7fff || 1) % servers.length]

  return {
    get: async (token) => {
      const keys = seal(token)
      const value = await serverOf(keys.name)?.use((client) => client.get(keys.name))
      if (!value?.value) return undefined
      const opened = keys.open(value.value)
      if (opened === undefined) warn('memcached holds something that nobody with memcache_secret_key has written')
      return opened
    },
    set: async (token, answer) => {
      const keys = seal(token)
      const value = keys.close(answer)
      if (value.length > LARGEST) return false
      return (await serverOf(keys.name)?.use((client) => client.set(keys.name, value, { expires }))) ?? false
    },
    close: () => {
      for (const server of servers) server.close()
    },
  }
}

// ---- servers

interface Server {
  /** Undefined when the server fails, is silent for too long, or did so lately. */
  use<T>(work: (client: memjs.Client) => Promise<T>): Promise<T | undefined>
  close(): void
}

function openServer(
  address: string,
  options: TokenCacheOptions,
  { warn, now }: { readonly warn: (message: string) => void; readonly now: () => number },
): Server {
  const [, v6, v4, port = '11211'] = /^(?:inet6?:)?(?:\[([^\]]+)\]|([^:[\]]+))(?::(\d+))?$/.exec(address.trim()) ?? []
  const host = v6 ?? v4
  if (host === undefined)
    throw new ServiceError('invalid', `[keystone_authtoken] memcached_servers: ${address} is not host:port`)
  const timeout = Math.min(options.memcache_pool_socket_timeout ?? LONGEST_WAIT_S, LONGEST_WAIT_S)
  const restMs = (options.memcache_pool_dead_retry ?? 300) * 1000
  const [user, password] = options.memcache_sasl_enabled
    ? [options.memcache_username, options.memcache_password]
    : [undefined, undefined]
  let client: memjs.Client | undefined
  let deadUntil = 0

  const open = (): memjs.Client => {
    const server = new memjs.Server(host, Number(port), user, password, {
      timeout,
      conntimeout: timeout,
      keepAlive: true,
    })
    return new memjs.Client([server], { retries: 1, failover: false, logger: { log: () => undefined } })
  }
  const drop = (failed: memjs.Client) => {
    failed.close()
    if (client === failed) client = undefined
  }

  return {
    async use(work) {
      if (now() < deadUntil) return undefined
      client ??= open()
      const mine = client
      try {
        // The library forgets a request whose connection is closed in between.
        return await within(timeout * 2000, work(mine))
      } catch (cause) {
        // A new connection the next time: what was half read of this one must not be taken for an answer.
        drop(mine)
        if (now() >= deadUntil) {
          deadUntil = now() + restMs
          warn(`memcached at ${address} does not answer, and is not asked for ${restMs / 1000} s: ${String(cause)}`)
        }
        return undefined
      }
    },
    close: () => client?.close(),
  }
}

const within = <T>(ms: number, work: Promise<T>): Promise<T> =>
  new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error('no answer in time')), ms)
    work.then(resolve, reject).finally(() => clearTimeout(timer))
  })

// ---- signing and encryption, as keystonemiddleware does it

interface Sealed {
  /** Under which the answer about a token is kept. */
  readonly name: string
  close(answer: string): string
  /** Undefined for what has not been closed with the same secret. */
  open(value: Buffer): string | undefined
}

/** Throws `invalid` when the secret is missing. */
function sealing(options: TokenCacheOptions): (token: string) => Sealed {
  const { memcache_security_strategy: strategy = 'None', memcache_secret_key: secret } = options
  if (strategy === 'None') {
    return (token) => ({
      name: `tokens/${hash('sha256', token)}`,
      close: (answer) => answer,
      open: (value) => value.toString('utf8'),
    })
  }
  if (!secret) {
    throw new ServiceError('invalid', '[keystone_authtoken] memcache_security_strategy needs a memcache_secret_key')
  }
  return (token) => {
    // 48 bytes: for the name, for the signature, for the cipher.
    const derived = createHmac('sha384', secret).update(`${token}${strategy}`).digest()
    const [name, macKey, cipherKey] = [derived.subarray(0, 16), derived.subarray(16, 32), derived.subarray(32)]
    const mac = (encoded: string) => createHmac('sha384', macKey).update(encoded).digest('base64')
    return {
      // As Python prints bytes, which is what everybody else asks for.
      name: `tokens/b'${name.toString('base64')}'`,
      close: (answer) => {
        const data = Buffer.from(answer)
        const encoded = (strategy === 'ENCRYPT' ? encrypt(cipherKey, data) : data).toString('base64')
        return `${mac(encoded)}${encoded}`
      },
      open: (value) => {
        const text = value.toString('latin1')
        const [given, encoded] = [text.slice(0, MAC_LENGTH), text.slice(MAC_LENGTH)]
        if (given.length !== MAC_LENGTH || !timingSafeEqual(Buffer.from(given), Buffer.from(mac(encoded))))
          return undefined
        const data = Buffer.from(encoded, 'base64')
        return (strategy === 'ENCRYPT' ? decrypt(cipherKey, data) : data).toString('utf8')
      },
    }
  }
}

/** Characters of 48 bytes in base64. */
const MAC_LENGTH = 64
const IV_BYTES = 16

function encrypt(key: Buffer, data: Buffer): Buffer {
  const iv = randomBytes(IV_BYTES)
  const cipher = createCipheriv('aes-128-cbc', key, iv)
  return Buffer.concat([iv, cipher.update(data), cipher.final()])
}

function decrypt(key: Buffer, data: Buffer): Buffer {
  const decipher = createDecipheriv('aes-128-cbc', key, data.subarray(0, IV_BYTES))
  return Buffer.concat([decipher.update(data.subarray(IV_BYTES)), decipher.final()])
}
