import assert from 'node:assert/strict'
import { readdir } from 'node:fs/promises'
import { sweep } from '../../src/core/recovery.ts'
import { lapsed } from '../support/lapsed.ts'
import { until } from '../support/product.ts'
import type { TestServer } from '../support/server.ts'

export type Json = Readonly<Record<string, unknown>>
const ADMIN = 'root:p1:admin,member,reader'

/** Whose requests may fail: they give the answer. */
export interface Client {
  readonly url: string
  readonly token: string
  send(method: string, path: string, body?: Json): Promise<Response>
  /** Throws unless the answer is a good one. */
  json(method: string, path: string, body?: Json): Promise<Json>
  create(more?: Json): Promise<string>
  show(id: string): Promise<Json>
  put(id: string, to: 'file' | 'stage', data: Buffer | AsyncIterable<Uint8Array>): Promise<Response>
  data(id: string): Promise<Buffer>
  /** Asks for an import, and gives the id of its task. */
  begin(id: string, method: Json, more?: Json): Promise<string>
  /** The same, when it has ended. */
  import(id: string, method: Json, more?: Json): Promise<Json>
  /** The task when it has ended; users who are no administrators see it only by its image. */
  ended(task: string, image?: string): Promise<Json>
}

export function clientOf({ url }: { readonly url: string }, token = ADMIN): Client {
  const send: Client['send'] = (method, path, body) =>
    fetch(`${url}${path}`, {
      method,
      headers: { 'x-auth-token': token, 'content-type': 'application/json', accept: 'text/plain' },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    })
  const json: Client['json'] = async (method, path, body) => {
    const response = await send(method, path, body)
    const answer = await response.text()
    assert.ok(response.ok, `${method} ${path}: ${response.status} ${answer}`)
    return JSON.parse(answer) as Json
  }
  const tasksOf = async (id: string) =>
    ((await json('GET', `/v2/images/${id}/tasks`)) as { tasks: readonly Json[] }).tasks
  const begin: Client['begin'] = async (id, method, more = {}) => {
    const before = new Set((await tasksOf(id)).map((task) => task['id']))
    const response = await send('POST', `/v2/images/${id}/import`, { method, ...more })
    assert.equal(response.status, 202, await response.text())
    return String((await tasksOf(id)).find((task) => !before.has(task['id']))?.['id'])
  }
  const ended: Client['ended'] = async (id, image) => {
    let task: Json = {}
    await until('the end of the task', async () => {
      const ofImage = image === undefined ? undefined : await tasksOf(image)
      task = ofImage?.find((one) => one['id'] === id) ?? (await json('GET', `/v2/tasks/${id}`))
      return ['success', 'failure'].includes(String(task['status']))
    })
    return task
  }
  return {
    url,
    token,
    send,
    json,
    create: async (more = {}) =>
      String((await json('POST', '/v2/images', { disk_format: 'raw', container_format: 'bare', ...more }))['id']),
    show: (id) => json('GET', `/v2/images/${id}`),
    put: (id, to, data) =>
      fetch(`${url}/v2/images/${id}/${to}`, {
        method: 'PUT',
        headers: { 'x-auth-token': token, 'content-type': 'application/octet-stream', accept: 'text/plain' },
        body: data,
        duplex: 'half',
      } as RequestInit),
    data: async (id) => Buffer.from(await (await send('GET', `/v2/images/${id}/file`)).arrayBuffer()),
    begin,
    import: async (id, method, more) => ended(await begin(id, method, more), id),
    ended,
  }
}

/** Every property of an image by which a client could tell that something has been tried. */
export function essence(image: Json): Json {
  const { updated_at: _, os_glance_importing_to_stores: __, os_glance_failed_import: ___, ...rest } = image
  return rest
}

/** Files below a folder. */
export const filesIn = async (folder: string): Promise<readonly string[]> =>
  (await readdir(folder, { recursive: true, withFileTypes: true }))
    .filter((entry) => entry.isFile())
    .map(({ name }) => name)

/** Nothing is under way in the service any more, and nothing of it is left. */
export async function assertAtRest({ app: { core } }: TestServer, folders: readonly string[] = []): Promise<void> {
  await until('the end of all jobs', async () => {
    await sweep(core, lapsed)
    return (await core.db.jobs.list(core.worker.id)).length === 0
  })
  assert.deepEqual(await core.db.workers.claims(core.worker.id), [])
  for (const folder of folders) {
    const nothing = async () => (await filesIn(folder)).length === 0
    await until(`an empty ${folder}`, nothing, { seconds: 10 }).catch(() => undefined)
    assert.deepEqual(await filesIn(folder), [])
  }
}
