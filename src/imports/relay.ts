import { type ErrorKind, ServiceError } from '../domain/errors.ts'

export interface RelayedRequest {
  readonly method: 'POST' | 'DELETE'
  readonly url: string
  /** Of the user, who calls the other node as it were. */
  readonly token: string | undefined
  /** JSON */
  readonly body?: unknown
}

/**
 * Repeats a request at the node that has the staged data. Resolves with the request id of its answer when it is a good
 * one. Throws what the other node answers; `timeout` when it cannot be reached, and `bad-gateway` when it does not
 * answer, both with `transient`.
 */
export type Relay = (request: RelayedRequest) => Promise<{ readonly requestId: string | undefined }>

/** Tells the other node that the request has been on its way already, so that two of them do not play ball with it. */
export const RELAYED_HEADER = 'x-glimpse-relayed'

/** As long as upstream waits. */
const TIMEOUT_MS = 60_000

const KINDS: Readonly<Record<number, ErrorKind>> = {
  400: 'invalid',
  401: 'unauthenticated',
  403: 'forbidden',
  404: 'not-found',
  409: 'conflict',
  410: 'gone',
  413: 'too-large',
  415: 'unsupported-media-type',
  429: 'too-many-requests',
  500: 'internal',
  503: 'unavailable',
  504: 'timeout',
}

export function openRelay(): { readonly relay: Relay; close(): Promise<void> } {
  let client: ReturnType<typeof openClient> | undefined
  const relay: Relay = async ({ method, url, token, body }) => {
    client ??= openClient()
    const { agent, request } = await client
    const answer = await request(url, {
      method,
      dispatcher: agent,
      headers: {
        accept: 'application/json',
        [RELAYED_HEADER]: '1',
        ...(token === undefined ? {} : { 'x-auth-token': token }),
        ...(body === undefined ? {} : { 'content-type': 'application/json' }),
      },
      body: body === undefined ? null : JSON.stringify(body),
      signal: AbortSignal.timeout(TIMEOUT_MS),
    }).catch(unreachable)
    const text = await answer.body.text().catch(unreachable)
    const id = answer.headers['x-openstack-request-id']
    const requestId = typeof id === 'string' ? id : undefined
    if (answer.statusCode >= 200 && answer.statusCode < 300) return { requestId }
    const headers = requestId === undefined ? {} : { 'x-openstack-request-id': requestId }
    throw new ServiceError(KINDS[answer.statusCode] ?? 'bad-gateway', explanation(text), { detail: { headers } })
  }
  return { relay, close: async () => (await client)?.agent.close() }
}

/** Loaded when it is first needed: most services never relay. */
async function openClient() {
  const { Agent, request } = await import('undici')
  const timeouts = { connectTimeout: TIMEOUT_MS, headersTimeout: TIMEOUT_MS, bodyTimeout: TIMEOUT_MS }
  return { agent: new Agent(timeouts), request }
}

const TIMEOUTS = new Set(['UND_ERR_HEADERS_TIMEOUT', 'UND_ERR_BODY_TIMEOUT'])

function unreachable(cause: unknown): never {
  const { name, code } = cause as { readonly name?: string; readonly code?: string }
  const silent = name === 'TimeoutError' || TIMEOUTS.has(code ?? '')
  throw new ServiceError(silent ? 'bad-gateway' : 'timeout', 'Stage host is unavailable', { cause, transient: true })
}

/** What the other node says in `{ message }`, where lines end with markup. */
function explanation(text: string): string {
  try {
    const { message } = JSON.parse(text) as { readonly message?: unknown }
    if (typeof message === 'string') return message.replaceAll('<br />', '').trim()
  } catch {
    // Something between the nodes answered, in words of its own.
  }
  return 'The stage host refused the request'
}
