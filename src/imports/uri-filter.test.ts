import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { type UriRules, uriFilter } from './uri-filter.ts'

const DEFAULTS: UriRules = {
  allowed_schemes: ['http', 'https'],
  disallowed_schemes: [],
  allowed_hosts: [],
  disallowed_hosts: [],
  allowed_ports: [80, 443],
  disallowed_ports: [],
}
const NAMES: Readonly<Record<string, readonly string[]>> = {
  'mirror.example.': ['93.184.215.14'],
  'xn--bcher-kva.example.': ['93.184.215.14'],
  'internal.example.': ['10.0.0.7'],
  'both.example.': ['10.0.0.7', '93.184.215.14'],
  'mapped.example.': ['::ffff:127.0.0.1'],
}
/** As a name server answers. */
const lookup = async (name: string) => {
  const found = NAMES[name]
  if (found === undefined) throw Object.assign(new Error(`getaddrinfo ENOTFOUND ${name}`), { code: 'ENOTFOUND' })
  return found.map((address) => ({ address, family: address.includes(':') ? 6 : 4 }))
}
const filter = (rules: Partial<UriRules> = {}, publicOnly = false) =>
  uriFilter({ ...DEFAULTS, ...rules }, { reach: publicOnly ? 'public' : 'any', lookup })

const verdicts = async (uris: readonly string[], rules?: Partial<UriRules>, publicOnly?: boolean) => {
  const judge = filter(rules, publicOnly)
  return Object.fromEntries(await Promise.all(uris.map(async (uri) => [uri, await judge.admits(uri)] as const)))
}
const all = (verdict: boolean, uris: readonly string[]) => Object.fromEntries(uris.map((uri) => [uri, verdict]))

