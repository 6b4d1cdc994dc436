import { randomUUID } from 'node:crypto'
import { setTimeout as delay } from 'node:timers/promises'
import { ServiceError } from '../domain/errors.ts'
import { type Answer, openRest, type RestOptions, unavailable } from '../io/rest.ts'
import { parseResult, print } from './codec.ts'
import type { Database } from './database.ts'
import { databaseOf, type Effect } from './methods.ts'

/** How a node shows the registry that it is one of its own. */
export interface NodeCredentials {
  /** Headers of each request; `renew` when those of before were refused. Throws `unavailable`. */
  headers(renew: boolean): Promise<Readonly<Record<string, string>>>
  close(): Promise<void>
}

export interface RemoteOptions extends Omit<RestOptions, 'name' | 'retries'> {
  /** Without a path: `http://host:port`. */
  readonly url: string
  readonly credentials: NodeCredentials
  /** How long to try when no request gets through, and when the answer to a change was lost; milliseconds. */
  readonly patienceMs?: number
  readonly lostPatienceMs?: number
}

/** Path of the database below the registry's address. */
export const DATABASE_PATH = '/database'
/** Names a change, so that asking for it again does not make it twice. */
export const REQUEST_HEADER = 'x-glimpse-request'
/** There is one when the request may have arrived before. */
export const AGAIN_HEADER = 'x-glimpse-again'

const PATIENCE_MS = 2_000
/** A registry that was killed is back by then; the client of the API is still there. */
const LOST_PATIENCE_MS = 30_000
const LONGEST_PAUSE_MS = 1_000
const CONNECTIONS = 100
const CONNECT_S = 10
/** A timer cannot wait longer: 24 days. */
const NEVER_S = Math.floor((2 ** 31 - 1) / 1000)

/** The request surely has not been read by anybody. */
const UNSENT: ReadonlySet<unknown> = new Set([
  'ECONNREFUSED',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'EAI_AGAIN',
  'ENOTFOUND',
  'UND_ERR_CONNECT_TIMEOUT',
])
/** It may have been: the connection broke off while an answer was waited for. */
const LOST: ReadonlySet<unknown> = new Set([
  'ECONNRESET',
  'EPIPE',
  'ETIMEDOUT',
  'UND_ERR_SOCKET',
  'UND_ERR_HEADERS_TIMEOUT',
  'UND_ERR_BODY_TIMEOUT',
  'UND_ERR_RES_CONTENT_LENGTH_MISMATCH',
])
/** What a proxy answers in place of a registry. */
const PROXY_STATUS = [502, 503, 504]

type Reply =
  | { readonly came: true; readonly value: unknown }
  | { readonly came: false; readonly lost: boolean; readonly cause: unknown }

/**
 * The database behind a registry. A call that did not get through is sent again, reads always, changes under the same
 * id, so that they are made once. Throws `unavailable` when the registry stays away; `outcome: 'unknown'` in its
 * detail says that a change may have been made.
 */
export function openRemoteDatabase(options: RemoteOptions): Database {
  const { url, credentials, patienceMs = PATIENCE_MS, lostPatienceMs = LOST_PATIENCE_MS, ...connection } = options
  const rest = openRest({
    ...connection,
    name: 'The registry',
    timeout: connection.timeout || NEVER_S,
    connectTimeout: CONNECT_S,
    connections: CONNECTIONS,
    longestAnswer: -1,
    retries: 0,
  })

  const post = async (name: string, body: string, headers: Readonly<Record<string, string>>): Promise<Answer> => {
    const send = async (renew: boolean) =>
      rest.request('POST', `${url}${DATABASE_PATH}/${name}`, {
        headers: { ...(await credentials.headers(renew)), ...headers },
        body,
      })
    const answer = await send(false)
    return answer.status === 401 ? send(true) : answer
  }

  const ask = async (name: string, body: string, headers: Readonly<Record<string, string>>): Promise<Reply> => {
    let answer: Answer
    try {
      answer = await post(name, body, headers)
    } catch (cause) {
      const code = cause instanceof ServiceError ? codeOf(cause.cause) : undefined
      if (!UNSENT.has(code) && !LOST.has(code)) throw cause
      return { came: false, lost: LOST.has(code), cause }
    }
    if (answer.status === 200) return { came: true, value: await parseResult(answer.body) }
    const error = await errorIn(answer)
    if (error?.detail['draining'] === true) return { came: false, lost: false, cause: error }
    if (error?.detail['refused'] === true) throw refused(error)
    // Not to be taken for an image that is not there.
    if (error?.detail['unknownMethod'] !== undefined) throw unexpected(name, answer)
    if (error !== undefined) throw error
    if (PROXY_STATUS.includes(answer.status)) return { came: false, lost: true, cause: new Error(`${answer.status}`) }
    throw unexpected(name, answer)
  }

  const call = async (name: string, effect: Effect, args: readonly unknown[]): Promise<unknown> => {
    const body = print(args)
    const id = effect === 'write' ? { [REQUEST_HEADER]: randomUUID() } : undefined
    const began = performance.now()
    let unknown = false
    for (let pauseMs = 50; ; pauseMs = Math.min(pauseMs * 2, LONGEST_PAUSE_MS)) {
      const reply = await ask(name, body, { ...id, ...(unknown ? { [AGAIN_HEADER]: '1' } : {}) })
      if (reply.came) return reply.value
      unknown ||= reply.lost && effect === 'write'
      if (performance.now() - began > (unknown ? lostPatienceMs : patienceMs)) throw away(unknown, reply.cause)
      await delay(pauseMs * (0.5 + Math.random()))
    }
  }

  return {
    ...databaseOf(
      (name, effect) =>
        (...args) =>
          call(name, effect, args),
    ),
    close: async () => {
      await rest.close()
      await credentials.close()
    },
  }
}

const codeOf = (cause: unknown): unknown =>
  typeof cause === 'object' && cause !== null && 'code' in cause ? cause.code : undefined

const errorIn = async ({ body }: Answer): Promise<ServiceError | undefined> => {
  const found = await parseResult(body).catch(() => undefined)
  return found instanceof ServiceError ? found : undefined
}

const away = (unknown: boolean, cause: unknown): ServiceError =>
  unavailable(
    unknown ? 'The registry went away, and whether it made the change is not known' : 'The registry does not answer',
    { cause, ...(unknown ? { detail: { outcome: 'unknown' } } : {}) },
  )

const refused = (cause: unknown): ServiceError =>
  unavailable('The registry does not take this node for one of its own', { cause })

const unexpected = (name: string, { status, body }: Answer): ServiceError =>
  new ServiceError('internal', 'The registry answers in an unknown way', {
    detail: { name, status, body: body.slice(0, 500) },
  })
