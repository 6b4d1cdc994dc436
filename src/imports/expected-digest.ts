import { createReadStream } from 'node:fs'
import { ServiceError } from '../domain/errors.ts'
import { digestSize } from '../io/digest.ts'
import { openPump, type Pump } from '../io/pump.ts'

/** What data must be, as the one says who wants it. */
export interface ExpectedDigest {
  /** As hashlib or OpenSSL name it. */
  readonly algorithm: string
  /** Hex, lower case. */
  readonly value: string
}

/**
 * `os_hash_algo` and `os_hash_value` beside the other members of an import method; undefined without them. Throws
 * `invalid` when one is missing or cannot be right.
 */
export function expectedDigest(members: Readonly<Record<string, unknown>>): ExpectedDigest | undefined {
  const { os_hash_algo: algorithm, os_hash_value: value } = members
  if (algorithm === undefined && value === undefined) return undefined
  if (typeof algorithm !== 'string' || typeof value !== 'string') {
    throw new ServiceError('invalid', 'os_hash_algo and os_hash_value must be given together, as texts')
  }
  const size = digestSize(algorithm)
  if (!/^(?:[0-9a-f]{2})+$/i.test(value) || value.length !== size * 2) {
    throw new ServiceError('invalid', `os_hash_value is not a digest of ${algorithm} in hex (${size} bytes)`)
  }
  return { algorithm, value: value.toLowerCase() }
}

export interface DigestCheck {
  /** Throws `invalid` unless the file has that digest. */
  verify(path: string, expected: ExpectedDigest, signal: AbortSignal): Promise<void>
  close(): Promise<void>
}

/** Its threads start with the first file: few imports say what they expect. */
export function openDigestCheck(): DigestCheck {
  let pump: Pump | undefined
  return {
    verify: async (path, { algorithm, value }, signal) => {
      pump ??= openPump({ memoryMiB: 8, threads: 1 })
      const source = createReadStream(path, { highWaterMark: 1_048_576, signal })
      const { digests } = await pump.copy(source, drain, { digests: [algorithm], signal })
      if (digests[0] === value) return
      throw new ServiceError('invalid', `The data has the ${algorithm} digest ${digests[0]}, expected was ${value}`)
    },
    close: async () => {
      await pump?.close()
    },
  }
}

async function drain(body: AsyncIterable<Buffer>): Promise<void> {
  for await (const _ of body);
}
