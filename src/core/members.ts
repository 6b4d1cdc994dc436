import { hasKind, ServiceError } from '../domain/errors.ts'
import type { ImageId, ProjectId } from '../domain/ids.ts'
import type { Image, Member, MemberStatus } from '../domain/image.ts'
import { allowsMember, enforceMember } from '../policy/enforce.ts'
import type { Core, RequestContext } from './core.ts'
import { loadImage } from './load.ts'
import { exceeded } from './quota.ts'

async function loadShared(core: Core, ctx: RequestContext, id: ImageId, refusal: string): Promise<Image> {
  const image = await loadImage(core, ctx, id, `Image ${id} not found.`)
  if (image.visibility !== 'shared') throw new ServiceError('forbidden', refusal)
  return image
}

async function loadMember(core: Core, ctx: RequestContext, image: Image, member: ProjectId): Promise<Member> {
  enforceMember(core.policy, 'get_member', ctx.identity, image)
  const missing = `${member} not found in the member list of the image ${image.id}.`
  try {
    const found = await core.db.members.get(image.id, member)
    // To anybody but the owner, the other members do not exist.
    if (!ctx.isAdmin && image.owner !== ctx.identity.projectId && member !== ctx.identity.projectId) {
      throw new ServiceError('not-found', missing)
    }
    return found
  } catch (cause) {
    if (hasKind(cause, 'not-found')) throw new ServiceError('not-found', missing, { cause })
    throw cause
  }
}

export async function addMember(core: Core, ctx: RequestContext, id: ImageId, member: ProjectId): Promise<Member> {
  const image = await loadShared(core, ctx, id, `Not allowed to create members for image ${id}.`)
  enforceMember(core.policy, 'add_member', ctx.identity, image)
  try {
    const added = await core.db.members.add(id, member, core.limits.members)
    core.notifier.notify({ type: 'image.member.create', member: added })
    return added
  } catch (cause) {
    if (hasKind(cause, 'conflict')) {
      throw new ServiceError('conflict', `Member ${member} is duplicated for image ${id}`, { cause })
    }
    if (hasKind(cause, 'too-large')) {
      const limit = core.limits.members
      const reason = exceeded('members for this image', limit + 1, limit)
      throw new ServiceError('too-large', `Image member limit exceeded for image ${id}: ${reason}:`, { cause })
    }
    throw cause
  }
}

export async function listMembers(core: Core, ctx: RequestContext, id: ImageId): Promise<readonly Member[]> {
  const image = await loadShared(
    core,
    ctx,
    id,
    `Not allowed to list members for image ${id}: Only shared images have members.`,
  )
  enforceMember(core.policy, 'get_members', ctx.identity, image)
  const seesAll = ctx.isAdmin || image.owner === ctx.identity.projectId
  return (await core.db.members.list(id)).filter(
    ({ member }) =>
      (seesAll || member === ctx.identity.projectId) && allowsMember(core.policy, 'get_member', ctx.identity, image),
  )
}

/** Whoever may not look is told that there is nothing. */
export async function showMember(core: Core, ctx: RequestContext, id: ImageId, member: ProjectId): Promise<Member> {
  try {
    const image = await loadShared(core, ctx, id, 'Only shared images have members.')
    return await loadMember(core, ctx, image, member)
  } catch (cause) {
    if (hasKind(cause, 'forbidden')) throw new ServiceError('not-found', cause.message, { cause })
    throw cause
  }
}

/** The member itself says whether it wants the image in its list. */
export async function answerMembership(
  core: Core,
  ctx: RequestContext,
  id: ImageId,
  member: ProjectId,
  status: MemberStatus,
): Promise<Member> {
  const image = await loadShared(core, ctx, id, `Not allowed to update members for image ${id}.`)
  await loadMember(core, ctx, image, member)
  enforceMember(core.policy, 'modify_member', ctx.identity, image)
  const updated = await core.db.members.setStatus(id, member, status)
  core.notifier.notify({ type: 'image.member.update', member: updated })
  return updated
}

export async function removeMember(core: Core, ctx: RequestContext, id: ImageId, member: ProjectId): Promise<void> {
  const image = await loadShared(core, ctx, id, `Not allowed to delete members for image ${id}.`)
  const found = await loadMember(core, ctx, image, member)
  enforceMember(core.policy, 'delete_member', ctx.identity, image)
  await core.db.members.remove(id, member)
  core.notifier.notify({ type: 'image.member.delete', member: found })
}
