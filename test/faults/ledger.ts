import { createHash, randomUUID } from 'node:crypto'
import { setTimeout as delay } from 'node:timers/promises'
import { contentOf, randomFrom } from '../crash/content.ts'
import type { Client, Json } from './client.ts'

/** What clients were told, and what they asked for without an answer, about the images that each has to itself. */
export interface Ledger {
  /** Requests with a good answer. */
  answered(): number
  /** Requests that were refused for now, or had no answer. */
  refused(): number
  /** How the images differ from what was told. */
  wrongs(users: readonly Client[]): Promise<readonly string[]>
}

/** `maybe`: nobody said whether it was done. */
type Fact = 'done' | 'maybe'

interface Page {
  readonly id: string
  readonly name: string
  created: Fact
  deleted: Fact | undefined
  readonly tags: Map<string, Fact>
  readonly properties: Map<string, Fact>
  readonly members: Map<string, Fact>
  data: { readonly bytes: Buffer; fact: Fact; readonly by: 'upload' | 'import' } | undefined
}

interface OpenLedger extends Ledger {
  readonly pages: Page[]
  counts: { answered: number; refused: number }
}

/** So many images are looked at at a time. */
const LOOKERS = 16
/** A client that was refused does not come back at once. */
const PAUSE_MS = 20

const md5 = (data: Buffer): string => createHash('md5').update(data).digest('hex')

export function openLedger(): OpenLedger {
  const pages: Page[] = []
  const counts = { answered: 0, refused: 0 }
  return {
    pages,
    counts,
    answered: () => counts.answered,
    refused: () => counts.refused,
    wrongs: async ([user]) => {
      const wrongs: string[] = []
      const rest = pages.values()
      const look = async () => {
        for (const page of rest) wrongs.push(...(await wrongsOf(page, user as Client)))
      }
      await Promise.all(Array.from({ length: LOOKERS }, look))
      return wrongs
    },
  }
}

async function wrongsOf(page: Page, user: Client): Promise<readonly string[]> {
  const { id, name, tags, properties, members, data } = page
  const answer = await user.send('GET', `/v2/images/${id}`)
  if (answer.status === 404) {
    if (page.created === 'maybe' || page.deleted !== undefined) return []
    return [`image ${id} was created and is gone`]
  }
  if (page.deleted === 'done') return [`image ${id} was deleted and is there`]
  const image = (await answer.json()) as Json
  const friends = (await user.json('GET', `/v2/images/${id}/members`)) as { members: readonly { member_id: string }[] }
  const differs = (what: string, facts: ReadonlyMap<string, Fact>, present: readonly string[]) => [
    ...[...facts].flatMap(([key, fact]) =>
      fact === 'done' && !present.includes(key) ? [`${what} ${key} of image ${id} is lost`] : [],
    ),
    ...present.filter((key) => !facts.has(key)).map((key) => `${what} ${key} of image ${id} comes from nowhere`),
    ...(new Set(present).size === present.length ? [] : [`a ${what} of image ${id} is there twice`]),
  ]
  const mine = Object.keys(image).filter((key) => key.startsWith('p_'))
  return [
    ...(image['name'] === name && image['p_first'] === name ? [] : [`image ${id} is not whole`]),
    ...differs('tag', tags, image['tags'] as readonly string[]),
    ...differs('property', properties, mine),
    ...differs(
      'member',
      members,
      friends.members.map(({ member_id }) => member_id),
    ),
    ...(data?.fact === 'done' && image['checksum'] !== md5(data.bytes)
      ? [`the data of image ${id} (${data.by}) is lost: it is ${String(image['status'])}`]
      : []),
    ...(image['status'] === 'active' && image['checksum'] !== md5(data?.bytes ?? Buffer.alloc(0))
      ? [`image ${id} has other data`]
      : []),
  ]
}

/** A change of an image whose import has just moved it on: the client may look again. */
const isMoved = ({ status, url }: Response) => status === 409 && /\/v2\/images\/[^/]+$/.test(url)

class WrongAnswer extends Error {}

/** Clients that create and change images of their own, until `signal` says stop. Any answer must be a fair one. */
export async function load(
  users: readonly Client[],
  seed: number,
  label: string,
  ledger: OpenLedger,
  signal: AbortSignal,
  clients = 6,
): Promise<void> {
  const over = new AbortController()
  const until = AbortSignal.any([signal, over.signal])
  const client = async (number: number) => {
    const random = randomFrom(seed * 100 + number)
    const own: Page[] = []
    for (let n = 0; !until.aborted; n += 1) {
      const turn = { user: random.pick(users), random, own, ledger, name: `${label}-${number}-${n}` }
      await act(turn)
    }
  }
  try {
    await Promise.all(Array.from({ length: clients }, (_, number) => client(number)))
  } finally {
    over.abort()
  }
}

