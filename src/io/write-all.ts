import { write } from 'node:fs'
import type { FileHandle } from 'node:fs/promises'
import { promisify } from 'node:util'

/** FileHandle's own write copies a buffer over shared memory, which costs as much again as writing it. */
const writeAt = promisify(write)

/** Writes all of `chunk` at `position`; the file system's error as it is. */
export async function writeAll(file: FileHandle, chunk: Buffer, position: number): Promise<void> {
  for (let done = 0; done < chunk.length; ) {
    const { bytesWritten } = await writeAt(file.fd, chunk, done, chunk.length - done, position + done)
    done += bytesWritten
  }
}
