import { isDeepStrictEqual } from 'node:util'
import type { Answer, Call, Client } from './client.ts'
import type { Caller, Site } from './site.ts'
import { CALLERS } from './site.ts'

/** What to look at: ids of everything that was ever made. */
export interface Known {
  readonly images: readonly string[]
  readonly tasks: readonly string[]
}

/** Answers by `caller METHOD path`. */
export type Survey = ReadonlyMap<string, Answer>

const EVERYBODY = Object.keys(CALLERS) as Caller[]

/** Lists of images; each is followed to its end. */
const LISTS = [
  '',
  '?limit=4',
  '?limit=5&sort=name:asc,created_at:desc',
  '?limit=7&sort_key=size&sort_dir=asc&size_min=1',
  '?limit=9&sort=updated_at:asc',
  '?sort=status:desc,id:asc',
  '?visibility=all&limit=6',
  '?visibility=community',
  '?visibility=shared&member_status=all',
  '?visibility=shared&member_status=pending',
  '?visibility=shared&member_status=rejected',
  '?visibility=private',
  '?os_hidden=true&visibility=community',
  '?status=in:queued,saving,importing,uploading',
  '?status=deactivated',
  '?tag=two%20words',
  '?tag=Gr%C3%B6%C3%9Fe',
  '?empty=',
  '?back=again',
  '?unicode=Gr%C3%BC%C3%9Fe%2C%20%D0%9F%D1%80%D0%B8%D0%B2%D0%B5%D1%82%2C%20%E7%94%BB%E5%83%8F%2C%20%EF%B7%BD',
  '?percent=100%25%20%25s%20%25(name)s',
  '?size_min=1&size_max=100000',
  '?protected=true',
  '?created_at=gt:2020-01-01T00:00:00Z&disk_format=raw',
  '?name=in:%22Ein%20%5C%22Name%5C%22%22,x',
]

/** Asks the service that is up for everything there is, as everybody. */
export async function survey(client: Client, { tokens: _, projects }: Site, known: Known): Promise<Survey> {
  const answers = new Map<string, Answer>()
  const look = async (as: Caller, path: string): Promise<Answer> => {
    const call: Call = { as, method: 'GET', path }
    const answer = await client.ask(call)
    answers.set(`${as} GET ${path}`, answer)
    return answer
  }
  const pages = async (as: Caller, first: string) => {
    for (let path: string | undefined = first; path !== undefined; ) {
      const next: unknown = ((await look(as, path)).body as { next?: unknown } | undefined)?.next
      path = typeof next === 'string' && !answers.has(`${as} GET ${next.slice(3)}`) ? next.slice(3) : undefined
    }
  }

  for (const as of EVERYBODY) {
    for (const list of LISTS) await pages(as, `/images${list}`)
    for (const id of known.images) {
      const { status, body } = await look(as, `/images/${id}`)
      await look(as, `/images/${id}/members`)
      if (status !== 200) continue
      await look(as, `/images/${id}/members/${projects.other}`)
      await look(as, `/images/${id}/tasks`)
      if (as !== 'owner' || (body as { owner?: string }).owner === projects.owner) await look(as, `/images/${id}/file`)
    }
    await pages(as, '/tasks?limit=3&sort_key=created_at&sort_dir=asc')
    for (const id of known.tasks) await look(as, `/tasks/${id}`)
    await namespaces(as)
    for (const path of ['/info/stores', '/info/import', '/info/usage', '/info/stores/detail']) await look(as, path)
  }
  return answers

  async function namespaces(as: Caller): Promise<void> {
    const { body } = await look(as, '/metadefs/namespaces?limit=1000')
    const all = (body as { namespaces?: { namespace: string }[] }).namespaces ?? []
    for (const { namespace } of all) {
      const path = `/metadefs/namespaces/${encodeURIComponent(namespace)}`
      const made = namespace.endsWith('::a name')
      if (as === 'admin' || made) await look(as, path)
      if (made)
        for (const part of ['objects', 'properties', 'tags', 'resource_types']) await look(as, `${path}/${part}`)
    }
    if (as === 'admin') await pages(as, '/metadefs/namespaces?limit=10')
    await look(as, '/metadefs/resource_types')
  }
}

/** One line for each thing that the second service says otherwise. */
export function disagreements(first: Survey, second: Survey): readonly string[] {
  const lines: string[] = []
  for (const key of new Set([...first.keys(), ...second.keys()])) {
    const [one, two] = [first.get(key), second.get(key)]
    if (one === undefined || two === undefined) lines.push(`${key}: asked for once`)
    else lines.push(...differing(key, settled(one), settled(two)))
  }
  return lines
}

/** Lists in which Glance promises no order; on a server they come as it finds them. */
const SETS = ['tags', 'tasks', 'objects', 'resource_types', 'resource_type_associations']

/** What is the same with both is made the same: the order of sets, and times, which Glimpse reads to the millisecond. */
function settled(value: unknown, key = ''): unknown {
  if (Array.isArray(value)) {
    const items = value.map((item) => settled(item))
    return SETS.includes(key) ? items.toSorted((a, b) => Number(nameOf(a) > nameOf(b)) - 0.5) : items
  }
  if (typeof value === 'string') return value.replace(/^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3})\d{3}$/, '$1')
  if (!isRecord(value)) return value
  return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, settled(item, name)]))
}

const nameOf = (item: unknown): string => String(isRecord(item) ? (item['name'] ?? item['id']) : item)

function differing(path: string, one: unknown, two: unknown): readonly string[] {
  if (isDeepStrictEqual(one, two)) return []
  if (Array.isArray(one) && Array.isArray(two) && one.length === two.length)
    return one.flatMap((item, index) => differing(`${path}[${index}]`, item, two[index]))
  if (isRecord(one) && isRecord(two))
    return [...new Set([...Object.keys(one), ...Object.keys(two)])].flatMap((name) =>
      differing(`${path} .${name}`, one[name], two[name]),
    )
  return [`${path}: ${brief(one)}, then ${brief(two)}`]
}

const isRecord = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

const brief = (value: unknown): string => String(JSON.stringify(value)).slice(0, 400)
