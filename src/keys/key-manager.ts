import type { X509Certificate } from 'node:crypto'
import type { Identity } from '../auth/identity.ts'
import { ServiceError } from '../domain/errors.ts'

/** In whose name something is asked for. */
export type User = Pick<Identity, 'token'>

/** What keeps the certificates and keys of users. An id is whatever a client wrote. */
export interface KeyManager {
  /**
   * Throws `not-found`; `forbidden` when it is not for this user; `invalid` when it is no X.509 certificate;
   * `unavailable`.
   */
  certificate(id: string, user: User, signal: AbortSignal): Promise<X509Certificate>
  /** Throws `not-found`, `forbidden`, `unavailable`. */
  removeKey(id: string, user: User, signal: AbortSignal): Promise<void>
  close(): Promise<void>
}

const nobody = () => Promise.reject(new ServiceError('unavailable', 'There is no key manager'))

/** A service without a key manager. */
export const noKeys: KeyManager = { certificate: nobody, removeKey: nobody, close: async () => undefined }
