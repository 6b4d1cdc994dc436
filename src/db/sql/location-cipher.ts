import { createCipheriv, createDecipheriv, randomBytes, randomInt } from 'node:crypto'
import { ServiceError } from '../../domain/errors.ts'
import type { LocationUri } from '../../domain/ids.ts'

/**
 * Locations as the database holds them. Each sealing of a location has another text: rows are found by what their text
 * says, never by the text.
 */
export interface LocationCipher {
  seal(uri: LocationUri): string
  /**
   * The location, whether it was sealed or not. What was sealed with another key is given as it stands: it has no
   * scheme, so that no store takes it for a location.
   */
  open(text: string): LocationUri
}

export const unsealed: LocationCipher = { seal: (uri) => uri, open: (text) => text as LocationUri }

const BLOCK = 16
const CIPHERS: Readonly<Record<number, string>> = { 16: 'aes-128-cbc', 24: 'aes-192-cbc', 32: 'aes-256-cbc' }

/** Whether `text` may be a sealed location: base64 of an initial vector and of whole blocks. No URI looks like that. */
export const isSealed = (text: string): boolean =>
  text.length % 4 === 0 && /^[\w-]{43,}={0,2}$/.test(text) && Buffer.from(text, 'base64url').length % BLOCK === 0

/** `\0` and random bytes other than it up to the end of a block, at least the `\0`. */
function padding(length: number): Buffer {
  const pad = Buffer.alloc(BLOCK - (length % BLOCK))
  for (let at = 1; at < pad.length; at++) pad[at] = randomInt(1, 256)
  return pad
}

/**
 * `[DEFAULT] metadata_encryption_key` as upstream uses it (glance/common/crypt.py): AES in CBC mode, the random initial
 * vector in front, in base64 that is safe in URLs. Throws `invalid` for a key that is not 16, 24 or 32 bytes long.
 */
export function locationCipher(key: string | undefined): LocationCipher {
  if (key === undefined || key === '') return unsealed
  const secret = Buffer.from(key)
  const cipher = CIPHERS[secret.length]
  if (cipher === undefined)
    throw new ServiceError('invalid', 'metadata_encryption_key must be 16, 24 or 32 bytes long', {
      detail: { length: secret.length },
    })

  return {
    seal: (uri) => {
      const vector = randomBytes(BLOCK)
      const sealing = createCipheriv(cipher, secret, vector).setAutoPadding(false)
      const text = Buffer.from(uri)
      const parts = [vector, sealing.update(text), sealing.update(padding(text.length)), sealing.final()]
      return Buffer.concat(parts).toString('base64').replaceAll('+', '-').replaceAll('/', '_')
    },
    open: (text) => {
      if (!isSealed(text)) return text as LocationUri
      const sealed = Buffer.from(text, 'base64url')
      const opening = createDecipheriv(cipher, secret, sealed.subarray(0, BLOCK)).setAutoPadding(false)
      const padded = Buffer.concat([opening.update(sealed.subarray(BLOCK)), opening.final()])
      const plain = padded.subarray(0, Math.max(0, padded.lastIndexOf(0))).toString()
      // Of noise, this would be an odd accident.
      return (/^[a-z][\w+.-]*:\/\//i.test(plain) ? plain : text) as LocationUri
    },
  }
}
