import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { createServer } from 'node:http'
import { createServer as createTlsServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { openHttpClient, parseTarget, shownUri } from './http-client.ts'
import { uriFilter } from './uri-filter.ts'

const RULES = {
  allowed_schemes: ['http', 'https'],
  disallowed_schemes: [],
  allowed_hosts: [],
  disallowed_hosts: [],
  allowed_ports: [],
  disallowed_ports: [],
}
const NAMES: Readonly<Record<string, readonly string[]>> = {
  'internal.example.': ['10.0.0.7'],
  'mapped.example.': ['::ffff:127.0.0.1'],
}
/** As a name server answers. */
const lookup = async (name: string) => {
  const found = NAMES[name]
  if (found === undefined) throw Object.assign(new Error(`getaddrinfo ENOTFOUND ${name}`), { code: 'ENOTFOUND' })
  return found.map((address) => ({ address, family: address.includes(':') ? 6 : 4 }))
}

describe('openHttpClient', () => {
  const signal = new AbortController().signal
  const failure = async (uri: string, publicOnly: boolean, names = lookup) => {
    const client = openHttpClient({
      filter: uriFilter(RULES, { reach: publicOnly ? 'public' : 'any', lookup: names }),
      stallMs: 2000,
    })
    try {
      return await client.get(parseTarget(uri), { signal }).then(
        ({ status }) => String(status),
        (error: Error) => error.message,
      )
    } finally {
      await client.close()
    }
  }

  it('connects to no address that is refused, whatever leads there', async () => {
    const refusal = (host: string) => `${host} has no address that data may be fetched from`
    for (const uri of ['http://127.0.0.1:1/', 'http://internal.example:1/', 'http://mapped.example:1/']) {
      assert.equal(await failure(uri, true), refusal(new URL(uri).hostname))
    }
    assert.equal(await failure('http://[::1]:1/', true), refusal('::1'))
    assert.match(await failure('http://127.0.0.1:1/', false), /refuses connections/)
    assert.match(await failure('http://nowhere.example/', true), /nowhere\.example is not known/)
  })

  it('connects to the address that was checked, though the name server says something else the next time', async () => {
    let asked = 0
    const rebinding = async () => {
      const address = asked++ === 0 ? '93.184.215.14' : '127.0.0.1'
      return [{ address, family: 4 }]
    }
    const judge = uriFilter(RULES, { reach: 'public', lookup: rebinding })
    assert.equal(await judge.admits('http://rebind.example/'), true)
    assert.equal(
      await failure('http://rebind.example:1/', true, rebinding),
      'rebind.example has no address that data may be fetched from',
    )
  })

  it('does not talk to a server whose certificate nobody vouches for', async () => {
    const dir = mkdtempSync(join(tmpdir(), 'glimpse-tls-'))
    const [key, cert] = [join(dir, 'key.pem'), join(dir, 'cert.pem')]
    const request = [
      'req',
      '-x509',
      '-newkey',
      'ec',
      '-pkeyopt',
      'ec_paramgen_curve:prime256v1',
      '-nodes',
      '-days',
      '1',
    ]
    execFileSync('openssl', [...request, '-subj', '/CN=127.0.0.1', '-keyout', key, '-out', cert], { stdio: 'pipe' })
    const server = createTlsServer({ key: readFileSync(key), cert: readFileSync(cert) }, (_, response) => {
      response.end('never seen')
    })
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    const { port } = server.address() as AddressInfo
    try {
      assert.match(
        await failure(`https://127.0.0.1:${port}/`, false),
        /^The certificate of 127\.0\.0\.1:\d+ cannot be verified \(DEPTH_ZERO_SELF_SIGNED_CERT\)$/,
      )
    } finally {
      server.close()
      rmSync(dir, { recursive: true })
    }
  })

  it('goes through the proxy that the environment names', async () => {
    const asked: (string | undefined)[] = []
    const proxy = createServer((request, response) => {
      asked.push(request.url)
      response.end('from the proxy')
    })
    await new Promise<void>((resolve) => proxy.listen(0, '127.0.0.1', resolve))
    process.env['http_proxy'] = `http://127.0.0.1:${(proxy.address() as AddressInfo).port}`
    try {
      assert.equal(await failure('http://nowhere.example/data?x=y', true), '200')
      assert.deepEqual(asked, ['http://nowhere.example/data?x=y'])
    } finally {
      delete process.env['http_proxy']
      proxy.closeAllConnections()
      proxy.close()
    }
  })
})

describe('shownUri', () => {
  it('has neither user, password nor query', () => {
    for (const [uri, shown] of [
      ['http://host/a/b', 'http://host/a/b'],
      ['https://joe:se/cret@host/a', 'https://***@host/a'],
      ['https://joe:secret@host:1/a?b=c#d', 'https://***@host:1/a'],
      ['http://a@b@host/', 'http://***@host/'],
      ['no uri', 'no uri'],
    ] as const) {
      assert.equal(shownUri(uri), shown)
    }
  })
})
