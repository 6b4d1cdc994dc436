import { readFileSync } from 'node:fs'
import { setTimeout as delay } from 'node:timers/promises'
import type { Agent } from 'undici'
import { ServiceError } from '../domain/errors.ts'

export interface Answer {
  readonly status: number
  readonly headers: Readonly<Record<string, string | string[] | undefined>>
  readonly body: string
}

export interface Question {
  readonly headers?: Readonly<Record<string, string>>
  /** Sent as JSON, unless `headers` say otherwise. */
  readonly body?: string
  readonly signal?: AbortSignal
}

/** Short requests to another service. */
export interface Rest {
  /** Throws `unavailable` when no answer comes, or one of more than a few megabytes. */
  request(method: 'GET' | 'POST' | 'DELETE', url: string, question?: Question): Promise<Answer>
  close(): Promise<void>
}

export interface RestOptions {
  /** Of the service, for errors. */
  readonly name: string
  /** Seconds to wait for a connection, and for each part of an answer; 30 when absent. */
  readonly timeout?: number | undefined
  /** Seconds to wait for a connection, where that is another time. */
  readonly connectTimeout?: number | undefined
  /** Connections at once; 32 when absent. */
  readonly connections?: number | undefined
  /** Bytes of an answer; 16 MiB when absent, -1 for any number. */
  readonly longestAnswer?: number | undefined
  /** How often a request is sent again which met no server; 3 when absent. Requests must bear being repeated. */
  readonly retries?: number | undefined
  /** Files of certificates and keys, in PEM. */
  readonly cafile?: string | undefined
  readonly certfile?: string | undefined
  readonly keyfile?: string | undefined
  readonly insecure?: boolean | undefined
}

/** Errors of a connection, after which the same request may be sent again. */
const AGAIN: ReadonlySet<unknown> = new Set([
  'ECONNREFUSED',
  'ECONNRESET',
  'EPIPE',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'EAI_AGAIN',
  'UND_ERR_SOCKET',
  'UND_ERR_CONNECT_TIMEOUT',
])
const FIRST_PAUSE_MS = 100
const DEFAULT_TIMEOUT_S = 30
const CONNECTIONS = 32
const LONGEST_ANSWER = 16 * 1_048_576

/** Throws `invalid` when a file of `options` cannot be read. */
export function openRest(options: RestOptions): Rest {
  const { name, retries = 3 } = options
  const timeout = (options.timeout || DEFAULT_TIMEOUT_S) * 1000
  const tls = {
    rejectUnauthorized: options.insecure !== true,
    ...(options.cafile ? { ca: readPem(options.cafile) } : {}),
    ...(options.certfile ? { cert: readPem(options.certfile) } : {}),
    // One file may hold both.
    ...(options.certfile ? { key: readPem(options.keyfile || options.certfile) } : {}),
  }
  let agent: Promise<Agent> | undefined
  // The library is not small: who asks nobody does without it.
  const open = async (): Promise<Agent> => {
    const { Agent } = await import('undici')
    return new Agent({
      connections: options.connections ?? CONNECTIONS,
      headersTimeout: timeout,
      bodyTimeout: timeout,
      maxResponseSize: options.longestAnswer ?? LONGEST_ANSWER,
      connect: { timeout: options.connectTimeout === undefined ? timeout : options.connectTimeout * 1000, ...tls },
    })
  }

  const send = async (method: 'GET' | 'POST' | 'DELETE', url: string, { headers, body, signal }: Question) => {
    const { origin, pathname, search } = new URL(url)
    agent ??= open()
    const response = await (await agent).request({
      origin,
      path: `${pathname}${search}`,
      method,
      headers: {
        accept: 'application/json',
        ...(body === undefined ? {} : { 'content-type': 'application/json' }),
        ...headers,
      },
      body: body ?? null,
      ...(signal === undefined ? {} : { signal }),
    })
    return { status: response.statusCode, headers: response.headers, body: await response.body.text() }
  }

  return {
    async request(method, url, question = {}) {
      for (let attempt = 0; ; attempt++) {
        try {
          return await send(method, url, question)
        } catch (cause) {
          question.signal?.throwIfAborted()
          const again = attempt < retries && AGAIN.has((cause as NodeJS.ErrnoException).code)
          if (!again) throw unavailable(`${name} does not answer`, { cause })
          await delay(FIRST_PAUSE_MS * 2 ** attempt)
        }
      }
    },
    close: async () => (await agent)?.destroy(),
  }
}

function readPem(path: string): Buffer {
  try {
    return readFileSync(path)
  } catch (cause) {
    throw new ServiceError('invalid', `${path} cannot be read: ${(cause as Error).message}`, { cause })
  }
}

/** What an answer that nobody expects means: `what` did not happen. Its beginning is for the operator. */
export const unexpected = (what: string, { status, body }: Answer): ServiceError =>
  unavailable(what, { detail: { status, body: body.slice(0, 500) } })

export const unavailable = (
  message: string,
  fields: { readonly cause?: unknown; readonly detail?: Record<string, unknown> } = {},
): ServiceError => new ServiceError('unavailable', message, { ...fields, transient: true })
