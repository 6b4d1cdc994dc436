import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { hash, randomUUID } from 'node:crypto'
import { after, before, describe, it } from 'node:test'
import { until } from '../../test/support/product.ts'
import {
  type KeystoneServer,
  available as keystoneAvailable,
  PASSWORD,
  startKeystone,
} from '../../test/support/servers/keystone.ts'
import { available, type MemcachedServer, startMemcached } from '../../test/support/servers/memcached.ts'
import { hasKind } from '../domain/errors.ts'
import type { IdentityProvider } from './identity.ts'
import { type KeystoneOptions, keystoneIdentity } from './keystone.ts'
import { openTokenCache, type TokenCache, type TokenCacheOptions } from './token-cache.ts'

const ci = process.env['CI'] === 'true'
const installed = available()
const skip = !installed.ok && !ci && installed.reason

const STRATEGIES = ['None', 'MAC', 'ENCRYPT'] as const

describe('openTokenCache()', { skip }, () => {
  let memcached: MemcachedServer
  let clock = 0
  let warnings: string[] = []
  const opened: TokenCache[] = []
  const open = (options: TokenCacheOptions = {}): TokenCache => {
    const cache = openTokenCache(
      { memcached_servers: [memcached.address], memcache_secret_key: 'secret', ...options },
      { warn: (message) => void warnings.push(message), now: () => Date.now() + clock },
    )
    assert.ok(cache)
    opened.push(cache)
    return cache
  }
  before(async () => {
    memcached = await startMemcached()
  })
  after(async () => {
    for (const cache of opened) cache.close()
    await memcached.halt()
  })

  for (const memcache_security_strategy of STRATEGIES) {
    it(`shares what is kept by ${memcache_security_strategy}`, async () => {
      const [one, other] = [open({ memcache_security_strategy }), open({ memcache_security_strategy })]
      const answer = JSON.stringify({ token: { user: { name: `Ünïcode ${randomUUID()}` } } })
      assert.equal(await other.get('token-1'), undefined)
      assert.equal(await one.set('token-1', answer), true)
      assert.equal(await other.get('token-1'), answer)
      assert.equal(await other.get('token-2'), undefined)
      const shown = [...(await memcached.items())].some(
        ([key, value]) => key.includes('token-1') || value.includes(answer),
      )
      assert.equal(shown, memcache_security_strategy === 'None')
      await memcached.command('flush_all', /OK/)
    })
  }

  it('believes nothing that was changed, or written with another secret or strategy', async () => {
    const cache = open({ memcache_security_strategy: 'ENCRYPT' })
    await cache.set('token', '{"token": 1}')
    assert.equal(
      await open({ memcache_security_strategy: 'ENCRYPT', memcache_secret_key: 'other' }).get('token'),
      undefined,
    )
    assert.equal(await open({ memcache_security_strategy: 'MAC' }).get('token'), undefined)
    const [[key = '', value = ''] = []] = await memcached.items()
    const other = (letter = '') => (letter === 'A' ? 'B' : 'A')
    const last = value.length - 4
    for (const changed of [
      `${value.slice(0, last)}${other(value[last])}${value.slice(last + 1)}`,
      value.slice(0, 60),
      '',
      `${other(value[0])}${value.slice(1)}`,
    ]) {
      await memcached.command(`set ${key} 0 0 ${changed.length}\r\n${changed}`, /STORED/)
      assert.equal(await cache.get('token'), undefined)
    }
    assert.ok(warnings.some((warning) => warning.includes('nobody with memcache_secret_key')))
  })

  it('forgets after token_cache_time, and is none when nothing is to be kept', async () => {
    const cache = open({ token_cache_time: 1 })
    await cache.set('brief', '{}')
    assert.equal(await cache.get('brief'), '{}')
    await until('the end of what was kept', async () => (await cache.get('brief')) === undefined)
    const tools = { warn: () => undefined, now: Date.now }
    assert.equal(openTokenCache({ memcached_servers: [memcached.address], token_cache_time: -1 }, tools), undefined)
    assert.equal(openTokenCache({ memcached_servers: [] }, tools), undefined)
  })

  it('refuses options that cannot work', () => {
    for (const options of [
      { memcached_servers: ['::1'] },
      { memcache_security_strategy: 'MAC', memcache_secret_key: '' },
    ] as const) {
      assert.throws(
        () => open(options),
        (error) => hasKind(error, 'invalid'),
      )
    }
  })

  it('asks no server that is gone or silent, until memcache_pool_dead_retry', async () => {
    const cache = open({ memcache_pool_dead_retry: 30, memcache_pool_socket_timeout: 3 })
    await cache.set('token', '{}')
    for (const [fail, mend] of [
      [() => memcached.freeze(), () => memcached.thaw()],
      [() => memcached.halt(), () => memcached.start()],
    ] as const) {
      warnings = []
      await fail()
      try {
        const many = await Promise.all(Array.from({ length: 50 }, () => cache.get('token')))
        assert.ok(many.every((value) => value === undefined))
        assert.equal(warnings.length, 1)
        assert.equal(await cache.set('unsent', '{}'), false)
      } finally {
        await mend()
      }
      assert.equal(await cache.get('token'), undefined)
      assert.ok(!(await memcached.items()).has(`tokens/${hash('sha256', 'unsent')}`))
      clock += 31_000
      assert.equal(await cache.set('token', '{}'), true)
      assert.equal(await cache.get('token'), '{}')
    }
  })

  it('spreads tokens over several servers, and loses only those of a server that fails', async () => {
    const second = await startMemcached()
    const cache = open({ memcached_servers: [memcached.address, second.address] })
    const tokens = Array.from({ length: 40 }, (_, n) => `spread-${n}`)
    await Promise.all(tokens.map((token) => cache.set(token, '{}')))
    const kept = (await second.items()).size
    assert.ok(kept > 5 && kept < 35, `${kept} of 40`)
    await second.halt()
    const known = await Promise.all(tokens.map((token) => cache.get(token)))
    assert.equal(known.filter((value) => value === '{}').length, 40 - kept)
  })

  const python = (() => {
    try {
      execFileSync('/usr/bin/python3', ['-c', 'import memcache, keystonemiddleware'], { stdio: 'ignore' })
      return true
    } catch {
      return false
    }
  })()
  for (const strategy of STRATEGIES) {
    it(`reads and writes by ${strategy} what keystonemiddleware does`, {
      skip: !python && !ci && 'no keystonemiddleware',
    }, async () => {
      const script = `
import json, logging, sys
from keystonemiddleware.auth_token import _cache
arguments = dict(memcached_servers=[sys.argv[1]], cache_time=300, use_advanced_pool=False)
cache = (_cache.TokenCache(logging.getLogger(), **arguments) if sys.argv[2] == 'None' else
         _cache.SecureTokenCache(logging.getLogger(), sys.argv[2], 'secret', **arguments))
cache.initialize({})
cache.set('theirs', {'token': {'user': 'ü'}})
print(json.dumps(cache.get('ours')))
`
      const cache = open({ memcache_security_strategy: strategy })
      await cache.set('ours', '{"token":{"user":"ä"}}')
      const seen = execFileSync('/usr/bin/python3', ['-W', 'ignore', '-c', script, memcached.address, strategy], {
        stdio: ['ignore', 'pipe', 'ignore'],
      })
      assert.deepEqual(JSON.parse(seen.toString()), { token: { user: 'ä' } })
      assert.deepEqual(JSON.parse((await cache.get('theirs')) ?? ''), { token: { user: 'ü' } })
      await memcached.command('flush_all', /OK/)
    })
  }
})

