/**
 * Sends the same course of requests to the real Glance and to Glimpse, and compares every answer:
 *
 *     node test/acceptance/differential/run.ts
 *
 * DIFFERENTIAL_REQUESTS (2000) says how many, DIFFERENTIAL_SEED (1) which course, DIFFERENTIAL_DATABASE (postgresql, or
 * sqlite) where both keep their records. Needs tools/python-tools.sh glance.
 */
import { startServer, type TestConfig, type TestServer } from '../../support/server.ts'
import { type Glance, startGlance } from '../../support/servers/glance.ts'
import { postgresAvailable, startPostgres } from '../../support/servers/sql.ts'
import type { Verdict } from '../verdict.ts'
import { type Database, explained, isStatus, KNOWN, type Known } from './differences.ts'
import { GENERATORS, type World, worldOf } from './generate.ts'
import { finale } from './imports.ts'
import { TYPES } from './metadefs.ts'
import { emptyModel, type Model } from './model.ts'
import { openPair, type Pair } from './pair.ts'
import { random } from './random.ts'
import type { Asked } from './request.ts'
import { startSource } from './source.ts'

/** Data may be fetched from `port` of the loopback, which Glance refuses unless it is told otherwise. */
const configOf = (port: number, connection: string | undefined): TestConfig => ({
  DEFAULT: {
    enabled_import_methods: '[glance-direct,web-download,copy-image]',
    enabled_backends: 'fast:file, cheap:file, web:http',
    image_cache_dir: 'cache',
    worker_self_reference_url: 'http://node-1:9292',
  },
  glance_store: { default_backend: 'fast' },
  fast: { store_description: 'fast file store' },
  cheap: { store_description: 'cheap file store' },
  import_filtering_opts: { allowed_hosts: '[127.0.0.1]', allowed_ports: `[${port}]` },
  paste_deploy: { flavor: 'keystone+cachemanagement' },
  ...(connection === undefined ? {} : { database: { connection } }),
})

/** Routes that nobody succeeds with, so that any answer will do. */
const REFUSING: ReadonlySet<string> = new Set([
  // Upstream has it to say that it may not be (405).
  'DELETE /tasks/:task_id',
])

/** Requests of a course that comes by everything that is not rare, and of one that comes by all. */
const SHORT = 2000
const LONG = 20_000

export interface Course {
  readonly seed: number
  readonly requests: number
  /** The real Glance loses tasks on SQLite now and then ("database is locked"). */
  readonly database: Database
}

export const courseOf = (env: NodeJS.ProcessEnv): Course => ({
  seed: Number(env['DIFFERENTIAL_SEED'] ?? 1),
  requests: Number(env['DIFFERENTIAL_REQUESTS'] ?? SHORT),
  database: env['DIFFERENTIAL_DATABASE'] === 'sqlite' ? 'sqlite' : 'postgresql',
})

/** Throws where PostgreSQL or the real Glance cannot be had. */
export async function differential(course: Course): Promise<Verdict> {
  await using undo = new AsyncDisposableStack()
  const source = await startSource()
  undo.defer(() => source.close())
  const database = await databases(course, undo)
  const theirs = await startGlance({ config: configOf(source.port, await database()) })
  undo.defer(() => theirs.stop())
  const ours = await startServer({ config: configOf(source.port, await database()) })
  undo.defer(() => ours.close())
  return await compareServers(theirs, ours, source.url, course)
}

/** Makes databases, one after the other; undefined is a file of the server that asks. */
async function databases({ database }: Course, undo: AsyncDisposableStack): Promise<() => Promise<string | undefined>> {
  if (database === 'sqlite') return async () => undefined
  const found = postgresAvailable()
  if (!found.ok) throw new Error(`${found.reason}; DIFFERENTIAL_DATABASE=sqlite does without`)
  const server = await startPostgres()
  undo.defer(() => server.stop())
  return () => server.database()
}

