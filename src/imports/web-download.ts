import { ServiceError } from '../domain/errors.ts'
import { type DownloadTools, downloadStep, textOf } from './download-step.ts'
import { expectedDigest } from './expected-digest.ts'
import { parseTarget, shownUri } from './http-client.ts'
import type { ImportMethod } from './import.ts'
import type { UriFilter } from './uri-filter.ts'

export interface WebDownloadTools extends DownloadTools {
  readonly filter: UriFilter
}

/** Image data from a URL that a user names. */
export const webDownload = ({ filter, ...tools }: WebDownloadTools): ImportMethod => {
  /** Asked again before each download: names lead elsewhere, and rules change, while a task waits. */
  const admit = async (uri: unknown): Promise<void> => {
    if (typeof uri === 'string' && (await filter.admits(uri))) return
    const shown = typeof uri === 'string' ? shownUri(uri) : 'None'
    throw new ServiceError('invalid', `URI for web-download does not pass filtering: ${shown}`)
  }
  return {
    name: 'web-download',
    from: 'queued',
    accept: async (method) => {
      await admit(method['uri'])
      expectedDigest(method)
      return method
    },
    shown: (members) => ({ ...members, uri: shownUri(textOf(members, 'uri')) }),
    steps: (job, input) => [
      downloadStep(job, tools, async () => {
        const uri = textOf(input, 'uri')
        await admit(uri)
        return { target: parseTarget(uri), digest: expectedDigest(input) }
      }),
    ],
  }
}
