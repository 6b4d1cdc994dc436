import { open, readFile, rename, rm } from 'node:fs/promises'
import type { ImageId, TaskId } from '../domain/ids.ts'
import { rethrowFull } from './full.ts'
import type { Staging } from './import.ts'

/**
 * What a step must remember beside the staged data, so that it can go on, or be taken back, in another process.
 * `T` is JSON. What another task wrote of the image does not count.
 */
export interface Note<T> {
  read(): Promise<T | undefined>
  /** All or nothing, and on the disk when it resolves. Throws `too-large` when that is full. */
  write(value: T): Promise<void>
  remove(): Promise<void>
}

export function note<T>(staging: Staging, image: ImageId, task: TaskId, name: string): Note<T> {
  const path = staging.path(image, name)
  return {
    read: async () => {
      const text = await readFile(path, 'utf8').catch(ignoreMissing)
      const { task: of, value } = parse(text) as { task?: unknown; value?: T }
      return of === task ? value : undefined
    },
    write: async (value) => {
      const unfinished = staging.path(image, `${name}.new`)
      const file = await open(unfinished, 'w', 0o600).catch(rethrowFull)
      try {
        await file.writeFile(JSON.stringify({ task, value })).catch(rethrowFull)
        await file.datasync().catch(rethrowFull)
      } finally {
        await file.close()
      }
      await rename(unfinished, path)
    },
    remove: () => rm(path, { force: true }),
  }
}

function ignoreMissing(error: NodeJS.ErrnoException): undefined {
  if (error.code !== 'ENOENT') throw error
}

/** A file that somebody else damaged is as good as none. */
function parse(text: string | undefined): unknown {
  try {
    return JSON.parse(text ?? '{}') ?? {}
  } catch {
    return {}
  }
}
