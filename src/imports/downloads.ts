import { openDigestCheck } from './expected-digest.ts'
import { type Catalog, glanceDownload } from './glance-download.ts'
import { openHttpClient } from './http-client.ts'
import type { ImportMethod } from './import.ts'
import { type AddressReach, type UriRules, uriFilter } from './uri-filter.ts'
import { webDownload } from './web-download.ts'

export interface DownloadsSetup {
  readonly rules: UriRules
  readonly reach: AddressReach
  readonly stallMs: number
  readonly retries: number
  readonly connections: number
  /** `[glance_download_properties] extra_properties` */
  readonly properties: readonly string[]
  /** Undefined where there is no catalog to find other Glances in. */
  readonly catalog?: Catalog | undefined
}

/** The import methods that bring data from elsewhere. */
export function openDownloads({ rules, reach, stallMs, retries, connections, properties, catalog }: DownloadsSetup): {
  readonly methods: readonly ImportMethod[]
  close(): Promise<void>
} {
  const digests = openDigestCheck()
  const options = { retries, connections }
  const filter = uriFilter(rules, { reach })
  const client = openHttpClient({ filter, stallMs })
  // Where other Glances are says the catalog, which users cannot write to; they are rarely at public addresses.
  const inside = uriFilter(rules, { reach: 'any' })
  const insideClient = openHttpClient({ filter: inside, stallMs })
  const tools = { digests, options }
  return {
    methods: [
      webDownload({ ...tools, filter, client }),
      ...(catalog === undefined
        ? []
        : [glanceDownload({ ...tools, filter: inside, client: insideClient, catalog, properties })]),
    ],
    close: async () => {
      await Promise.all([client.close(), insideClient.close(), digests.close()])
    },
  }
}
