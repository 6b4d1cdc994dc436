import { constants } from 'node:fs'
import { access } from 'node:fs/promises'
import { dirname, resolve } from 'node:path'
import type { Config } from '../../config/config.ts'
import { REGISTRY_API } from '../../config/registry.ts'
import { type DatabaseInspection, LARGE_TABLES, type Rights, type SchemaFacts } from '../../db/sql/inspect.ts'
import { parseDatabaseUrl, unheededOptions } from '../../db/sql/url.ts'
import { TRANSITIONS } from '../../domain/image.ts'
import { reason } from '../reason.ts'
import { type Finding, few, many, note, ok, problem } from './report.ts'
import type { Survey, Tally } from './survey.ts'

/** From so many rows on, adding an index is worth a thought. */
const LARGE = 1_000_000
/** What is on its way for so long has been left behind. */
const STALE_MS = 86_400_000

/** What the database is like that the configuration leads to; `survey` is what its locations say. */
export async function* checkDatabase(
  config: Config,
  inspection: DatabaseInspection | Error,
  survey: Survey | Error,
): AsyncIterable<Finding> {
  const { connection } = config.database
  const { data_api, registry_host, registry_port } = config.DEFAULT
  if (data_api === REGISTRY_API) {
    yield note(
      `The database is behind the registry at ${registry_host}:${registry_port}, and not looked at from here.`,
      'run this with the configuration of the registry as well',
    )
    return
  }
  if (connection === undefined || connection === '') {
    yield problem('[database] connection is not set.', 'give the files that have it: --config-file, --config-dir')
    return
  }
  const place = placeOf(connection, config.database.connection_parameters)
  if (inspection instanceof Error) {
    yield problem(`The database ${place} cannot be opened: ${reason(inspection)}`)
    return
  }
  try {
    for (const line of unheededOptions(config.database)) yield note(line)
    yield* checkServer(inspection, place)
  } catch (error) {
    yield problem(
      `The database ${place} cannot be read: ${reason(error)}`,
      'run this where the service will run, as its user',
    )
    return
  }
  yield* checkFile(connection)
  const schema = await inspection.schema()
  yield* checkSchema(schema)
  if (!schema.hasImages) return
  yield* checkRights(await inspection.rights(), schema)
  yield* checkSize(inspection, schema)
  yield* checkStatuses(inspection)
  if (survey instanceof Error) yield problem(`The locations of images cannot be read: ${reason(survey)}`)
  else yield* checkLocations(config, survey)
  yield* checkUnderway(inspection)
}

/** Where it is, without user and password. */
function placeOf(connection: string, parameters: string): string {
  try {
    const url = parseDatabaseUrl(connection, parameters)
    if (url.kind === 'sqlite') return url.path
    return `${url.database} at ${url.host ?? 'the local socket'}${url.port === undefined ? '' : `:${url.port}`}`
  } catch (error) {
    return `(${reason(error)})`
  }
}

async function* checkServer(inspection: DatabaseInspection, place: string): AsyncIterable<Finding> {
  const { product, supported, needed, refusesTriggers } = await inspection.server()
  if (supported) yield ok(`${place} answers: ${product}.`)
  else yield problem(`${place} is ${product}, which is too old.`, `upgrade it to ${needed} or later`)
  if (refusesTriggers)
    yield note(
      'The server has a binary log, and lets only privileged users make triggers: some of those that make lists quick.',
      'set log_bin_trust_function_creators = 1 there while `glimpse db optimize` runs',
    )
}

async function* checkFile(connection: string): AsyncIterable<Finding> {
  const url = parseDatabaseUrl(connection)
  if (url.kind !== 'sqlite') return
  const path = resolve(url.path)
  for (const one of [path, dirname(path)]) {
    const writable = await access(one, constants.W_OK).then(
      () => true,
      () => false,
    )
    if (!writable) yield problem(`This user may not write ${one}.`, 'run the service as the user that Glance runs as')
  }
}

function* checkSchema({ hasImages, revisions, refusal, lag, hasOwnTables }: SchemaFacts): Iterable<Finding> {
  if (!hasImages) {
    yield note(
      'The database is empty: there is nothing to take over. The first start creates the schema.',
      'look at the URL again if there should be images',
    )
    return
  }
  if (refusal !== undefined) {
    yield problem(refusal)
    return
  }
  if (lag === undefined) yield ok(`The schema is that of the present releases, ${revisions.join(', ')}.`)
  else yield note(`${lag}.`)
  if (!hasOwnTables) yield ok('The first start adds some small tables named glimpse_*, which Glance does not mind.')
}

function* checkRights(rights: Rights | undefined, { hasOwnTables, lacking }: SchemaFacts): Iterable<Finding> {
  if (rights === undefined) return
  const { write, makeTables, makeParts } = rights
  if (!write)
    yield problem(
      'The user of the database may only read: it needs INSERT, UPDATE and DELETE.',
      'give the connection that Glance uses',
    )
  if (!makeTables && !hasOwnTables)
    yield problem(
      'The user of the database may not create tables, and the first start adds some.',
      'grant it CREATE for the first start, and again for newer releases of Glimpse',
    )
  if (!makeParts && lacking.length > 0)
    yield note(
      'The user of the database may not make indexes, columns or triggers of Glance’s tables.',
      'run `glimpse db optimize` with the connection of one who may',
    )
}

