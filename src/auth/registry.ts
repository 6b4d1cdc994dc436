import { hash, timingSafeEqual } from 'node:crypto'
import type { IncomingHttpHeaders } from 'node:http'
import { ServiceError } from '../domain/errors.ts'
import { unauthenticated } from './headers.ts'
import type { Identity } from './identity.ts'
import { type KeystoneTools, type LoginOptions, openKeystoneSession } from './keystone-session.ts'

type Headers = Readonly<Record<string, string>>

/** How a node of the image service shows itself to the registry; the same shape as `NodeCredentials` of the database. */
export interface RegistryCredentials {
  headers(renew: boolean): Promise<Headers>
  close(): Promise<void>
}

const SECRET_HEADER = 'x-glimpse-secret'
/** Besides admins, who may do anything through the service too. */
const NODE_ROLE = 'service'

const always = (headers: Headers): RegistryCredentials => ({
  headers: async () => headers,
  close: async () => undefined,
})

/** For a registry that asks nobody. */
export const noCredentials: RegistryCredentials = always({})

/** What only the nodes and the registry know. */
export const sharedSecret = (secret: string): RegistryCredentials => always({ [SECRET_HEADER]: secret })

/** For a registry that believes whoever reaches it (`flavor = trusted-auth`). */
export const trustedNode: RegistryCredentials = always({
  'x-identity-status': 'Confirmed',
  'x-user-id': 'glance',
  'x-roles': NODE_ROLE,
})

/** A token of the service's own user. Throws `invalid` when the options are wrong. */
export function keystoneNode(options: LoginOptions, tools: KeystoneTools): RegistryCredentials {
  const session = openKeystoneSession(options, tools)
  let last: string | undefined
  return {
    headers: async (renew) => {
      last = await session.token(renew ? last : undefined)
      return { 'x-auth-token': last }
    },
    close: session.close,
  }
}

/** Throws `unauthenticated` unless the request brings the secret. */
export function admitSecret(secret: string, headers: IncomingHttpHeaders): void {
  const given = headers[SECRET_HEADER]
  const digest = (text: string) => hash('sha256', text, 'buffer')
  if (typeof given !== 'string' || !timingSafeEqual(digest(given), digest(secret))) throw unauthenticated()
}

/** Throws `forbidden` unless the caller is an admin or a service. */
export function admitNode({ roles }: Identity, isAdmin: boolean): void {
  if (!isAdmin && !roles.includes(NODE_ROLE))
    throw new ServiceError('forbidden', 'Only nodes of the image service use the database')
}
