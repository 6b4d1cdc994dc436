import { hasKind, ServiceError } from '../domain/errors.ts'
import type { ImageId, TaskId } from '../domain/ids.ts'
import type { TaskQuery } from '../domain/query.ts'
import type { Task, TaskType } from '../domain/task.ts'
import { shownUri } from '../imports/http-client.ts'
import { enforce, enforceImage } from '../policy/enforce.ts'
import type { Core, RequestContext } from './core.ts'
import type { ImageDraft } from './images.ts'
import { failed, newTask } from './jobs.ts'
import { beginLegacyImport } from './legacy-import.ts'
import { loadImage } from './load.ts'

/** What a client asks for by the tasks API. */
export interface TaskDraft {
  readonly type: TaskType
  readonly input: Readonly<Record<string, unknown>>
  /** The image to import into, where the input says what it is to be; or what is wrong with that. */
  readonly image?: ImageDraft | ServiceError
}

/** Whoever may not use the API of tasks is told so before anything else is looked at: what they sent is read after it. */
const enforceAccess = (core: Core, ctx: RequestContext) => enforce(core.policy, 'tasks_api_access', ctx.identity, {})

/**
 * POST /v2/tasks. A task that cannot be done fails; the client learns of it by looking at it. Returns the task as it was
 * when it was asked for.
 */
export async function createTask(core: Core, ctx: RequestContext, read: () => Promise<TaskDraft>): Promise<Task> {
  enforceAccess(core, ctx)
  const draft = await read()
  const { type, input } = draft
  if (type === 'import') await admitSource(core, input['import_from'])
  const { image_id: id } = input
  const about = typeof id === 'string' && id.length <= LONGEST_ID ? (id as ImageId) : null
  try {
    return await beginTask(core, ctx, draft, about)
  } catch (error) {
    if (!(error instanceof ServiceError) || error.kind === 'internal') throw error
    const failure = failed(core, error.message)
    const task = await core.db.tasks.insert(newTask(ctx, { type, input, imageId: about }), failure)
    const asked: Task = { ...task, status: 'pending', message: '', expiresAt: null }
    core.notifier.notify({ type: 'task.create', task: asked })
    core.notifier.notify({ type: 'task.failure', task })
    return asked
  }
}

async function beginTask(
  core: Core,
  ctx: RequestContext,
  { type, input, image }: TaskDraft,
  about: ImageId | null,
): Promise<Task> {
  const missing = missingInput(type, input)
  if (missing !== undefined) throw new ServiceError('invalid', missing)
  if (type !== 'import') throw new ServiceError('invalid', ELSEWHERE[type])
  if (image === undefined || image instanceof ServiceError) throw image ?? new ServiceError('invalid', 'No image')
  return beginLegacyImport(core, ctx, { uri: String(input['import_from']), image }, input, about)
}

/** Of the column. */
const LONGEST_ID = 36

const ELSEWHERE = {
  api_image_import: 'Images are imported by POST /v2/images/{image_id}/import.',
  location_import: 'Locations are added by POST /v2/images/{image_id}/locations.',
} as const

/** The members without which no task of a type can be done. */
const NEEDED: Readonly<Record<TaskType, readonly string[]>> = {
  import: ['import_from', 'import_from_format', 'image_properties'],
  api_image_import: ['image_id'],
  location_import: ['image_id', 'loc_url', 'validation_data'],
}

function missingInput(type: TaskType, input: TaskDraft['input']): string | undefined {
  if (type !== 'import' && Object.keys(input).length === 0) return `Input to ${type} task is empty.`
  const missing = NEEDED[type].find((name) => !Object.hasOwn(input, name))
  if (missing === undefined) return undefined
  return type === 'api_image_import'
    ? `Missing required '${missing}' field`
    : `Input does not contain '${missing}' field`
}

/** Throws `invalid` unless data may be fetched from there. */
async function admitSource(core: Core, uri: unknown): Promise<void> {
  if (typeof uri !== 'string' || uri === '') {
    throw new ServiceError('invalid', `Invalid location: ${uri === undefined || uri === null ? 'None' : String(uri)}`)
  }
  if (/^file(system)?:\/\/\//.test(uri)) {
    throw new ServiceError(
      'invalid',
      'File based imports are not allowed. Please use a non-local source of image data.',
    )
  }
  if (!/^https?:\/\//.test(uri)) {
    throw new ServiceError(
      'invalid',
      "The given uri is not valid. Please specify a valid uri from the following list of supported uri ['http']",
    )
  }
  if (!(await core.uriFilter.admits(uri))) {
    throw new ServiceError('invalid', `URI for legacy import task does not pass filtering: ${shownUri(uri)}`)
  }
}

export async function showTask(core: Core, ctx: RequestContext, id: TaskId): Promise<Task> {
  enforceAccess(core, ctx)
  return core.db.tasks.get(id, ctx.scope)
}

/** A page of tasks; `next` is the marker of the following page, if there may be one. */
export async function listTasks(
  core: Core,
  ctx: RequestContext,
  read: () => TaskQuery,
): Promise<{ readonly tasks: readonly Task[]; readonly next: TaskId | undefined }> {
  enforceAccess(core, ctx)
  const query = read()
  try {
    const tasks = await core.db.tasks.list(query, ctx.scope)
    return { tasks, next: tasks.length === query.limit ? tasks.at(-1)?.id : undefined }
  } catch (cause) {
    if (!hasKind(cause, 'not-found')) throw cause
    throw new ServiceError('invalid', `Task with the given id ${query.marker} was not found`, { cause })
  }
}

/** Throws always: tasks expire. */
export function deleteTask(core: Core, ctx: RequestContext): never {
  enforceAccess(core, ctx)
  throw new ServiceError(
    'not-allowed',
    'This operation is currently not permitted on Glance Tasks. They are auto deleted after reaching the time based on their expires_at property.',
    { detail: { headers: { allow: 'GET' } } },
  )
}

/** GET /v2/images/{image_id}/tasks: for everybody who sees the image, those of the tasks that are theirs. */
export async function listImageTasks(core: Core, ctx: RequestContext, id: ImageId): Promise<readonly Task[]> {
  const image = await loadImage(core, ctx, id, 'The resource could not be found.')
  enforceImage(core.policy, 'get_image', ctx.identity, image)
  return core.db.tasks.ofImage(id, ctx.scope)
}
