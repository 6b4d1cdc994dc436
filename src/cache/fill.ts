import type { FileHandle } from 'node:fs/promises'
import { hasKind, ServiceError } from '../domain/errors.ts'
import type { Image } from '../domain/image.ts'
import { type ByteSource, exactLength } from '../io/bytes.ts'
import type { Pump } from '../io/pump.ts'
import { writeAll } from '../io/write-all.ts'

export interface Filling {
  readonly pump: Pump
  readonly signal: AbortSignal
  /** Called with the bytes of each write, once they can be read. */
  readonly wrote: (bytes: number) => void
}

/**
 * Writes the data of `image` into `file`, and resolves when it is known to be that of the image: its length, and its
 * checksum where the image has one. Throws `internal` when it is not; errors of the source and of the file as they are.
 */
export async function fillFile(image: Image, source: ByteSource, file: FileHandle, filling: Filling): Promise<void> {
  const { pump, signal, wrote } = filling
  const { algorithm, expected } = digestOf(image)
  const sink = async (body: ByteSource) => {
    let position = 0
    for await (const chunk of body) {
      await writeAll(file, chunk, position)
      position += chunk.length
      wrote(chunk.length)
    }
  }
  const bytes = exactLength(source, image.size ?? 0, 'unavailable')
  const { digests } = await pump.copy(bytes, sink, { digests: algorithm === undefined ? [] : [algorithm], signal })
  if (expected !== undefined && digests[0] !== expected) {
    throw new ServiceError('internal', 'The data of the image is not what its checksum says', {
      detail: { imageId: image.id, algorithm, expected, got: digests[0] },
    })
  }
}

/** Whether the data itself was found wrong, as against a disk or a store that failed. */
export const isSpoilt = (error: unknown): boolean => hasKind(error, 'internal') && 'expected' in error.detail

/** By what the data is known; images that were registered by their location may have neither. */
const digestOf = ({ checksum, osHashAlgo, osHashValue }: Image) =>
  checksum !== null
    ? { algorithm: 'md5', expected: checksum.toLowerCase() }
    : { algorithm: osHashAlgo ?? undefined, expected: osHashValue?.toLowerCase() }
