import type { Identity } from '../auth/identity.ts'
import { ServiceError } from '../domain/errors.ts'
import type { ProjectId } from '../domain/ids.ts'
import type { Image } from '../domain/image.ts'
import { isAdmin, type PolicyEnforcer, type Target } from './enforcer.ts'
import type { RuleName } from './rules.ts'
import { imageTarget, memberTarget, newImageTarget } from './target.ts'

/** Throws `forbidden` unless the rule allows it. */
export function enforce(enforcer: PolicyEnforcer, rule: RuleName, identity: Identity, target: Target): void {
  if (!enforcer.allows(rule, identity, target)) throw denied(rule)
}

/** Throws `forbidden`, or `not-found` where the caller may not even see the image. */
export function enforceImage(enforcer: PolicyEnforcer, rule: RuleName, identity: Identity, image: Image): void {
  enforceVisible(enforcer, rule, 'get_image', identity, imageTarget(image, identity))
  if (enforcer.legacyOwnership === true && OWNERS_ONLY.has(rule) && !isMutable(enforcer, identity, image)) {
    throw new ServiceError('forbidden', 'You do not own this image')
  }
}

/**
 * Throws `forbidden`, or `not-found` where the caller may not even see the image. The rule is asked about `member`;
 * by default about the caller's own membership.
 */
export function enforceMember(
  enforcer: PolicyEnforcer,
  rule: RuleName,
  identity: Identity,
  image: Image,
  member?: ProjectId,
): void {
  enforceImage(enforcer, 'get_image', identity, image)
  if (!allowsMember(enforcer, rule, identity, image, member)) throw denied(rule)
  if (enforcer.legacyOwnership === true && !isAdmin(enforcer, identity)) enforceLegacyMember(rule, identity, image)
}

/** As `enforceMember`, for an image that the caller may see. */
export const allowsMember = (
  enforcer: PolicyEnforcer,
  rule: RuleName,
  identity: Identity,
  image: Image,
  member?: ProjectId,
): boolean =>
  enforcer.allows(rule, identity, member === undefined ? imageTarget(image, identity) : memberTarget(image, member))

/** Throws `forbidden` unless the caller may create such an image; `visibility` only if the client asked for one. */
export function enforceNewImage(
  enforcer: PolicyEnforcer,
  identity: Identity,
  image: { readonly owner: ProjectId | null; readonly visibility?: string | undefined },
): void {
  const target = newImageTarget(image)
  const foreign = image.owner !== (identity.projectId ?? null)
  const refusal = `You are not permitted to create images owned by '${image.owner ?? 'None'}'`
  if (!enforcer.allows('add_image', identity, target)) {
    throw foreign ? new ServiceError('forbidden', refusal) : denied('add_image')
  }
  enforceVisibility(enforcer, identity, image.visibility, target)
  if (enforcer.legacyOwnership === true && foreign && !isAdmin(enforcer, identity)) {
    throw new ServiceError('forbidden', `${refusal}.`)
  }
}

/** Throws `forbidden` unless the caller may give the target this visibility. */
export function enforceVisibility(
  enforcer: PolicyEnforcer,
  identity: Identity,
  visibility: string | undefined,
  target: Target,
): void {
  if (visibility === 'public') enforce(enforcer, 'publicize_image', identity, target)
  if (visibility === 'community') enforce(enforcer, 'communitize_image', identity, target)
}

/** Throws `forbidden`, or `not-found` where the caller may not even see the namespace; the target is a `namespaceTarget`. */
export const enforceNamespace = (enforcer: PolicyEnforcer, rule: RuleName, identity: Identity, target: Target): void =>
  enforceVisible(enforcer, rule, 'get_metadef_namespace', identity, target)

/** Whether the caller is an admin or of the project that owns the image. */
export const isMutable = (enforcer: PolicyEnforcer, identity: Identity, image: Image): boolean =>
  isAdmin(enforcer, identity) || (image.owner !== null && image.owner === identity.projectId)

/** Where only the owner could, whatever the rules said. */
const OWNERS_ONLY: ReadonlySet<string> = new Set<RuleName>([
  'delete_image',
  'delete_image_location',
  'upload_image',
  'modify_image',
  'deactivate',
  'reactivate',
])

function enforceVisible(
  enforcer: PolicyEnforcer,
  rule: RuleName,
  toSee: RuleName,
  identity: Identity,
  target: Target,
): void {
  if (enforcer.allows(rule, identity, target)) return
  if (rule !== toSee && enforcer.allows(toSee, identity, target)) throw denied(rule)
  throw new ServiceError('not-found', 'The resource could not be found.', { detail: { rule } })
}

/** The owner shares, the member answers. */
function enforceLegacyMember(rule: RuleName, { projectId }: Identity, { owner }: Image): void {
  const owns = owner !== null && owner === projectId
  if (rule === 'add_member' && !owns) {
    throw new ServiceError('forbidden', 'You are not permitted to create image members for the image.')
  }
  if (rule === 'modify_member' && owns) {
    throw new ServiceError('forbidden', "You are not permitted to modify 'status' on this image member.")
  }
  if (rule === 'delete_member' && !owns) throw new ServiceError('forbidden', 'You cannot delete image member.')
}

const denied = (rule: RuleName): ServiceError =>
  new ServiceError('forbidden', `You are not authorized to complete ${rule} action.`)
