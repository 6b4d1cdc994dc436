import { rm, stat } from 'node:fs/promises'
import { change, type RevocableChange, restore } from './change.ts'
import type { ImportJob, Step } from './import.ts'
import { publication } from './staged-file.ts'

export interface Transformation {
  /** Of the staged data. */
  readonly from: string
  /** Does not exist yet. */
  readonly to: string
  readonly signal: AbortSignal
}
/** What the image is once the new file is its data; its size is found out anyhow. */
export type Transformed = Pick<RevocableChange, 'diskFormat' | 'containerFormat' | 'virtualSize'>

/** A published transformation: a Map or null means nothing in JSON, and neither occurs here. */
type Outcome = Transformed & { readonly size: number }

/**
 * Makes a new file of the staged data and puts it in its place. `make` gives undefined when the data shall stay as it
 * is. Whatever it leaves at `to` when it fails is removed.
 */
export function transformStep(
  job: ImportJob,
  name: string,
  make: (work: Transformation) => Promise<Transformed | undefined>,
): Step {
  const { staging, imageId, tries } = job
  const suffix = `${name}-${tries}`
  const published = publication<Outcome>(job, name)
  const discard = async () => {
    for (let one = 1; one <= tries; one++) await rm(staging.path(imageId, `${name}-${one}`), { force: true })
  }
  return {
    name,
    run: async (signal) => {
      let outcome = await published.done()
      if (outcome === undefined) {
        await discard()
        const to = staging.path(imageId, suffix)
        const transformed = await make({ from: staging.path(imageId), to, signal }).catch(async (error: unknown) => {
          await discard()
          signal.throwIfAborted()
          throw error
        })
        if (transformed === undefined) return
        outcome = { ...transformed, size: (await stat(to)).size }
        await published.publish(suffix, outcome)
      }
      await change(job, name, outcome)
    },
    undo: async () => {
      await discard()
      await published.revoke()
      await restore(job, name)
    },
  }
}
