import { ServiceError } from '../domain/errors.ts'
import { type Answer, openRest, unavailable, unexpected } from '../io/rest.ts'
import { isKeyId, readCertificate } from './certificate.ts'
import type { KeyManager, User } from './key-manager.ts'

export interface BarbicanOptions {
  /** Where Barbican is; without it, what the user's catalog says. */
  readonly endpoint?: string | undefined
  readonly version?: string | undefined
  /** Ends in `/v3`; Keystone is asked for the user's catalog. */
  readonly keystoneUrl?: string | undefined
  readonly interface: string
  readonly region?: string | undefined
  readonly cafile?: string | undefined
  readonly insecure?: boolean
}

const TIMEOUT_S = 30

/** Secrets in Barbican, each fetched and deleted with the token of the user. */
export function openBarbican(options: BarbicanOptions): KeyManager {
  const { cafile, insecure = false, version = 'v1' } = options
  const rest = openRest({ name: 'The key manager', timeout: TIMEOUT_S, retries: 1, cafile, insecure })

  const request = async (
    method: 'GET' | 'DELETE',
    id: string,
    path: string,
    { token }: User,
    signal: AbortSignal,
  ): Promise<Answer> => {
    if (token === undefined) throw new ServiceError('forbidden', 'The key manager wants a token of the user')
    if (!isKeyId(id)) throw unknown(id)
    const endpoint = options.endpoint || (await inCatalog(token, signal))
    const answer = await rest.request(method, `${withVersion(endpoint, version)}/secrets/${id}${path}`, {
      headers: { 'x-auth-token': token, accept: '*/*' },
      signal,
    })
    if (answer.status === 404) throw unknown(id)
    if (answer.status === 401 || answer.status === 403) {
      throw new ServiceError('forbidden', `The key manager does not give ${id} to this user`)
    }
    // What a secret holds belongs into no log.
    if (answer.status >= 300) throw unexpected('The key manager fails', { ...answer, body: '' })
    return answer
  }

  const inCatalog = async (token: string, signal: AbortSignal): Promise<string> => {
    if (options.keystoneUrl === undefined) throw unavailable('There is no key manager')
    const answer = await rest.request('GET', `${options.keystoneUrl}/auth/catalog`, {
      headers: { 'x-auth-token': token },
      signal,
    })
    if (answer.status !== 200) throw unexpected('Keystone shows no catalog to the user', { ...answer, body: '' })
    const { catalog } = JSON.parse(answer.body) as Catalog
    const found = catalog
      .filter(({ type }) => type === 'key-manager')
      .flatMap(({ endpoints }) => endpoints)
      .find(
        ({ interface: face, region }) => face === options.interface && (!options.region || region === options.region),
      )
    if (found === undefined) throw unavailable('The catalog names no key manager')
    return found.url
  }

  return {
    certificate: async (id, user, signal) => readCertificate((await request('GET', id, '/payload', user, signal)).body),
    removeKey: async (id, user, signal) => void (await request('DELETE', id, '', user, signal)),
    close: rest.close,
  }
}

interface Catalog {
  readonly catalog: readonly {
    readonly type: string
    readonly endpoints: readonly { readonly interface: string; readonly region?: string; readonly url: string }[]
  }[]
}

const unknown = (id: string) => new ServiceError('not-found', `There is no secret ${id}`)

function withVersion(endpoint: string, version: string): string {
  const root = endpoint.replace(/\/+$/, '')
  return /\/v\d+(\.\d+)?$/.test(root) ? root : `${root}/${version}`
}
