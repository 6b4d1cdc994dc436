import assert from 'node:assert/strict'
import { createHash, randomBytes } from 'node:crypto'
import { after, afterEach, before, beforeEach, describe, it } from 'node:test'
import { startImport, type TestImport } from '../../test/support/import-job.ts'
import { serving, startWebServer, type WebServer } from '../../test/support/servers/web.ts'
import type { ServiceError } from '../domain/errors.ts'
import { openDigestCheck } from './expected-digest.ts'
import { openHttpClient } from './http-client.ts'
import type { ImportJob, ImportMethod, Step } from './import.ts'
import { uriFilter } from './uri-filter.ts'
import { webDownload } from './web-download.ts'

describe('webDownload', () => {
  const data = randomBytes(3_000_000)
  const sha512 = createHash('sha512').update(data).digest('hex')
  const filter = uriFilter(
    {
      allowed_schemes: ['http', 'https'],
      disallowed_schemes: [],
      allowed_hosts: [],
      disallowed_hosts: ['127.0.0.2'],
      allowed_ports: [],
      disallowed_ports: [],
    },
    { reach: 'any' },
  )
  const client = openHttpClient({ filter, stallMs: 5000 })
  const digests = openDigestCheck()
  let method: ImportMethod
  let web: WebServer
  let test: TestImport
  before(async () => {
    web = await startWebServer()
    method = webDownload({ filter, client, digests, options: { retries: 1, connections: 2, pauseMs: 10 } })
    web.on('/data', (request, response) => {
      response.setHeader('etag', '"one"')
      response.setHeader('accept-ranges', 'bytes')
      serving(data)(request, response)
    })
  })
  after(async () => {
    await client.close()
    await digests.close()
    await web.close()
  })
  beforeEach(async () => {
    test = await startImport()
  })
  afterEach(() => test.close())

  const step = (job: ImportJob, members: Record<string, unknown>): Step => {
    const [only] = method.steps?.(job, { name: 'web-download', ...members }) ?? []
    if (only === undefined) throw new Error('no step')
    return only
  }
  const signal = new AbortController().signal
  const uri = () => `${web.url}/data`

  it('accepts what it can download, and says what is wrong with the rest', async () => {
    const accepted = { name: 'web-download', uri: uri(), os_hash_algo: 'sha512', os_hash_value: sha512 }
    assert.deepEqual(await method.accept?.(accepted), accepted)
    const refusals: [Record<string, unknown>, string][] = [
      [{}, 'URI for web-download does not pass filtering: None'],
      [{ uri: 5 }, 'URI for web-download does not pass filtering: None'],
      [{ uri: 'file:///etc/passwd' }, 'URI for web-download does not pass filtering: file:///etc/passwd'],
      [
        { uri: 'http://joe:secret@127.0.0.2/a?b' },
        'URI for web-download does not pass filtering: http://***@127.0.0.2/a',
      ],
      [{ uri: uri(), os_hash_algo: 'sha512' }, 'os_hash_algo and os_hash_value must be given together, as texts'],
      [{ uri: uri(), os_hash_algo: 'none', os_hash_value: '00' }, "Unknown hash algorithm 'none'"],
      [
        { uri: uri(), os_hash_algo: 'md5', os_hash_value: '00' },
        'os_hash_value is not a digest of md5 in hex (16 bytes)',
      ],
    ]
    for (const [members, message] of refusals) {
      await assert.rejects(
        async () => method.accept?.(members),
        (error: ServiceError) => {
          assert.equal(error.kind, 'invalid')
          assert.equal(error.message, message)
          return true
        },
      )
    }
  })

  it('stages the data, once', async () => {
    const asked = web.requests.length
    const wanted = { uri: uri(), os_hash_algo: 'sha512', os_hash_value: sha512.toUpperCase() }
    await step(test.job(), wanted).run(signal)
    assert.ok((await test.staged()).equals(data))
    assert.equal(test.progress.at(-1), data.length)
    // Also when a plugin has made something else of it.
    await test.stage('something else')
    await step(test.job({ tries: 2 }), wanted).run(signal)
    assert.equal((await test.staged()).toString(), 'something else')
    assert.equal(web.requests.length, asked + 1)
    await step(test.job({ tries: 2 }), wanted).undo?.()
    assert.deepEqual(await test.leftovers(), [])
    await assert.rejects(test.staged(), /ENOENT/)
  })

  it('takes no notice of what another import has staged', async () => {
    await test.stage('old')
    await step(test.job(), { uri: uri() }).run(signal)
    assert.ok((await test.staged()).equals(data))
  })

  it('stages nothing with another digest than expected', async () => {
    const broken = step(test.job(), { uri: uri(), os_hash_algo: 'sha256', os_hash_value: '00'.repeat(32) })
    await assert.rejects(broken.run(signal), {
      kind: 'invalid',
      message: `The data has the sha256 digest ${createHash('sha256').update(data).digest('hex')}, expected was ${'00'.repeat(32)}`,
    })
    await assert.rejects(test.staged(), /ENOENT/)
    await broken.undo?.()
    assert.deepEqual(await test.leftovers(), [])
  })

  it('goes on where a process that died has left off', async () => {
    const stop = new AbortController()
    let sent = 0
    web.on('/slow', (request, response) => {
      response.setHeader('etag', '"one"')
      response.setHeader('accept-ranges', 'bytes')
      if (sent++ > 0) return serving(data)(request, response)
      response.writeHead(200, { 'content-length': data.length })
      response.write(data.subarray(0, 2_000_000))
    })
    const job = test.job({ progress: (bytes) => bytes > 1_000_000 && stop.abort(new Error('stopped')) })
    await assert.rejects(step(job, { uri: `${web.url}/slow` }).run(stop.signal), /stopped/)
    await step(test.job({ tries: 3 }), { uri: `${web.url}/slow` }).run(signal)
    assert.ok((await test.staged()).equals(data))
    assert.match(web.requests.at(-1)?.headers.range ?? '', /^bytes=[1-9]\d{6}-2999999$/)
    assert.deepEqual((await test.leftovers()).toSorted(), ['.download.done', '.part-3.note'])
  })

  it('says why it fails, and leaves nothing', async () => {
    for (const [members, kind, message] of [
      [{ uri: `${web.url}/none` }, 'bad-gateway', /^127\.0\.0\.1:\d+ answers 404 Not Found$/],
      [{ uri: 'http://127.0.0.2/' }, 'invalid', /does not pass filtering/],
    ] as const) {
      const failing = step(test.job(), members)
      await assert.rejects(failing.run(signal), (error: ServiceError) => {
        assert.equal(error.kind, kind)
        assert.match(error.message, message)
        return true
      })
      await failing.undo?.()
      assert.deepEqual(await test.leftovers(), [])
    }
    const large = step(test.job({ sizeLimit: 1_000_000 }), { uri: uri() })
    await assert.rejects(large.run(signal), { kind: 'too-large' })
  })
})
