import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net'
import { describe, it, type TestContext } from 'node:test'
import { noCredentials, sharedSecret } from '../../src/auth/registry.ts'
import { newImage } from '../../src/db/conformance.ts'
import type { Database } from '../../src/db/database.ts'
import { openRemoteDatabase, type RemoteOptions } from '../../src/db/remote.ts'
import { newFile, openRaw } from '../../src/db/sql/fixtures.ts'
import { hasKind, type ServiceError } from '../../src/domain/errors.ts'
import type { LocationUri, ProjectId, StoreId } from '../../src/domain/ids.ts'
import { SECRET, startRegistry } from '../support/registry.ts'
import { type TestConfig, testDatabase } from '../support/server.ts'

interface Wire {
  readonly url: string
  /** Cuts the next so many connections when the first byte of an answer comes; the request has been served by then. */
  loseAnswers(count: number): void
  /** From now on, requests say `word` where they said `instead`, which is as long. */
  misspell(instead: string, word: string): void
  /** New connections are refused. */
  close(): Promise<void>
}

/** A line between a node and the registry that somebody trips over. */
async function wireTo(t: TestContext, url: string): Promise<Wire> {
  const { port } = new URL(url)
  let toLose = 0
  let spell = (text: string): string => text
  const sockets = new Set<Socket>()
  const server: Server = createServer((client) => {
    const upstream = connect(Number(port), '127.0.0.1')
    for (const socket of [client, upstream]) {
      sockets.add(socket)
      socket.on('error', () => undefined)
      socket.on('close', () => {
        sockets.delete(socket)
        client.destroy()
        upstream.destroy()
      })
    }
    client.on('data', (chunk) => upstream.write(Buffer.from(spell(chunk.toString('latin1')), 'latin1')))
    client.on('end', () => upstream.end())
    upstream.on('data', (chunk) => {
      if (toLose === 0) return client.write(chunk)
      toLose -= 1
      return client.destroy()
    })
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const close = async (): Promise<void> => {
    if (!server.listening) return
    server.close()
    for (const socket of sockets) socket.destroy()
    await once(server, 'close')
  }
  t.after(close)
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    loseAnswers: (count) => {
      toLose = count
    },
    misspell: (instead, word) => {
      spell = (text) => text.replaceAll(instead, word)
    },
    close,
  }
}

async function behindWire(
  t: TestContext,
  options: Partial<RemoteOptions> = {},
  config: TestConfig = {},
): Promise<{ readonly db: Database; readonly straight: Database; readonly wire: Wire; readonly file: string }> {
  const file = await newFile(t)
  const registry = await startRegistry(await testDatabase(`sqlite:///${file}`), config)
  const wire = await wireTo(t, registry.url)
  const credentials = sharedSecret(SECRET)
  const db = openRemoteDatabase({ url: wire.url, credentials, ...options })
  const straight = openRemoteDatabase({ url: registry.url, credentials })
  t.after(async () => {
    await db.close()
    await straight.close()
    await wire.close()
    await registry.close()
  })
  return { db, straight, wire, file }
}

const unavailable = (outcome?: string) => (error: unknown) =>
  hasKind(error, 'unavailable') && (error as ServiceError).detail['outcome'] === outcome

describe('a registry whose answers get lost', () => {
  it('makes a change once, however often it has to be asked', async (t) => {
    const { db, wire, straight } = await behindWire(t)
    const image = newImage()
    wire.loseAnswers(3)
    const created = await db.images.insert(image)
    assert.equal(created.id, image.id)
    const project = 'other' as ProjectId
    wire.loseAnswers(1)
    assert.equal((await db.members.add(image.id, project, -1)).member, project)
    wire.loseAnswers(1)
    await db.images.addTag(image.id, 'one', -1)
    wire.loseAnswers(2)
    await db.members.remove(image.id, project)
    assert.deepEqual(await straight.members.list(image.id), [])
    assert.deepEqual((await straight.images.get(image.id, { admin: true, project: undefined })).tags, ['one'])
  })

  it('says again what it refused', async (t) => {
    const { db, wire } = await behindWire(t)
    const image = newImage()
    await db.images.insert(image)
    wire.loseAnswers(1)
    await assert.rejects(db.images.insert(image), (error) => hasKind(error, 'conflict'))
    wire.loseAnswers(1)
    await assert.rejects(db.images.removeTag(image.id, 'none'), (error) => hasKind(error, 'not-found'))
  })

  it('forgets the claim of an image that was deleted meanwhile, once', async (t) => {
    const { db, straight, wire } = await behindWire(t)
    const image = newImage()
    await db.images.insert(image)
    const worker = { id: 'w', node: 'n', pid: 1, startedAt: 1 } as never as Parameters<Database['workers']['renew']>[0]
    const claim = { attempt: randomUUID(), imageId: image.id, worker: worker.id, store: 'fast' } as never as Parameters<
      Database['images']['claim']
    >[0]
    await db.images.claim(claim)
    await straight.images.remove(image.id, ['saving'])
    wire.loseAnswers(2)
    await assert.rejects(db.images.settle(claim, { status: 'active' }), (error) => hasKind(error, 'not-found'))
    assert.deepEqual(await straight.workers.claims(worker.id), [])
  })

  it('keeps no locations in clear where they are encrypted', async (t) => {
    const key = { metadata_encryption_key: '0123456789abcdef' }
    const { db, straight, wire, file } = await behindWire(t, {}, { DEFAULT: key })
    const image = newImage()
    await db.images.insert(image)
    const uri = 'http://user:password@host/image' as LocationUri
    wire.loseAnswers(1)
    const addLocations = [{ uri, store: 'web' as StoreId, metadata: {} }]
    const changed = await db.images.update(image.id, { addLocations }, ['queued'])
    assert.deepEqual(changed.locations, addLocations)
    const { locations } = await straight.images.get(image.id, { admin: true, project: undefined })
    assert.deepEqual(locations, addLocations)
    if (process.env['TEST_DATABASE'] !== undefined) return
    const rows = openRaw(t, file).prepare('select outcome from glimpse_requests').all()
    assert.ok(rows.length > 0)
    for (const { outcome } of rows) assert.doesNotMatch(String(outcome), /password|queued|outcome/)
  })

  it('answers reads all the same', async (t) => {
    const { db, wire } = await behindWire(t)
    wire.loseAnswers(2)
    assert.deepEqual(await db.workers.list(), [])
  })

  it('leaves open what became of a change when it stays away', async (t) => {
    const { db, straight, wire } = await behindWire(t, { lostPatienceMs: 100 })
    const image = newImage()
    wire.loseAnswers(1_000_000)
    await assert.rejects(db.images.insert(image), unavailable('unknown'))
    // It was made, once.
    assert.equal((await straight.images.get(image.id, { admin: true, project: undefined })).id, image.id)
  })

  it('is unavailable when nothing listens', async (t) => {
    const { db, wire } = await behindWire(t, { patienceMs: 50 })
    await wire.close()
    await assert.rejects(db.images.insert(newImage()), unavailable())
    await assert.rejects(db.workers.list(), unavailable())
  })

  it('makes a change once when it is asked for at the same time', async (t) => {
    const { straight, wire } = await behindWire(t)
    const image = newImage()
    await straight.images.insert(image)
    const id = randomUUID()
    const ask = (again: boolean) =>
      fetch(`${wire.url}/database/members.add`, {
        method: 'POST',
        headers: { 'x-glimpse-secret': SECRET, 'x-glimpse-request': id, ...(again ? { 'x-glimpse-again': '1' } : {}) },
        body: JSON.stringify([image.id, 'other', -1]),
      }).then(async (response) => [response.status, await response.json()])
    const answers = await Promise.all([ask(false), ask(true), ask(true), ask(true)])
    for (const answer of answers) assert.deepEqual(answer, answers[0])
    assert.equal(answers[0]?.[0], 200)
    assert.equal((await straight.members.list(image.id)).length, 1)
  })

  it('is not taken for a database without images when it does not know a method', async (t) => {
    const { db, wire } = await behindWire(t)
    wire.misspell('images.get', 'images.gut')
    await assert.rejects(db.images.get(newImage().id, { admin: true, project: undefined }), (error) =>
      hasKind(error, 'internal'),
    )
  })

  it('does not take a node without the secret', async (t) => {
    const { wire } = await behindWire(t)
    for (const credentials of [noCredentials, sharedSecret('of somebody else')]) {
      const db = openRemoteDatabase({ url: wire.url, credentials })
      await assert.rejects(db.workers.list(), unavailable())
      await db.close()
    }
  })
})
