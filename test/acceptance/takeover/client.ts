import { createHash } from 'node:crypto'
import { until } from '../../support/product.ts'
import type { Caller, Site } from './site.ts'

export interface Answer {
  readonly status: number
  readonly headers: Readonly<Record<string, string>>
  /** JSON as data, image data as its digest, other text as it is. */
  readonly body: unknown
}

export interface Call {
  readonly as: Caller
  readonly method: string
  readonly path: string
  /** Text and bytes are sent as they are, other things as JSON. */
  readonly body?: unknown
  readonly headers?: Readonly<Record<string, string>>
}

/** Of those that say something about what is asked for. */
const HEADERS = [
  'content-type',
  'content-md5',
  'location',
  'openstack-image-store-ids',
  'openstack-image-import-methods',
]

const PATCH_TYPE = 'application/openstack-images-v2.1-json-patch'

export type Client = ReturnType<typeof clientOf>

/** Speaks to whichever service serves the site at the moment. */
export function clientOf({ url, tokens }: Pick<Site, 'url' | 'tokens'>) {
  const send = ({ as, method, path, body, headers = {} }: Call): Promise<Response> => {
    const raw = typeof body === 'string' || body instanceof Uint8Array || body instanceof ReadableStream
    const type = raw ? 'application/octet-stream' : method === 'PATCH' ? PATCH_TYPE : 'application/json'
    return fetch(`${url}/v2${path}`, {
      method,
      redirect: 'manual',
      headers: { 'x-auth-token': tokens[as], ...(body === undefined ? {} : { 'content-type': type }), ...headers },
      ...(body === undefined ? {} : { body: raw ? body : JSON.stringify(body), duplex: 'half' }),
    } as RequestInit)
  }

  const ask = async (call: Call): Promise<Answer> => {
    const response = await send(call)
    const headers = Object.fromEntries(
      HEADERS.flatMap((name) => {
        const value = response.headers.get(name)
        return value === null ? [] : [[name, value] as const]
      }),
    )
    const bytes = Buffer.from(await response.arrayBuffer())
    return { status: response.status, headers, body: bodyOf(headers['content-type'] ?? '', bytes) }
  }

  /** Throws unless the answer has the status. */
  const must = async (status: number, call: Call): Promise<Record<string, unknown>> => {
    const answer = await ask(call)
    if (answer.status !== status)
      throw new Error(
        `${call.as}: ${call.method} ${call.path}: ${answer.status}, not ${status}: ${JSON.stringify(answer.body).slice(0, 500)}`,
      )
    return (typeof answer.body === 'object' && answer.body !== null ? answer.body : {}) as Record<string, unknown>
  }

  const image = (id: string) => must(200, { as: 'admin', method: 'GET', path: `/images/${id}` })
  const becomes = (id: string, status: string) =>
    until(`image ${id} to be ${status}`, async () => (await image(id))['status'] === status, { everyMs: 100 })
  /** Until no task works on the image. */
  const settled = (id: string) =>
    until(
      `the end of the tasks of image ${id}`,
      async () => {
        const { tasks } = await must(200, { as: 'admin', method: 'GET', path: `/images/${id}/tasks` })
        return (tasks as { status: string }[]).every(({ status }) => status === 'success' || status === 'failure')
      },
      { everyMs: 100 },
    )
  const ended = (task: string) =>
    until(
      `the end of task ${task}`,
      async () => {
        const { status } = await must(200, { as: 'admin', method: 'GET', path: `/tasks/${task}` })
        return status === 'success' || status === 'failure'
      },
      { everyMs: 100 },
    )

  /** Begins an upload whose end never comes; `end` cuts the connection. */
  const beginUpload = async (id: string) => {
    const cut = new AbortController()
    const body = new ReadableStream({ start: (controller) => controller.enqueue(new Uint8Array(300_000)) })
    const path = `${url}/v2/images/${id}/file`
    const headers = { 'x-auth-token': tokens.owner, 'content-type': 'application/octet-stream' }
    const request = { method: 'PUT', headers, body, duplex: 'half', signal: cut.signal } as RequestInit
    const answer = fetch(path, request).catch(() => undefined)
    await becomes(id, 'saving')
    return {
      end: async () => {
        cut.abort()
        await answer
      },
    }
  }

  return { ask, must, image, becomes, settled, ended, beginUpload }
}

function bodyOf(type: string, bytes: Buffer): unknown {
  if (type.startsWith('application/octet-stream')) return `${bytes.length} bytes, sha256 ${digest(bytes)}`
  const text = bytes.toString()
  if (!type.startsWith('application/json')) return text
  try {
    return JSON.parse(text) as unknown
  } catch {
    return text
  }
}

const digest = (bytes: Buffer): string => createHash('sha256').update(bytes).digest('hex')
