/**
 * Sends the same course of requests to the real Glance and to Glimpse, and compares every answer:
 *
 *     node test/acceptance/differential/run.ts
 *
 * DIFFERENTIAL_REQUESTS (2000) says how many, DIFFERENTIAL_SEED (1) which course, DIFFERENTIAL_WORK=yes that imports,
 * staging, tasks and new locations are in it. Needs tools/python-tools.sh glance.
 */
import { ask, type Request, type Response } from '../../support/golden.ts'
import { until } from '../../support/product.ts'
import { startServer, type TestServer } from '../../support/server.ts'
import { type Glance, identityHeaders, startGlance } from '../../support/servers/glance.ts'
import type { Verdict } from '../verdict.ts'
import { type Details, differences } from './compare.ts'
import { explained, isStatus, KNOWN, type Known } from './differences.ts'
import { generatorsFor, worldOf } from './generate.ts'
import { TYPES } from './metadefs.ts'
import { emptyModel, type Model } from './model.ts'
import { random } from './random.ts'
import { type Asked, type Begun, segment } from './request.ts'
import { startSource } from './source.ts'
import { CALLERS } from './values.ts'

/** Data may be fetched from `port` of the loopback, which Glance refuses unless it is told otherwise. */
const configOf = (port: number) => ({
  DEFAULT: {
    enabled_import_methods: '[glance-direct,web-download,copy-image]',
    enabled_backends: 'fast:file, cheap:file, web:http',
  },
  glance_store: { default_backend: 'fast' },
  fast: { store_description: 'fast file store' },
  cheap: { store_description: 'cheap file store' },
  import_filtering_opts: { allowed_hosts: '[127.0.0.1]', allowed_ports: `[${port}]` },
})

/** Requests of a course that comes by everything that is not rare, and of one that comes by all. */
const SHORT = 2000
const LONG = 20_000

export interface Course {
  readonly seed: number
  readonly requests: number
  /**
   * Whether requests that begin work in the background are among them. Glance on SQLite loses such work now and then
   * ("database is locked"), so that a course with them is looked through by a person.
   */
  readonly work: boolean
}

export const courseOf = (env: NodeJS.ProcessEnv): Course => ({
  seed: Number(env['DIFFERENTIAL_SEED'] ?? 1),
  requests: Number(env['DIFFERENTIAL_REQUESTS'] ?? SHORT),
  work: env['DIFFERENTIAL_WORK'] === 'yes',
})

/** Routes whose requests go on after the answer. */
const isWork = (route: string): boolean =>
  /^(?:PUT \S+\/stage|POST \S+\/import|POST \S+\/locations|POST \/tasks)$/.test(route)

export async function differential(course: Course): Promise<Verdict> {
  const source = await startSource()
  const config = configOf(source.port)
  const theirs = await startGlance({ config })
  const ours = await startServer({ config })
  try {
    return await compareServers(theirs, ours, source.url, course)
  } finally {
    await ours.close()
    await theirs.stop()
    await source.close()
  }
}

async function compareServers(
  theirs: Glance,
  ours: TestServer,
  source: string,
  { seed, requests, work }: Course,
): Promise<Verdict> {
  const routes = new Set((await routesOf(ours)).filter((route) => work || !isWork(route)))
  const model = emptyModel()
  const chance = random(seed)
  const world = worldOf(chance, model, source)
  const generators = generatorsFor(routes)
  const pair = openPair(theirs, ours)
  const types = TYPES.map((name) => ({ name }))
  await pair.both('POST', '/v2/metadefs/namespaces', { namespace: 'types', resource_type_associations: types })
  await pair.both('DELETE', '/v2/metadefs/namespaces/types')
  const used = new Set<Known>()
  const unasked = new Set(routes)
  const problems: string[] = []
  let passed = 0
  let known = 0
  const next: Asked[] = []
  for (let number = 1; number <= requests; number++) {
    const asked = next.shift() ?? chance.weighted(generators)(world)
    unasked.delete(asked.route)
    const { status, details } = await pair.compare(asked)
    const begun = details.some(isStatus) ? undefined : asked.begins?.(status)
    if (begun !== undefined) {
      model.tasks.push(...(await pair.settle(begun)))
      next.push(...begun.follow)
    }
    if (asked.spoils?.(status)) await forget(pair, model, asked)
    if (details.length === 0) {
      passed += 1
      continue
    }
    const reasons = explained(asked, details)
    if (reasons === undefined)
      problems.push([`request ${number} of seed ${seed}: ${shown(asked)}`, ...details].join('\n    '))
    else known += 1
    for (const reason of reasons ?? []) used.add(reason)
    if (reasons === undefined || details.some(isStatus) || reasons.some(({ spoils }) => spoils))
      await forget(pair, model, asked)
  }
  problems.push(...pair.endless)
  if (requests >= LONG) for (const route of unasked) problems.push(`no request is for ${route}`)
  const unused = KNOWN.filter(
    (each) => !used.has(each) && requests >= (each.rare ? LONG : SHORT) && (work || !each.work),
  )
  problems.push(...unused.map(({ why }) => `on the list of differences, but not met: ${why}`))
  const title = `differential (Glance ${theirs.version}; ${known} answers differ as is known)`
  return { title, passed: passed + known, skipped: [], problems }
}

