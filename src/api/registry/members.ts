import type { Row, RowDatabase } from '../../db/rows.ts'
import { hasKind, ServiceError } from '../../domain/errors.ts'
import { methodNotAllowed, renderFailure } from '../http/errors.ts'
import type { ApiRequest, ApiResponse, Route } from '../http/route.ts'
import { type HistoricContext, inDetail, noSuchResource, requireWriter } from './context.ts'

type Request = ApiRequest<HistoricContext>

interface Membership extends Row {
  readonly id: number
  readonly image_id: string
  readonly member: string
  readonly can_share: boolean
  readonly deleted: boolean
}

/** The members of the registry of API v1 (glance/registry/api/v1/members.py). */
export function memberRoutes(rows: RowDatabase): readonly Route<HistoricContext>[] {
  /** Rights are looked at here: who may share an image need not own it. */
  const change = (command: string, args: Row): Promise<unknown> => rows.run(command, { admin: true, owner: null }, args)
  const find = async (request: Request, args: Row): Promise<readonly Membership[]> =>
    (await rows.run('image_member_find', request.context.rows, args)) as readonly Membership[]
  const all = async (args: Row): Promise<readonly Membership[]> =>
    (await change('image_member_find', { ...args, include_deleted: true })) as readonly Membership[]

  const imageOf = async (request: Request): Promise<Row & { readonly id: string }> => {
    const id = request.params['image_id'] as string
    try {
      return (await rows.run('image_get', request.context.rows, { image_id: id, v1_mode: true })) as Row & {
        id: string
      }
    } catch (error) {
      if (hasKind(error, 'not-found')) throw inDetail('not-found', `Image ${id} not found`, error)
      throw hasKind(error, 'forbidden') ? noSuchResource() : error
    }
  }

  const requireSharable = async (request: Request, image: Row & { readonly id: string }): Promise<void> => {
    const { admin, owner } = request.context.rows
    if (admin || (owner !== null && image['owner'] === owner)) return
    const [own] = owner === null ? [] : await find(request, { image_id: image.id, member: owner })
    if (own?.can_share !== true) throw inDetail('forbidden', 'No permission to share that image')
  }

  const index = async (request: Request): Promise<ApiResponse> => {
    const { id } = await imageOf(request)
    const members = await find(request, { image_id: id })
    return {
      status: 200,
      json: { members: members.map(({ member, can_share }) => ({ member_id: member, can_share })) },
    }
  }

  const replace = async (request: Request): Promise<ApiResponse> => {
    requireMember(request)
    const image = await imageOf(request)
    await requireSharable(request, image)
    const wanted = readMemberships(await request.json())
    const known = await all({ image_id: image.id })
    const kept = new Set<number>()
    for (const { member, canShare } of wanted) {
      const before = newest(known, member)
      if (before === undefined) {
        const values = { image_id: image.id, member, can_share: canShare ?? false }
        await change('image_member_create', { values })
        continue
      }
      kept.add(before.id)
      await change('image_member_update', { memb_id: before.id, values: { can_share: canShare ?? before.can_share } })
    }
    for (const { id, deleted } of known)
      if (!kept.has(id) && !deleted) await change('image_member_delete', { memb_id: id })
    return { status: 204 }
  }

  const set = async (request: Request): Promise<ApiResponse> => {
    requireMember(request)
    const image = await imageOf(request)
    await requireSharable(request, image)
    const canShare = request.hasBody ? readCanShare(await request.json()) : undefined
    const member = request.params['id'] as string
    const before = newest(await all({ image_id: image.id }), member)
    if (before === undefined)
      await change('image_member_create', { values: { image_id: image.id, member, can_share: canShare ?? false } })
    else if (before.deleted || canShare !== undefined)
      await change('image_member_update', {
        memb_id: before.id,
        values: { can_share: canShare ?? (before.deleted ? false : before.can_share) },
      })
    return { status: 204 }
  }

  const remove = async (request: Request): Promise<ApiResponse> => {
    requireMember(request)
    const image = await imageOf(request)
    await requireSharable(request, image)
    const member = request.params['id'] as string
    const found = (await all({ image_id: image.id, member })).filter(({ deleted }) => !deleted)
    if (found.length === 0) throw new ServiceError('not-found', 'Membership could not be found.')
    for (const { id } of found) await change('image_member_delete', { memb_id: id })
    return { status: 204 }
  }

  const shared = async (request: Request): Promise<ApiResponse> => {
    const found = await find(request, { member: request.params['id'] as string })
    const shared_images = found.map(({ image_id, can_share }) => ({ image_id, can_share }))
    return { status: 200, json: { shared_images } }
  }

  const refuse = async ({ method, headers }: Request): Promise<ApiResponse> =>
    renderFailure(methodNotAllowed(method, ['PUT', 'DELETE']), headers.accept)

  return [
    { method: 'GET', path: '/images/:image_id/members', handle: index },
    { method: 'POST', path: '/images/:image_id/members', handle: refuse },
    { method: 'PUT', path: '/images/:image_id/members', handle: replace },
    { method: 'GET', path: '/images/:image_id/members/:id', handle: refuse },
    { method: 'PUT', path: '/images/:image_id/members/:id', handle: set },
    { method: 'DELETE', path: '/images/:image_id/members/:id', handle: remove },
    { method: 'GET', path: '/shared-images/:id', handle: shared },
  ]
}

/** Throws `forbidden` for those who may only read, `unauthenticated` for those of no project. */
function requireMember({ context }: Request): void {
  requireWriter(context)
  const { admin, owner } = context.rows
  if (!admin && owner === null) throw inDetail('unauthenticated', 'No authenticated user')
}

/** Of several rows of one member, the living one, else the latest. */
const newest = (rows: readonly Membership[], member: string): Membership | undefined => {
  const own = rows.filter((row) => row.member === member)
  return own.find(({ deleted }) => !deleted) ?? own.at(-1)
}

interface Wanted {
  readonly member: string
  readonly canShare: boolean | undefined
}

const bad = (why: string): ServiceError => new ServiceError('invalid', `Invalid membership association: ${why}`)

function readMemberships(body: unknown): readonly Wanted[] {
  const { memberships } = body as { readonly memberships?: unknown }
  if (!Array.isArray(memberships)) throw bad("'memberships'")
  const wanted = memberships.map((one: unknown) => {
    const { member_id, can_share } = (one ?? {}) as { readonly member_id?: unknown; readonly can_share?: unknown }
    if (typeof member_id !== 'string') throw bad("'member_id'")
    return { member: member_id, canShare: can_share === undefined ? undefined : Boolean(can_share) }
  })
  return [...new Map(wanted.map((one) => [one.member, one])).values()]
}

function readCanShare(body: unknown): boolean {
  const { member } = body as { readonly member?: { readonly can_share?: unknown } | null }
  if (typeof member !== 'object' || member === null || member.can_share === undefined) throw bad("'can_share'")
  return Boolean(member.can_share)
}
