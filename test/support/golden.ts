import { readdir, readFile, writeFile } from 'node:fs/promises'
import { request as httpRequest } from 'node:http'
import { basename, join } from 'node:path'
import { buffer } from 'node:stream/consumers'
import { setTimeout as delay } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { isDeepStrictEqual } from 'node:util'

/**
 * Golden transcripts: whole requests and the answers they must get, in files that a person can read.
 * `test/http/README.md` describes the format.
 */
export interface Transcript {
  /** The name of a server in `SERVERS`. */
  readonly server: string
  /** Lines of prose at the top. */
  readonly about: readonly string[]
  readonly exchanges: readonly Exchange[]
}

export interface Exchange {
  readonly title: string
  /** Why the answer is written by hand: upstream answers something else. */
  readonly differs?: string
  /** What is missing before this can be answered as written; the answer must be another one until then. */
  readonly pending?: string
  /** Who asks, a name in `cast`; nobody sends no token. */
  readonly as?: string
  /** The name that the new UUID of the answer gets; without it `image1`, `image2` … */
  readonly names?: string
  /** The answer's lists show only these members of their items. */
  readonly pick?: readonly string[]
  /** The request is repeated until the answer holds this text: for what happens in the background. */
  readonly until?: string
  readonly request: Request
  /** Absent until recorded. */
  readonly response?: Response
}

type Headers = readonly (readonly [name: string, value: string])[]

export interface Request {
  readonly method: string
  readonly target: string
  readonly headers: Headers
  /** As written in the file; undefined when the request has none. */
  readonly body?: string
}

export interface Response {
  readonly status: number
  readonly reason: string
  /** Lower-case names, sorted. */
  readonly headers: Headers
  readonly body?: string
}

export interface Difference {
  readonly index: number
  readonly title: string
  readonly pending?: string
  readonly details: readonly string[]
}

export interface Target {
  readonly baseUrl: string
  /** Value of X-Auth-Token for each name of the cast. */
  readonly tokens: Readonly<Record<string, string>>
  /** Host and port of the web server that `{{web}}` stands for. */
  readonly web?: string
}

const beside = (name: string): string => fileURLToPath(new URL(`../http/v2/${name}`, import.meta.url))

/** The servers that the corpus is about: options by group, over the defaults and secure RBAC. */
export const SERVERS = {
  single: { DEFAULT: { enabled_import_methods: '[]' } },
  multi: {
    DEFAULT: { enabled_import_methods: '[]', enabled_backends: 'fast:file, cheap:file' },
    glance_store: { default_backend: 'fast' },
    fast: { store_description: 'fast file store' },
    cheap: { store_description: 'cheap file store' },
  },
  locations: {
    DEFAULT: {
      enabled_import_methods: '[]',
      enabled_backends: 'fast:file, cheap:file, web:http',
      show_multiple_locations: 'True',
      show_image_direct_url: 'True',
      image_location_quota: '3',
      user_storage_quota: '100B',
    },
    glance_store: { default_backend: 'fast' },
    fast: { store_description: 'fast file store' },
    cheap: { store_description: 'cheap file store' },
  },
  'property-roles': {
    DEFAULT: { enabled_import_methods: '[]', property_protection_file: beside('property-roles.conf') },
  },
  'property-policies': {
    DEFAULT: {
      enabled_import_methods: '[]',
      property_protection_file: beside('property-policies.conf'),
      property_protection_rule_format: 'policies',
    },
    oslo_policy: { policy_file: beside('property-policies.yaml') },
  },
  cache: {
    DEFAULT: { enabled_import_methods: '[]', image_cache_dir: 'cache', image_cache_driver: 'sqlite' },
    paste_deploy: { flavor: 'keystone+cachemanagement' },
  },
  imports: {
    DEFAULT: { enabled_import_methods: '[glance-direct,copy-image]', enabled_backends: 'fast:file, cheap:file' },
    glance_store: { default_backend: 'fast' },
    fast: { store_description: 'fast file store' },
    cheap: { store_description: 'cheap file store' },
  },
  'imports-single': {
    DEFAULT: { enabled_import_methods: '[glance-direct,copy-image]', image_size_cap: '20', user_storage_quota: '40B' },
  },
  limits: {
    DEFAULT: {
      enabled_import_methods: '[]',
      image_property_quota: '3',
      image_tag_quota: '3',
      image_member_quota: '2',
      image_size_cap: '20',
      user_storage_quota: '40B',
    },
  },
} as const satisfies Record<string, Readonly<Record<string, Readonly<Record<string, string>>>>>