/** `METHOD /path` of every route that the service's document describes. */
async function routesOf({ url }: TestServer): Promise<readonly string[]> {
  const { paths } = (await (await fetch(`${url}/openapi.json`)).json()) as { paths: Record<string, object> }
  return Object.entries(paths).flatMap(([path, operations]) =>
    Object.keys(operations).map(
      (method) => `${method.toUpperCase()} ${path.slice('/v2'.length).replace(/\{(\w+)\}/g, ':$1')}`,
    ),
  )
}

interface Pair {
  /** `status` is that of the real Glance. */
  compare(asked: Asked): Promise<{ readonly status: number; readonly details: Details }>
  /** What was waited for in vain. */
  readonly endless: readonly string[]
  /** Resolves when what was begun is over on both sides; with the ids of tasks that were not known. */
  settle(begun: Begun): Promise<readonly string[]>
  /** As an admin, on both sides. */
  both(method: string, target: string, body?: unknown, type?: string): Promise<void>
}

function openPair(theirs: Glance, ours: TestServer): Pair {
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
  const reader = (url: string, headers: Readonly<Record<string, string>>) => async (target: string) => {
    const answer = await fetch(`${url}/v2${target}`, { headers })
    return answer.ok ? ((await answer.json()) as Readonly<Record<string, unknown>>) : undefined
  }
  const readThere = reader(theirs.url, identityHeaders(CALLERS.admin))
  const readHere = reader(ours.url, { 'X-Auth-Token': CALLERS.admin })

  const endless: string[] = []
  const waited = <T>(side: string, end: Promise<T>): Promise<T | undefined> =>
    end.catch((error: unknown) => void endless.push(`${side}: ${String(error)}`))

  return {
    endless,
    settle: async ({ image, task }) => {
      if (task !== undefined) {
        const [left, right] = await Promise.all([
          waited('there', finishedTask(readThere, task)),
          waited('here', finishedTask(readHere, here.get(task) ?? task)),
        ])
        const [theirImage, ourImage] = [left, right].map((each) => each?.result?.image_id)
        if (theirImage !== undefined && ourImage !== undefined) learn(theirImage, ourImage)
        return []
      }
      if (image === undefined) return []
      const [left = [], right = []] = await Promise.all([
        waited('there', finishedTasks(readThere, image)),
        waited('here', finishedTasks(readHere, here.get(image) ?? image)),
      ])
      const fresh = left.filter((id) => !here.has(id))
      const freshHere = right.filter((id) => !there.has(id))
      for (const [index, id] of fresh.entries()) learn(id, freshHere[index] ?? id)
      return fresh
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

interface ShownTask {
  readonly id: string
  readonly status: string
  readonly result?: { readonly image_id?: string } | null
}
type Read = (target: string) => Promise<Readonly<Record<string, unknown>> | undefined>

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

/** An answer that breaks off is one, too: its status is 0. */
const asked = (url: string, request: Request): Promise<Response> =>
  ask(url, request, AbortSignal.timeout(60_000)).catch((error: unknown) => ({
    status: 0,
    reason: '',
    headers: [],
    body: String(error),
  }))

/** What the two do not agree about is removed from both, so that one difference is not met again and again. */
async function forget({ both, settle }: Pair, model: Model, { touches }: Asked): Promise<void> {
  if (touches?.image !== undefined && touches.image !== '') {
    await settle({ image: touches.image, follow: [] })
    const target = `/v2/images/${encodeURIComponent(touches.image.toWellFormed())}`
    const free = [{ op: 'replace', path: '/protected', value: false }]
    await both('PATCH', target, free, 'application/openstack-images-v2.1-json-patch')
    await both('DELETE', target)
    model.images.delete(touches.image)
  }
  for (const name of touches?.namespaces ?? []) {
    const target = `/v2/metadefs/namespaces/${encodeURIComponent(name.toWellFormed())}`
    await both('PUT', target, { namespace: name })
    await both('DELETE', target)
    model.namespaces.delete(name)
  }
}

function parsed({ body }: Response): Readonly<Record<string, unknown>> | undefined {
  try {
    const value: unknown = JSON.parse(body ?? '')
    return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : undefined
  } catch {
    return undefined
  }
}

const shown = ({ as, request: { method, target, headers, body } }: Asked): string =>
  `${as}: ${method} ${target.slice(0, 300)} ${headers.map((pair) => pair.join(': ')).join(', ')} ${body === undefined ? '' : body.slice(0, 600)}`

if (import.meta.main) {
  const { title, passed, problems } = await differential(courseOf(process.env))
  for (const problem of problems) console.log(problem)
  console.log(title)
  console.log(`differential: ${passed} passed, ${problems.length} failed`)
  process.exitCode = problems.length === 0 ? 0 : 1
}
