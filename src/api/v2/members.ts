import type { Core, RequestContext } from '../../core/core.ts'
import { addMember, answerMembership, listMembers, removeMember, showMember } from '../../core/members.ts'
import { ServiceError } from '../../domain/errors.ts'
import type { ProjectId } from '../../domain/ids.ts'
import { MEMBER_STATUSES, type MemberStatus } from '../../domain/image.ts'
import type { ApiRequest, Route } from '../http/route.ts'
import { expectedBody, imageId } from './images.ts'
import { admitAttribute } from './validation.ts'
import { memberView } from './views.ts'

const invalid = (message: string) => new ServiceError('invalid', message)
const memberId = (request: ApiRequest<RequestContext>): ProjectId => request.params['member_id'] as ProjectId

export const memberRoutes = (core: Core): readonly Route<RequestContext>[] => [
  {
    method: 'GET',
    path: '/images/:image_id/members',
    describe: {
      summary: 'List the members of an image',
      rules: ['get_image', 'get_members', 'get_member'],
      answers: { 200: 'members' },
    },
    rejectsBody: true,
    handle: async (request) => {
      const members = await listMembers(core, request.context, imageId(request))
      return { status: 200, json: { members: members.map(memberView), schema: '/v2/schemas/members' } }
    },
  },
  {
    method: 'POST',
    path: '/images/:image_id/members',
    describe: {
      summary: 'Share an image with a project',
      rules: ['get_image', 'add_member'],
      body: { 'application/json': 'member_create' },
      answers: { 200: 'member' },
    },
    handle: async (request) => {
      const member = parseMember(await expectedBody(request))
      return { status: 200, json: memberView(await addMember(core, request.context, imageId(request), member)) }
    },
  },
  {
    method: 'GET',
    path: '/images/:image_id/members/:member_id',
    describe: { summary: 'Show a member of an image', rules: ['get_image', 'get_member'], answers: { 200: 'member' } },
    rejectsBody: true,
    handle: async (request) => ({
      status: 200,
      json: memberView(await showMember(core, request.context, imageId(request), memberId(request))),
    }),
  },
  {
    method: 'PUT',
    path: '/images/:image_id/members/:member_id',
    describe: {
      summary: 'Accept or reject an image that is shared',
      rules: ['get_image', 'get_member', 'modify_member'],
      body: { 'application/json': 'member_update' },
      answers: { 200: 'member' },
    },
    handle: async (request) => {
      const status = parseStatus(await expectedBody(request))
      const member = await answerMembership(core, request.context, imageId(request), memberId(request), status)
      return { status: 200, json: memberView(member) }
    },
  },
  {
    method: 'DELETE',
    path: '/images/:image_id/members/:member_id',
    describe: {
      summary: 'Stop sharing an image with a project',
      rules: ['get_image', 'get_member', 'delete_member'],
      answers: { 204: null },
    },
    rejectsBody: true,
    handle: async (request) => {
      await removeMember(core, request.context, imageId(request), memberId(request))
      return { status: 204 }
    },
  },
]

function parseMember(body: unknown): ProjectId {
  if (Array.isArray(body)) throw invalid('Expected a member in the form: {"member": "image_id"}')
  const given = body as Record<string, unknown>
  if (!Object.hasOwn(given, 'member')) throw invalid('Member to be added not specified')
  const member = given['member']
  if (!member) throw invalid("Member can't be empty")
  if (typeof member !== 'string') throw invalid('Expected a member in the form: {"member": "image_id"}')
  if (member.length > 255) throw invalid('Member may have at most 255 characters')
  admitAttribute('member', member)
  return member as ProjectId
}

function parseStatus(body: unknown): MemberStatus {
  if (Array.isArray(body)) throw invalid('Expected a status in the form: {"status": "status"}')
  const given = body as Record<string, unknown>
  if (!Object.hasOwn(given, 'status')) throw invalid('Status not specified')
  const status = MEMBER_STATUSES.find((known) => known === given['status'])
  if (status === undefined) throw invalid('Incorrect request: Status must be "pending", "accepted" or "rejected".')
  return status
}