/**
 * The people of one file, as tokens `USER:PROJECT:ROLES`. Their projects carry the file's name, so that files do not
 * see each other's images.
 */
export function cast(file: string): Readonly<Record<string, string>> {
  const name = basename(file, '.http')
  return {
    alice: `alice:${name}-a:member,reader`,
    rita: `rita:${name}-a:reader`,
    ada: `ada:${name}-a:admin,member,reader`,
    norole: `norole:${name}-a:`,
    bob: `bob:${name}-b:member,reader`,
    carol: `carol:${name}-c:member,reader`,
    admin: `admin:${name}-admin:admin,member,reader`,
    service: `service:${name}-service:service`,
    root: 'root::admin,member,reader:system=all',
    unscoped: 'unscoped::',
    expired: `alice:${name}-a:member,reader:exp=1000000000`,
    garbage: 'no-such-token',
  }
}

// --- the text form ---------------------------------------------------------------------------------------------------

const META = ['as', 'names', 'pick', 'until'] as const

/** Throws with the number of the line that it cannot read. */
export function parse(text: string): Transcript {
  const lines = text.split('\n')
  let at = 0
  const fail = (what: string): never => {
    throw new Error(`line ${at + 1}: ${what}: ${JSON.stringify(lines[at])}`)
  }
  const about: string[] = []
  while (lines[at]?.startsWith('#') && !lines[at]?.startsWith('### ')) about.push(lines[at++]?.slice(2) ?? '')
  const server = /^server: (.+)$/.exec(lines[at] ?? '')?.[1] ?? fail('expected "server: NAME"')
  at += 1
  const exchanges: Exchange[] = []
  const block = (mark: '>' | '<'): string[] => {
    const taken: string[] = []
    while (lines[at]?.startsWith(mark)) taken.push(lines[at++]?.slice(2) ?? '')
    return taken
  }
  while (at < lines.length) {
    if (lines[at] === '') {
      at += 1
      continue
    }
    const title = /^### (.+)$/.exec(lines[at] ?? '')?.[1] ?? fail('expected "### TITLE"')
    at += 1
    const settings: string[] = []
    while (lines[at] !== undefined && !lines[at]?.startsWith('>')) {
      settings.push(
        /^(?:# )?((?:differs|pending|as|names|pick|until): .+)$/.exec(lines[at] ?? '')?.[1] ??
          fail('expected a setting'),
      )
      at += 1
    }
    const [first = '', ...asked] = block('>')
    const [, method = '', target = ''] = /^([A-Z]+) (\S+)$/.exec(first) ?? fail('expected "> METHOD TARGET" above')
    const answered = block('<')
    const [, status = '', reason = ''] =
      answered.length === 0
        ? []
        : (/^(\d{3})(?: (.*))?$/.exec(answered[0] ?? '') ?? fail('expected "< STATUS REASON" above'))
    exchanges.push({
      title,
      ...parseSettings(settings),
      request: { method, target, ...parseMessage(asked) },
      ...(answered.length === 0
        ? {}
        : { response: { status: Number(status), reason, ...parseMessage(answered.slice(1)) } }),
    })
  }
  return { server, about, exchanges }
}

function parseSettings(
  lines: readonly string[],
): Pick<Exchange, 'differs' | 'pending' | 'as' | 'names' | 'pick' | 'until'> {
  const { pick, ...rest } = Object.fromEntries(lines.map((line) => line.split(/: (.*)/)))
  return pick === undefined ? rest : { ...rest, pick: pick.split(', ') }
}

function parseMessage(lines: readonly string[]): { headers: Headers; body?: string } {
  const blank = lines.indexOf('')
  const head = blank === -1 ? lines : lines.slice(0, blank)
  const headers = head.map((line) => {
    const colon = line.indexOf(':')
    if (colon < 1) throw new Error(`not a header: ${JSON.stringify(line)}`)
    return [line.slice(0, colon), line.slice(colon + 1).trim()] as const
  })
  return blank === -1 ? { headers } : { headers, body: lines.slice(blank + 1).join('\n') }
}

export function print(transcript: Transcript): string {
  const lines = [...transcript.about.map((line) => `# ${line}`.trimEnd()), `server: ${transcript.server}`]
  for (const exchange of transcript.exchanges) {
    lines.push('', `### ${exchange.title}`)
    if (exchange.differs !== undefined) lines.push(`# differs: ${exchange.differs}`)
    if (exchange.pending !== undefined) lines.push(`# pending: ${exchange.pending}`)
    for (const key of META) {
      const value = exchange[key]
      if (value !== undefined) lines.push(`${key}: ${typeof value === 'string' ? value : value.join(', ')}`)
    }
    const { request, response } = exchange
    lines.push(...marked('>', `${request.method} ${request.target}`, request))
    if (response) lines.push(...marked('<', `${response.status} ${response.reason}`.trimEnd(), response))
  }
  return `${lines.join('\n')}\n`
}

function marked(mark: string, first: string, { headers, body }: { headers: Headers; body?: string }): string[] {
  const head = [first, ...headers.map(([name, value]) => `${name}: ${value}`.trimEnd())]
  const lines = body === undefined ? head : [...head, '', ...body.split('\n')]
  return lines.map((line) => (line === '' ? mark : `${mark} ${line}`))
}

/** A body of other than plain lines is written as hex. */
const HEX = '!hex '

function bodyBytes(text: string): Buffer {
  return text.startsWith(HEX) ? Buffer.from(text.slice(HEX.length), 'hex') : Buffer.from(text)
}

function bodyText(bytes: Buffer): string {
  const text = bytes.toString()
  const plain = Buffer.from(text).equals(bytes) && !/[\0-\t\v-\x1f]/.test(text) && !text.startsWith(HEX)
  return plain ? text : HEX + bytes.toString('hex')
}

// --- variables -------------------------------------------------------------------------------------------------------

const UUID = '[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}'
const TIME = '\\d{4}-\\d\\d-\\d\\dT\\d\\d:\\d\\d:\\d\\d(?:\\.\\d+)?Z'
/** Python leaves a fraction of zero out. */
const ROW_TIME = '\\d{4}-\\d\\d-\\d\\dT\\d\\d:\\d\\d:\\d\\d(?:\\.\\d{6})?'
const FIXED: Readonly<Record<string, string>> = {
  time: TIME,
  row_time: ROW_TIME,
  request_id: `req-${UUID}`,
  '*': '[^]*',
}
const VARIABLE = /\{\{([^{}]+)\}\}/

type Bindings = Map<string, string>

const escapeRegExp = (text: string): string => text.replace(/[\\^$.*+?()[\]{}|]/g, '\\$&')

/** `{{a*300}}` is three hundred times `a`. */
function repeated(name: string): string | undefined {
  const [, text = '', count] = /^(.+)\*(\d+)$/u.exec(name) ?? []
  return count === undefined ? undefined : text.repeat(Number(count))
}

/** `text` with the variables' values in place; throws when one has none. */
function expand(text: string, bindings: Bindings): string {
  return text.replace(new RegExp(VARIABLE, 'g'), (_, name: string) => {
    const value = bindings.get(name) ?? repeated(name)
    if (value === undefined) throw new Error(`nothing is known of {{${name}}}`)
    return value
  })
}

/** Whether `actual` is what `pattern` says; variables without a value get theirs. */
function matches(pattern: string, actual: string, bindings: Bindings): boolean {
  if (pattern === actual) return true
  const names: string[] = []
  const source = pattern.split(new RegExp(VARIABLE, 'g')).map((part, index) => {
    if (index % 2 === 0) return escapeRegExp(part)
    const known = FIXED[part]
    if (known !== undefined) return known
    const value = bindings.get(part) ?? repeated(part)
    if (value !== undefined) return escapeRegExp(value)
    names.push(part)
    return `(${UUID})`
  })
  const found = new RegExp(`^${source.join('')}$`).exec(actual)
  found?.slice(1).forEach((value, index) => {
    bindings.set(names[index] ?? '', value)
  })
  return found !== null
}

/** `text` as a pattern: what changes from run to run becomes a variable. */
function generalize(text: string, asked: string, bindings: Bindings, name: () => string): string {
  let pattern = text.replace(new RegExp(TIME, 'g'), (time) => (asked.includes(time) ? time : '{{time}}'))
  pattern = pattern.replace(new RegExp(`"${ROW_TIME}"`, 'g'), '"{{row_time}}"')
  pattern = pattern.replace(new RegExp(`req-${UUID}`, 'g'), (id) => (asked.includes(id) ? id : '{{request_id}}'))
  const known = new Map([...bindings].map(([key, value]) => [value, key]))
  pattern = pattern.replace(new RegExp(UUID, 'g'), (id) => {
    const key = known.get(id) ?? (asked.includes(id) ? undefined : name())
    if (key === undefined) return id
    known.set(id, key)
    bindings.set(key, id)
    return `{{${key}}}`
  })
  for (const server of ['host', 'web']) {
    const address = bindings.get(server)
    if (address !== undefined) pattern = pattern.replaceAll(address, `{{${server}}}`)
  }
  // What a schema's validator adds about itself is a matter of its library.
  pattern = pattern.replace(/\s+Failed validating .*$/s, '{{*}}')
  return pattern.replace(/([a-z])\1{99,}/g, (run, letter: string) => `{{${letter}*${run.length}}}`)
}

// --- requests and answers --------------------------------------------------------------------------------------------

/** Not compared: they belong to the connection or the moment. */
const IGNORED = new Set(['date', 'connection', 'server', 'keep-alive', 'transfer-encoding'])

/** The answer to a request as it stands: nothing is added to it but Host, and Content-Length where it has a body. */
export function ask(baseUrl: string, request: Request, signal: AbortSignal): Promise<Response> {
  const { hostname, port } = new URL(baseUrl)
  const headers: Record<string, string> = Object.fromEntries(request.headers)
  const bytes = request.body === undefined ? undefined : bodyBytes(request.body)
  const sized = request.headers.some(([name]) => /^(content-length|transfer-encoding)$/i.test(name))
  if (bytes && !sized) headers['Content-Length'] = String(bytes.length)
  const options = { hostname, port, method: request.method, path: request.target, headers, agent: false, signal }
  return new Promise((resolve, reject) => {
    const sent = httpRequest(options, (answer) => {
      buffer(answer).then((body) => {
        const pairs = Array.from({ length: answer.rawHeaders.length / 2 }, (_, index): [string, string] => [
          answer.rawHeaders[index * 2]?.toLowerCase() ?? '',
          answer.rawHeaders[index * 2 + 1] ?? '',
        ])
        resolve({
          status: answer.statusCode ?? 0,
          reason: answer.statusMessage ?? '',
          headers: relevant(pairs, body.length > 0),
          ...(body.length > 0 ? { body: bodyText(body) } : {}),
        })
      }, reject)
    })
    sent.on('error', reject)
    sent.end(bytes)
  })
}

/** Sorted, without those that say nothing: the length of a text that is compared anyway, the type of no body at all. */
function relevant(headers: Headers, hasBody: boolean): Headers {
  const isData = headers.some(([name, value]) => name === 'content-type' && value === 'application/octet-stream')
  return headers
    .filter(([name]) => !IGNORED.has(name))
    .filter(([name]) => name !== 'content-length' || isData)
    .filter(([name]) => name !== 'content-type' || hasBody)
    .toSorted(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0))
}

