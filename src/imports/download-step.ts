import { rename, rm } from 'node:fs/promises'
import { ServiceError } from '../domain/errors.ts'
import { type DownloadOptions, download, type Remembered } from './download.ts'
import type { DigestCheck, ExpectedDigest } from './expected-digest.ts'
import type { HttpClient, Target } from './http-client.ts'
import type { ImportJob, Step } from './import.ts'
import { type Note, note } from './notes.ts'
import { publication } from './staged-file.ts'

export interface DownloadTools {
  readonly client: HttpClient
  readonly digests: DigestCheck
  readonly options: DownloadOptions
}

/** What a download is to bring. */
export interface Wanted {
  readonly target: Target
  readonly size?: number | undefined
  readonly digest?: ExpectedDigest | undefined
}

/** Stages what a web server has. `want` is asked each time that the step runs. */
export function downloadStep(
  job: ImportJob,
  { client, digests, options }: DownloadTools,
  want: (signal: AbortSignal) => Promise<Wanted>,
): Step {
  const { staging, imageId, tries } = job
  const staged = publication<true>(job, 'download')
  const part = partName(tries)
  return {
    name: 'download',
    run: async (signal) => {
      if (await staged.done()) return
      const { target, size, digest } = await want(signal)
      await adoptPart(job)
      const path = staging.path(imageId, part)
      await download(
        client,
        { target, size, path, note: noteOf(job, tries), limit: job.sizeLimit, progress: job.progress, signal },
        options,
      )
      if (digest !== undefined) await digests.verify(path, digest, signal)
      await staged.publish(part, true)
    },
    // Not all there is of the image: what other steps remember is theirs.
    undo: async () => {
      for (let one = 1; one <= tries; one++) {
        await rm(staging.path(imageId, partName(one)), { force: true })
        await noteOf(job, one).remove()
      }
      await rm(staging.path(imageId), { force: true })
      await staged.revoke()
    },
  }
}

const partName = (tries: number): string => `part-${tries}`
const noteOf = ({ staging, imageId, task }: ImportJob, tries: number): Note<Remembered> =>
  note(staging, imageId, task, `${partName(tries)}.note`)

/**
 * Goes on with what an earlier try of this job has left, under a name of our own: whoever began it may only be asleep,
 * and must not take our file for its own when it wakes up.
 */
async function adoptPart(job: ImportJob): Promise<void> {
  const { staging, imageId, tries } = job
  for (let earlier = tries - 1; earlier > 0; earlier--) {
    const known = await noteOf(job, earlier).read()
    if (known === undefined) continue
    const moved = await rename(staging.path(imageId, partName(earlier)), staging.path(imageId, partName(tries))).then(
      () => true,
      () => false,
    )
    if (moved) await noteOf(job, tries).write(known)
    await noteOf(job, earlier).remove()
    if (moved) return
  }
}

/** A member of what `accept` returned. Throws `internal`: whoever wrote it has checked it. */
export function textOf(input: Readonly<Record<string, unknown>>, name: string): string {
  const value = input[name]
  if (typeof value !== 'string') throw new ServiceError('internal', `The import has no ${name}`)
  return value
}
