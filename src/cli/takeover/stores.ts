import { constants } from 'node:fs'
import { access, stat, statfs } from 'node:fs/promises'
import { userInfo } from 'node:os'
import { dirname } from 'node:path'
import { stagingDirectory } from '../../app.ts'
import type { Config } from '../../config/config.ts'
import { hasKind } from '../../domain/errors.ts'
import type { LocationUri } from '../../domain/ids.ts'
import type { StoreDriver } from '../../store/driver.ts'
import { reason } from '../reason.ts'
import { type Finding, few, many, note, ok, problem } from './report.ts'
import { type SampleOf, type StoreLook, type StoresLook, type Survey, shownUri } from './survey.ts'

const GIB = 1_073_741_824
/** Less than this in a store, and uploads will soon be refused. */
const LITTLE = 5 * GIB
/** A location that does not answer in this time counts as one that cannot be reached. */
const STAT_MS = 10_000
const AT_A_TIME = 8

export async function* checkStores(
  config: Config,
  { multi, defaultStore, stores }: StoresLook,
  survey: Survey | Error,
): AsyncIterable<Finding> {
  for (const store of stores) {
    const isSpare = !multi && store.id !== defaultStore
    const sample = sampleOf(survey, store)
    yield* checkStore(store, isSpare, sample.seen)
    if (store.driver !== undefined) yield* checkSample(store.driver, store, sample)
  }
  if (!multi)
    yield note('There is one store without a name ([glance_store] stores), which newer releases advise against.')
  else if (defaultStore === undefined || !stores.some(({ id }) => id === defaultStore))
    yield problem(
      `[glance_store] default_backend is ${defaultStore === undefined ? 'not set' : `${defaultStore}, which is no store`}.`,
      `set it to one of: ${stores.map(({ id }) => id).join(', ')}`,
    )
  else yield ok(`Image data goes to ${defaultStore} unless a request names another store.`)
  if (multi)
    for (const { id, type, driver } of stores)
      if (type === 'file' && !namesDirectory(config, id))
        yield note(
          `No file names the directory of store ${id}, which is the default then: ${driver?.directories?.join(', ')}.`,
          `give all the files, or set [${id}] filesystem_store_datadir`,
        )
  yield* checkUser(stores.flatMap(({ driver }) => driver?.directories ?? []))
  yield* checkStaging(config)
  if (config.isSet('os_glance_tasks_store', 'filesystem_store_datadir'))
    yield ok(
      'The reserved store os_glance_tasks_store is not used: imports of the tasks API go through the staging area.',
    )
}

const namesDirectory = (config: Config, store: string): boolean =>
  [store, 'backend_defaults'].some((group) =>
    ['filesystem_store_datadir', 'filesystem_store_datadirs'].some((option) => config.isSet(group, option)),
  )

const sampleOf = (survey: Survey | Error, store: StoreLook): SampleOf =>
  (survey instanceof Error ? undefined : survey.samples.get(store)) ?? { taken: [], seen: 0 }

async function* checkStore(
  { id, type, driver, error }: StoreLook,
  isSpare: boolean,
  locations: number,
): AsyncIterable<Finding> {
  if (driver === undefined) {
    if (isSpare) yield note(`Store type ${type} of [glance_store] stores is not there.`)
    else
      yield problem(
        `Store ${id} of type ${type} cannot be used: ${reason(error)}.${locations === 0 ? '' : ` ${many(locations, 'location')} of images are in it.`}`,
        'see docs/status.md for the types that there are',
      )
    return
  }
  const { directories = [] } = driver
  if (directories.length === 0) yield ok(`Store ${id}: of type ${type}.`)
  for (const directory of directories) yield* checkDirectory(`Store ${id}`, directory)
}

