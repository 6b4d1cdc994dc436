import { ask, type Request, type Response } from '../../support/golden.ts'
import { until } from '../../support/product.ts'
import type { TestServer } from '../../support/server.ts'
import { type Glance, identityHeaders } from '../../support/servers/glance.ts'
import { type Details, differences } from './compare.ts'
import { type Asked, type Begun, segment } from './request.ts'
import { CALLERS } from './values.ts'

/** The real Glance and Glimpse, asked the same at the same time. Ids are those that the real Glance knows. */
export interface Pair {
  /** `status` is that of the real Glance. */
  compare(asked: Asked): Promise<{ readonly status: number; readonly details: Details }>
  /** What was waited for in vain. */
  readonly endless: readonly string[]
  /** Resolves when what was begun is over on both sides. */
  settle(begun: Begun): Promise<Made>
  /** As an admin, on both sides. */
  both(method: string, target: string, body?: unknown, type?: string): Promise<void>
}

/** What has come of work: the tasks that were not known, the image that a task has made. */
export interface Made {
  readonly tasks: readonly string[]
  readonly image?: string | undefined
}

export function openPair(theirs: Glance, ours: TestServer): Pair {
  /** From ids chosen there to ids chosen here, and back. */
  const here = new Map<string, string>()
  const there = new Map<string, string>()
  const translated = (text: string): string =>
    [...here].reduce((result, [from, to]) => result.replaceAll(from, to), text)
  const hosts = { theirs: new URL(theirs.url).host, ours: new URL(ours.url).host }

  const send = async ({ as, request }: Asked): Promise<readonly [Response, Response]> => {
    const token = as === undefined ? undefined : CALLERS[as]
    const identity = token === undefined ? [] : Object.entries(identityHeaders(token))
    const header = token === undefined ? [] : [['X-Auth-Token', token] as const]
    const toUs = {
      ...request,
      target: translated(request.target),
      headers: [...request.headers, ...header],
      ...(request.body === undefined ? {} : { body: translated(request.body) }),
    }
    return await Promise.all([
      asked(theirs.url, { ...request, headers: [...request.headers, ...identity] }),
      asked(ours.url, toUs),
    ])
  }

  const learn = (theirId: string, ourId: string): void => {
    if (theirId === ourId) return
    here.set(theirId, ourId)
    there.set(ourId, theirId)
  }
  const sides = [
    { name: 'there', read: reader(theirs.url, identityHeaders(CALLERS.admin)), idOf: (id: string) => id },
    {
      name: 'here',
      read: reader(ours.url, { 'X-Auth-Token': CALLERS.admin }),
      idOf: (id: string) => here.get(id) ?? id,
    },
  ] as const
  const endless: string[] = []
  /** What each side comes to; what never comes is a problem of the run, and undefined. */
  const onBoth = <T>(find: (read: Read, idOf: (id: string) => string) => Promise<T>) =>
    Promise.all(
      sides.map(({ name, read, idOf }) =>
        find(read, idOf).catch((error: unknown) => void endless.push(`${name}: ${String(error)}`)),
      ),
    )

  return {
    endless,
    settle: async ({ image, task, cached }) => {
      if (cached !== undefined) await onBoth((read, idOf) => copied(read, idOf(cached)))
      if (task !== undefined) {
        const found = await onBoth((read, idOf) => finishedTask(read, idOf(task)))
        const [theirImage, ourImage] = found.map((each) => each?.result?.image_id)
        if (theirImage !== undefined && ourImage !== undefined) learn(theirImage, ourImage)
        return { tasks: [], image: theirImage }
      }
      if (image === undefined) return { tasks: [] }
      const [left = [], right = []] = await onBoth((read, idOf) => finishedTasks(read, idOf(image)))
      const fresh = left.filter((id) => !here.has(id))
      const freshHere = right.filter((id) => !there.has(id))
      for (const [index, id] of fresh.entries()) learn(id, freshHere[index] ?? id)
      return { tasks: fresh }
    },
    compare: async (asked) => {
      const [left, right] = await send(asked)
      const json = parsed(left)
      const [theirId, ourId] = [json, parsed(right)].map((each) => each?.['id'])
      if (left.status === 201 && right.status === 201 && typeof theirId === 'string' && typeof ourId === 'string')
        learn(theirId, ourId)
      asked.learn?.(left.status, json)
      const text = JSON.stringify(asked.request)
      const details = differences(
        { answer: left, names: { host: hosts.theirs, dir: theirs.dir, aliases: new Map() } },
        { answer: right, names: { host: hosts.ours, dir: ours.dir, aliases: there } },
        text,
      )
      return { status: left.status, details }
    },
    both: async (method, target, body, type = 'application/json') => {
      const message =
        body === undefined
          ? { headers: [] }
          : { headers: [['Content-Type', type] as const], body: JSON.stringify(body) }
      await send({ as: 'admin', route: 'none', request: { method, target, ...message } })
    },
  }
}