const withKeystone = keystoneAvailable()
const reason = (!installed.ok && installed.reason) || (!withKeystone.ok && withKeystone.reason)
describe('keystoneIdentity() with memcached', { skip: !ci && reason }, () => {
  let keystone: KeystoneServer
  let memcached: MemcachedServer
  let clock = 0
  const opened: IdentityProvider[] = []
  const open = (options: KeystoneOptions = {}): IdentityProvider => {
    const provider = keystoneIdentity(
      {
        auth_url: keystone.url,
        username: 'glance',
        password: PASSWORD,
        project_name: 'service',
        http_request_max_retries: 0,
        memcached_servers: [memcached.address],
        memcache_security_strategy: 'ENCRYPT',
        memcache_secret_key: 'secret',
        ...options,
      },
      { warn: () => undefined, now: () => Date.now() + clock },
    )
    opened.push(provider)
    return provider
  }
  const who = (provider: IdentityProvider, token: string) =>
    provider.authenticate({ 'x-auth-token': token }, new AbortController().signal)

  before(async () => {
    ;[keystone, memcached] = await Promise.all([startKeystone(), startMemcached()])
  })
  after(async () => {
    await Promise.all(opened.map((provider) => provider.close()))
    await memcached.halt()
    await keystone.stop()
  })

  it('knows a token that another process has seen, while Keystone is away', async () => {
    const token = await keystone.token('demo')
    const first = await who(open(), token)
    await keystone.halt()
    try {
      assert.deepEqual(await who(open(), token), first)
      await assert.rejects(who(open({ memcached_servers: [] }), token), (error) => hasKind(error, 'unavailable'))
    } finally {
      await keystone.start()
    }
  })

  it('refuses an expired token though memcached has it, and asks Keystone when memcached has nonsense', async () => {
    const token = await keystone.token('demo')
    await who(open(), token)
    clock = 24 * 3_600_000
    await assert.rejects(who(open(), token), (error) => hasKind(error, 'unauthenticated'))
    clock = 0
    const plain = openTokenCache({ memcached_servers: [memcached.address] }, { warn: () => undefined, now: Date.now })
    await plain?.set(token, '{"token": "nonsense"}')
    const provider = open({ memcache_security_strategy: 'None' })
    assert.equal((await who(provider, token)).userId, keystone.users['demo'])
    plain?.close()
  })

  it('hears of a revoked token within seconds of token_cache_time', async () => {
    const provider = open({ token_cache_time: 2 })
    const token = await keystone.token('demo')
    await who(provider, token)
    await keystone.call(token, 'DELETE', '/auth/tokens', undefined, { 'x-subject-token': token })
    assert.equal((await who(provider, token)).userId, keystone.users['demo'])
    clock = 6000
    const refused = () =>
      who(provider, token).then(
        () => false,
        (error) => hasKind(error, 'unauthenticated'),
      )
    await until('the end of the token', refused)
    clock = 0
  })

  it('remembers for itself while memcached is away', async () => {
    const provider = open()
    await memcached.halt()
    const token = await keystone.token('demo')
    await who(provider, token)
    clock = 60_000
    await keystone.halt()
    try {
      assert.equal((await who(provider, token)).userId, keystone.users['demo'])
    } finally {
      clock = 0
      await keystone.start()
      await memcached.start()
    }
  })
})