const isJson = (headers: Headers): boolean =>
  headers.some(([name, value]) => name === 'content-type' && value.startsWith('application/json'))

/** The answer as the file shows it. */
function shown(response: Response, pick: readonly string[] | undefined): Response {
  if (response.body === undefined || !isJson(response.headers)) return response
  try {
    return { ...response, body: printJson(picked(JSON.parse(response.body), pick)) }
  } catch {
    return response
  }
}

function picked(json: unknown, pick: readonly string[] | undefined): unknown {
  if (!pick || !isRecord(json)) return json
  const narrow = (item: unknown): unknown =>
    isRecord(item) ? Object.fromEntries(Object.entries(item).filter(([key]) => pick.includes(key))) : item
  return mapValues(json, (value) => (Array.isArray(value) ? value.map(narrow) : value))
}

const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

const mapValues = (record: Record<string, unknown>, change: (value: unknown) => unknown): Record<string, unknown> =>
  Object.fromEntries(Object.entries(record).map(([key, value]) => [key, change(value)]))

const WIDTH = 110

/** JSON in few lines that are still easy to read: what fits stands on one line, small members share one. */
export function printJson(value: unknown, indent = ''): string {
  const line = oneLine(value)
  if (indent.length + line.length <= WIDTH || typeof value !== 'object' || value === null) return line
  const inner = `${indent}  `
  const isList = Array.isArray(value)
  const items = isList
    ? value.map((item) => printJson(item, inner))
    : Object.entries(value).map(([key, item]) => `${JSON.stringify(key)}: ${printJson(item, inner)}`)
  const lines: string[] = []
  for (const item of items) {
    const last = lines.at(-1)
    const fits = last !== undefined && !last.includes('\n') && !item.includes('\n') && !/[{[]/.test(item + last)
    if (fits && inner.length + last.length + item.length + 3 <= WIDTH) lines[lines.length - 1] = `${last}, ${item}`
    else lines.push(item)
  }
  const [open, close] = isList ? '[]' : '{}'
  return `${open}\n${lines.map((each) => inner + each).join(',\n')}\n${indent}${close}`
}

function oneLine(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(oneLine).join(', ')}]`
  if (!isRecord(value)) return JSON.stringify(value)
  const members = Object.entries(value).map(([key, item]) => `${JSON.stringify(key)}: ${oneLine(item)}`)
  return members.length === 0 ? '{}' : `{ ${members.join(', ')} }`
}

// --- comparing -------------------------------------------------------------------------------------------------------

function compare(expected: Response, actual: Response, bindings: Bindings): string[] {
  const details: string[] = []
  const differ = (what: string, want: unknown, got: unknown): void => {
    details.push(`${what}: expected ${JSON.stringify(want)}, got ${JSON.stringify(got)}`)
  }
  const want = `${expected.status} ${expected.reason}`
  const got = `${actual.status} ${actual.reason}`
  if (want !== got) differ('status', want, got)
  const left = [...actual.headers]
  for (const [name, pattern] of expected.headers) {
    const at = left.findIndex(([each]) => each === name)
    const value = at === -1 ? undefined : left.splice(at, 1)[0]?.[1]
    if (value === undefined || !matches(pattern, value, bindings)) differ(name, pattern, value)
  }
  for (const [name, value] of left) differ(name, undefined, value)
  const [a, b] = [expected.body, actual.body]
  const json = isJson(expected.headers) && isJson(actual.headers)
  if (a === undefined || b === undefined) {
    if (a !== b) differ('body', a, b)
  } else if (json) compareJson('body', JSON.parse(a), parsed(b), bindings, differ)
  else if (!matches(a, b, bindings)) differ('body', a, b)
  return details
}

type Differ = (what: string, want: unknown, got: unknown) => void

function parsed(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return text
  }
}

function compareJson(path: string, want: unknown, got: unknown, bindings: Bindings, differ: Differ): void {
  if (want === '{{*}}' && got !== undefined) return
  if (typeof want === 'string' && typeof got === 'string') {
    if (!matches(want, got, bindings)) differ(path, want, got)
  } else if (Array.isArray(want) && Array.isArray(got)) {
    const [left, right] = [want, path.endsWith('.tags') ? aligned(want, got, bindings) : got]
    for (let index = 0; index < Math.max(left.length, right.length); index++)
      compareJson(`${path}[${index}]`, left[index], right[index], bindings, differ)
  } else if (isRecord(want) && isRecord(got)) {
    for (const key of new Set([...Object.keys(want), ...Object.keys(got)]))
      compareJson(`${path}.${key}`, want[key], got[key], bindings, differ)
  } else if (!isDeepStrictEqual(want, got)) differ(path, want, got)
}

/** `got` in the order of the patterns that its items match: a set has none of its own. */
function aligned(want: readonly unknown[], got: readonly unknown[], bindings: Bindings): readonly unknown[] {
  const left = [...got]
  const found = want.flatMap((pattern) => {
    const at = left.findIndex((item) => matches(String(pattern), String(item), bindings))
    return at === -1 ? [] : left.splice(at, 1)
  })
  return [...found, ...left]
}

// --- running ---------------------------------------------------------------------------------------------------------

interface Run {
  /** Sends the next request and says what it answered, and what is different about that. */
  step(exchange: Exchange): Promise<{ actual?: Response; details: readonly string[] }>
  readonly bindings: Bindings
}

function start({ baseUrl, tokens, web }: Target): Run {
  const bindings: Bindings = new Map([['host', new URL(baseUrl).host]])
  if (web !== undefined) bindings.set('web', web)
  const step = async (exchange: Exchange): ReturnType<Run['step']> => {
    try {
      const request = filled(exchange, tokens, bindings)
      const actual = shown(await settled(baseUrl, request, exchange.until), exchange.pick)
      const details = exchange.response ? compare(exchange.response, actual, bindings) : ['no answer is recorded']
      return { actual, details }
    } catch (error) {
      return { details: [String(error)] }
    }
  }
  return { step, bindings }
}

/** The answer, or the first one that holds the text `until`. */
async function settled(baseUrl: string, request: Request, until = ''): Promise<Response> {
  const signal = AbortSignal.timeout(20_000)
  for (;;) {
    const answer = await ask(baseUrl, request, signal)
    if (until === '' || answer.body?.includes(until)) return answer
    await delay(50, undefined, { signal })
  }
}

function filled({ request, as }: Exchange, tokens: Target['tokens'], bindings: Bindings): Request {
  const token = as === undefined ? undefined : tokens[as]
  if (as !== undefined && token === undefined) throw new Error(`nobody is called ${as}`)
  return {
    ...request,
    target: expand(request.target, bindings),
    headers: [
      ...request.headers.map(([name, value]) => [name, expand(value, bindings)] as const),
      ...(token === undefined ? [] : [['X-Auth-Token', token] as const]),
    ],
    ...(request.body === undefined ? {} : { body: expand(request.body, bindings) }),
  }
}

/** Sends every request of the file in turn; one entry per exchange, `details` is empty where the answer is as written. */
export async function replay(file: string, target: Target): Promise<readonly Difference[]> {
  const { exchanges } = parse(await readFile(file, 'utf8'))
  const run = start(target)
  const results: Difference[] = []
  for (const [index, exchange] of exchanges.entries()) {
    const { details } = await run.step(exchange)
    results.push({
      index,
      title: exchange.title,
      details,
      ...(exchange.pending === undefined ? {} : { pending: exchange.pending }),
    })
  }
  return results
}

export interface RecordOptions {
  /** Leaves answers alone that are marked as different from the recorded server's. */
  readonly keepMarked?: boolean
}

/**
 * Sends every request of the file in turn and rewrites the answers that are not as written. Returns the titles of the
 * exchanges it changed.
 */
export async function record(file: string, target: Target, options: RecordOptions = {}): Promise<readonly string[]> {
  const before = await readFile(file, 'utf8')
  const transcript = parse(before)
  const run = start(target)
  // What a request of the file says literally, stays literal in the answers.
  const asked = transcript.exchanges.map(({ request }) => JSON.stringify(request)).join('\n')
  const changed: string[] = []
  const exchanges: Exchange[] = []
  for (const exchange of transcript.exchanges) {
    const { actual, details } = await run.step(exchange)
    const keep =
      details.length === 0 ||
      exchange.pending !== undefined ||
      (exchange.differs !== undefined && options.keepMarked === true)
    if (keep) exchanges.push(exchange)
    else if (actual === undefined) throw new Error(`${file}: ${exchange.title}: ${details.join('; ')}`)
    else {
      const name = (): string => nextName(exchange.names, run.bindings)
      exchanges.push({ ...exchange, response: generalized(actual, asked, run.bindings, name) })
      changed.push(exchange.title)
    }
  }
  const after = print({ ...transcript, exchanges })
  if (after !== before) await writeFile(file, after)
  return changed
}

/** Variables are shorter or longer than what they stand for. */
const reprint = (json: string): string => printJson(JSON.parse(json))

function nextName(wanted: string | undefined, bindings: Bindings): string {
  if (wanted !== undefined && !bindings.has(wanted)) return wanted
  let number = 1
  while (bindings.has(`image${number}`)) number += 1
  return `image${number}`
}

function generalized(actual: Response, asked: string, bindings: Bindings, name: () => string): Response {
  const general = (text: string): string => generalize(text, asked, bindings, name)
  return {
    ...actual,
    headers: actual.headers.map(([key, value]) => [
      key,
      // The identity service has an address of its own on each side.
      key === 'www-authenticate' ? 'Keystone uri="{{*}}"' : general(value),
    ]),
    ...(actual.body === undefined
      ? {}
      : { body: isJson(actual.headers) ? reprint(general(actual.body)) : general(actual.body) }),
  }
}

/** Every transcript of the corpus, sorted. */
export async function transcripts(): Promise<readonly string[]> {
  const folder = fileURLToPath(new URL('../http', import.meta.url))
  const names = await readdir(folder, { recursive: true })
  return names
    .filter((name) => name.endsWith('.http'))
    .toSorted()
    .map((name) => join(folder, name))
}
