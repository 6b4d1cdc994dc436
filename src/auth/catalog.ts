import { ServiceError } from '../domain/errors.ts'
import { openRest, unexpected } from '../io/rest.ts'
import type { KeystoneOptions } from './keystone.ts'

/** Where the services of a cloud are, as the owner of a token sees it. */
export interface KeystoneCatalog {
  /**
   * URL of the image service; undefined when the catalog has none. Regions are compared without regard to case. Throws
   * `unauthenticated` when Keystone does not know the token, `unavailable`.
   */
  imageEndpoint(token: string, region: string, face: string, signal: AbortSignal): Promise<string | undefined>
  close(): Promise<void>
}

/** The body of GET /v3/auth/catalog, as far as it matters. */
interface CatalogDocument {
  readonly catalog: readonly {
    readonly type: string
    readonly endpoints: readonly { readonly region: string | null; readonly interface: string; readonly url: string }[]
  }[]
}

/** Throws `invalid` when the options do not say where Keystone is. */
export function keystoneCatalog(options: KeystoneOptions): KeystoneCatalog {
  const { auth_url: authUrl, http_connect_timeout: timeout, http_request_max_retries: retries, ...tls } = options
  if (!authUrl || !URL.canParse(authUrl)) {
    throw new ServiceError('invalid', '[keystone_authtoken] auth_url must be the URL of Keystone')
  }
  const url = `${authUrl.replace(/\/+$/, '').replace(/\/v(?:3|2\.0)$/, '')}/v3/auth/catalog`
  const rest = openRest({ ...tls, name: 'Keystone', timeout, retries })
  return {
    imageEndpoint: async (token, region, face, signal) => {
      const answer = await rest.request('GET', url, { headers: { 'x-auth-token': token }, signal })
      if (answer.status === 401)
        throw new ServiceError('unauthenticated', 'The token of the user is not valid any more')
      if (answer.status !== 200) throw unexpected('Keystone does not show the catalog of the user', answer)
      const { catalog } = JSON.parse(answer.body) as CatalogDocument
      return catalog
        .filter(({ type }) => type === 'image')
        .flatMap(({ endpoints }) => endpoints)
        .find((one) => one.region?.toLowerCase() === region.toLowerCase() && one.interface === face)?.url
    },
    close: rest.close,
  }
}
