/**
 * Glimpse takes over a deployment that the real Glance made, and gives it back:
 *
 *     node test/acceptance/takeover/run.ts [sqlite|mysql|postgresql …]
 *
 * Both are started by the same glance-api.conf, one after the other. Each makes images of every kind and goes on with
 * what the other made; after each change of service every image, member, task and definition is read as three callers,
 * and the answers must be those of before. Needs tools/python-tools.sh glance, Keystone and the database servers.
 */
import { setTimeout as delay } from 'node:timers/promises'
import { until } from '../../support/product.ts'
import type { Verdict } from '../verdict.ts'
import { clientOf } from './client.ts'
import { goOnWith } from './go-on.ts'
import { type DatabaseKind, openSite, type Service } from './site.ts'
import { startWeb } from './source.ts'
import { makeStock, type Stock, type World } from './stock.ts'
import { disagreements, type Known, type Survey, survey } from './survey.ts'

/** What differs between the sites beside the database. */
const SITES: Readonly<Record<DatabaseKind, Readonly<Record<string, string>>>> = {
  sqlite: { metadata_encryption_key: '0123456789abcdef', delayed_delete: 'True' },
  mysql: { metadata_encryption_key: '0123456789abcdefghijklmn' },
  postgresql: {},
}

export async function takeover(database: DatabaseKind): Promise<Verdict> {
  const web = await startWeb()
  const site = await openSite({ database, options: SITES[database], webPort: web.port })
  const course = courseOf({ site, web, client: clientOf(site) })
  try {
    await run(course)
  } catch (error) {
    course.problems.push(error instanceof Error ? (error.stack ?? String(error)) : String(error))
  } finally {
    await course.end()
    await web.close()
    const keep = course.problems.length > 0
    if (keep) course.problems.push(`Logs are kept in ${site.dir}`)
    await site.close(keep)
  }
  const { problems, passed } = course
  return { title: `takeover and return on ${database}`, passed: passed(), skipped: [], problems }
}

type Course = ReturnType<typeof courseOf>

function courseOf(world: World) {
  const { site, client } = world
  const problems: string[] = []
  const made: Stock[] = []
  /** Of unfinished work. */
  const others: string[] = []
  let service: Service | undefined
  let passed = 0
  const known = (): Known => ({
    images: [...made.flatMap(({ images }) => Object.values(images)), ...others],
    tasks: made.flatMap(({ tasks }) => tasks),
  })
  return {
    ...world,
    problems,
    passed: () => passed,
    others,
    start: async (which: 'glance' | 'glimpse') => {
      service = await site[which]()
    },
    stop: async () => {
      await service?.stop()
      service = undefined
    },
    kill: async () => {
      await service?.kill()
      service = undefined
    },
    end: async () => {
      await service?.kill()
    },
    make: async (label: string): Promise<Stock> => {
      const stock = await makeStock(world, label)
      made.push(stock)
      return stock
    },
    look: () => survey(client, site, known()),
    compare: (title: string, before: Survey, after: Survey) => {
      const found = disagreements(before, after)
      problems.push(...found.map((line) => `${title}: ${line}`))
      passed += Math.max(0, after.size - found.length)
    },
    expect: (what: string, holds: boolean, detail: unknown = '') => {
      if (holds) passed += 1
      else problems.push(`${what}: ${JSON.stringify(detail)}`)
    },
  }
}

async function create({ client, others }: Course, name: string): Promise<string> {
  const body = { name, disk_format: 'raw', container_format: 'bare' }
  const id = String((await client.must(201, { as: 'owner', method: 'POST', path: '/images', body }))['id'])
  others.push(id)
  return id
}

/** Leaves an upload unfinished: kill -9 cuts it off. */
async function dieUploading(course: Course): Promise<string> {
  const id = await create(course, 'half uploaded')
  const { end } = await course.client.beginUpload(id)
  // Whatever is written at once is written by then.
  await delay(500)
  await course.kill()
  await end()
  return id
}

/** Leaves an import unfinished as well. */
async function dieAtWork(course: Course): Promise<{ readonly upload: string; readonly fetch: string }> {
  const { client, web } = course
  const fetch = await create(course, 'half fetched')
  const method = { name: 'web-download', uri: `${web.url}/held/${fetch}` }
  await client.must(202, { as: 'owner', method: 'POST', path: `/images/${fetch}/import`, body: { method } })
  await client.becomes(fetch, 'importing')
  return { upload: await dieUploading(course), fetch }
}

