import type { Core, RequestContext } from '../../core/core.ts'
import type { ImageDraft } from '../../core/images.ts'
import { createTask, deleteTask, listImageTasks, listTasks, showTask, type TaskDraft } from '../../core/tasks.ts'
import { ServiceError } from '../../domain/errors.ts'
import { isUuid, type TaskId } from '../../domain/ids.ts'
import { TASK_COLUMNS, TASK_SORT_KEYS, type TaskColumn, type TaskQuery } from '../../domain/query.ts'
import { TASK_TRANSITIONS, type TaskType } from '../../domain/task.ts'
import type { ApiRequest, Route } from '../http/route.ts'
import { TASK_LIST_QUERY } from './document.ts'
import { expectedBody, imageId, parseDraft } from './images.ts'
import { last, type PageLimits, pageLink, parseLimit, type Query } from './list-query.ts'
import type { Validate } from './validation.ts'
import { taskRowView, taskStubView, taskView } from './views.ts'

type Request = ApiRequest<RequestContext>

const invalid = (message: string) => new ServiceError('invalid', message)
const taskId = (request: Request): TaskId => request.params['task_id'] as TaskId

export const taskRoutes = (
  core: Core,
  { validateTask, validateImage }: { readonly validateTask: Validate; readonly validateImage: Validate },
): readonly Route<RequestContext>[] => [
  {
    method: 'GET',
    path: '/tasks',
    describe: {
      summary: 'List tasks',
      rules: ['tasks_api_access'],
      query: TASK_LIST_QUERY,
      answers: { 200: 'tasks' },
    },
    handle: async (request) => {
      const read = () => parseQuery(request.query, core.limits)
      const { tasks, next } = await listTasks(core, request.context, read)
      return {
        status: 200,
        json: {
          tasks: tasks.map(taskStubView),
          first: pageLink('/v2/tasks', request.query, undefined),
          schema: '/v2/schemas/tasks',
          ...(next === undefined ? {} : { next: pageLink('/v2/tasks', request.query, next) }),
        },
      }
    },
  },
  {
    method: 'POST',
    path: '/tasks',
    describe: {
      summary: 'Start a task',
      rules: ['tasks_api_access'],
      body: { 'application/json': 'task_create' },
      answers: { 201: 'task' },
    },
    handle: async (request) => {
      const read = async () => parseTask(await expectedBody(request), validateTask, validateImage)
      const task = await createTask(core, request.context, read)
      return {
        status: 201,
        headers: { location: `${request.baseUrl}/v2/tasks/${task.id}` },
        json: taskView(task),
      }
    },
  },
  {
    method: 'GET',
    path: '/tasks/:task_id',
    describe: { summary: 'Show a task', rules: ['tasks_api_access'], answers: { 200: 'task' } },
    handle: async (request) => ({
      status: 200,
      json: taskView(await showTask(core, request.context, taskId(request))),
    }),
  },
  {
    method: 'DELETE',
    path: '/tasks/:task_id',
    describe: { summary: 'Never allowed: tasks expire', rules: ['tasks_api_access'], answers: {} },
    handle: async (request) => deleteTask(core, request.context),
  },
  {
    method: 'GET',
    path: '/images/:image_id/tasks',
    describe: { summary: 'List the tasks of an image', rules: ['get_image'], answers: { 200: 'image_tasks' } },
    rejectsBody: true,
    handle: async (request) => {
      const tasks = await listImageTasks(core, request.context, imageId(request))
      return { status: 200, json: { tasks: tasks.map(taskRowView) } }
    },
  },
]

function parseTask(body: unknown, validate: Validate, validateImage: Validate): TaskDraft {
  const given = (Array.isArray(body) ? {} : body) as Readonly<Record<string, unknown>>
  for (const name of ['type', 'input']) if (!Object.hasOwn(given, name)) throw invalid(`Task '${name}' is required`)
  validate(given)
  const draft = { type: given['type'] as TaskType, input: (given['input'] ?? {}) as TaskDraft['input'] }
  return draft.type === 'import'
    ? { ...draft, image: parseImage(draft.input['image_properties'], validateImage) }
    : draft
}

/** What is wrong with the image is the task's affair. */
function parseImage(properties: unknown, validate: Validate): ImageDraft | ServiceError {
  try {
    return parseDraft(properties, validate)
  } catch (error) {
    if (error instanceof ServiceError) return error
    throw error
  }
}

/** Those of the parameters that name a column are filters, any others are ignored. */
function parseQuery(query: Query, limits: PageLimits): TaskQuery {
  const descending = last(query, 'sort_dir') ?? 'desc'
  if (descending !== 'desc' && descending !== 'asc') throw invalid(`Invalid sort direction: ${descending}`)
  const filters = new Map<TaskColumn, string>()
  for (const column of TASK_COLUMNS) {
    const value = last(query, column)
    if (value !== undefined) filters.set(column, value)
  }
  const { status, type } = Object.fromEntries(filters)
  if (status && !Object.hasOwn(TASK_TRANSITIONS, status)) throw invalid(`Invalid status value: ${status}`)
  if (type && type !== 'import') throw invalid(`Invalid type value: ${type}`)
  const marker = last(query, 'marker')
  if (marker && !isUuid(marker)) throw invalid('Invalid marker format')
  const limit = parseLimit(last(query, 'limit')) ?? limits.pageDefault
  const wanted = last(query, 'sort_key') ?? 'created_at'
  const key = TASK_SORT_KEYS.find((known) => known === wanted)
  if (key === undefined) throw invalid('Sort key supplied was not valid.')
  return {
    filters,
    sort: { key, descending: descending === 'desc' },
    marker: marker as TaskId | undefined,
    limit: Math.min(limit, limits.pageMax),
  }
}
