import type { Details } from './compare.ts'
import type { Asked } from './request.ts'

/** A difference from the real Glance that is meant to be; docs/differences.md tells users of it. */
export interface Known {
  readonly why: string
  /** Matched against `METHOD /target`, a newline, and the body; any request when absent. */
  readonly request?: RegExp
  /** Matched against a detail, such as `status: 500 there, 400 here`. Another status accounts for everything else. */
  readonly detail: RegExp
  /** What the two keep is another thing, and of no more use. */
  readonly spoils?: true
  /** A short course may not come by it. */
  readonly rare?: true
  /** Only where the records are kept in this database. */
  readonly on?: Database
}

export type Database = 'postgresql' | 'sqlite'

export const KNOWN: readonly Known[] = [
  // --- words and headers
  {
    why: 'the header that lists stores names reserved ones there',
    request: /^POST \/v2\/images\n/,
    detail:
      /^openstack-image-store-ids: "fast,cheap,web,os_glance_staging_store,os_glance_tasks_store" there, "fast,cheap,web" here$/,
  },
  {
    why: 'the reason of a 403 or 409 stands alone here',
    request: /^PATCH \/v2\/images\//,
    detail:
      /^body: "(403 Forbidden\\n\\nAccess was denied to this resource|409 Conflict\\n\\nThere was a conflict when trying to complete your request)\..* there, "(403 Forbidden|409 Conflict)/s,
  },
  {
    why: 'a change of locations that are invisible is refused for that, before anything else',
    request: /^PATCH \/v2\/images\/.*\/locations/s,
    detail: /^body: "403.*_image_location action.* there, "403.*if locations are invisible/s,
    rare: true,
  },
  {
    why: 'the reason of a 403 stands alone here, also when an image is created',
    request: /^POST \/v2\/images\n/,
    detail: /^body: "403 Forbidden\\n\\nAccess was denied to this resource\..* there, "403 Forbidden/s,
    rare: true,
  },
  {
    why: 'the reason of a 415 may be another',
    request: /^PUT \/v2\/images\/[^/]+\/file\n/,
    detail:
      /^body: "415.*does not match stream data raw" there, "415.*(Image failed safety checks|stream data qcow2)" here$/s,
    rare: true,
  },
  {
    why: 'a resource type that is not there is told like one that a namespace is not for',
    request: /^GET \/v2\/metadefs\/namespaces\/[^/]+\/properties\/\S*\?resource_type=/,
    detail: /^body: "404.*resource-type with name=.* there, "404.*resource-type association of/s,
    rare: true,
  },
  {
    why: 'repeated parameters are all in first and next',
    request: /^GET \/v2\/images\?\S*(sort_key|tag)=\S*&\1=/,
    detail: /^body\.(first|next): /,
  },
  {
    why: 'bytes of a path that are not ASCII are read as Latin-1 there',
    request: /^\w+ \S*%(?:C3|E2|EF|F0)%/,
    detail: /^body[^:]*: .*[\u0080-\u00ff].* there, /s,
  },
  {
    why: 'a 415 about no content type names the default one here',
    detail: /^body: ".*415.*type \$\{CONTENT_TYPE\} is not.* there, ".*415.* type text\/plain is not/,
  },
  {
    why: 'a namespace that is not there is named in other words under /objects',
    request: /^\w+ \/v2\/metadefs\/namespaces\/[^/]+\/objects/,
    detail: /^body: "404.*Metadata definition namespace=.* was not found\..* there, "404.*Namespace .* not found/s,
    rare: true,
  },
  {
    why: 'a private namespace of somebody else is answered as one that is not there',
    request: /^GET \/v2\/metadefs\/namespaces\/[^/]+\n/,
    detail:
      /^body: "404 Not Found\\n\\nThe resource could not be found\..* there, "404.*Metadata definition namespace=.* was not found/s,
  },
  {
    why: 'a private namespace of somebody else is answered as one that is not there, as a marker too',
    request: /^GET \/v2\/metadefs\/namespaces\?\S*marker=/,
    detail: /^status: 403 there, 404 here$/,
  },
  {
    why: 'the location of a new namespace is a URL here',
    request: /^POST \/v2\/metadefs\/namespaces\n/,
    detail: /^location: "http:\/\/\{host\}\/.*" there, "http:\/\/\{host\}\/v2\/metadefs\/namespaces\/[^"]*%/,
  },

  {
    why: 'a 415 about no content type names the default one here, in JSON as well',
    detail: /^body\.message: ".*type \$\{CONTENT_TYPE\} is not.* there, ".* type text\/plain is not/,
    rare: true,
  },
  {
    why: 'a body that is too short or too long is told in other words',
    request: /^PUT \/v2\/images\/[^/]+\/file\n/,
    detail:
      /^body: "400 .*Size (?:mismatch|exceeds): expected .* there, "400 .*Expected \d+ bytes of image data but got/s,
    rare: true,
  },
  {
    why: 'a task says how much it has copied, whatever its type',
    request: /^GET \/v2\/(images\/[^/]+\/)?tasks/,
    detail: /^body(\.tasks\[\d+\])?\.message: "" there, "Copied \d+ MiB" here$/,
  },
  {
    why: 'a task says why it failed',
    request: /^GET \/v2\/(images\/[^/]+\/)?tasks/,
    detail: /^body(\.tasks\[\d+\])?\.message: "Task failed due to Internal Error" there, /,
  },

  // --- what work leaves behind
  {
    why: 'an image without formats gets no location, where it keeps it there although the task fails',
    request: /^GET \/v2\/images\/[^/?]+\n/,
    detail: /^body\.(size: \d+ there, null here|stores: "web" there, undefined here)$/,
    spoils: true,
    rare: true,
  },
  {
    why: 'a copy leaves the virtual size as it is, which only the arrival of data sets',
    request: /^(GET|PATCH) \/v2(\.\d+)?\/images/,
    detail: /^body(\.images\[\d+\])?\.virtual_size: \d+ there, null here$/,
    rare: true,
  },
  {
    why: 'an image of a task belongs to the project of the caller, not to nobody',
    request: /^GET \/v2\/images\/[^/?]+\n/,
    detail: /^body\.owner: null there, /,
    spoils: true,
    rare: true,
  },
  {
    why: 'an import names a store',
    request: /^POST \/v2\/images\/[^/]+\/import\n.*"stores":\[\]/s,
    detail: /^status: 202 there, 400 here$/,
  },

  {
    why: 'a task that is over has let go of its image, where it does so later there, or never',
    request: /^GET \/v2\/images\/[^/?]+\n/,
    detail: /^body\.os_glance_import_task: "[^"]*" there, undefined here$/,
    spoils: true,
    rare: true,
  },
  {
    why: 'a copy in another store adds nothing to what is known of the image',
    request: /^GET \/v2\/images\/[^/?]+\n/,
    detail: /^body\.virtual_size: \d+ there, null here$/,
    spoils: true,
    rare: true,
  },

  // --- the cache
  {
    why: 'the first download of an image has a length',
    request: /^GET \/v2\/images\/[^/]+\/file/,
    detail: /^content-length: undefined there, "\d+" here$/,
  },
  {
    why: 'the checksum of what is cached is known',
    request: /^GET \/v2\/(cache|cached_images)\n/,
    detail: /^body\.cached_images\[\d+\]\.checksum: null there, "/,
  },
  {
    why: 'an empty Range is one, whether or not the image is cached',
    request: /^GET \/v2\/images\/[^/]+\/file/,
    detail: /^status: 200 there, 416 here$/,
    rare: true,
  },
  {
    why: 'stores that are preferred must be there, whether or not the image is cached',
    request: /^GET \/v2\/images\/[^/]+\/file\?prefer=/,
    detail: /^status: 200 there, 400 here$/,
    rare: true,
  },
  {
    why: 'what comes from the cache is counted, and ranges and older requests come from it here',
    request: /^GET \/v2\/(cache|cached_images)\n/,
    detail: /^body\.cached_images\[\d+\]\.hits: /,
    rare: true,
  },

  {
    why: 'ranges make a copy too, and what the older routes queue may be fetched at once',
    request: /^(GET|DELETE) \/v2\/(cache|cached_images|queued_images)/,
    detail: /^body(\.(cached_images|queued_images|num_deleted))?: [\d[]/,
    rare: true,
  },

  // --- the database
  {
    why: 'what has no value comes first, on every database',
    request: /^GET \/v2\/(images|metadefs\/namespaces)\?(\S*&)?sort(_key)?=/,
    detail: /^body\.(images|namespaces|next)/,
    on: 'postgresql',
  },
  {
    why: 'stores of the same weight are in the order in which they were filled',
    request: /^(GET|PATCH) \/v2(\.\d+)?\/images/,
    detail:
      /^body(\.images\[\d+\])?\.stores: ("(\w+),(\w+)" there, "\4,\3"|"(\w+),(\w+),(\w+)" there, "(?=.*\b\5\b)(?=.*\b\6\b)(?=.*\b\7\b)\w+,\w+,\w+") here$/,
    on: 'postgresql',
    rare: true,
  },
  {
    why: 'numbers that are none are found nowhere, and fail there',
    request: /^GET \/v2\/images\?\S*min_(ram|disk)=(x|1\.5)/,
    detail: /^status: 500 there, 200 here$/,
    on: 'postgresql',
    rare: true,
  },
  {
    why: 'an empty visibility is none here, and fails there',
    request: /^GET \/v2\/images\?(\S*&)?visibility=(&|\n)/,
    detail: /^status: 500 there, 200 here$/,
    on: 'postgresql',
  },

  // --- what is looked at first
  {
    why: 'of several things that are wrong with a new namespace, another one is named',
    request: /^POST \/v2\/metadefs\/namespaces\n/,
    detail: /^body: "400 .* there, "400 .* here$/s,
    rare: true,
  },
  {
    why: 'of several parameters that are wrong with a list, another one is named',
    request: /^GET \/v2\/images\?\S+&/,
    detail: /^body: "400 .* there, "400 .* here$/s,
    rare: true,
  },
  {
    why: 'of two things that are wrong with an import, another one is named',
    request: /^POST \/v2\/images\/[^/]+\/import\n/,
    detail: /^body: "400 .*(can't be both specified|can't be used with).* there, "400 .*must be/s,
    rare: true,
  },
  {
    why: 'that there is such a member already is seen before the policy is asked',
    request: /^PATCH \/v2\/images\/.*"add":"\/visibility"/s,
    detail: /^status: 403 there, 409 here$/,
    rare: true,
  },
  {
    why: 'an owner is refused before it is asked whether the image may be changed',
    request: /^PATCH \/v2\/images\/.*\/owner"/s,
    detail: /^body: "403.*Forbidding request, .* there, "403.*Owner can't be updated by non admin/s,
    rare: true,
  },
  {
    why: 'of several parameters that are none, another one is named',
    request: /^GET \/v2\/metadefs\/namespaces\?\S*visibility=x/,
    detail: /^body: "400.* there, "400.*Invalid visibility value: x/s,
    rare: true,
  },
  {
    why: 'a size that is none is refused before anything else is looked at',
    request: /^PUT \/v2\/images\/[^/]+\/file\n/,
    detail: /^(status: 40[34] there, 400 here|body: "4.* there, "400 Bad Request\\n\\nInvalid or missing image size)/s,
    rare: true,
  },
  {
    why: 'numbers, texts and member statuses that are none are refused before the image is looked for',
    request: /^(POST|PUT|PATCH) \/v2\/(images|metadefs)\/|^\w+ \S*%F0%9F/,
    detail: /^(status: 4(03|04|09) there, 400 here|body: "400 .* there, "400 .*4 byte unicode.* here)$/,
  },
  {
    why: 'times that are none are refused before the policy is asked',
    request: /^GET \/v2\/images\?\S*(created|updated)_at=/,
    detail: /^status: 403 there, 400 here$/,
  },
  {
    why: 'reserved stores are no stores here',
    request: /^DELETE \/v2\/stores\/os_glance_/,
    detail:
      /^(status: 40[34] there, 409 here|body: "409.*status is not 'active'.* there, "409.*is not available on this node)/s,
    rare: true,
  },

  {
    why: 'sort keys that are none are refused before anything is looked for',
    request: /^GET \/v2\/metadefs\/namespaces\?\S*sort_key=x/,
    detail: /^(status: 40[34] there, 400 here|body: "400.* there, "400.*sort key.* here)$/,
    rare: true,
  },

  // --- what upstream fails at
  {
    why: 'what makes an error of the server there is refused here',
    detail: /^status: (500|0) there, (400|409|415|416) here$/,
  },
  {
    why: 'an image that is not the caller’s to see is not found in the cache either',
    request: /^\w+ \/v2\/cache\//,
    detail: /^status: 500 there, 404 here$/,
    rare: true,
  },
  {
    why: 'numbers beyond 64 bits fail there, and fit nothing here',
    request: /^GET \/v2\/images\?\S*=9{19}/,
    detail: /^status: 500 there, 200 here$/,
    on: 'sqlite',
  },
  {
    why: 'read-only attributes of the objects of a new namespace fail there, and are ignored here',
    request: /^POST \/v2\/metadefs\/namespaces\n.*"objects".*"(self|created_at|schema)":"x"/s,
    detail: /^status: 500 there, 201 here$/,
    rare: true,
  },
  {
    why: 'a range of an image without data is answered as the whole of it',
    request: /^GET \/v2\/images\/[^/]+\/file/,
    detail: /^status: (400|416|500) there, 204 here$/,
  },

  {
    why: 'a part of what is at an http location is served',
    request: /^GET \/v2\/images\/[^/]+\/file/,
    detail: /^status: 400 there, 206 here$/,
    rare: true,
  },

  // --- what upstream lets pass
  {
    why: 'an announced size of 0 is a size',
    request: /^PUT \/v2\/images\/[^/]+\/file\n/,
    detail: /^status: 204 there, 400 here$/,
    rare: true,
  },
  {
    why: 'a header that breaks off is a format that fails its checks, not raw data',
    request: /^PUT \/v2\/images\/[^/]+\/(file|stage)\n!hex 514649fb/,
    detail: /^status: 204 there, 415 here$/,
    rare: true,
  },
  {
    why: 'minimum and maximum with a fraction are kept',
    request: /^(PUT|POST) \/v2\/metadefs\/.*"(minimum|maximum)":-?\d+\.\d/s,
    detail: /^body[^:]*\.(minimum|maximum): /,
    rare: true,
  },
  {
    why: 'NUL and halves of surrogate pairs are refused in texts',
    request: /%00|\\u0000|\\ud800/,
    detail:
      /^(status: (200|201|204|403|409) there, 400 here|(content-type|x-openstack-request-id|body): .* there, .* here)$/s,
    rare: true,
  },
  {
    why: 'a tag of a path is found by the characters that were sent',
    request: /^DELETE \/v2\/images\/[^/]+\/tags\/%C3/,
    detail: /^status: 404 there, 204 here$/,
    rare: true,
  },
  {
    why: 'characters beyond the Basic Multilingual Plane are refused in paths and queries too',
    request: /%F0%9F%98%80/,
    detail: /^status: 20\d there, 400 here$/,
    rare: true,
  },
  {
    why: 'the contents of a new namespace are looked at as if they came alone',
    request: /^POST \/v2\/metadefs\/namespaces\n/,
    detail: /^status: 201 there, 400 here$/,
    on: 'sqlite',
  },
  {
    why: 'what was never changed was last changed when it was made',
    request: /^GET \/v2\/metadefs\/namespaces\?\S*sort_key=updated_at/,
    detail: /^body\.(namespaces|next)/,
    rare: true,
  },
  {
    why: 'after a marker without what is sorted by, the list goes on where it was',
    request:
      /^GET \/v2\/(images\?\S*marker=\S*sort(_key)?=size|metadefs\/namespaces\?\S*marker=\S*sort_key=(display_name|description))/,
    detail: /^body\.(images|namespaces|next)/,
    rare: true,
  },
  {
    why: 'a member has at most 255 characters',
    request: /^POST \/v2\/images\/[^/]+\/members\n/,
    detail: /^status: 200 there, 400 here$/,
    rare: true,
  },
  {
    why: 'an empty visibility is none here, and finds nothing there',
    request: /^GET \/v2\/images\?(\S*&)?visibility=(&|\n)/,
    detail: /^body\./,
    on: 'sqlite',
  },
  {
    why: 'methods that a path of discovery does not have are 405 here',
    request: /^(POST|PUT|PATCH|DELETE|HEAD) \/v2\/info\/usage\n/,
    detail: /^status: 404 there, 405 here$/,
  },
  {
    why: 'stores are read-only',
    request: /^PATCH \/v2\/images\/.*\/stores"/s,
    detail: /^(status: (200|40[049]) there, 403 here|body: "403.* there, "403.*'stores' is read-only.* here)$/,
    rare: true,
  },
  {
    why: 'OPTIONS without an origin has an empty answer',
    request: /^OPTIONS /,
    detail: /^(status|content-type|body|allow|x-openstack-request-id|location): /,
  },
  {
    why: 'two slashes are one there',
    request: /^\w+ \/v2\/\/images\n/,
    detail: /^status: \d+ there, 404 here$/,
  },
]

export const isStatus = (detail: string): boolean => detail.startsWith('status: ')

/** The entries of the list that account for all the details of an exchange; undefined when they do not. */
export function explained({ request }: Asked, details: Details, database: Database): readonly Known[] | undefined {
  const text = `${request.method} ${request.target}\n${request.body ?? ''}`
  const entryFor = (detail: string): Known | undefined =>
    KNOWN.find(
      (known) =>
        known.detail.test(detail) && known.request?.test(text) !== false && (known.on ?? database) === database,
    )
  const status = details.find(isStatus)
  const entries = (status === undefined ? details : [status]).map(entryFor)
  const found = entries.filter((entry) => entry !== undefined)
  return found.length === entries.length ? found : undefined
}
