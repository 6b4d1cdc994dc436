import type { Identity } from '../auth/identity.ts'
import type { ProjectId } from '../domain/ids.ts'
import type { Image } from '../domain/image.ts'
import type { Target } from './enforcer.ts'

/**
 * An image as checks see it, with its extra properties beside its attributes (which win).
 * Given the caller, `member_id` names the caller's project if the image is shared with it.
 */
export const imageTarget = (image: Image, identity?: Identity): Target =>
  memberTarget(image, identity && membership(image, identity))

/** An image with a member of it. */
export function memberTarget(image: Image, member: ProjectId | undefined): Target {
  const target: Record<string, unknown> = {
    id: image.id,
    image_id: image.id,
    name: image.name,
    status: image.status,
    visibility: image.visibility,
    owner: image.owner,
    project_id: image.owner,
    tenant: image.owner,
    member: member ?? null,
    member_id: member ?? null,
    protected: image.protected,
    os_hidden: image.hidden,
    size: image.size,
    virtual_size: image.virtualSize,
    min_ram: image.minRam,
    min_disk: image.minDisk,
    disk_format: image.diskFormat,
    container_format: image.containerFormat,
    checksum: image.checksum,
    os_hash_algo: image.osHashAlgo,
    os_hash_value: image.osHashValue,
    created_at: image.createdAt,
    updated_at: image.updatedAt,
    tags: image.tags,
  }
  for (const [name, value] of image.properties) if (!Object.hasOwn(target, name)) target[name] = value
  return target
}

/** An image that is about to be created. */
export const newImageTarget = (image: {
  readonly owner: string | null
  readonly visibility?: string | undefined
}): Target => ({
  project_id: image.owner,
  owner: image.owner,
  tenant: image.owner,
  visibility: image.visibility ?? 'private',
})

/** A metadef namespace and what is in it; without one, the caller's project is the target. */
export const namespaceTarget = (
  identity: Identity,
  namespace?: { readonly owner: string | null; readonly visibility: string },
): Target =>
  namespace === undefined
    ? { project_id: identity.projectId ?? null }
    : { project_id: namespace.owner, owner: namespace.owner, visibility: namespace.visibility }

/** Who sees a shared image of somebody else does so as a member of it. */
const membership = (image: Image, { projectId }: Identity): ProjectId | undefined =>
  image.visibility === 'shared' && image.owner !== (projectId ?? null) ? projectId : undefined
