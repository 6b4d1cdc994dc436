import assert from 'node:assert/strict'
import { createHmac } from 'node:crypto'
import { createServer, type IncomingMessage, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { buffer } from 'node:stream/consumers'
import { describe, it, type TestContext } from 'node:test'
import { silentLog } from '../../log.ts'
import { exampleMessage, notifyConformance } from '../conformance.ts'
import { queued, Refused } from '../queue.ts'
import { type WebhookOptions, webhookSender } from './webhook.ts'

interface Post {
  readonly headers: IncomingMessage['headers']
  readonly path: string
  readonly body: string
}

interface Answer {
  status: number
  headers: Record<string, string>
  /** Never answer at all. */
  hang: boolean
}

/** A receiver that answers with `status`, the headers with it, and remembers what it took. */
async function startReceiver(t: TestContext) {
  const posts: Post[] = []
  const answer: Answer = { status: 204, headers: {}, hang: false }
  let server: Server
  let port = 0
  const start = async () => {
    server = createServer((request, response) => {
      void buffer(request)
        .then((body) => {
          if (answer.hang) return
          posts.push({ headers: request.headers, path: request.url ?? '', body: body.toString() })
          response.writeHead(answer.status, answer.headers).end()
        })
        .catch(() => undefined)
    })
    await new Promise<void>((resolve) => server.listen(port, '127.0.0.1', resolve))
    ;({ port } = server.address() as AddressInfo)
  }
  const halt = () =>
    new Promise<void>((resolve) => {
      server.close(() => resolve())
      server.closeAllConnections()
    })
  await start()
  t.after(halt)
  return { posts, answer, start, halt, url: () => `http://127.0.0.1:${port}/hook` }
}

const sender = (url: string, options: Partial<WebhookOptions> = {}) =>
  webhookSender({ url, secret: undefined, mode: 'structured', timeoutMs: 5000, ca: undefined, ...options })

notifyConformance({
  name: 'webhooks',
  skip: false,
  open: async (t) => {
    const receiver = await startReceiver(t)
    const url = receiver.url().replace('http://', 'http://user:hunter2@').replace('/hook', '/path-hunter3')
    return {
      sender: sender(url, { secret: 'hunter4' }),
      secrets: ['hunter2', 'hunter3', 'hunter4'],
      away: receiver.halt,
      back: receiver.start,
      received: async (atLeast) => {
        while (receiver.posts.length < atLeast) await new Promise((resolve) => setTimeout(resolve, 10))
        return receiver.posts.map(({ headers }) => String(headers['webhook-id']))
      },
    }
  },
})

describe('webhooks', () => {
  it('are CloudEvents in structured mode', async (t) => {
    const { posts, url } = await startReceiver(t)
    const message = exampleMessage()
    await sender(url()).send(message)
    const [post] = posts
    assert.equal(post?.headers['content-type'], 'application/cloudevents+json; charset=utf-8')
    assert.deepEqual(JSON.parse(post.body), {
      specversion: '1.0',
      id: message.id,
      source: '/image.localhost',
      type: 'org.openstack.image.member.create',
      subject: '71c675ab-d94f-49cd-a114-e12490b328d9',
      time: message.time.toISOString(),
      priority: 'INFO',
      datacontenttype: 'application/json',
      data: message.payload,
    })
    assert.equal(post.headers['webhook-signature'], undefined)
    assert.equal(post.headers.authorization, undefined)
  })

  it('are CloudEvents in binary mode', async (t) => {
    const { posts, url } = await startReceiver(t)
    const message = { ...exampleMessage(), payload: { id: 'a "ü" %' } }
    await sender(url(), { mode: 'binary' }).send(message)
    const [post] = posts
    assert.equal(post?.headers['content-type'], 'application/json')
    assert.deepEqual(JSON.parse(post.body), message.payload)
    assert.equal(post.headers['ce-specversion'], '1.0')
    assert.equal(post.headers['ce-id'], message.id)
    assert.equal(post.headers['ce-type'], 'org.openstack.image.member.create')
    assert.equal(post.headers['ce-source'], '/image.localhost')
    assert.equal(post.headers['ce-time'], message.time.toISOString())
    assert.equal(post.headers['ce-subject'], 'a%20%22%C3%BC%22%20%25')
  })

  for (const [secret, key] of [
    ['s3cret', Buffer.from('s3cret')],
    ['whsec_AAECAwQFBgc=', Buffer.from([0, 1, 2, 3, 4, 5, 6, 7])],
  ] as const) {
    it(`are signed with ${secret} so that a receiver can check them`, async (t) => {
      const { posts, url } = await startReceiver(t)
      await sender(url(), { secret }).send(exampleMessage())
      const { headers, body } = posts[0] as Post
      const signed = `${headers['webhook-id']}.${headers['webhook-timestamp']}.${body}`
      assert.equal(headers['webhook-signature'], `v1,${createHmac('sha256', key).update(signed).digest('base64')}`)
      assert.ok(Math.abs(Number(headers['webhook-timestamp']) - Date.now() / 1000) < 60)
    })
  }

  it('show a user and password only to the receiver', async (t) => {
    const { posts, url } = await startReceiver(t)
    await sender(url().replace('http://', 'http://us%20er:p%40ss@')).send(exampleMessage())
    assert.equal(posts[0]?.headers.authorization, `Basic ${Buffer.from('us er:p@ss').toString('base64')}`)
  })

  it('are never taken elsewhere by a redirect', async (t) => {
    const elsewhere = await startReceiver(t)
    const { posts, answer, url } = await startReceiver(t)
    Object.assign(answer, { status: 307, headers: { location: elsewhere.url() } })
    await assert.rejects(sender(url(), { secret: 's3cret' }).send(exampleMessage()), Refused)
    assert.equal(posts.length, 1)
    assert.equal(elsewhere.posts.length, 0)
  })

  for (const status of [408, 425, 429, 500, 503]) {
    it(`are sent again after ${status}`, async (t) => {
      const { answer, posts, url } = await startReceiver(t)
      answer.status = status
      const driver = queued(sender(url()), {
        maxMessages: 10,
        maxSize: 1e6,
        retries: 5,
        log: silentLog,
        pauseMs: () => {
          answer.status = 200
          return 1
        },
      })
      const message = exampleMessage()
      driver.accept(message)
      await driver.close(10_000)
      assert.equal(posts.length, 2)
      assert.equal(posts[0]?.headers['content-length'], posts[1]?.headers['content-length'])
      assert.equal(posts[0]?.body, posts[1]?.body)
    })
  }

  it('are dropped when the receiver does not want them, and the next one is sent', async (t) => {
    const { answer, posts, url } = await startReceiver(t)
    answer.status = 400
    const errors: string[] = []
    const driver = queued(sender(url()), {
      maxMessages: 10,
      maxSize: 1e6,
      retries: -1,
      pauseMs: () => 1,
      log: { ...silentLog, error: (line) => void errors.push(line) },
    })
    driver.accept(exampleMessage())
    driver.accept(exampleMessage())
    await driver.close(10_000)
    assert.equal(posts.length, 2)
    assert.equal(errors.length, 2)
  })

  it('do not wait for ever for an answer', async (t) => {
    const { answer, url } = await startReceiver(t)
    answer.hang = true
    await assert.rejects(sender(url(), { timeoutMs: 50 }).send(exampleMessage()), { name: 'TimeoutError' })
  })
})
