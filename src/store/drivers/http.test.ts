import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { randomBytes, randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { createServer, type ServerResponse } from 'node:http'
import { createServer as createSecureServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, it, type TestContext } from 'node:test'
import { inspect, promisify } from 'node:util'
import { serving, startWebServer, type WebServer } from '../../../test/support/servers/web.ts'
import { defaults, type Values } from '../../config/options.ts'
import { type ErrorKind, hasKind } from '../../domain/errors.ts'
import type { AttemptId, ImageId, LocationUri } from '../../domain/ids.ts'
import type { ByteSource } from '../../io/bytes.ts'
import { storeConformance } from '../conformance.ts'
import type { StoreDriver } from '../driver.ts'
import { httpStore } from './http.ts'

const run = promisify(execFile)
const SECRET = 'pa55%40w0rd'
const MIB = 1024 * 1024

type Config = Partial<Values<typeof httpStore.options>>
const openWith = (config: Config = {}) => httpStore.open({ ...defaults(httpStore.options), ...config })

async function setUp(t: TestContext, config: Config = {}): Promise<{ web: WebServer; driver: StoreDriver }> {
  const web = await startWebServer()
  t.after(() => web.close())
  const driver = await openWith(config)
  t.after(() => driver.close())
  return { web, driver }
}

storeConformance({
  name: 'http',
  features: { write: false, randomRead: true, unsizedWrite: false },
  open: async (t) => {
    const { web, driver } = await setUp(t)
    return {
      driver,
      provide: async (data) => `http://user:${SECRET}@127.0.0.1:${web.port}${web.serve(data)}` as LocationUri,
      leftovers: async () => [],
    }
  },
  foreign: [
    'http://',
    'http:///path',
    'http:relative',
    'http://user@host/path',
    'http://:pw@host/',
    'http://host:port/',
  ],
  secrets: [SECRET, decodeURIComponent(SECRET)],
})

const call = () => ({ signal: new AbortController().signal })
const uriOf = (web: WebServer, path: string) => `${web.url}${path}` as LocationUri

async function collect(bytes: ByteSource): Promise<Buffer> {
  const chunks: Buffer[] = []
  for await (const chunk of bytes) chunks.push(Buffer.from(chunk))
  return Buffer.concat(chunks)
}

const rejectsWith = (promise: Promise<unknown>, kind: ErrorKind) =>
  assert.rejects(promise, (error) => {
    assert.ok(hasKind(error, kind), inspect(error))
    return true
  })

const redirectTo =
  (target: string, status = 302) =>
  (_: unknown, response: ServerResponse) =>
    void response.writeHead(status, { location: target }).end('elsewhere')

describe('http store and what servers do', () => {
  it('reads what is behind up to five redirects of kind 301 and 302, relative ones too', async (t) => {
    const { web, driver } = await setUp(t)
    const data = randomBytes(100)
    web.on('/0', serving(data))
    for (const [at, status] of [302, 301, 302, 301, 302, 302].entries())
      web.on(`/${at + 1}`, redirectTo(at % 2 ? `/${at}` : `${web.url}/${at}`, status))
    assert.ok((await collect(await driver.read(uriOf(web, '/5'), call()))).equals(data))
    assert.deepEqual(await driver.stat(uriOf(web, '/5'), call()), { size: 100 })
    await rejectsWith(driver.read(uriOf(web, '/6'), call()), 'unavailable')
    await rejectsWith(driver.stat(uriOf(web, '/6'), call()), 'unavailable')
  })

  it('follows no other redirects, and none that lead out of the web', async (t) => {
    const { web, driver } = await setUp(t)
    web.on('/target', serving(randomBytes(10)))
    for (const status of [300, 303, 304, 307, 308]) {
      web.on('/other', redirectTo('/target', status))
      await rejectsWith(driver.read(uriOf(web, '/other'), call()), 'unavailable')
    }
    for (const target of ['file:///etc/passwd', 'ftp://127.0.0.1/', 'http://', 'http://user@127.0.0.1/']) {
      web.on('/out', redirectTo(target))
      await assert.rejects(driver.read(uriOf(web, '/out'), call()), (error) => hasKind(error, 'invalid', 'unavailable'))
    }
    web.on('/nowhere', (_, response) => void response.writeHead(302).end())
    await rejectsWith(driver.read(uriOf(web, '/nowhere'), call()), 'unavailable')
  })

  it('gives the credentials of a location to its server, and to no other', async (t) => {
    const { web, driver } = await setUp(t)
    const other = await startWebServer()
    t.after(() => other.close())
    other.on('/data', serving(randomBytes(10)))
    web.on('/away', redirectTo(`${other.url}/data`))
    web.on('/within', redirectTo('/data'))
    web.on('/data', serving(randomBytes(10)))
    const uri = (path: string) => `http://user:${SECRET}@127.0.0.1:${web.port}${path}` as LocationUri
    await driver.stat(uri('/away'), call())
    await driver.stat(uri('/within'), call())
    const basic = `Basic ${Buffer.from(`user:${decodeURIComponent(SECRET)}`).toString('base64')}`
    assert.deepEqual(
      web.requests.map(({ headers }) => headers.authorization),
      [basic, basic, basic],
    )
    assert.deepEqual(
      other.requests.map(({ headers }) => headers.authorization),
      [undefined],
    )
  })

  it('says what statuses mean before it resolves', async (t) => {
    const { web, driver } = await setUp(t)
    for (const [status, kind] of [
      [404, 'not-found'],
      [410, 'not-found'],
      [401, 'unavailable'],
      [403, 'unavailable'],
      [500, 'unavailable'],
      [503, 'unavailable'],
    ] as const) {
      web.on('/status', (_, response) => void response.writeHead(status).end('no'))
      await rejectsWith(driver.read(uriOf(web, '/status'), call()), kind)
      await rejectsWith(driver.stat(uriOf(web, '/status'), call()), kind)
    }
  })

  it('is unavailable when nobody listens', async (t) => {
    const { driver } = await setUp(t)
    const probe = createServer().listen(0, '127.0.0.1')
    await once(probe, 'listening')
    const { port } = probe.address() as AddressInfo
    await new Promise((resolve) => probe.close(resolve))
    await rejectsWith(driver.stat(`http://127.0.0.1:${port}/` as LocationUri, call()), 'unavailable')
  })

  it('knows no size where the server tells none', async (t) => {
    const { web, driver } = await setUp(t)
    web.on('/chunked', (_, response) => void response.writeHead(200, { 'transfer-encoding': 'chunked' }).end('abc'))
    assert.deepEqual(await driver.stat(uriOf(web, '/chunked'), call()), { size: 0 })
    assert.equal(String(await collect(await driver.read(uriOf(web, '/chunked'), call()))), 'abc')
  })

  it('ends with an error when the data are shorter than announced, or the connection breaks', async (t) => {
    const { web, driver } = await setUp(t)
    web.on('/short', (_, response) => {
      response.writeHead(200, { 'content-length': 1000 }).write(randomBytes(500))
      response.socket?.end()
    })
    web.on('/reset', (_, response) => {
      response.writeHead(200, { 'content-length': 10 * MIB }).write(randomBytes(MIB), () => {
        response.socket?.resetAndDestroy()
      })
    })
    web.on('/unsized', (_, response) => {
      response.writeHead(200, { 'transfer-encoding': 'chunked' }).write(randomBytes(500), () => {
        response.socket?.destroy()
      })
    })
    for (const path of ['/short', '/reset', '/unsized']) {
      const bytes = await driver.read(uriOf(web, path), call())
      await rejectsWith(collect(bytes), 'unavailable')
    }
    web.on('/hangup', (_, response) => void response.socket?.destroy())
    await rejectsWith(driver.read(uriOf(web, '/hangup'), call()), 'unavailable')
  })

  it('gives ranges also of servers that know none, and refuses another range than asked for', async (t) => {
    const { web, driver } = await setUp(t)
    const data = randomBytes(3 * MIB)
    web.on('/whole', (_, response) => void response.writeHead(200, { 'content-length': data.length }).end(data))
    const range = { offset: MIB + 1, length: 70_000 }
    const got = await collect(await driver.read(uriOf(web, '/whole'), { ...call(), ...range }))
    assert.ok(got.equals(data.subarray(range.offset, range.offset + range.length)))
    web.on('/wrong', (_, response) => {
      response.writeHead(206, { 'content-length': 3, 'content-range': 'bytes 5-7/100' }).end('abc')
    })
    await rejectsWith(driver.read(uriOf(web, '/wrong'), { ...call(), offset: 4, length: 3 }), 'unavailable')
  })

  it('closes the connection when the reader leaves', async (t) => {
    const { web, driver } = await setUp(t)
    const closed = Promise.withResolvers<void>()
    web.on('/endless', (_, response) => {
      response.on('close', closed.resolve)
      const more = () => void response.write(randomBytes(65_536), (error) => error ?? more())
      more()
    })
    const reader = (await driver.read(uriOf(web, '/endless'), call()))[Symbol.asyncIterator]()
    await reader.next()
    await reader.return?.()
    await closed.promise
  })

  it('does not wait for ever for a server that says nothing, once the caller has gone', async (t) => {
    const { web, driver } = await setUp(t)
    const asked = Promise.withResolvers<void>()
    web.on('/silent', () => asked.resolve())
    const stop = new AbortController()
    const reading = driver.read(uriOf(web, '/silent'), { signal: stop.signal })
    await asked.promise
    const reason = new Error('gone')
    stop.abort(reason)
    await assert.rejects(reading, (error) => error === reason)
  })

  it('reads 64 MiB in constant memory', async (t) => {
    const { web, driver } = await setUp(t)
    const chunk = randomBytes(MIB)
    web.on('/large', (_, response) => {
      response.writeHead(200, { 'content-length': 64 * MIB })
      let left = 64
      const more = () => void (left-- > 0 ? response.write(chunk, () => more()) : response.end())
      more()
    })
    const before = process.memoryUsage.rss()
    let [size, peak] = [0, 0]
    for await (const { length } of await driver.read(uriOf(web, '/large'), call())) {
      size += length
      peak = Math.max(peak, process.memoryUsage.rss() - before)
    }
    assert.equal(size, 64 * MIB)
    assert.ok(peak < 48 * MIB, `memory grew by ${Math.round(peak / MIB)} MiB`)
  })

  it('writes nothing, and deletes nothing', async (t) => {
    const { web, driver } = await setUp(t)
    const uri = uriOf(web, web.serve(randomBytes(10)))
    const options = { ...call(), attempt: randomUUID() as AttemptId }
    async function* body() {}
    await rejectsWith(driver.write(randomUUID() as ImageId, body(), options), 'gone')
    await driver.delete(uri, call())
    await driver.sweep(randomUUID() as ImageId, options.attempt, call())
    assert.deepEqual(await driver.stat(uri, call()), { size: 10 })
  })

  it('goes through the proxy of its scheme', async (t) => {
    const seen: string[] = []
    const proxy = createServer((request, response) => {
      seen.push(request.url ?? '')
      response.writeHead(200, { 'content-length': 7 }).end(request.method === 'HEAD' ? undefined : 'proxied')
    })
    proxy.on('connect', (request, socket) => {
      seen.push(`CONNECT ${request.url}`)
      socket.end('HTTP/1.1 502 Bad Gateway\r\n\r\n')
    })
    await new Promise<void>((resolve) => proxy.listen(0, '127.0.0.1', resolve))
    t.after(() => proxy.close())
    const address = `127.0.0.1:${(proxy.address() as AddressInfo).port}`
    const { driver } = await setUp(t, { http_proxy_information: { http: address, https: `http://${address}` } })
    const read = await driver.read('http://images.example/a?b' as LocationUri, call())
    assert.equal(String(await collect(read)), 'proxied')
    await rejectsWith(driver.stat('https://images.example/a' as LocationUri, call()), 'unavailable')
    assert.deepEqual(seen, ['http://images.example/a?b', 'CONNECT images.example:443'])
  })

  it('trusts any certificate unless told otherwise, and then those of the given authorities', async (t) => {
    const dir = await mkdtemp(join(tmpdir(), 'http-store-'))
    t.after(() => rm(dir, { recursive: true }))
    const [key, cert] = [join(dir, 'key.pem'), join(dir, 'cert.pem')]
    const curve = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes']
    const name = ['-subj', '/CN=127.0.0.1', '-addext', 'subjectAltName=IP:127.0.0.1']
    await run('openssl', ['req', '-x509', ...curve, ...name, '-keyout', key, '-out', cert])
    const server = createSecureServer({ key: await readFile(key), cert: await readFile(cert) }, serving(randomBytes(9)))
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    t.after(() => server.close())
    const uri = `https://127.0.0.1:${(server.address() as AddressInfo).port}/` as LocationUri
    for (const [config, trusted] of [
      [{}, true],
      [{ https_insecure: false }, false],
      [{ https_insecure: false, https_ca_certificates_file: cert }, true],
    ] as const) {
      const { driver } = await setUp(t, config)
      if (trusted) assert.deepEqual(await driver.stat(uri, call()), { size: 9 })
      else await rejectsWith(driver.stat(uri, call()), 'unavailable')
    }
  })

  it('cannot be configured with certificates that are not there', () =>
    rejectsWith(openWith({ https_ca_certificates_file: '/nonexistent/ca.pem' }), 'invalid'))
})