async function compareServers(
  theirs: Glance,
  ours: TestServer,
  source: string,
  { seed, requests, database }: Course,
): Promise<Verdict> {
  const model = emptyModel()
  const chance = random(seed)
  const world = worldOf(chance, model, source)
  const pair = openPair(theirs, ours)
  const types = TYPES.map((name) => ({ name }))
  await pair.both('POST', '/v2/metadefs/namespaces', { namespace: 'types', resource_type_associations: types })
  await pair.both('DELETE', '/v2/metadefs/namespaces/types')
  const used = new Set<Known>()
  const missing = new Set(await routesOf(ours))
  const problems: string[] = []
  let passed = 0
  let known = 0
  const next: Asked[] = []
  for (let number = 1; number <= requests; number++) {
    // What chance has not come by with success is asked for at the end.
    const wanted = new Set(number > requests * 0.9 ? [...missing].flatMap((route) => [route, makerOf(route)]) : [])
    if (number === requests - 1) next.splice(0, next.length, ...finale(world))
    const asked = next.shift() ?? draw(world, wanted)
    const { status, details } = await pair.compare(asked)
    if (status < 300 || REFUSING.has(asked.route)) missing.delete(asked.route)
    const begun = details.some(isStatus) ? undefined : asked.begins?.(status)
    if (begun !== undefined) {
      const made = await pair.settle(begun)
      model.tasks.push(...made.tasks)
      next.push(...(begun.follow?.(made) ?? []))
    }
    if (asked.spoils?.(status)) await forget(pair, model, asked)
    if (details.length === 0) {
      passed += 1
      continue
    }
    const reasons = explained(asked, details, database)
    if (reasons === undefined)
      problems.push([`request ${number} of seed ${seed}: ${shown(asked)}`, ...details].join('\n    '))
    else known += 1
    for (const reason of reasons ?? []) used.add(reason)
    if (reasons === undefined || details.some(isStatus) || reasons.some(({ spoils }) => spoils))
      await forget(pair, model, asked)
  }
  problems.push(...pair.endless)
  if (requests >= SHORT) for (const route of missing) problems.push(`no request succeeds with ${route}`)
  const unused = KNOWN.filter(
    (each) => !used.has(each) && requests >= (each.rare ? LONG : SHORT) && (each.on ?? database) === database,
  )
  problems.push(...unused.map(({ why }) => `on the list of differences, but not met: ${why}`))
  const title = `differential (Glance ${theirs.version}; ${known} answers differ as is known)`
  return { title, passed: passed + known, skipped: [], problems }
}

/** Another request as chance has it; where there are wanted routes, for one of them, if chance comes by any soon. */
function draw(world: World, wanted: ReadonlySet<string>): Asked {
  const any = () => world.random.weighted(GENERATORS)(world)
  if (wanted.size === 0) return any()
  let asked = any()
  for (let tries = 0; tries < 10_000 && !wanted.has(asked.route); tries++) asked = any()
  return asked
}

/** The route by which there comes to be what this one is about: whoever finds nothing there never succeeds. */
const makerOf = (route: string): string => route.replace(/^\w+/, 'POST').replace(/\/:\w+$/, '')

/** `METHOD /path` of every route that the service's document describes. */
async function routesOf({ url }: TestServer): Promise<readonly string[]> {
  const { paths } = (await (await fetch(`${url}/openapi.json`)).json()) as { paths: Record<string, object> }
  return Object.entries(paths).flatMap(([path, operations]) =>
    Object.keys(operations).map(
      (method) => `${method.toUpperCase()} ${path.slice('/v2'.length).replace(/\{(\w+)\}/g, ':$1')}`,
    ),
  )
}

/** What the two do not agree about is removed from both, so that one difference is not met again and again. */
async function forget({ both, settle }: Pair, model: Model, { touches }: Asked): Promise<void> {
  if (touches?.image !== undefined && touches.image !== '') {
    await settle({ image: touches.image })
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

const shown = ({ as, request: { method, target, headers, body } }: Asked): string =>
  `${as}: ${method} ${target.slice(0, 300)} ${headers.map((pair) => pair.join(': ')).join(', ')} ${body === undefined ? '' : body.slice(0, 600)}`

if (import.meta.main) {
  const { title, passed, problems } = await differential(courseOf(process.env))
  for (const problem of problems) console.log(problem)
  console.log(title)
  console.log(`differential: ${passed} passed, ${problems.length} failed`)
  process.exitCode = problems.length === 0 ? 0 : 1
}
