import { access, open } from 'node:fs/promises'
import { rethrowFull } from './full.ts'
import type { ImportJob } from './import.ts'
import { note } from './notes.ts'

/** How the file that a step makes becomes the staged data, once, wherever the step was interrupted. */
export interface Publication<T> {
  /** What was said of the file when it was published; undefined when it was not. */
  done(): Promise<T | undefined>
  /** The finished file with the suffix becomes the staged data; `value` is JSON. */
  publish(suffix: string, value: T): Promise<void>
  /** Forgets that it was. */
  revoke(): Promise<void>
}

/** `name` tells the steps of one import apart. */
export function publication<T>(job: Pick<ImportJob, 'staging' | 'imageId' | 'task'>, name: string): Publication<T> {
  const { staging, imageId, task } = job
  const made = note<{ readonly suffix: string; readonly value: T }>(staging, imageId, task, `${name}.done`)
  return {
    done: async () => {
      const known = await made.read()
      if (known !== undefined && (await exists(staging.path(imageId, known.suffix)))) {
        await staging.replace(imageId, known.suffix)
      }
      // A note without data tells of a directory that somebody has emptied.
      return (await staging.size(imageId)) === undefined ? undefined : known?.value
    },
    publish: async (suffix, value) => {
      await sync(staging.path(imageId, suffix))
      await made.write({ suffix, value })
      await staging.replace(imageId, suffix)
    },
    revoke: () => made.remove(),
  }
}

const exists = (path: string): Promise<boolean> =>
  access(path).then(
    () => true,
    () => false,
  )

/** The note must not reach the disk before the data that it speaks of. */
async function sync(path: string): Promise<void> {
  const file = await open(path, 'r+')
  try {
    await file.sync().catch(rethrowFull)
  } finally {
    await file.close()
  }
}
