import { Readable } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import { Agent, request } from 'undici'
import { contentOf, randomFrom } from './content.ts'

/** What the service confirmed, and what it was asked for without an answer, since the books were opened. */
export interface Books {
  /** Images whose upload was answered with 204: their data must be there. */
  readonly uploaded: Map<string, Buffer>
  /** Images that the client asked to delete: they may be gone. */
  readonly deleted: Set<string>
  /** Images whose creation was answered with 201. */
  readonly created: Set<string>
  /** Images whose import was answered with 202: sooner or later their data must be there. */
  readonly imported: Map<string, Buffer>
}

export const openBooks = (): Books => ({
  uploaded: new Map(),
  deleted: new Set(),
  created: new Set(),
  imported: new Map(),
})

/** Above so many images, the clients create no more: the test reads every byte of them after each round. */
const MANY = 60
const SIZES = [0, 1, 4096, 65_537, 1_048_576, 3_000_000]
const HEADERS = { 'content-type': 'application/json' }
const PATCH = { 'content-type': 'application/openstack-images-v2.1-json-patch' }

/**
 * Clients that create, upload, download, patch, tag and delete at random until `signal` says stop. What the service
 * answers must be right; that it does not answer is what the test is about.
 */
export async function load(url: string, seed: number, books: Books, signal: AbortSignal, clients = 4): Promise<void> {
  const agent = new Agent({ connections: clients * 2 })
  const wrong = new AbortController()
  const turn = { url, agent, books, signal: AbortSignal.any([signal, wrong.signal]) }
  const client = async (number: number): Promise<void> => {
    const random = randomFrom(seed * 1000 + number)
    for (let count = 0; !turn.signal.aborted; count += 1) {
      try {
        await act({ ...turn, random, name: `crash-${seed}-${number}-${count}` })
      } catch (error) {
        if (error instanceof WrongAnswer) throw error
        await sleep(5) // Its worker is dead; another one, or the next one, will answer.
      }
    }
  }
  try {
    await Promise.all(Array.from({ length: clients }, (_, number) => client(number)))
  } finally {
    wrong.abort()
    await agent.destroy()
  }
}

class WrongAnswer extends Error {}

interface Turn {
  readonly url: string
  readonly agent: Agent
  readonly random: ReturnType<typeof randomFrom>
  readonly books: Books
  readonly signal: AbortSignal
  readonly name: string
}

async function act(turn: Turn): Promise<void> {
  const { random, books } = turn
  const chance = random.below(100)
  const known = [...books.uploaded.keys()].filter((id) => !books.deleted.has(id))
  if (chance < 15 && books.imported.size < MANY) return await createAndImport(turn)
  if (known.length === 0 || (chance < 45 && known.length < MANY)) return await createAndUpload(turn)
  const id = random.pick(known)
  if (chance < 60) return await remove(turn, id)
  if (chance < 80) return await download(turn, id)
  if (chance < 90) return void (await call(turn, 'PUT', `/v2/images/${id}/tags/${turn.name}`, 204))
  const body = JSON.stringify([{ op: 'add', path: '/turn', value: turn.name }])
  await call(turn, 'PATCH', `/v2/images/${id}`, 200, { headers: PATCH, body })
}

async function createAndUpload(turn: Turn): Promise<void> {
  const { id, data } = await createAndSend(turn, 'file')
  turn.books.uploaded.set(id, data)
}

async function createAndImport(turn: Turn): Promise<void> {
  const { id, data } = await createAndSend(turn, 'stage')
  const body = JSON.stringify({ method: { name: 'glance-direct' } })
  await call(turn, 'POST', `/v2/images/${id}/import`, 202, { headers: HEADERS, body })
  turn.books.imported.set(id, data)
}

async function createAndSend(
  turn: Turn,
  to: 'file' | 'stage',
): Promise<{ readonly id: string; readonly data: Buffer }> {
  const { random, books, name } = turn
  const body = JSON.stringify({ name, disk_format: 'raw', container_format: 'bare' })
  const { id } = JSON.parse(await call(turn, 'POST', '/v2/images', 201, { headers: HEADERS, body })) as { id: string }
  books.created.add(id)
  const data = contentOf(name, random.pick(SIZES))
  const pieces = random.below(4)
  await call(turn, 'PUT', `/v2/images/${id}/${to}`, 204, {
    headers: { 'content-type': 'application/octet-stream' },
    body: pieces === 0 ? data : Readable.from(slowly(data, pieces, random.below(30))),
  })
  return { id, data }
}

/** So that a kill meets uploads under way. */
async function* slowly(data: Buffer, pieces: number, pauseMs: number): AsyncGenerator<Buffer> {
  const length = Math.ceil(data.length / pieces)
  for (let start = 0; start < data.length; start += length) {
    yield data.subarray(start, start + length)
    await sleep(pauseMs)
  }
}

async function download(turn: Turn, id: string): Promise<void> {
  const { statusCode, body } = await request(`${turn.url}/v2/images/${id}/file`, {
    dispatcher: turn.agent,
    signal: turn.signal,
  })
  const data = Buffer.from(await body.arrayBuffer())
  if (turn.books.deleted.has(id)) return
  if (statusCode !== 200) throw new WrongAnswer(`Download of ${id}: ${statusCode} ${data.toString()}`)
  if (!data.equals(turn.books.uploaded.get(id) as Buffer)) throw new WrongAnswer(`Download of ${id}: other bytes`)
}

async function remove(turn: Turn, id: string): Promise<void> {
  turn.books.deleted.add(id)
  await call(turn, 'DELETE', `/v2/images/${id}`, 204)
}

async function call(
  { url, agent, signal, books }: Turn,
  method: 'POST' | 'PUT' | 'PATCH' | 'DELETE',
  path: string,
  wanted: number,
  options: { readonly headers?: Record<string, string>; readonly body?: string | Buffer | Readable } = {},
): Promise<string> {
  const { statusCode, body } = await request(`${url}${path}`, { method, dispatcher: agent, signal, ...options })
  const text = await body.text()
  const mayBeGone = [...books.deleted].some((id) => path.includes(id))
  if (statusCode !== wanted && !(mayBeGone && [404, 409, 410].includes(statusCode)))
    throw new WrongAnswer(`${method} ${path}: ${statusCode} ${text}`)
  return text
}
