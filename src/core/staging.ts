import { randomUUID } from 'node:crypto'
import type { Claim } from '../db/database.ts'
import { hasKind, ServiceError } from '../domain/errors.ts'
import type { AttemptId, ImageId } from '../domain/ids.ts'
import type { Image } from '../domain/image.ts'
import { enforceImage } from '../policy/enforce.ts'
import type { Core, RequestContext } from './core.ts'
import { admitSize, sizeCap, type Upload } from './image-data.ts'
import { loadImage } from './load.ts'
import { admitStaging, ownerQuota, type Quota, STORAGE_EXCEEDED } from './quota.ts'

/** Names the node that has the staged data, where nodes do not share it. Never shown. */
export const STAGE_HOST = 'os_glance_stage_host'

/** PUT /v2/images/{image_id}/stage: data that waits to be imported. */
export async function stageImage(core: Core, ctx: RequestContext, id: ImageId, upload: Omit<Upload, 'store'>) {
  const image = await loadImage(core, ctx, id)
  enforceImage(core.policy, 'modify_image', ctx.identity, image)
  if (image.status !== 'queued') throw unstageable(image)
  admitSize(upload.size ?? 0, core.limits.imageSize)
  const quota = await ownerQuota(core, image.owner, STORAGE_EXCEEDED)
  const left = await admitStaging(quota, upload.size)

  const { staging } = core.imports
  const claim: Claim = {
    attempt: randomUUID() as AttemptId,
    imageId: id,
    worker: core.worker.id,
    store: staging.id,
  }
  core.attempts.add(claim.attempt)
  try {
    await core.db.images.claim(claim, quota.within('uploading'), 'uploading').catch((cause: unknown) => {
      throw quota.explain(cause)
    })
    await fillStaging(core, ctx, claim, upload, { quota, left })
  } finally {
    core.attempts.delete(claim.attempt)
  }
}

const unstageable = ({ status }: Image) =>
  new ServiceError('conflict', `Image status transition from ${status} to uploading is not allowed`)

/** Writes the data and remembers where it is, or takes everything back. */
async function fillStaging(
  core: Core,
  ctx: RequestContext,
  claim: Claim,
  upload: Omit<Upload, 'store'>,
  { quota, left }: { readonly quota: Quota; readonly left: number },
) {
  const { staging, selfUrl } = core.imports
  const { imageId } = claim
  let written: number | undefined
  try {
    // What a node that was given up has left here is nobody's any more: the image was queued.
    await staging.remove(imageId)
    written = await staging.write(imageId, upload.body(), {
      ...(upload.size === undefined ? {} : { size: upload.size }),
      taps: [sizeCap(core.limits.imageSize, left, (size) => quota.refusal('staging', size, left))],
      signal: ctx.signal,
    })
    await core.db.images.settle(claim, {
      status: 'uploading',
      size: written,
      ...quota.within('staging'),
      ...(selfUrl === undefined ? {} : { setProperties: new Map([[STAGE_HOST, selfUrl]]) }),
    })
  } catch (cause) {
    // Nobody knows whether it is staged until the database answers again: the sweep looks whether the claim is there.
    if (written !== undefined && !hasKind(cause, 'not-found', 'conflict', 'too-large')) throw cause
    const lost = written !== undefined && hasKind(cause, 'conflict')
    throw await undoStaging(core, claim, lost, quota.explain(cause, written))
  }
}

/** Takes the staged data back, unless the claim was lost: then it may be somebody else's by now. */
async function undoStaging(core: Core, claim: Claim, lost: boolean, cause: unknown): Promise<unknown> {
  try {
    if (!lost) await core.imports.staging.remove(claim.imageId)
    await core.db.images.settle(claim, { status: 'queued', size: null })
  } catch (error) {
    if (hasKind(error, 'not-found', 'conflict')) {
      return new ServiceError('not-found', `Image ${claim.imageId} was deleted while its data was staged`, { cause })
    }
    core.log.error(`Image ${claim.imageId} stays in uploading until it is swept`, error)
  }
  return cause
}

/** Whether another node has the staged data; never for a request that a node sent here for that reason. */
export async function isStagedElsewhere(core: Core, ctx: RequestContext, image: Image): Promise<string | undefined> {
  const host = image.properties.get(STAGE_HOST)
  const { selfUrl, staging } = core.imports
  if (host === undefined || host === null || host === '' || host === selfUrl || ctx.relayed === true) return undefined
  // A staging area that all nodes share has it here too, whoever received it.
  return (await staging.size(image.id)) === undefined ? host : undefined
}

/** Younger data may be that of a request that has just begun, or of another service that uses the same directory. */
const ABANDONED_MS = 3_600_000

/** Removes staged data that no image waits for any more. Any number of nodes may do it at once. */
export async function sweepStaging(core: Core): Promise<void> {
  const { staging } = core.imports
  for (const id of await staging.list()) {
    const image = await core.db.images.get(id, { admin: true, project: undefined }).catch((error: unknown) => {
      if (hasKind(error, 'not-found')) return undefined
      throw error
    })
    if (image !== undefined && ['uploading', 'importing'].includes(image.status)) continue
    // Upstream's Glance, which may share the directory, stages the data of an active image that it copies.
    if (image?.properties.has('os_glance_import_task')) continue
    // An image that has its data never waits again; others may do so by now.
    await staging.remove(id, image === undefined || image.status === 'queued' ? ABANDONED_MS : 0)
  }
}
