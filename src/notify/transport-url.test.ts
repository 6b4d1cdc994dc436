import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { parseTransportUrl } from './transport-url.ts'

const guest = { hostname: 'localhost', port: 5672, username: 'guest', password: 'guest' }

describe('a transport_url', () => {
  for (const [url, expected] of Object.entries({
    'rabbit://': { hosts: [guest], vhost: '/' },
    'rabbit:///': { hosts: [guest], vhost: '/' },
    'rabbit://h': { hosts: [{ ...guest, hostname: 'h' }], vhost: '/' },
    'RABBIT://h:1234//': { hosts: [{ ...guest, hostname: 'h', port: 1234 }], vhost: '/' },
    'rabbit://h/v': { hosts: [{ ...guest, hostname: 'h' }], vhost: 'v' },
    'rabbit://h/%2Fv%20w': { hosts: [{ ...guest, hostname: 'h' }], vhost: '/v w' },
    'rabbit://u:p@h': { hosts: [{ hostname: 'h', port: 5672, username: 'u', password: 'p' }], vhost: '/' },
    'rabbit://u%40x:p%2F%2C%3A@h:1/v': {
      hosts: [{ hostname: 'h', port: 1, username: 'u@x', password: 'p/,:' }],
      vhost: 'v',
    },
    'rabbit://u@x:p:q@h': { hosts: [{ hostname: 'h', port: 5672, username: 'u@x', password: 'p:q' }], vhost: '/' },
    'rabbit://a:b@[::1]:5673,c:d@[fe80::1]/v': {
      hosts: [
        { hostname: '::1', port: 5673, username: 'a', password: 'b' },
        { hostname: 'fe80::1', port: 5672, username: 'c', password: 'd' },
      ],
      vhost: 'v',
    },
    'rabbit://a:b@one:1,two:2,': {
      hosts: [
        { hostname: 'one', port: 1, username: 'a', password: 'b' },
        { ...guest, hostname: 'two', port: 2 },
      ],
      vhost: '/',
    },
  })) {
    it(`${url} is read`, () => {
      const { query, ...rest } = parseTransportUrl(url)
      assert.deepEqual(rest, { scheme: 'rabbit', ...expected })
      assert.equal(query.size, 0)
    })
  }

  it('may override options in its query', () => {
    const { query, vhost } = parseTransportUrl('kombu://h/v?ssl=true&ssl_ca_file=/a%20b')
    assert.deepEqual(
      [...query],
      [
        ['ssl', 'true'],
        ['ssl_ca_file', '/a b'],
      ],
    )
    assert.equal(vhost, 'v')
  })

  for (const url of [
    '',
    'hunter2',
    'rabbit:hunter2',
    'rabbit://u:hunter2@h:x',
    'rabbit://u:hunter2%zz@h',
    'rabbit://u:hunter2@h:99999',
  ]) {
    it(`"${url}" is refused without being repeated`, () => {
      assert.throws(
        () => parseTransportUrl(url),
        (error: Error) => error.message.startsWith('transport_url: ') && !error.message.includes('hunter2'),
      )
    })
  }
})
