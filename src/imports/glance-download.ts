import { ServiceError } from '../domain/errors.ts'
import { isUuid } from '../domain/ids.ts'
import { change, type RevocableChange, restore } from './change.ts'
import { type DownloadTools, downloadStep, textOf } from './download-step.ts'
import { type ExpectedDigest, expectedDigest } from './expected-digest.ts'
import { type HttpClient, parseTarget, shownUri } from './http-client.ts'
import type { ImportJob, ImportMethod, Step } from './import.ts'
import type { UriFilter } from './uri-filter.ts'

/** Where the services of a cloud are, as a token's owner sees it. */
export interface Catalog {
  /** URL of the image service; undefined when there is none. Throws `unauthenticated`, `unavailable`. */
  imageEndpoint(token: string, region: string, face: string, signal: AbortSignal): Promise<string | undefined>
}

export interface GlanceDownloadTools extends DownloadTools {
  readonly filter: UriFilter
  readonly catalog: Catalog
  /** Prefixes of the properties that come along (`[glance_download_properties] extra_properties`). */
  readonly properties: readonly string[]
}

type Input = Readonly<Record<string, unknown>>

const invalid = (message: string) => new ServiceError('invalid', message)
const STEP = 'metadata'

/** Image data, formats and some properties of an image in another region of the same cloud, with the user's own token. */
export const glanceDownload = (tools: GlanceDownloadTools): ImportMethod => ({
  name: 'glance-download',
  from: 'queued',
  admit: (method) => {
    for (const name of ['glance_region', 'glance_image_id']) {
      if (!(name in method)) throw invalid(`'${name}' needs to be set for glance-download import method`)
    }
    const { glance_image_id: id, glance_region: region, glance_service_interface: face = 'public' } = method
    if (typeof id !== 'string' || !isUuid(id)) throw invalid(`Remote image id does not look like a UUID: ${String(id)}`)
    if (typeof region !== 'string' || typeof face !== 'string') {
      throw invalid("'glance_region' and 'glance_service_interface' must be texts")
    }
  },
  accept: async (method) => ({ glance_service_interface: 'public', ...method }),
  steps: (job, input) => [metadataStep(job, input, tools), dataStep(job, input, tools)],
})

function metadataStep(job: ImportJob, input: Input, tools: GlanceDownloadTools): Step {
  return {
    name: STEP,
    run: async (signal) => {
      const { document } = await lookAt(job, input, tools, signal)
      await change(job, STEP, metadataOf(document, tools.properties))
    },
    undo: () => restore(job, STEP),
  }
}

const dataStep = (job: ImportJob, input: Input, tools: GlanceDownloadTools): Step =>
  downloadStep(job, tools, async (signal) => {
    const { url, document, secrets } = await lookAt(job, input, tools, signal)
    const { size } = document
    if (!Number.isSafeInteger(size)) {
      throw invalid(`Size attribute of remote image ${textOf(input, 'glance_image_id')} could not be determined.`)
    }
    return { target: parseTarget(`${url}/file`, secrets), size: size as number, digest: digestOf(document) }
  })

/** The image as the other Glance shows it. */
async function lookAt(job: ImportJob, input: Input, tools: GlanceDownloadTools, signal: AbortSignal) {
  const { token } = job.requester
  if (token === undefined) throw invalid('The import cannot go on without the token of the user who asked for it')
  const [region, face] = [textOf(input, 'glance_region'), textOf(input, 'glance_service_interface')]
  const endpoint = await tools.catalog.imageEndpoint(token, region, face, signal)
  if (endpoint === undefined) throw invalid(`${face} glance endpoint not found for region ${region}`)
  const url = `${endpoint.replace(/\/+$/, '').replace(/\/v2$/, '')}/v2/images/${textOf(input, 'glance_image_id')}`
  if (!(await tools.filter.admits(url))) {
    throw invalid(`Processed URI for glance-download does not pass filtering: ${shownUri(url)}`)
  }
  const secrets = { 'x-auth-token': token }
  const document = await fetchDocument(tools.client, url, secrets, signal)
  if (document['status'] !== 'active') {
    throw invalid(`Source image status should be active instead of ${String(document['status'])}`)
  }
  return { url, secrets, document }
}

const LONGEST_DOCUMENT = 4 * 1_048_576

async function fetchDocument(
  client: HttpClient,
  url: string,
  secrets: Readonly<Record<string, string>>,
  signal: AbortSignal,
): Promise<Record<string, unknown>> {
  const chunks: Buffer[] = []
  let size = 0
  for await (const chunk of client.read(await client.get(parseTarget(url, secrets), { signal }))) {
    size += chunk.length
    if (size > LONGEST_DOCUMENT) throw notUnderstood()
    chunks.push(chunk)
  }
  let document: unknown
  try {
    document = JSON.parse(Buffer.concat(chunks).toString())
  } catch {
    throw notUnderstood()
  }
  if (typeof document !== 'object' || document === null) throw notUnderstood()
  return document as Record<string, unknown>
}

const notUnderstood = () =>
  new ServiceError('bad-gateway', 'The remote image service describes the image in an unknown way')

/** What an image has beside its properties: of the remote one, it says nothing about ours. */
const ATTRIBUTES = new Set(
  (
    'id name status visibility protected checksum owner size virtual_size container_format disk_format created_at ' +
    'updated_at tags direct_url locations stores min_ram min_disk self file schema os_hidden os_hash_algo ' +
    'os_hash_value'
  ).split(' '),
)
const LONGEST_NAME = 255

function metadataOf(document: Readonly<Record<string, unknown>>, prefixes: readonly string[]): RevocableChange {
  const { disk_format: diskFormat, container_format: containerFormat } = document
  if (typeof diskFormat !== 'string' || typeof containerFormat !== 'string') throw notUnderstood()
  const isWanted = (name: string) =>
    prefixes.some((prefix) => name.startsWith(prefix)) &&
    !ATTRIBUTES.has(name) &&
    !name.startsWith('os_glance') &&
    name.length <= LONGEST_NAME
  const setProperties = new Map<string, string>()
  for (const [name, value] of Object.entries(document)) {
    if (isWanted(name) && typeof value === 'string') setProperties.set(name, value)
  }
  return { diskFormat, containerFormat, setProperties }
}

/** What the data must be, as far as this machine can tell. */
function digestOf(document: Readonly<Record<string, unknown>>): ExpectedDigest | undefined {
  try {
    return expectedDigest(document)
  } catch {
    return undefined
  }
}
