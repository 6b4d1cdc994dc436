import { constants, type KeyObject, type X509Certificate } from 'node:crypto'
import { hasKind, ServiceError } from '../domain/errors.ts'
import type { Image } from '../domain/image.ts'
import type { Signature } from '../io/digest.ts'
import type { Core, RequestContext } from './core.ts'

/** The properties that sign an image; the data are verified only when all of them are there. */
const PROPERTIES = [
  'img_signature',
  'img_signature_hash_method',
  'img_signature_key_type',
  'img_signature_certificate_uuid',
] as const

const HASHES: Readonly<Record<string, { readonly name: string; readonly bytes: number }>> = {
  'SHA-224': { name: 'sha224', bytes: 28 },
  'SHA-256': { name: 'sha256', bytes: 32 },
  'SHA-384': { name: 'sha384', bytes: 48 },
  'SHA-512': { name: 'sha512', bytes: 64 },
}
/** By key type: what the key of the certificate must be. A curve is not compared, as upstream does not either. */
const KEY_TYPES: Readonly<Record<string, readonly string[]>> = {
  'RSA-PSS': ['rsa', 'rsa-pss'],
  DSA: ['dsa'],
  ECC_SECT571K1: ['ec'],
  ECC_SECT409K1: ['ec'],
  ECC_SECT571R1: ['ec'],
  ECC_SECT409R1: ['ec'],
  ECC_SECP521R1: ['ec'],
  ECC_SECP384R1: ['ec'],
}

/** Whose token asks for the certificate. */
type Requester = Pick<RequestContext, 'signal'> & { readonly identity: Pick<RequestContext['identity'], 'token'> }

/**
 * What the data of `image` must be signed by, as its properties say; undefined for an image that is not signed. The
 * certificate is fetched in the name of the caller. Throws `invalid` when the image cannot be verified.
 */
export async function imageSignature(core: Core, ctx: Requester, image: Image): Promise<Signature | undefined> {
  const [encoded, hashMethod, keyType, certificateId] = PROPERTIES.map((name) => image.properties.get(name))
  if (PROPERTIES.some((name) => !image.properties.has(name))) return undefined
  const refuse = (reason: string, cause?: unknown) =>
    failed(image, `Signature verification for the image failed: ${reason}.`, cause)

  const signature = decode(encoded ?? '')
  if (signature === undefined) throw refuse('The signature data was not properly encoded using base64')
  const hash = HASHES[hashMethod ?? '']
  if (hash === undefined) throw refuse(`Invalid signature hash method: ${hashMethod}`)
  const keyTypes = KEY_TYPES[keyType ?? '']
  if (keyTypes === undefined) throw refuse(`Invalid signature key type: ${keyType}`)

  const certificate = await fetchCertificate(core, ctx, certificateId ?? '', refuse)
  const now = new Date()
  if (now < certificate.validFromDate || now > certificate.validToDate)
    throw refuse('The certificate is outside its valid date range')
  const key = publicKeyOf(certificate)
  if (key === undefined || !keyTypes.includes(key.asymmetricKeyType ?? ''))
    throw refuse(`Invalid public key type for signature key type: ${keyType}`)
  return {
    hash: hash.name,
    key: key.export({ type: 'spki', format: 'der' }),
    bytes: signature,
    ...(keyType === 'RSA-PSS' ? pss(key, hash.bytes) : {}),
    refusal: failed(image, 'Signature verification failed').message,
  }
}

const failed = (image: Image, why: string, cause?: unknown) =>
  new ServiceError('invalid', `Signature verification failed for image ${image.id}: ${why}`, { cause })

async function fetchCertificate(
  core: Core,
  ctx: Requester,
  id: string,
  refuse: (reason: string, cause: unknown) => ServiceError,
): Promise<X509Certificate> {
  try {
    return await core.keys.certificate(id, ctx.identity, ctx.signal)
  } catch (cause) {
    ctx.signal.throwIfAborted()
    if (hasKind(cause, 'not-found')) throw refuse(`Certificate not found with ID: ${id}`, cause)
    if (hasKind(cause, 'invalid')) throw refuse('Invalid certificate format', cause)
    core.log.error(`Certificate ${id} cannot be retrieved`, cause)
    throw refuse(`Unable to retrieve certificate with ID: ${id}`, cause)
  }
}

/** Base64, in which other characters do not count. Undefined when it has not its padding. */
function decode(text: string): Buffer | undefined {
  const packed = text.replace(/[^A-Za-z0-9+/=]+/g, '')
  return /^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/.test(packed)
    ? Buffer.from(packed, 'base64')
    : undefined
}

/** Undefined for a key that OpenSSL does not know here, such as one on a curve that it was built without. */
function publicKeyOf(certificate: X509Certificate): KeyObject | undefined {
  try {
    return certificate.publicKey
  } catch {
    return undefined
  }
}

/** The longest salt that fits (RFC 8017, 9.1.1): what remains of the encoded message beside the hash and two bytes. */
function pss(key: KeyObject, hashBytes: number): Pick<Signature, 'padding' | 'saltLength'> {
  const bits = key.asymmetricKeyDetails?.modulusLength ?? 0
  return { padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: Math.ceil((bits - 1) / 8) - hashBytes - 2 }
}

/** A signature as JSON has it: what signs an image is no secret. */
export type PackedSignature = Omit<Signature, 'key' | 'bytes'> & { readonly key: string; readonly bytes: string }

export const packSignature = (signature: Signature | undefined): PackedSignature | undefined =>
  signature && {
    ...signature,
    key: Buffer.from(signature.key).toString('base64'),
    bytes: Buffer.from(signature.bytes).toString('base64'),
  }

export const unpackSignature = ({ key, bytes, ...rest }: PackedSignature): Signature => ({
  ...rest,
  key: Buffer.from(key, 'base64'),
  bytes: Buffer.from(bytes, 'base64'),
})
