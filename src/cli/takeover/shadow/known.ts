import type { Details } from './compare.ts'

/** A difference from the real Glance in what is read, that is meant to be; docs/differences.md tells users of it. */
export interface KnownRead {
  readonly why: string
  /** Matched against `METHOD /target`; any request when absent. */
  readonly request?: RegExp
  /** Matched against a detail. Another status accounts for everything else. */
  readonly detail: RegExp
}

export const KNOWN_READS: readonly KnownRead[] = [
  // --- releases of Glance that are older than what this service is
  {
    why: 'newer versions of the API are in the list',
    request: /^GET \/(versions)?$/,
    detail: /^body\.versions(\[\d+\]\.(id|status))?: /,
  },
  {
    why: 'older releases do not have this route',
    request: /^GET \/v2\/(info\/(usage|stores\/detail|stores|import)|images\/[^/]+\/(tasks|locations))$/,
    detail: /^status: 40[45] there, (200|403) here$/,
  },
  {
    why: 'older releases do not have this type of task',
    request: /^GET \/v2\/schemas\/tasks?$/,
    detail: /\.enum: only there: none; only here: location_import$/,
  },
  {
    why: 'details of stores have weights',
    request: /^GET \/v2\/info\/stores\/detail$/,
    detail: /^body\.stores\[\d+\]\.weight: undefined there, /,
  },

  // --- what upstream fails at
  {
    why: 'what makes an error of the server there is refused here',
    detail: /^status: (500|0) there, (400|409|415|416) here$/,
  },
  {
    why: 'numbers beyond 64 bits fail there, and fit nothing here',
    request: /^GET \/v2\/images\?\S*=\d{19}/,
    detail: /^status: 500 there, 200 here$/,
  },

  // --- lists
  {
    why: 'none, empty and 0 are alike when a list is sorted by them',
    request: /^GET \/v2\/images\?\S*sort(_key)?=\S*(name|size|disk_format|container_format)/,
    detail: /^body\.(images|first|next): /,
  },
  {
    why: 'repeated parameters are all in first and next',
    request: /^GET \/v2\/images\?\S*(sort_key|tag)=\S*&\1=/,
    detail: /^body\.(first|next): /,
  },
  {
    why: 'an empty visibility is none here, and finds nothing there',
    request: /^GET \/v2\/images\?(\S*&)?visibility=(&|$)/,
    detail: /^body\./,
  },
  {
    why: 'times that are none are refused before the policy is asked',
    request: /^GET \/v2\/images\?\S*(created|updated)_at=/,
    detail: /^status: 403 there, 400 here$/,
  },
  {
    why: 'after a marker without what is sorted by, the list of namespaces goes on where it was',
    request: /^GET \/v2\/metadefs\/namespaces\?\S*marker=\S*sort_key=(display_name|description)/,
    detail: /^body\.(namespaces|next): /,
  },
  {
    why: 'metadata definitions that were never changed were last changed when they were made',
    request: /^GET \/v2\/metadefs\//,
    detail: /^body\S*\.updated_at: (undefined|null|"") there, /,
  },
  {
    why: 'a namespace that cannot be seen is answered as one that is not there',
    request: /^GET \/v2\/metadefs\/namespaces\//,
    detail: /^body: "404/,
  },

  // --- paths
  {
    why: 'bytes of a path that are not ASCII are read as Latin-1 there',
    request: /^\w+ \S*%(?:C3|E2|EF|F0)%/,
    detail: /^(body[^:]*: .*[\u0080-\u00ff].* there, |status: 404 there, 200 here$)/s,
  },
  {
    why: 'characters beyond the Basic Multilingual Plane are refused in paths and queries',
    request: /%F0%9F/,
    detail: /^status: (20\d|404) there, 400 here$/,
  },
  { why: 'NUL is refused in texts', request: /%00/, detail: /^status: \d+ there, 400 here$/ },
  { why: 'two slashes are one there', request: /^GET \/v2\/\//, detail: /^status: \d+ there, 404 here$/ },
  {
    why: 'an answer without a body has no Content-Type',
    request: /^GET \/v2\/images\/[^/]+\/file$/,
    detail: /^content-type: .* there, undefined here$/,
  },
]

const isStatus = (detail: string): boolean => detail.startsWith('status: ')

/** The entries of the list that account for all the details of an exchange; undefined when they do not. */
export function explained(request: string, details: Details): readonly KnownRead[] | undefined {
  const status = details.find(isStatus)
  const entries = (status === undefined ? details : [status]).map((detail) =>
    KNOWN_READS.find((known) => known.detail.test(detail) && known.request?.test(request) !== false),
  )
  const found = entries.filter((entry) => entry !== undefined)
  return found.length === entries.length ? found : undefined
}