/** Whether a directory is there, ours to write, and how much room it has. `holds` is what must not be missing in it. */
export async function* checkDirectory(
  what: string,
  directory: string,
  holds: 'images' | 'nothing' = 'images',
): AsyncIterable<Finding> {
  try {
    await access(directory, constants.R_OK | constants.X_OK)
  } catch (error) {
    const isMissing = error instanceof Error && 'code' in error && /^(ENOENT|ENOTDIR)$/.test(String(error.code))
    if (isMissing && holds === 'nothing')
      yield (await mayMake(directory))
        ? note(`${what}: ${directory} is not there; it is made at the start.`)
        : problem(`${what}: ${directory} is not there, and cannot be made by ${userInfo().username}.`, OTHER_USER)
    else
      yield isMissing
        ? problem(
            `${what}: ${directory} is not there.`,
            'mount it, or correct the configuration; otherwise an empty one is made',
          )
        : problem(`${what}: ${directory} cannot be read by ${userInfo().username}.`, OTHER_USER)
    return
  }
  const isWritable = await access(directory, constants.W_OK).then(
    () => true,
    () => false,
  )
  if (!isWritable) {
    yield problem(`${what}: ${directory} cannot be written by ${userInfo().username}.`, OTHER_USER)
    return
  }
  const { bavail, bsize } = await statfs(directory)
  const free = bavail * bsize
  const room = `${what}: ${directory}, ${(free / GIB).toFixed(free < 10 * GIB ? 1 : 0)} GiB free.`
  yield free < LITTLE ? note(room, 'that is little') : ok(room)
}

/** Whether the first of the folders above it that is there can be written. */
const mayMake = (directory: string): Promise<boolean> =>
  access(dirname(directory), constants.W_OK | constants.X_OK).then(
    () => true,
    (error: NodeJS.ErrnoException) => error.code === 'ENOENT' && mayMake(dirname(directory)),
  )

/** Root may do everything, here; what it writes, the user that Glance runs as cannot. */
async function* checkUser(directories: readonly string[]): AsyncIterable<Finding> {
  if (userInfo().uid !== 0) return
  const owned = await Promise.all(directories.map((directory) => stat(directory).catch(() => undefined)))
  const foreign = directories.find((_, index) => (owned[index]?.uid ?? 0) !== 0)
  if (foreign !== undefined)
    yield note(
      `This runs as root, who may read and write everything, but ${foreign} is another user’s. What the service writes as root, Glance cannot remove later.`,
      OTHER_USER,
    )
}

const OTHER_USER = 'run the service, and this, as the user that Glance runs as'

async function* checkSample(
  driver: StoreDriver,
  { id, type }: StoreLook,
  { taken: sample, seen }: SampleOf,
): AsyncIterable<Finding> {
  if (sample.length === 0) return
  const wrong: string[] = []
  const unknown: string[] = []
  for (let at = 0; at < sample.length; at += AT_A_TIME)
    await Promise.all(
      sample.slice(at, at + AT_A_TIME).map(async (location) => {
        const { imageId, uri, size } = location
        const say = (list: string[], what: string) => list.push(`${imageId}: ${what} (${shownUri(location)})`)
        try {
          const found = await driver.stat(uri as LocationUri, { signal: AbortSignal.timeout(STAT_MS) })
          if (size !== null && found.size !== size && !(type === 'http' && found.size === 0))
            say(wrong, `${found.size} bytes instead of ${size}`)
        } catch (error) {
          if (hasKind(error, 'not-found')) say(wrong, 'not there')
          else say(unknown, reason(error))
        }
      }),
    )
  const isForeign = driver.features.write === false
  if (wrong.length > 0)
    yield (isForeign ? note : problem)(
      `Store ${id}: of ${sample.length} of ${many(seen, 'image')} taken at random, ${wrong.length} are not as the database says.`,
      isForeign
        ? undefined
        : 'look whether the right directory is mounted; with Glance they cannot be downloaded either',
      few(wrong),
    )
  if (unknown.length > 0)
    yield note(
      `Store ${id}: the data of ${many(unknown.length, 'image')} could not be looked at.`,
      undefined,
      few(unknown),
    )
  if (wrong.length + unknown.length === 0)
    yield ok(`Store ${id}: ${sample.length} of ${many(seen, 'image')}, taken at random, are there with their size.`)
}

/** Data on its way into images. */
async function* checkStaging(config: Config): AsyncIterable<Finding> {
  const { enabled_import_methods, worker_self_reference_url, public_endpoint } = config.DEFAULT
  if (enabled_import_methods.length === 0) return
  yield* checkDirectory('Staging area', stagingDirectory(config), 'nothing')
  if (!enabled_import_methods.includes('glance-direct')) return
  if (worker_self_reference_url ?? public_endpoint)
    yield ok(`Other nodes find what is staged here at ${worker_self_reference_url ?? public_endpoint}.`)
  else
    yield note(
      'With several nodes, what is staged on one must be reached from the others.',
      'set worker_self_reference_url on each node, or let them share the staging area',
    )
}
