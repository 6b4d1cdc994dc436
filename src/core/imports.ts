import { ServiceError } from '../domain/errors.ts'
import type { ImageId } from '../domain/ids.ts'
import type { Image, ImageStatus } from '../domain/image.ts'
import type { ImportMethod } from '../imports/import.ts'
import { enforceImage } from '../policy/enforce.ts'
import type { Store } from '../store/store.ts'
import type { Core, RequestContext } from './core.ts'
import { importFlow, storeLists } from './import-flow.ts'
import { beginWork } from './jobs.ts'
import { loadImage } from './load.ts'
import { ownerQuota, STORAGE_EXCEEDED } from './quota.ts'
import { imageSignature, packSignature } from './signature.ts'
import { isStagedElsewhere, STAGE_HOST } from './staging.ts'

/** The body of an import request, as far as it has been understood. */
export interface ImportRequest {
  readonly method: ImportMethod
  /** Members of the body's `method`. */
  readonly members: Readonly<Record<string, unknown>>
  /** As the client names them. */
  readonly stores?: readonly unknown[]
  /** Header x-image-meta-store. */
  readonly store?: string
  readonly allStores: boolean
  readonly allMustSucceed: boolean
  /** All of it, for the task. */
  readonly body: Readonly<Record<string, unknown>>
}

/**
 * POST /v2/images/{image_id}/import: begins to bring data into an image. The work goes on after the answer.
 * Returns the id of the request that did it, when that was another one than the caller's.
 */
export async function importImage(
  core: Core,
  ctx: RequestContext,
  id: ImageId,
  request: ImportRequest,
): Promise<{ readonly requestId?: string | undefined }> {
  const { method } = request
  await admitProject(core, ctx, id)
  const image = await loadImage(core, ctx, id)
  admitStatus(image, method)
  admitFormats(image)
  method.admit?.(request.members)
  enforceImage(core.policy, method.from === 'active' ? 'copy_image' : 'modify_image', ctx.identity, image)
  const stores = selectStores(core, image, request)
  if (stores.length === 0) return {}
  const host = method.from === 'uploading' ? await isStagedElsewhere(core, ctx, image) : undefined
  if (host !== undefined) {
    const url = `${host}/v2/images/${id}/import`
    return core.imports.relay({ method: 'POST', url, token: ctx.identity.token, body: request.body })
  }
  const members = (await method.accept?.(request.members)) ?? request.members
  await beginImport(core, ctx, image, { ...request, members }, stores)
  return {}
}

/** Whoever is over the limit already need not ask for more. */
async function admitProject(core: Core, { identity }: RequestContext, id: ImageId): Promise<void> {
  if (core.projectLimits === undefined) return
  const quota = await ownerQuota(core, identity.projectId ?? null, STORAGE_EXCEEDED)
  const left = await quota.storageLeft({ id })
  if (left < 0) throw quota.refusal('storage', 0, left)
}

const REFUSALS: Readonly<Partial<Record<ImageStatus, (method: string) => string>>> = {
  active: () => 'Only images with status active can be targeted for copying',
  queued: (method) => `Image needs to be in 'queued' state to use '${method}' method`,
  uploading: (method) => `Image needs to be staged before '${method}' method can be used`,
}

function admitStatus(image: Image, { name, from }: ImportMethod): void {
  if (image.status === 'active' && from !== 'active') {
    throw new ServiceError('conflict', 'Image with status active cannot be target for import')
  }
  // While its size is unknown, the data is still on its way here.
  if (image.status === from && (from !== 'uploading' || image.size !== null)) return
  throw new ServiceError('conflict', REFUSALS[from]?.(name) ?? `Image is ${image.status}`)
}

function admitFormats({ containerFormat, diskFormat }: Image): void {
  const missing = containerFormat === null ? 'container_format' : diskFormat === null ? 'disk_format' : undefined
  if (missing !== undefined) throw new ServiceError('conflict', `'${missing}' needs to be set before import`)
}

const invalid = (message: string) => new ServiceError('invalid', message)

/** The stores to fill; none when an image is to be copied to all stores, and is there already. */
function selectStores(core: Core, image: Image, request: ImportRequest): readonly Store[] {
  const copies = request.method.from === 'active'
  if (!core.stores.multi) {
    if (copies) throw invalid('Images can only be copied where there are several stores (enabled_backends)')
    if (!request.allMustSucceed) {
      throw invalid('All_stores_must_succeed can only be set with enabled_backends None')
    }
    return [core.stores.default]
  }
  const wanted = wantedStores(core, request)
  const holding = new Set(copies ? image.locations.map((location) => core.stores.find(location)) : [])
  if (request.allStores) return wanted.filter((store) => !holding.has(store))
  const present = wanted.find((store) => holding.has(store))
  if (present !== undefined) throw invalid(`Image is already present at store '${present.id}'`)
  return wanted
}

function wantedStores(core: Core, { allStores, stores, store }: ImportRequest): readonly Store[] {
  if (allStores) {
    if (stores !== undefined || store !== undefined) {
      throw invalid("All_stores parameter can't be used with x-image-meta-store header or stores parameter")
    }
    // In the order of the configuration: that of the locations, in which some clients wait to see them.
    return core.stores.all.filter(({ readOnly }) => !readOnly)
  }
  if (stores !== undefined && store !== undefined) {
    throw invalid("Stores parameter and x-image-meta-store header can't be both specified")
  }
  if (stores?.length === 0) throw invalid('Stores parameter names no store')
  const named = new Set(stores ?? [store ?? core.stores.default.id])
  return [...named].map((name) => {
    const found = core.stores.all.find(({ id }) => id === name)
    if (found === undefined) throw new ServiceError('conflict', `Store for identifier ${String(name)} not found`)
    return found
  })
}

async function beginImport(
  core: Core,
  ctx: RequestContext,
  image: Image,
  { method, members, body }: ImportRequest,
  stores: readonly Store[],
): Promise<void> {
  const { roles, token } = ctx.identity
  const brings = method.from !== 'active'
  const quota = await ownerQuota(core, image.owner, STORAGE_EXCEEDED)
  // The certificate takes the caller's token, which the job may not have any more.
  const signature = brings ? packSignature(await imageSignature(core, ctx, image)) : undefined
  const ids = stores.map(({ id }) => id)
  await beginWork(core, ctx, {
    type: 'api_image_import',
    input: {
      image_id: image.id,
      import_req: { ...body, method: method.shown?.(members) ?? members },
      backend: core.stores.multi ? ids : [null],
    },
    image,
    context: { roles, members, signature },
    change: {
      image: {
        ...(brings ? { status: 'importing' } : {}),
        ...quota.within('uploading'),
        ...(method.from === 'uploading' ? {} : quota.within('staging')),
        setProperties: storeLists(core, image, { importing: ids, failed: [], targets: ids }),
        unsetProperties: [STAGE_HOST],
      },
      from: [method.from],
    },
    flow: (running) => importFlow(core, running, { token }),
  }).catch((cause: unknown) => {
    throw quota.explain(cause)
  })
}
