import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { createServer, type RequestListener } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, it, type TestContext } from 'node:test'
import fc from 'fast-check'
import { type Exchange, parse, print, type Response, record, replay, type Target, type Transcript } from './golden.ts'

const word = fc.stringMatching(/^[A-Za-z][A-Za-z0-9-]{0,8}$/)
const prose = fc.stringMatching(/^[A-Za-z0-9{}<>#:=]([ -~é]{0,20}[A-Za-z0-9{}<>#:=])?$/)
const headers = fc.array(fc.tuple(word, fc.oneof(fc.constant(''), prose)), { maxLength: 3 })
const body = fc
  .array(fc.stringMatching(/^[ -~é]{0,12}$/), { minLength: 1, maxLength: 4 })
  .map((lines) => lines.join('\n'))
const message = { headers, body: fc.option(body, { nil: undefined }) }
const exchange = fc.record(
  {
    title: prose,
    differs: prose,
    as: word,
    names: word,
    pick: fc.array(word, { minLength: 1, maxLength: 3 }),
    request: fc.record({
      method: fc.constantFrom('GET', 'PUT', 'FROBNICATE'),
      target: fc.stringMatching(/^\/[!-~]{0,12}$/),
      ...message,
    }),
    response: fc.record({
      status: fc.integer({ min: 100, max: 599 }),
      reason: fc.oneof(fc.constant(''), prose),
      ...message,
    }),
  },
  { requiredKeys: ['title', 'request'] },
)
const transcript = fc.record({ server: word, about: fc.array(prose, { maxLength: 2 }), exchanges: fc.array(exchange) })

/** As data: an absent body is the same as an undefined one. */
const plain = (value: unknown): unknown => JSON.parse(JSON.stringify(value))

/** A server, and a transcript of `exchanges` beside it. */
async function setting(t: TestContext, listener: RequestListener, exchanges: readonly Exchange[]) {
  const server = createServer(listener)
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const dir = await mkdtemp(join(tmpdir(), 'golden-'))
  t.after(async () => {
    server.close()
    await rm(dir, { recursive: true })
  })
  const file = join(dir, 'some.http')
  await writeFile(file, print({ server: 'single', about: [], exchanges }))
  const baseUrl = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  const target: Target = { baseUrl, tokens: { alice: 'alice:a:member' } }
  return { file, target, text: () => readFile(file, 'utf8') }
}

const get = (target: string, more: Partial<Exchange> = {}): Exchange => ({
  title: `GET ${target}`,
  request: { method: 'GET', target, headers: [] },
  ...more,
})
const json =
  (value: unknown): RequestListener =>
  (_, answer) => {
    answer.setHeader('Content-Type', 'application/json').end(JSON.stringify(value))
  }
const answered = (value: unknown): Response => ({
  status: 200,
  reason: 'OK',
  headers: [['content-type', 'application/json']],
  body: JSON.stringify(value),
})

describe('the text of a transcript', () => {
  it('says everything: parse(print(x)) = x', () => {
    fc.assert(
      fc.property(transcript, (each) => {
        assert.deepEqual(plain(parse(print(each as Transcript))), plain(each))
      }),
    )
  })

  it('is refused with the number of the line that cannot be read', () => {
    assert.throws(() => parse('server: single\n\n### Title\nnobody knows this\n> GET /\n'), /line 4/)
  })
})

describe('record() and replay()', () => {
  it('replays what it recorded, though ids and times are others every time', async (t) => {
    const id = new Map<string, string>()
    const listener: RequestListener = (request, answer) => {
      if (request.method === 'POST') id.set('it', randomUUID())
      const time = new Date(Math.random() * 1e12).toISOString()
      answer.setHeader('x-openstack-request-id', `req-${randomUUID()}`)
      answer.setHeader('Location', `http://${request.headers.host}/${id.get('it')}`)
      json({ id: id.get('it'), time, path: request.url, token: request.headers['x-auth-token'] })(request, answer)
    }
    const { file, target, text } = await setting(t, listener, [
      { title: 'create', names: 'mine', request: { method: 'POST', target: '/', headers: [], body: '{}' } },
      get('/{{mine}}', { as: 'alice' }),
    ])
    assert.deepEqual(await record(file, target), ['create', 'GET /{{mine}}'])
    assert.match(
      await text(),
      /< location: http:\/\/\{\{host\}\}\/\{\{mine\}\}\n< x-openstack-request-id: \{\{request_id\}\}/,
    )
    assert.match(await text(), /"time": "\{\{time\}\}", "path": "\/\{\{mine\}\}", "token": "alice:a:member"/)
    assert.deepEqual(
      (await replay(file, target)).flatMap((each) => each.details),
      [],
    )
    assert.deepEqual(await record(file, target), [])
  })

  it('compares JSON by structure, and tags as a set', async (t) => {
    const { file, target } = await setting(t, json({ tags: ['b', 'a'], size: 1, list: [1, 2] }), [
      get('/same', { response: answered({ size: 1, list: [1, 2], tags: ['a', 'b'] }) }),
      get('/size', { response: answered({ size: 2, list: [1, 2], tags: ['a', 'b'] }) }),
      get('/order', { response: answered({ size: 1, list: [2, 1], tags: ['a', 'b'] }) }),
      get('/more', { response: answered({ size: 1, list: [1, 2], tags: ['a', 'b'], name: null }) }),
      get('/less', { response: answered({ size: 1, list: [1, 2] }) }),
    ])
    const found = (await replay(file, target)).map(({ details }) => details)
    assert.deepEqual(
      found.map((details) => details.length),
      [0, 1, 2, 1, 1],
    )
    assert.equal(found[1]?.[0], 'body.size: expected 2, got 1')
  })

  it('notices another status, a header that is missing, changed or new, and another letter of a text', async (t) => {
    const listener: RequestListener = (_, answer) => {
      answer.writeHead(404, { 'Content-Type': 'text/plain', Allow: 'GET', New: '1' }).end('gone\n')
    }
    const { file, target } = await setting(t, listener, [
      get('/', {
        response: {
          status: 400,
          reason: 'Bad Request',
          headers: [
            ['allow', 'PUT'],
            ['content-type', 'text/plain'],
            ['old', '1'],
          ],
          body: 'gone',
        },
      }),
    ])
    assert.deepEqual((await replay(file, target))[0]?.details, [
      'status: expected "400 Bad Request", got "404 Not Found"',
      'allow: expected "PUT", got "GET"',
      'old: expected "1", got undefined',
      'new: expected undefined, got "1"',
      'body: expected "gone", got "gone\\n"',
    ])
  })

  it('shows only the picked members of lists', async (t) => {
    const { file, target, text } = await setting(t, json({ images: [{ name: 'a', size: 1 }], first: '/' }), [
      get('/', { pick: ['name'] }),
    ])
    await record(file, target)
    assert.match(await text(), /\{ "images": \[\{ "name": "a" \}\], "first": "\/" \}/)
  })

  it('leaves an answer alone that is marked as different, when asked to', async (t) => {
    const marked = get('/', { differs: 'ours is better', response: answered({ size: 2 }) })
    const { file, target, text } = await setting(t, json({ size: 1 }), [marked])
    const before = await text()
    assert.deepEqual(await record(file, target, { keepMarked: true }), [])
    assert.equal(await text(), before)
    assert.deepEqual(await record(file, target), ['GET /'])
  })

  it('sends and shows bytes that are no text', async (t) => {
    const echo: RequestListener = (request, answer) => {
      answer.setHeader('Content-Type', 'application/octet-stream')
      request.pipe(answer)
    }
    const { file, target, text } = await setting(t, echo, [
      { title: 'bytes', request: { method: 'PUT', target: '/', headers: [], body: '!hex 00ff0a' } },
      { title: 'repeated', request: { method: 'PUT', target: '/', headers: [], body: '{{a*300}}' } },
    ])
    await record(file, target)
    assert.match(await text(), /< !hex 00ff0a\n/)
    assert.match(await text(), /< \{\{a\*300\}\}\n/)
  })
})