async function* checkSize(
  inspection: DatabaseInspection,
  { lacking, parts, refusal }: SchemaFacts,
): AsyncIterable<Finding> {
  const sizes = await inspection.sizes()
  const lines = LARGE_TABLES.map((table) => `${table}: ${Math.round(sizes.get(table) ?? 0).toLocaleString('en')}`)
  yield ok('Rows, about:', [lines.join(', ')])
  if (refusal !== undefined) return
  if (lacking.length === 0) {
    yield ok('The indexes and triggers of Glimpse are there.')
    return
  }
  const time = Math.max(...sizes.values()) >= LARGE ? ' With so many rows that takes minutes.' : ''
  yield note(
    `${lacking.length === parts ? 'The' : `${lacking.length} of the ${parts}`} indexes and triggers of Glimpse are not there: lists are slower than need be.${time}`,
    'run `glimpse db optimize`, before or after the switch: Glance does not mind them, and `glimpse db revert` takes them away',
    [byTable(lacking)],
  )
}

/** `images: 11 indexes; image_members: 3 triggers` */
function byTable(parts: SchemaFacts['lacking']): string {
  const counts = new Map<string, Map<string, number>>()
  for (const { kind, table } of parts) {
    const kinds = counts.get(table) ?? new Map<string, number>()
    counts.set(table, kinds.set(kind, (kinds.get(kind) ?? 0) + 1))
  }
  const shown = (kinds: ReadonlyMap<string, number>) =>
    [...kinds].map(([kind, n]) => many(n, kind, kind === 'index' ? 'indexes' : `${kind}s`)).join(', ')
  return [...counts].map(([table, kinds]) => `${table}: ${shown(kinds)}`).join('; ')
}

async function* checkStatuses(inspection: DatabaseInspection): AsyncIterable<Finding> {
  const statuses = [...(await inspection.statuses())].toSorted(([a], [b]) => (a < b ? -1 : 1))
  yield ok(`Images: ${statuses.map(([status, n]) => `${n.toLocaleString('en')} ${status}`).join(', ') || 'none'}.`)
  const unknown = statuses.filter(([status]) => !Object.hasOwn(TRANSITIONS, status))
  for (const [status, n] of unknown)
    yield problem(`${many(n, 'image')} of status ${status}, which is not known.`, 'correct the status')
  for (const [status, n] of await inspection.locationStatuses())
    if (status !== 'pending_delete' && status !== 'deleted')
      yield note(
        `${many(n, 'location')} of status ${status}: such are not served.`,
        status === 'pending' || status === 'uploading' ? 'let Glance end the imports that fill them' : undefined,
      )
}

const examples = ({ count, images }: Tally): readonly string[] => [
  `such as of ${images.join(', ')}${count > images.length ? ', …' : ''}`,
]

function* checkLocations({ DEFAULT }: Config, { total, unreadable, homeless }: Survey): Iterable<Finding> {
  if (unreadable.count > 0) {
    const hasKey = Boolean(DEFAULT.metadata_encryption_key)
    yield problem(
      `${many(unreadable.count, 'location')} of ${total.toLocaleString('en')} cannot be read as an address.`,
      hasKey
        ? 'metadata_encryption_key is not the key of all of them: give the one that Glance uses'
        : 'they may be encrypted: give the file with metadata_encryption_key',
      examples(unreadable),
    )
  }
  for (const [place, tally] of homeless)
    yield problem(
      `${many(tally.count, 'location')} in ${place}, which is not there: such images cannot be downloaded.`,
      'copy them to a store that is there (copy-image) or wait until there is such a store',
      examples(tally),
    )
  if (unreadable.count === 0 && homeless.size === 0)
    yield ok(`Each of ${many(total, 'location')} leads to a store of the configuration.`)
}

async function* checkUnderway(inspection: DatabaseInspection): AsyncIterable<Finding> {
  const { images, locks, tasks, delayed } = await inspection.underway()
  const staged = images.filter(({ status }) => status === 'uploading')
  const moving = images.filter(({ status }) => status !== 'uploading')
  const fresh = moving.filter(({ ageMs }) => ageMs < STALE_MS)
  const stale = moving.filter(({ ageMs }) => ageMs >= STALE_MS)
  const named = (some: typeof images) => few(some.map(({ id, status }) => `${id}: ${status}`))
  if (staged.length > 0)
    yield note(
      'Images are staged, or are being staged now:',
      'stop the API of Glance in order; what is staged by then is imported by either service',
      named(staged),
    )
  if (fresh.length > 0)
    yield note(
      'Images are being uploaded or imported now:',
      'stop the API of Glance and wait until they are done: what Glance has begun, only Glance ends',
      named(fresh),
    )
  if (stale.length > 0)
    yield note(
      'Images have been on their way for more than a day; nobody will end that:',
      'delete them, or leave them as they are',
      named(stale),
    )
  if (locks > 0)
    yield note(`An import holds ${many(locks, 'image')}; it is let go after an hour without news.`, 'wait for its end')
  const running = tasks.map(({ type, status, count }) => `${many(count, 'task')} of type ${type}: ${status}`)
  if (running.length > 0)
    yield note(
      'Tasks are under way, or were left behind:',
      'wait for their end; Glimpse does not go on with them',
      running,
    )
  if (delayed > 0)
    yield ok(`${many(delayed, 'deleted image')} ${delayed === 1 ? 'waits' : 'wait'} for glance-scrubber.`)
  if (images.length === 0 && locks === 0 && running.length === 0) yield ok('Nothing is under way.')
}