interface Turn {
  readonly user: Client
  readonly random: ReturnType<typeof randomFrom>
  readonly own: Page[]
  readonly ledger: OpenLedger
  readonly name: string
}

async function act(turn: Turn): Promise<void> {
  const { user, random, own, name } = turn
  const living = own.filter((page) => page.created === 'done' && page.deleted === undefined)
  const chance = random.below(100)
  if (living.length < 3 || chance < 15) return create(turn)
  const page = random.pick(living)
  const path = `/v2/images/${page.id}`
  if (chance < 30) return note(turn, page.tags, name, 204, () => user.send('PUT', `${path}/tags/${name}`))
  if (chance < 45)
    return note(turn, page.members, name, 200, () => user.send('POST', `${path}/members`, { member: name }))
  if (chance < 60) return note(turn, page.properties, `p_${name}`, 200, () => patch(user, page.id, `p_${name}`, name))
  if (chance < 85) return fill(turn, page, chance < 75 ? 'upload' : 'import')
  await told(
    turn,
    204,
    () => user.send('DELETE', path),
    (fact) => {
      page.deleted = fact
    },
  )
}

const patch = (user: Client, id: string, name: string, value: string) =>
  fetch(`${user.url}/v2/images/${id}`, {
    method: 'PATCH',
    headers: { 'x-auth-token': user.token, 'content-type': 'application/openstack-images-v2.1-json-patch' },
    body: JSON.stringify([{ op: 'add', path: `/${name}`, value }]),
  })

async function create(turn: Turn): Promise<void> {
  const { user, own, ledger, name } = turn
  const page: Page = {
    id: randomUUID(),
    name,
    created: 'maybe',
    deleted: undefined,
    tags: new Map([['first', 'maybe']]),
    properties: new Map([['p_first', 'maybe']]),
    members: new Map(),
    data: undefined,
  }
  own.push(page)
  ledger.pages.push(page)
  const formats = { disk_format: 'raw', container_format: 'bare', visibility: 'shared' }
  const body = { id: page.id, name, tags: ['first'], p_first: name, ...formats }
  await told(
    turn,
    201,
    () => user.send('POST', '/v2/images', body),
    (fact) => {
      page.created = fact
      page.tags.set('first', fact)
      page.properties.set('p_first', fact)
    },
  )
}

async function fill(turn: Turn, page: Page, by: 'upload' | 'import'): Promise<void> {
  if (page.data !== undefined) return
  const { user, name, random } = turn
  const data = { bytes: contentOf(name, random.pick([1, 4096, 300_000])), fact: 'maybe' as Fact, by }
  page.data = data
  if (by === 'upload') {
    await told(
      turn,
      204,
      () => user.put(page.id, 'file', data.bytes),
      (fact) => {
        data.fact = fact
      },
    )
    return
  }
  let staged: Fact = 'maybe'
  await told(
    turn,
    204,
    () => user.put(page.id, 'stage', data.bytes),
    (fact) => {
      staged = fact
    },
  )
  if ((staged as Fact) === 'maybe') return
  const body = { method: { name: 'glance-direct' } }
  await told(
    turn,
    202,
    () => user.send('POST', `/v2/images/${page.id}/import`, body),
    (fact) => {
      data.fact = fact
    },
  )
}

async function note(
  turn: Turn,
  facts: Map<string, Fact>,
  key: string,
  wanted: number,
  ask: () => Promise<Response>,
): Promise<void> {
  await told(turn, wanted, ask, (fact) => facts.set(key, fact))
}

/** Writes down what is asked for before, and what was answered after. */
async function told(
  { ledger: { counts } }: Turn,
  wanted: number,
  ask: () => Promise<Response>,
  write: (fact: Fact) => void,
): Promise<void> {
  write('maybe')
  const answer = await ask().catch(() => undefined)
  const text = await answer?.text().catch(() => '')
  if (answer?.status === wanted) {
    write('done')
    counts.answered += 1
  } else if (answer === undefined || answer.status === 503 || isMoved(answer)) {
    counts.refused += 1
    await delay(PAUSE_MS)
  } else throw new WrongAnswer(`${answer.url}: ${answer.status} instead of ${wanted}: ${text}`)
}
