/**
 * Sends the same course of requests to the real Glance and to Glimpse, and compares every answer:
 *
 *     node test/acceptance/differential/run.ts
 *
 * DIFFERENTIAL_REQUESTS (2000) says how many, DIFFERENTIAL_SEED (1) which course. Needs tools/python-tools.sh glance.
 */
import { ask, type Request, type Response } from '../../support/golden.ts'
import { startServer, type TestServer } from '../../support/server.ts'
import { type Glance, identityHeaders, startGlance } from '../../support/servers/glance.ts'
import type { Verdict } from '../verdict.ts'
import { type Details, differences } from './compare.ts'
import { explained, KNOWN, type Known } from './differences.ts'
import { generatorsFor, worldOf } from './generate.ts'
import { TYPES } from './metadefs.ts'
import { emptyModel, type Model } from './model.ts'
import { random } from './random.ts'
import type { Asked } from './request.ts'
import { CALLERS } from './values.ts'

const CONFIG = {
  DEFAULT: { enabled_import_methods: '[]', enabled_backends: 'fast:file, cheap:file' },
  glance_store: { default_backend: 'fast' },
  fast: { store_description: 'fast file store' },
  cheap: { store_description: 'cheap file store' },
}

/** Requests of a course that comes by everything that is not rare, and of one that comes by all. */
const SHORT = 2000
const LONG = 20_000

export interface Course {
  readonly seed: number
  readonly requests: number
}

export const courseOf = (env: NodeJS.ProcessEnv): Course => ({
  seed: Number(env['DIFFERENTIAL_SEED'] ?? 1),
  requests: Number(env['DIFFERENTIAL_REQUESTS'] ?? SHORT),
})

export async function differential({ seed, requests }: Course): Promise<Verdict> {
  const theirs = await startGlance({ config: CONFIG })
  const ours = await startServer({ config: CONFIG })
  try {
    return await compareServers(theirs, ours, { seed, requests })
  } finally {
    await ours.close()
    await theirs.stop()
  }
}

async function compareServers(theirs: Glance, ours: TestServer, { seed, requests }: Course): Promise<Verdict> {
  const routes = new Set(await routesOf(ours))
  const model = emptyModel()
  const chance = random(seed)
  const world = worldOf(chance, model)
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
  for (let number = 1; number <= requests; number++) {
    const asked = chance.weighted(generators)(world)
    unasked.delete(asked.route)
    const { status, details } = await pair.compare(asked)
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
    if (reasons === undefined || details.some((detail) => detail.startsWith('status: ')))
      await forget(pair, model, asked)
  }
  for (const route of unasked) problems.push(`no request is for ${route}`)
  const unused = KNOWN.filter((each) => !used.has(each) && requests >= (each.rare ? LONG : SHORT))
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

  return {
    compare: async (asked) => {
      const [left, right] = await send(asked)
      const json = parsed(left)
      const [theirId, ourId] = [json, parsed(right)].map((each) => each?.['id'])
      if (
        left.status === 201 &&
        right.status === 201 &&
        typeof theirId === 'string' &&
        typeof ourId === 'string' &&
        theirId !== ourId
      ) {
        here.set(theirId, ourId)
        there.set(ourId, theirId)
      }
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

/** What the two do not agree about is removed from both, so that one difference is not met again and again. */
async function forget({ both }: Pair, model: Model, { touches }: Asked): Promise<void> {
  if (touches?.image !== undefined && touches.image !== '') {
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
