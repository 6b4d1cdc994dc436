import { ServiceError } from '../domain/errors.ts'
import type { Image } from '../domain/image.ts'
import { digestSize } from '../io/digest.ts'
import type { Core } from './core.ts'

/** What a client says of data that the service does not see. */
export type Validation = Partial<Record<'checksum' | 'osHashAlgo' | 'osHashValue', string>>

const WIRE_NAME = { checksum: 'checksum', osHashAlgo: 'os_hash_algo', osHashValue: 'os_hash_value' } as const
const conflict = (message: string) => new ServiceError('conflict', message)
const isHex = (text: string) => /^(?:[0-9a-f]{2})*$/i.test(text)

/** What is new in it. Throws `conflict` when it contradicts itself or the image, or cannot be right. */
export function admitValidation(
  core: Core,
  image: Image,
  locations: readonly { readonly validation: Validation }[],
): Validation {
  const given: Validation = {}
  for (const { validation } of locations) {
    for (const key of keysOf(validation)) {
      if ((given[key] ?? validation[key]) !== validation[key])
        throw conflict(`Conflicting values for ${WIRE_NAME[key]}`)
      Object.assign(given, { [key]: validation[key] })
    }
  }
  const news = keysOf(given).filter((key) => given[key] !== image[key])
  for (const key of news) if (image[key]) throw conflict(`${WIRE_NAME[key]} is already set with a different value`)
  if (news.length === 0) return {}
  if (image.status !== 'queued') {
    const names = news.map((key) => WIRE_NAME[key]).join(', ')
    throw conflict(`New value(s) for ${names} may only be provided when image status is 'queued'`)
  }
  const { checksum, osHashAlgo, osHashValue = '' } = given
  const { hashAlgorithm } = core.dataRules
  if (checksum !== undefined) admitHex('checksum', checksum, 16, 'md5')
  if (osHashAlgo !== hashAlgorithm) throw conflict(`os_hash_algo must be ${hashAlgorithm}, not ${osHashAlgo ?? 'None'}`)
  admitHex('os_hash_value', osHashValue, digestSize(hashAlgorithm), hashAlgorithm)
  return given
}

const keysOf = (validation: Validation) => Object.keys(validation) as (keyof Validation)[]

function admitHex(name: string, value: string, size: number, algorithm: string): void {
  if (!isHex(value)) throw conflict(`${name} (${value}) is not a valid hexadecimal value`)
  if (value.length / 2 === size) return
  throw conflict(
    name === 'checksum'
      ? `checksum (${value}) is not the correct size for md5 (should be ${size} bytes)`
      : `${name} (${value}) is not the correct size for ${algorithm} (should be ${size} bytes)`,
  )
}
