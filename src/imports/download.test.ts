import assert from 'node:assert/strict'
import { randomBytes, randomUUID } from 'node:crypto'
import { mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises'
import type { AddressInfo } from 'node:net'
import { createServer, type Server } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { gzipSync } from 'node:zlib'
import { available, startNginx } from '../../test/support/servers/nginx.ts'
import { type Behaviour, serving, startWebServer, type WebServer } from '../../test/support/servers/web.ts'
import type { ServiceError } from '../domain/errors.ts'
import type { ImageId, TaskId } from '../domain/ids.ts'
import { type Download, type DownloadOptions, download, type Remembered } from './download.ts'
import { type HttpClient, openHttpClient, parseTarget } from './http-client.ts'
import { type Note, note } from './notes.ts'
import { type UriRules, uriFilter } from './uri-filter.ts'

const ANYTHING: UriRules = {
  allowed_schemes: ['http', 'https'],
  disallowed_schemes: [],
  allowed_hosts: [],
  disallowed_hosts: [],
  allowed_ports: [],
  disallowed_ports: [],
}
const MIB = 1_048_576

describe('download', () => {
  let dir: string
  let web: WebServer
  let client: HttpClient
  const data = randomBytes(6 * MIB + 12_345)
  before(async () => {
    dir = await mkdtemp(join(tmpdir(), 'glimpse-download-'))
    web = await startWebServer()
    const filter = uriFilter({ ...ANYTHING, disallowed_hosts: ['127.0.0.2'] }, { reach: 'any' })
    client = openHttpClient({ filter, stallMs: 1000 })
  })
  after(async () => {
    await client.close()
    await web.close()
    await rm(dir, { recursive: true, force: true })
  })

  let path: string
  let remembered: Note<Remembered>
  const newFile = () => {
    const id = randomUUID() as ImageId
    path = join(dir, id)
    const staging = { path: (image: string, suffix = '') => join(dir, `${image}.${suffix}`) }
    remembered = note(staging as never, id, 'task' as TaskId, 'part.json')
  }

  const fetchFrom = (
    uri: string,
    {
      connections = 1,
      retries = 3,
      again = false,
      ...more
    }: Partial<Download & DownloadOptions> & { again?: boolean } = {},
  ): Promise<number> => {
    if (!again) newFile()
    return download(
      client,
      {
        target: parseTarget(uri),
        path,
        note: remembered,
        limit: Number.POSITIVE_INFINITY,
        progress: () => undefined,
        signal: new AbortController().signal,
        ...more,
      },
      { retries, connections, pauseMs: 10, worthDividing: MIB },
    )
  }
  const serve = (behave: Behaviour): string => {
    const at = `/${randomUUID()}`
    web.on(at, behave)
    return web.url + at
  }
  /** Requests for a URL: their ranges. */
  const rangesOf = (uri: string) =>
    web.requests.filter(({ url }) => uri.endsWith(url ?? '')).map(({ headers }) => headers.range)
  const assertWhole = async (expected: Buffer = data) =>
    assert.ok((await readFile(path)).equals(expected), 'the file has other data')
  const failsWith = (kind: string, message: RegExp) => (error: ServiceError) => {
    assert.equal(error.kind, kind, error.message)
    assert.match(error.message, message)
    return true
  }

  /** An ordinary server of today, which breaks off after `bytes` of an answer as long as `times` says. */
  const breaking = (
    bytes: () => number,
    times = Number.POSITIVE_INFINITY,
    etag: string | undefined = '"one"',
  ): Behaviour => {
    let left = times
    const whole = modern(data, etag)
    return (request, response) => {
      if (left-- <= 0) return whole(request, response)
      const from = Number(/^bytes=(\d+)-/.exec(request.headers.range ?? '')?.[1] ?? 0)
      const end = Math.min(from + bytes(), data.length)
      const headers = { 'accept-ranges': 'bytes', 'content-length': data.length - from, ...(etag && { etag }) }
      if (request.headers.range === undefined) response.writeHead(200, headers)
      else response.writeHead(206, { ...headers, 'content-range': `bytes ${from}-${data.length - 1}/${data.length}` })
      response.write(data.subarray(from, end), () => response.destroy())
    }
  }

  it('brings the data as it is', async () => {
    const seen: number[] = []
    assert.equal(await fetchFrom(serve(modern(data)), { progress: (bytes) => seen.push(bytes) }), data.length)
    await assertWhole()
    assert.equal(seen.at(-1), data.length)
    assert.deepEqual(
      seen,
      seen.toSorted((a, b) => a - b),
    )
  })

  it('brings no data, data without a length, and data from a server that knows no ranges', async () => {
    assert.equal(await fetchFrom(serve(modern(Buffer.alloc(0)))), 0)
    assert.equal(
      await fetchFrom(
        serve((_, response) => void response.end(data)),
        { connections: 4 },
      ),
      data.length,
    )
    await assertWhole()
  })

  it('goes on where a connection broke, again and again', async () => {
    const uri = serve(breaking(() => MIB + Math.floor(Math.random() * MIB)))
    assert.equal(await fetchFrom(uri), data.length)
    await assertWhole()
    const ranges = rangesOf(uri)
    assert.equal(ranges[0], undefined)
    assert.ok(ranges.length >= 4)
    const starts = ranges.slice(1).map((range) => Number(/=(\d+)-/.exec(range ?? '')?.[1]))
    assert.deepEqual(
      starts,
      starts.toSorted((a, b) => a - b),
    )
    assert.ok(starts.every((start) => start >= MIB - 200_000))
    assert.equal(web.requests.at(-1)?.headers['if-range'], '"one"')
  })

  it('goes on after a silence, and gives up on a server that stays silent', async () => {
    let asked = 0
    const stalling: Behaviour = (request, response) => {
      if (asked++ > 0) return modern(data)(request, response)
      response.writeHead(200, { 'content-length': data.length, 'accept-ranges': 'bytes', etag: '"one"' })
      response.write(data.subarray(0, 2 * MIB))
    }
    assert.equal(await fetchFrom(serve(stalling)), data.length)
    await assertWhole()
    asked = 0
    const silent = serve((request, response) => (asked === 0 ? stalling(request, response) : undefined))
    await assert.rejects(
      fetchFrom(silent, { retries: 1 }),
      failsWith('timeout', /^127\.0\.0\.1:\d+ has sent nothing for 1 seconds, after 2097152 of 6303801 bytes$/),
    )
  })

  it('takes its time with a server that is slow but not silent', async () => {
    const slow: Behaviour = async (_, response) => {
      response.writeHead(200, { 'content-length': 5 })
      for (const letter of 'slow!') {
        response.write(letter)
        await delay(400)
      }
      response.end()
    }
    assert.equal(await fetchFrom(serve(slow), { retries: 0 }), 5)
    await assertWhole(Buffer.from('slow!'))
  })

  it('begins anew when the server cannot send the rest', async () => {
    const uri = serve(breaking(() => MIB, 2, ''))
    assert.equal(await fetchFrom(uri), data.length)
    await assertWhole()
    assert.deepEqual(rangesOf(uri), [undefined, undefined, undefined])
  })

  it('gives up after a number of failures, and says how far it got', async () => {
    const uri = serve(breaking(() => 100_000))
    await assert.rejects(
      fetchFrom(uri),
      failsWith('bad-gateway', /^The connection to .* broke, after \d+ of 6303801 bytes$/),
    )
    assert.equal(rangesOf(uri).length, 4)
    const never = serve(breaking(() => 2 * MIB, undefined, ''))
    await assert.rejects(fetchFrom(never), failsWith('bad-gateway', /broke/))
    assert.equal(rangesOf(never).length, 4)
  })

  it('begins anew when the data changes in between', async () => {
    const other = randomBytes(3 * MIB)
    const first = breaking(() => 2 * MIB, 1)
    let asked = 0
    const uri = serve((request, response) => (asked++ === 0 ? first : modern(other, '"two"'))(request, response))
    assert.equal(await fetchFrom(uri), other.length)
    await assertWhole(other)
  })

  it('fetches several parts at once', async () => {
    let running = 0
    let most = 0
    const uri = serve((request, response) => {
      most = Math.max(most, ++running)
      response.on('close', () => running--)
      throttled(data, '"one"')(request, response)
    })
    const began = performance.now()
    assert.equal(await fetchFrom(uri, { connections: 4 }), data.length)
    await assertWhole()
    assert.equal(most, 4)
    const alone = (data.length / MIB) * 400
    const took = performance.now() - began
    assert.ok(took < alone * 0.7, `${took} ms, one connection takes ${alone} ms`)
  })

  it('fetches several parts over connections that all break', async () => {
    let asked = 0
    const uri = serve((request, response) => {
      if (asked++ > 20) return modern(data)(request, response)
      breaking(() => 300_000 + Math.floor(Math.random() * 900_000))(request, response)
    })
    assert.equal(await fetchFrom(uri, { connections: 4, retries: 30 }), data.length)
    await assertWhole()
  })

  it('lets one connection do it all when the server only says that it knows ranges', async () => {
    const uri = serve((_, response) => {
      response.writeHead(200, { 'content-length': data.length, 'accept-ranges': 'bytes', etag: '"one"' })
      response.write(data.subarray(0, MIB))
      setTimeout(() => response.end(data.subarray(MIB)), 200)
    })
    assert.equal(await fetchFrom(uri, { connections: 4, retries: 0 }), data.length)
    await assertWhole()
    assert.equal(rangesOf(uri).filter((range) => range === undefined).length, 1)
  })

  it('is not fooled by a length that is too large, or not the expected one', async () => {
    const long: Behaviour = (request, response) => {
      const from = Number(/^bytes=(\d+)-/.exec(request.headers.range ?? '')?.[1] ?? 0)
      response.writeHead(from === 0 ? 200 : 206, {
        'content-length': 1000 - from,
        'accept-ranges': 'bytes',
        etag: '"one"',
        ...(from > 0 && { 'content-range': `bytes ${from}-999/1000` }),
      })
      response.write(Buffer.alloc(Math.max(0, 900 - from)), () => response.destroy())
    }
    await assert.rejects(fetchFrom(serve(long)), failsWith('bad-gateway', /broke.*after 900 of 1000 bytes/))
    const uri = serve(modern(data))
    await assert.rejects(
      fetchFrom(uri, { size: 10 }),
      failsWith('invalid', /^Downloaded data size 6303801 is different from expected 10$/),
    )
    await assert.rejects(
      fetchFrom(
        serve((_, response) => void response.end('eleven byte')),
        { size: 10 },
      ),
      failsWith('invalid', /^Downloaded data size 11 is different from expected 10$/),
    )
  })

  it('takes what a length that is too small promises', async () => {
    const raw = await listen(
      createServer((socket) => {
        socket.on('error', () => undefined)
        socket.once('data', () => socket.end('HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfour and more'))
      }),
    )
    try {
      assert.equal(await fetchFrom(raw.url), 4)
      await assertWhole(Buffer.from('four'))
    } finally {
      raw.server.close()
    }
  })

  it('keeps data that comes compressed although nobody asked for it as it comes', async () => {
    const packed = gzipSync('what was asked for')
    const uri = serve((request, response) => {
      assert.equal(request.headers['accept-encoding'], 'identity')
      response.writeHead(200, { 'content-encoding': 'gzip', 'content-length': packed.length }).end(packed)
    })
    assert.equal(await fetchFrom(uri), packed.length)
    await assertWhole(packed)
  })

  it('stops above the limit, whether the length is known or not', async () => {
    const limit = 3 * MIB
    const known = serve(modern(data))
    await assert.rejects(
      fetchFrom(known, { limit }),
      failsWith('too-large', /^The data is larger than the 3145728 bytes that are allowed$/),
    )
    const endless = serve((_, response) => {
      const more = () => response.write(Buffer.alloc(65_536), (error) => error ?? more())
      more()
    })
    await assert.rejects(fetchFrom(endless, { limit }), failsWith('too-large', /larger than/))
    assert.ok((await stat(path)).size <= limit + MIB)
  })

  it('follows redirects, and no further than the filter lets it', async () => {
    const end = serve(modern(data))
    const hop = serve((_, response) => void response.writeHead(307, { location: end }).end())
    assert.equal(
      await fetchFrom(serve((_, response) => void response.writeHead(302, { location: hop }).end())),
      data.length,
    )
    for (const location of [
      'http://127.0.0.2/secret',
      'http://u:p@127.0.0.2/secret?sig=x',
      'file:///etc/passwd',
      '//127.1/',
    ]) {
      const away = serve((_, response) => void response.writeHead(301, { location }).end())
      await assert.rejects(fetchFrom(away), (error: ServiceError) => {
        assert.equal(error.kind, 'forbidden')
        assert.match(error.message, /^Redirect to disallowed URL: /)
        assert.doesNotMatch(error.message, /u:p|sig=/)
        return true
      })
    }
    const loop: string = serve((_, response) => void response.writeHead(302, { location: loop }).end())
    await assert.rejects(fetchFrom(loop), failsWith('bad-gateway', /redirects too often$/))
  })

  it('asks the first server again when the place it led to is gone', async () => {
    let hops = 0
    let gone = ''
    const uri = serve((_, response) => {
      const place: string = serve((request, answer) => {
        if (gone === place) return void answer.writeHead(403).end()
        if (hops > 1) return modern(data)(request, answer)
        gone = place
        breaking(() => 2 * MIB)(request, answer)
      })
      hops++
      response.writeHead(302, { location: place }).end()
    })
    assert.equal(await fetchFrom(uri), data.length)
    await assertWhole()
    assert.equal(hops, 2)
  })

  it('shows credentials to the server they are for, and to nobody else', async () => {
    const other = await startWebServer()
    try {
      other.on('/end', modern(data))
      const away = serve((_, response) => void response.writeHead(302, { location: `${other.url}/end` }).end())
      await fetchFrom(away.replace('http://', 'http://joe:s%2Fcret@'))
      const basic = `Basic ${Buffer.from('joe:s/cret').toString('base64')}`
      assert.equal(web.requests.at(-1)?.headers.authorization, basic)
      assert.equal(other.requests.at(-1)?.headers.authorization, undefined)
      const near = serve((_, response) => void response.writeHead(302, { location: serve(modern(data)) }).end())
      await fetchFrom(near.replace('http://', 'http://joe:s%2Fcret@'))
      assert.equal(web.requests.at(-1)?.headers.authorization, basic)
    } finally {
      await other.close()
    }
  })

  it('says why there is nothing', async () => {
    const missing = serve((_, response) => void response.writeHead(404).end('joe was here'))
    await assert.rejects(
      fetchFrom(missing.replace('//', '//joe:secret@')),
      failsWith('bad-gateway', /^127\.0\.0\.1:\d+ answers 404 Not Found$/),
    )
    assert.equal(rangesOf(missing).length, 1)
    const busy = serve((_, response) => void response.writeHead(503).end())
    await assert.rejects(fetchFrom(busy), failsWith('bad-gateway', /answers 503 Service Unavailable$/))
    assert.equal(rangesOf(busy).length, 4)
    const { server, url } = await listen(createServer())
    server.close()
    await assert.rejects(fetchFrom(url), failsWith('bad-gateway', /refuses connections$/))
  })

  it('goes on with what another process has left behind', async () => {
    const uri = serve(throttled(data, '"one"'))
    const stop = new AbortController()
    const first = fetchFrom(uri, {
      connections: 3,
      signal: stop.signal,
      progress: (bytes) => bytes > 3 * MIB && stop.abort(new Error('stop')),
    })
    await assert.rejects(first, /stop/)
    const before = rangesOf(uri).length
    const { missing = [] } = (await remembered.read()) ?? {}
    assert.ok(missing.length > 0)
    const steps: number[] = []
    assert.equal(await fetchFrom(uri, { again: true, progress: (bytes) => steps.push(bytes) }), data.length)
    await assertWhole()
    assert.ok((steps[0] ?? 0) > 2 * MIB, `begins at ${steps[0]}`)
    assert.deepEqual(
      rangesOf(uri).slice(before).toSorted(),
      missing.map(([from, to]) => `bytes=${from}-${to - 1}`).toSorted(),
    )
    assert.equal(await fetchFrom(uri, { again: true }), data.length)
  })

  it('does not trust a note whose data is not there, or has changed', async () => {
    newFile()
    await writeFile(path, 'left behind by somebody else')
    assert.equal(await fetchFrom(serve(modern(Buffer.from('short'))), { again: true }), 5)
    newFile()
    await remembered.write({ validator: '"one"', size: data.length, missing: [[MIB, data.length]] })
    assert.equal(await fetchFrom(serve(modern(data)), { again: true }), data.length)
    await assertWhole()
    await remembered.write({ validator: '"none"', size: data.length, missing: [[MIB, data.length]] })
    assert.equal(await fetchFrom(serve(modern(data.subarray(1))), { again: true }), data.length - 1)
    await assertWhole(data.subarray(1))
  })

  const nginxHere = available()
  const skip = !nginxHere.ok && process.env['CI'] !== 'true' && nginxHere.reason
  it('brings data from nginx, in parts, and goes on where it stopped', { skip }, async () => {
    const nginx = await startNginx()
    try {
      const large = randomBytes(24 * MIB)
      await writeFile(join(nginx.root, 'disk'), large)
      const began = performance.now()
      assert.equal(await fetchFrom(`${nginx.url}/disk`, { connections: 4 }), large.length)
      await assertWhole(large)
      const took = performance.now() - began
      assert.ok(took < 2500, `${took} ms, one connection takes 3000 ms`)
      const stop = new AbortController()
      const progress = (bytes: number) => bytes > 8 * MIB && stop.abort(new Error('stop'))
      await assert.rejects(fetchFrom(`${nginx.url}/disk`, { signal: stop.signal, progress }), /stop/)
      let first = 0
      const resumed = { again: true, progress: (bytes: number) => (first ||= bytes) }
      assert.equal(await fetchFrom(`${nginx.url}/disk`, resumed), large.length)
      await assertWhole(large)
      assert.ok(first > 8 * MIB)
    } finally {
      await nginx.stop()
    }
  })

  it('ends at once when it is told to', async () => {
    const stop = new AbortController()
    const running = fetchFrom(
      serve(() => undefined),
      { signal: stop.signal },
    )
    setTimeout(() => stop.abort(new Error('enough')), 50)
    const began = performance.now()
    await assert.rejects(running, /enough/)
    assert.ok(performance.now() - began < 500)
  })
})

/** As web servers are today: with an ETag, ranges, and If-Range. */
const modern =
  (data: Buffer, etag = '"one"'): Behaviour =>
  (request, response) => {
    response.setHeader('accept-ranges', 'bytes')
    if (etag !== '') response.setHeader('etag', etag)
    const condition = request.headers['if-range']
    if (condition !== undefined && condition !== etag) delete request.headers.range
    serving(data)(request, response)
  }

/** The same, with about 2.5 MiB a second for each connection. */
const throttled =
  (data: Buffer, etag: string): Behaviour =>
  async (request, response) => {
    const [, first = 0, last = data.length - 1] = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? '') ?? []
    const [from, to] = [Number(first), Number(last)]
    response.writeHead(request.headers.range === undefined ? 200 : 206, {
      'accept-ranges': 'bytes',
      'content-length': to + 1 - from,
      etag,
      ...(request.headers.range !== undefined && { 'content-range': `bytes ${from}-${to}/${data.length}` }),
    })
    for (let at = from; at <= to && !response.destroyed; at += 131_072) {
      response.write(data.subarray(at, Math.min(at + 131_072, to + 1)))
      await delay(50)
    }
    response.end()
  }

async function listen(server: Server): Promise<{ server: Server; url: string }> {
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return { server, url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/data` }
}
