import { X509Certificate } from 'node:crypto'
import { ServiceError } from '../domain/errors.ts'

const UUID = /^[0-9a-f]{8}(?:-?[0-9a-f]{4}){3}-?[0-9a-f]{12}$/i

/** Whether `id` can be that of a certificate or key: nothing else becomes a part of a path. */
export const isKeyId = (id: string): boolean => UUID.test(id)

/** Throws `invalid` unless `data` is an X.509 certificate, as PEM or DER. */
export function readCertificate(data: string | Buffer): X509Certificate {
  try {
    return new X509Certificate(data)
  } catch (cause) {
    throw new ServiceError('invalid', 'This is no X.509 certificate', { cause })
  }
}