/** An answer that breaks off is one, too: its status is 0. */
const asked = (url: string, request: Request): Promise<Response> =>
  ask(url, request, AbortSignal.timeout(60_000)).catch((error: unknown) => ({
    status: 0,
    reason: '',
    headers: [],
    body: String(error),
  }))

function parsed({ body }: Response): Readonly<Record<string, unknown>> | undefined {
  try {
    const value: unknown = JSON.parse(body ?? '')
    return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : undefined
  } catch {
    return undefined
  }
}

/** The document below `/v2`; undefined where there is none. */
type Read = (target: string) => Promise<Readonly<Record<string, unknown>> | undefined>

const reader =
  (url: string, headers: Readonly<Record<string, string>>): Read =>
  async (target) => {
    const answer = await fetch(`${url}/v2${target}`, { headers })
    return answer.ok ? ((await answer.json()) as Readonly<Record<string, unknown>>) : undefined
  }

interface ShownTask {
  readonly id: string
  readonly status: string
  readonly result?: { readonly image_id?: string } | null
}

/** Work on a few bytes takes a moment, on a busy machine some more; what takes longer never ends. */
const PATIENCE = { seconds: 60 }

const isOver = ({ status }: ShownTask): boolean => status === 'success' || status === 'failure'

async function finishedTask(read: Read, id: string): Promise<ShownTask> {
  let task: ShownTask | undefined
  await until(
    `the end of task ${id}`,
    async () => {
      task = (await read(`/tasks/${id}`)) as ShownTask | undefined
      return task !== undefined && isOver(task)
    },
    PATIENCE,
  )
  return task as ShownTask
}

/** Ids, when nothing goes on with the image any more. */
async function finishedTasks(read: Read, image: string): Promise<readonly string[]> {
  let tasks: readonly ShownTask[] = []
  await until(
    `the end of the tasks of image ${image}`,
    async () => {
      tasks = ((await read(`/images/${segment(image)}/tasks`))?.['tasks'] ?? []) as readonly ShownTask[]
      return tasks.every(isOver) && (await read(`/images/${segment(image)}`))?.['status'] !== 'importing'
    },
    PATIENCE,
  ).catch((error: unknown) => {
    throw new Error(`${String(error)}: ${JSON.stringify(tasks)}`, { cause: error })
  })
  return tasks.map(({ id }) => id)
}

async function copied(read: Read, image: string): Promise<void> {
  await until(
    `the copy of image ${image} in the cache`,
    async () => {
      const { cached_images = [], queued_images = [] } = ((await read('/cache')) ?? {}) as {
        cached_images?: readonly { readonly image_id: string }[]
        queued_images?: readonly string[]
      }
      return cached_images.some(({ image_id }) => image_id === image) && !queued_images.includes(image)
    },
    PATIENCE,
  )
}