async function run(course: Course): Promise<void> {
  const { client, site, web, start, stop, look, compare, expect } = course

  await start('glance')
  const theirs = await course.make('theirs')
  const theirsCut = await dieAtWork(course)
  await start('glance')
  const asTheyLeft = await look()
  await stop()

  await start('glimpse')
  compare('Glimpse after Glance', asTheyLeft, await look())
  await goOnWith(course, theirs)
  const ours = await course.make('ours')
  const oursCut = await dieAtWork(course)
  web.release()
  await start('glimpse')
  await until('the recovery of an upload', async () => (await client.image(oursCut.upload))['status'] === 'queued')
  await client.becomes(oursCut.fetch, 'active')
  const asWeLeft = await look()
  await stop()

  await start('glance')
  compare('Glance after Glimpse', asWeLeft, await look())
  await goOnWith(course, ours)
  const atTheEnd = await look()
  await stop()

  await start('glimpse')
  compare('Glimpse after Glance again', atTheEnd, await look())
  await deleteAll(course, [...Object.values(ours.images), ...course.others])
  const lost = await dieUploading(course)
  await start('glance')
  expect('an upload that nobody finishes', (await client.image(lost))['status'] === 'saving')
  await deleteAll(course, await everything(course))
  await stop()
  await site.tool('glance-scrubber')
  // It tidies up after itself, though it has been away.
  await start('glimpse')
  await stop()
  await expectNothingLeft(course, [theirsCut.upload, theirsCut.fetch])
}

/** But for what a killed Glance had written of these images, which stays where it is. */
async function expectNothingLeft({ site, expect }: Course, cut: readonly string[]): Promise<void> {
  const files = (await site.files()).filter((file) => !cut.some((id) => file.includes(id)))
  expect('data of nobody', files.length === 0, files)
  for (const table of ['glimpse_claims', 'glimpse_jobs']) {
    const [[rows] = []] = await site.sql(`select count(*) from ${table}`)
    expect(`rows of ${table}`, rows === '0', rows)
  }
  // The scrubber of upstream tries for ever to remove what is on the web.
  const waiting = await site.sql(`select image_id, value, status, meta_data from image_locations
    where status <> 'deleted' and meta_data not like '%web%'`)
  expect('locations of deleted images', waiting.length === 0, waiting)
}

/** Ids of all images that an administrator sees. */
async function everything({ client }: Course): Promise<readonly string[]> {
  const lists = ['?limit=1000&visibility=all', '?limit=1000&visibility=all&os_hidden=true']
  const found = lists.map(async (list) => {
    const { images } = await client.must(200, { as: 'admin', method: 'GET', path: `/images${list}` })
    return (images as { id: string }[]).map(({ id }) => id)
  })
  return (await Promise.all(found)).flat()
}

async function deleteAll({ client, expect }: Course, ids: readonly string[]): Promise<void> {
  for (const id of ids) {
    const path = `/images/${id}`
    const { status } = await client.ask({ as: 'admin', method: 'GET', path })
    if (status === 404) continue
    // With delayed_delete, upstream does not delete what is deactivated, and its scrubber finds none of the community's.
    const free = { protected: false, visibility: 'private' }
    const body = Object.entries(free).map(([name, value]) => ({ op: 'replace', path: `/${name}`, value }))
    await client.ask({ as: 'admin', method: 'PATCH', path, body })
    await client.ask({ as: 'admin', method: 'POST', path: `${path}/actions/reactivate` })
    const answer = await client.ask({ as: 'admin', method: 'DELETE', path })
    expect(`the end of image ${id}`, answer.status === 204, answer)
  }
}

const KINDS: readonly DatabaseKind[] = ['mysql', 'postgresql']

/** One after the other. */
export async function takeovers(kinds: readonly DatabaseKind[] = KINDS): Promise<readonly Verdict[]> {
  const verdicts: Verdict[] = []
  for (const kind of kinds) verdicts.push(await takeover(kind))
  return verdicts
}

if (import.meta.main) {
  const kinds = process.argv.slice(2) as DatabaseKind[]
  const verdicts = await takeovers(kinds.length > 0 ? kinds : KINDS)
  for (const { title, passed, problems } of verdicts) {
    for (const problem of problems) console.log(problem)
    console.log(`${title}: ${passed} passed, ${problems.length} failed`)
  }
  process.exitCode = verdicts.every(({ problems }) => problems.length === 0) ? 0 : 1
}
