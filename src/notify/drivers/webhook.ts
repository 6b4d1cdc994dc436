import { createHmac } from 'node:crypto'
import { Agent, request } from 'undici'
import { ServiceError } from '../../domain/errors.ts'
import type { Message } from '../driver.ts'
import { Refused, type Sender } from '../queue.ts'

export interface WebhookOptions {
  /** With a user and password in it, these are sent as Basic authentication. */
  readonly url: string
  readonly secret: string | undefined
  readonly mode: 'structured' | 'binary'
  readonly timeoutMs: number
  /** Certificates by which the receiver is known; those of the system without it. */
  readonly ca: Buffer | undefined
}

/** Throws `invalid`, without repeating what may be secret. */
function parseUrl(url: string): URL {
  if (!URL.canParse(url) || !/^https?:$/.test(new URL(url).protocol))
    throw new ServiceError('invalid', '[glimpse_webhook] urls: expected URLs that begin with http:// or https://')
  return new URL(url)
}

/** Answers after which the same request may succeed. */
const TRANSIENT = new Set([408, 425, 429])

/**
 * Posts notifications as CloudEvents 1.0, one after the other. Signed as Standard Webhooks has it: `webhook-signature`
 * holds the HMAC-SHA256 of `webhook-id`, `webhook-timestamp` and the body. Redirects are not followed.
 */
export function webhookSender({ url, secret, mode, timeoutMs, ca }: WebhookOptions): Sender {
  const target = parseUrl(url)
  const authorization =
    target.username === '' && target.password === ''
      ? {}
      : { authorization: basic(decodeURIComponent(target.username), decodeURIComponent(target.password)) }
  target.username = target.password = ''
  const key = secret === undefined || secret === '' ? undefined : keyOf(secret)
  const agent = new Agent({
    connections: 1,
    connect: { timeout: timeoutMs, ...(ca === undefined ? {} : { ca }) },
    headersTimeout: timeoutMs,
    bodyTimeout: timeoutMs,
  })
  return {
    name: `Webhook ${target.host}`,
    window: 1,
    send: async (message) => {
      const { headers, body } = mode === 'binary' ? binary(message) : structured(message)
      const signature = key === undefined ? {} : signed(key, message.id, body)
      const answer = await request(target, {
        method: 'POST',
        headers: { 'user-agent': 'Glimpse', ...authorization, ...headers, ...signature },
        body,
        dispatcher: agent,
        signal: AbortSignal.timeout(timeoutMs),
      })
      await answer.body.dump()
      const { statusCode: status } = answer
      if (status >= 200 && status < 300) return
      if (status >= 500 || TRANSIENT.has(status)) throw new Error(`the receiver answered ${status}`)
      throw new Refused(`the receiver answered ${status}`)
    },
    close: () => agent.destroy(),
  }
}

interface Post {
  readonly headers: Readonly<Record<string, string>>
  readonly body: string
}

const structured = (message: Message): Post => ({
  headers: { 'content-type': 'application/cloudevents+json; charset=utf-8' },
  body: JSON.stringify({ ...attributes(message), datacontenttype: 'application/json', data: message.payload }),
})

const binary = (message: Message): Post => ({
  headers: {
    'content-type': 'application/json',
    ...Object.fromEntries(
      Object.entries(attributes(message)).map(([name, value]) => [`ce-${name}`, headerValue(value)]),
    ),
  },
  body: JSON.stringify(message.payload),
})

/** The context attributes of CloudEvents, and `priority` as an extension. */
function attributes(message: Message): Readonly<Record<string, string>> {
  const { payload } = message
  const subject =
    typeof payload === 'string' ? undefined : (payload['id'] ?? payload['image_id'] ?? payload['namespace'])
  return {
    specversion: '1.0',
    id: message.id,
    source: `/${encodeURIComponent(message.publisher)}`,
    type: `org.openstack.${message.event}`,
    ...(typeof subject === 'string' && subject !== '' ? { subject } : {}),
    time: message.time.toISOString(),
    priority: message.priority,
  }
}

/** Anything but printable ASCII is percent-encoded, and so are blanks, quotes and percent signs (CloudEvents 1.0.2, HTTP 3.1.3.2). */
const headerValue = (value: string): string =>
  value.replace(/[^!#-$&-~]+/gu, (run) =>
    Buffer.from(run)
      .toString('hex')
      .replaceAll(/../g, (hex) => `%${hex.toUpperCase()}`),
  )

function signed(key: Buffer, id: string, body: string): Readonly<Record<string, string>> {
  const timestamp = String(Math.floor(Date.now() / 1000))
  const digest = createHmac('sha256', key).update(`${id}.${timestamp}.${body}`).digest('base64')
  return { 'webhook-id': id, 'webhook-timestamp': timestamp, 'webhook-signature': `v1,${digest}` }
}

const keyOf = (secret: string): Buffer =>
  secret.startsWith('whsec_') ? Buffer.from(secret.slice(6), 'base64') : Buffer.from(secret)

const basic = (user: string, password: string): string =>
  `Basic ${Buffer.from(`${user}:${password}`).toString('base64')}`
