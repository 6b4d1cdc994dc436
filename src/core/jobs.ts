import { randomUUID } from 'node:crypto'
import type { JobChange, NewImage, NewTask, TaskChange } from '../db/database.ts'
import { hasKind, ServiceError } from '../domain/errors.ts'
import type { TaskId } from '../domain/ids.ts'
import type { Image } from '../domain/image.ts'
import type { Task, TaskType } from '../domain/task.ts'
import type { Flow, RunningJob } from '../imports/runner.ts'
import type { Core, RequestContext } from './core.ts'

export interface Work {
  readonly type: TaskType
  /** What was asked for, as the owner of the task sees it. */
  readonly input: Readonly<Record<string, unknown>>
  /** The image to work on, as it was loaded, or one that comes to be. */
  readonly image: Image | NewImage
  /** The image that the task names; `image` by default, if it is there. */
  readonly about?: NewTask['imageId']
  /** What the job needs beside it: kept where no client looks. */
  readonly context: unknown
  readonly change: JobChange
  /** What is done, by this process. */
  flow(running: RunningJob): Promise<Flow>
}

/** A task that the caller asks for. */
export const newTask = (ctx: RequestContext, task: Pick<NewTask, 'type' | 'input' | 'imageId'>): NewTask => ({
  ...task,
  id: randomUUID() as TaskId,
  owner: ctx.identity.projectId ?? null,
  requestId: ctx.requestId,
  userId: ctx.identity.userId ?? null,
})

/** What ends a task badly; `message` is for its owner. */
export const failed = (core: Core, message: string): TaskChange & { readonly status: 'failure' } => ({
  status: 'failure',
  message,
  keepMs: core.taskKeepMs,
})

/**
 * Begins work on an image that goes on after the answer. Returns the task as it is asked for. Throws `conflict` while
 * other work holds the image, or when it is not as `change` wants it.
 */
export async function beginWork(core: Core, ctx: RequestContext, work: Work): Promise<Task> {
  const { type, input, image, context, change } = work
  const isThere = 'status' in image
  const { about = isThere ? image.id : null } = work
  const begin = core.db.jobs.begin({
    task: newTask(ctx, { type, input, imageId: about }),
    image: isThere ? image.id : image,
    worker: core.worker.id,
    context,
    change,
    preempted: failed(core, 'Expired lock preempted'),
  })
  const begun = await begin.catch((cause: unknown) => {
    if (hasKind(cause, 'conflict')) throw new ServiceError('conflict', refusedBecause(image), { cause })
    throw cause
  })
  if (begun.preempted !== undefined) {
    core.log.warn(`Task ${begun.preempted.id} held image ${begun.image.id} for too long`)
    core.notifier.notify({ type: 'task.failure', task: begun.preempted })
  }
  core.notifier.notify({ type: 'task.create', task: begun.task })
  if (!isThere) core.notifier.notify({ type: 'image.create', image: begun.image })
  core.imports.runner.start(begun.job, work.flow)
  return begun.task
}

function refusedBecause(image: Work['image']): string {
  if (!('status' in image)) return `Image ID ${image.id} already exists!`
  return image.properties.has('os_glance_import_task')
    ? 'Image has active task'
    : `New operation on image '${image.id}' is not permitted as prior operation is still in progress`
}