describe('uriFilter', () => {
  it('takes http and https, the usual ports, and hosts that have an address', async () => {
    const good = [
      'http://mirror.example/a',
      'https://MIRROR.example',
      'http://mirror.example:80/a?b#c',
      'https://user:p%40ss@mirror.example:443/',
      'http://mirror.example:/a',
      'http://mirror.example./a',
      'http://192.0.2.7/',
      'http://127.0.0.1/',
      'http://[::1]/',
      'http://[2001:DB8:0:0::1]:80/',
      'http://bücher.example/',
    ]
    assert.deepEqual(await verdicts(good), all(true, good))
    const bad = [
      '',
      'mirror.example/a',
      'file:///etc/passwd',
      'ftp://mirror.example/a',
      'http:///a',
      'http:/mirror.example/a',
      'http://',
      'http://mirror.example:8080/',
      'http://mirror.example:22/',
      'http://mirror.example:x/',
      'http://mirror.example:99999/',
      'http://nowhere.example/',
    ]
    assert.deepEqual(await verdicts(bad), all(false, bad))
  })

  it('refuses addresses and hosts in disguise', async () => {
    const bad = [
      'http://127.1/',
      'http://2130706433/',
      'http://0x7f000001/',
      'http://0x7f.0.0.1/',
      'http://017700000001/',
      'http://0177.0.0.1/',
      'http://127.0.0.01/',
      'http://127.0.0.1./',
      'http://１２７.0.0.1/',
      'http://127。0。0。1/',
      'http://%31%32%37.0.0.1/',
      'http://1.2.3.4.5/',
      'http://mirror.example\\@127.0.0.1/',
      'http://mirror.example\n.evil/',
      'http://mirror.exam\tple/',
      ' http://mirror.example/',
      'http://[fe80::1%25eth0]/',
      'http://[::1',
    ]
    assert.deepEqual(await verdicts(bad), all(false, bad))
    assert.equal(
      await filter({ disallowed_hosts: ['mirror.example'] }).admits('http://x:y@mirror.example@127.0.0.1/'),
      true,
    )
    assert.equal(await filter({ disallowed_hosts: ['127.0.0.1'] }).admits('http://mirror.example@127.0.0.1/'), false)
  })

  it('looks at a list of what is refused only where nothing is allowed', async () => {
    const https = 'https://mirror.example/'
    assert.equal(await filter({ disallowed_schemes: ['https'] }).admits(https), true)
    assert.equal(await filter({ allowed_schemes: [], disallowed_schemes: ['https'] }).admits(https), false)
    assert.equal(await filter({ allowed_schemes: [] }).admits('file:///etc/passwd'), false)
    const odd = 'http://mirror.example:8080/'
    assert.equal(await filter({ allowed_ports: [], disallowed_ports: [8080] }).admits(odd), false)
    assert.equal(await filter({ allowed_ports: [] }).admits(odd), true)
    assert.equal(await filter({ allowed_ports: [8080] }).admits('http://mirror.example/'), true)
    assert.equal(await filter({ allowed_ports: [8080] }).admits('http://mirror.example:80/'), false)
    const only = { allowed_hosts: ['Mirror.example'], disallowed_hosts: ['mirror.example'] }
    assert.equal(await filter(only).admits('http://mirror.example/'), true)
    assert.equal(await filter(only).admits('http://internal.example/'), false)
  })

  it('knows a refused host by its other spellings, and a refused address by the names that lead to it', async () => {
    const judge = filter({ disallowed_hosts: ['mirror.example', '10.0.0.7', '::1'] })
    for (const uri of ['http://MIRROR.example/', 'http://mirror.example./', 'http://10.0.0.7/']) {
      assert.equal(await judge.admits(uri), false, uri)
    }
    for (const uri of ['http://[::ffff:10.0.0.7]/', 'http://[::ffff:a00:7]/', 'http://[0:0:0:0:0:0:0:1]/']) {
      assert.equal(await judge.admits(uri), false, uri)
    }
    assert.equal(judge.admitsAddress('10.0.0.7'), false)
    assert.equal(judge.admitsAddress('::ffff:10.0.0.7'), false)
    assert.equal(judge.admitsAddress('10.0.0.8'), true)
  })

  it('refuses the addresses of this machine by default, unless their host is allowed', async () => {
    const own = [
      'http://127.0.0.1/i',
      'http://127.9.9.9/i',
      'http://[::1]/i',
      'http://0.0.0.0/i',
      'http://[::ffff:127.0.0.1]/i',
    ]
    const linkLocal = ['http://169.254.169.254/latest', 'http://[fe80::1]/i']
    const judge = uriFilter(DEFAULTS, { reach: 'network', lookup })
    for (const uri of [...own, ...linkLocal]) assert.equal(await judge.admits(uri), false, uri)
    for (const uri of ['http://10.0.0.7/i', 'http://192.168.1.1/i', 'http://[fd00::1]/i'])
      assert.equal(await judge.admits(uri), true, uri)
    const allowed = uriFilter({ ...DEFAULTS, allowed_hosts: ['127.0.0.1', 'depot'] }, { reach: 'network', lookup })
    assert.equal(await allowed.admits('http://127.0.0.1/i'), true)
    assert.equal(await allowed.admits('http://[::1]/i'), false)
    assert.equal(allowed.admitsAddress('127.0.0.1', 'depot'), true)
    assert.equal(allowed.admitsAddress('127.0.0.1', 'elsewhere'), false)
  })

  it('lets only public addresses be connected to when it is told so', async () => {
    const inner = [
      '127.0.0.1',
      '10.1.2.3',
      '172.16.0.1',
      '192.168.1.1',
      '169.254.169.254',
      '100.64.0.1',
      '0.0.0.0',
      '255.255.255.255',
      '224.0.0.1',
      '::1',
      '::',
      'fe80::1',
      'fd00::1',
      '::ffff:10.0.0.1',
      '64:ff9b::7f00:1',
      '2002:7f00:1::',
    ]
    const open = filter()
    const closed = filter({}, true)
    for (const address of inner) {
      assert.equal(open.admitsAddress(address), true, address)
      assert.equal(closed.admitsAddress(address), false, address)
      const host = address.includes(':') ? `[${address}]` : address
      assert.equal(await closed.admits(`http://${host}/`), false, address)
    }
    for (const address of ['93.184.215.14', '2606:4700::1111']) assert.equal(closed.admitsAddress(address), true)
  })
})
