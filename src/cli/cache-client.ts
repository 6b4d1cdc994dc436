import { Agent, fetch } from 'undici'
import type { ManageOptions } from './cache-manage.ts'

/** An answer other than success. */
export class Refused extends Error {
  readonly status: number
  constructor(status: number, message: string) {
    super(message)
    this.status = status
  }
}

export interface CacheClient {
  /** `path` below /v2; gives the answer's JSON. Throws `Refused`, and the network's own errors. */
  call<T>(method: 'GET' | 'PUT' | 'DELETE', path: string): Promise<T>
}

const ANSWER_WITHIN_MS = 60_000

/** The API of a node. A token that is not good (any more) is fetched anew, where there is a password. */
export function cacheClient(options: ManageOptions): CacheClient {
  const dispatcher = new Agent(options.insecure ? { connect: { rejectUnauthorized: false } } : {})
  const host = options.host.includes(':') ? `[${options.host}]` : options.host
  const keystone = options.osAuthUrl !== '' || options.osAuthStrategy === 'keystone'
  const send = async (method: string, url: string, headers: Record<string, string>, body?: string) => {
    try {
      const signal = AbortSignal.timeout(ANSWER_WITHIN_MS)
      return await fetch(url, { method, headers, dispatcher, signal, ...(body === undefined ? {} : { body }) })
    } catch (error) {
      // undici says only that it failed; why is in the cause.
      throw error instanceof Error && error.cause instanceof Error ? error.cause : error
    }
  }
  const newToken = async (): Promise<string> => {
    const answer = await send(
      'POST',
      `${versioned(options.osAuthUrl)}/auth/tokens`,
      { 'content-type': 'application/json' },
      JSON.stringify(login(options)),
    )
    const token = answer.headers.get('x-subject-token')
    if (token === null) throw new Error(`The identity service refused the credentials (${answer.status})`)
    return token
  }
  return {
    call: async <T>(method: string, path: string): Promise<T> => {
      const ask = (token: string) =>
        send(method, `http://${host}:${options.port}/v2${path}`, token === '' ? {} : { 'x-auth-token': token })
      const given = options.osAuthToken
      let answer = await ask(given === '' && keystone ? await newToken() : given)
      if (answer.status === 401 && given !== '') answer = await ask(await newToken())
      const text = await answer.text()
      if (!answer.ok) throw new Refused(answer.status, `${answer.status}: ${text.trim()}`)
      return (text === '' ? null : JSON.parse(text)) as T
    },
  }
}

/** With the version that clients leave out; the second is long gone from Keystone. */
const versioned = (url: string): string => {
  const base = url.replace(/\/+$/, '')
  return /\/v\d[\d.]*$/.test(base) ? base : `${base}/v3`
}

/** What Keystone wants to know. Throws with the name of what is missing. */
function login(options: ManageOptions) {
  const { osUsername, osPassword, osAuthUrl, osProjectId, osProjectName, osDomainId } = options
  const required = { username: osUsername, password: osPassword, auth_url: osAuthUrl }
  for (const [name, value] of Object.entries(required)) {
    if (value === '') throw new Error(`Missing required credential: ${name}`)
  }
  const user = { name: osUsername, password: osPassword, domain: { id: options.osUserDomainId || osDomainId } }
  const project =
    osProjectId === ''
      ? { name: osProjectName, domain: { id: options.osProjectDomainId || osDomainId } }
      : { id: osProjectId }
  return {
    auth: {
      identity: { methods: ['password'], password: { user } },
      ...(osProjectId === '' && osProjectName === '' ? {} : { scope: { project } }),
    },
  }
}
