import { ServiceError } from '../domain/errors.ts'
import type { StoreId } from '../domain/ids.ts'
import type { Image } from '../domain/image.ts'
import type { Task } from '../domain/task.ts'
import type { ImportJob, ImportMethod, Step } from '../imports/import.ts'
import type { Flow, RunningJob } from '../imports/runner.ts'
import type { Store } from '../store/store.ts'
import type { Core } from './core.ts'
import { fillStores } from './fill-stores.ts'
import { ownerQuota, type Quota, STORAGE_EXCEEDED } from './quota.ts'
import type { PackedSignature } from './signature.ts'

const IMPORTING = 'os_glance_importing_to_stores'
const FAILED = 'os_glance_failed_import'
const ADMIN = { admin: true, project: undefined } as const

/** What an import task asks for. */
export interface Order {
  readonly method: ImportMethod
  readonly input: Readonly<Record<string, unknown>>
  readonly stores: readonly Store[]
  readonly allMustSucceed: boolean
  /** What the data must be signed by. */
  readonly signature?: PackedSignature | undefined
  /** What this node is not configured for; the import can only be undone then. */
  readonly missing: readonly string[]
}

/** The whole of an import, from its task: staged, worked on, in the stores. Only who took the request has a token. */
export async function importFlow(
  core: Core,
  running: RunningJob,
  { order: given, token }: { readonly order?: Order; readonly token?: string | undefined } = {},
): Promise<Flow> {
  const task = await core.db.tasks.get(running.job.task, ADMIN)
  const order = given ?? readOrder(core, running, task)
  const quota = await ownerQuota(core, running.gone() ? null : running.image().owner, STORAGE_EXCEEDED)
  const job = await importJob(core, running, task, order, quota, token)
  const fill = fillStores(core, running, job, order)
  const brings = order.method.open === undefined
  const targets = job.stores

  return {
    steps: [configuration(order), ...(brings ? bringingSteps(core, job, order) : []), fill.step],
    done: () => {
      const { locations, failures, facts } = fill.outcome()
      const failed = failures.map(({ store }) => store)
      const change = {
        setProperties: storeLists(core, running.image(), { importing: [], failed, targets }),
        ...quota.within('storage'),
      }
      const result = { image_id: job.imageId }
      if (!brings) return { image: { ...change, addLocations: locations }, result }
      const replaced = { from: running.image().locations, to: locations }
      return { image: { ...change, ...facts, status: 'active', locations: replaced }, from: ['importing'], result }
    },
    explain: (error) => quota.explain(error, fill.outcome().facts.size),
    failed: (error) => ({
      ...(brings ? { status: 'queued', size: null, virtualSize: null } : {}),
      setProperties: storeLists(core, running.image(), { importing: [], failed: culprits(error, targets), targets }),
    }),
    ended: async (image) => {
      if (brings) await job.staging.remove(job.imageId)
      if (image === undefined) return
      core.notifier.notify({ type: 'image.upload', image })
      if (brings) core.notifier.notify({ type: 'image.activate', image })
    },
  }
}

/** From wherever the data comes to what the stores are to hold. */
const bringingSteps = (core: Core, job: ImportJob, { method, input }: Order): readonly Step[] => [
  { name: 'staging', run: async () => undefined, undo: () => job.staging.remove(job.imageId) },
  ...(method.steps?.(job, input) ?? []),
  ...core.imports.plugins.map((plugin) => plugin.step(job)),
]

/** Another node, or another configuration, may have taken the request. */
const configuration = ({ missing }: Order): Step => ({
  name: 'configuration',
  run: async () => {
    if (missing.length > 0) throw new ServiceError('unavailable', `Not available any more: ${missing.join(', ')}`)
  },
})

/** What the job knows of an import beside what its task shows. */
interface ImportContext {
  readonly roles?: readonly string[]
  /** Of the method; the task's input may hide something. */
  readonly members?: Parameters<typeof orderOf>[1]
  readonly signature?: PackedSignature
}

const contextOf = ({ job }: RunningJob): ImportContext => (job.context ?? {}) as ImportContext

function readOrder(core: Core, running: RunningJob, { input }: Task): Order {
  const { import_req: request, backend } = input as {
    readonly import_req: { readonly method: Parameters<typeof orderOf>[1]; readonly all_stores_must_succeed?: boolean }
    readonly backend: readonly (StoreId | null)[]
  }
  const { members = request.method, signature } = contextOf(running)
  return { ...orderOf(core, members, backend, request.all_stores_must_succeed), signature }
}

/** `backend` names the stores; null is the default one. */
export function orderOf(
  core: Core,
  members: { readonly name: string; readonly [member: string]: unknown },
  backend: readonly (StoreId | null)[],
  allMustSucceed = true,
): Order {
  const method = core.imports.methods.find(({ name }) => name === members.name)
  const found = backend.map((id) => ({ id, store: id === null ? core.stores.default : core.stores.byId(id) }))
  return {
    method: method ?? { name: members.name, from: 'queued' },
    input: members,
    stores: found.flatMap(({ store }) => store ?? []),
    allMustSucceed,
    missing: [
      ...(method === undefined ? [`import method '${members.name}'`] : []),
      ...found.flatMap(({ id, store }) => (store === undefined ? [`store '${id}'`] : [])),
    ],
  }
}

async function importJob(
  core: Core,
  running: RunningJob,
  task: Task,
  { stores, method }: Order,
  quota: Quota,
  token: string | undefined,
): Promise<ImportJob> {
  const { roles = [] } = contextOf(running)
  const left = running.gone() ? 0 : await quota.storageLeft(running.image())
  const room = method.from === 'queued' ? await quota.stagingLeft() : Number.POSITIVE_INFINITY
  return {
    task: task.id,
    imageId: running.job.imageId,
    tries: running.job.tries,
    image: running.image,
    stores: stores.map(({ id }) => id),
    requester: { userId: task.userId ?? undefined, projectId: task.owner ?? undefined, roles, token },
    staging: core.imports.staging,
    log: running.log,
    // Every store takes a copy, and each counts.
    sizeLimit: Math.min(core.limits.imageSize, room, Math.floor(left / stores.length)),
    save: running.save,
    progress: running.progress,
  }
}

/**
 * The lists in which clients see how an import goes: the stores it is still to fill, and those it failed to, of which
 * none are its `targets` but `failed`. Deployments with a single store show both of them empty.
 */
export function storeLists(
  core: Core,
  { properties }: Image,
  lists: {
    readonly importing: readonly StoreId[]
    readonly failed: readonly StoreId[]
    readonly targets: readonly StoreId[]
  },
): ReadonlyMap<string, string> {
  const failed = new Set((properties.get(FAILED) ?? '').split(',').filter((store) => store !== ''))
  for (const store of lists.targets) failed.delete(store)
  for (const store of lists.failed) failed.add(store)
  const print = (stores: Iterable<string>) =>
    core.stores.multi ? [...stores].toSorted((a, b) => (a < b ? -1 : 1)).join() : ''
  return new Map([
    [IMPORTING, print(lists.importing)],
    [FAILED, print(failed)],
  ])
}

/** The store that an error is about; all of them when it is about none. */
function culprits(error: unknown, targets: readonly StoreId[]): readonly StoreId[] {
  const store = error instanceof ServiceError ? error.detail['store'] : undefined
  const found = targets.filter((target) => target === store)
  return found.length > 0 ? found : targets
}
