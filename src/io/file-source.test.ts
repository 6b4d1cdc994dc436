import assert from 'node:assert/strict'
import { type EventEmitter, once } from 'node:events'
import { mkdtemp, open, rm, truncate, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, it, type TestContext } from 'node:test'
import { hasKind } from '../domain/errors.ts'
import { fileSource, openBuffers } from './file-source.ts'

const KIB = 1024
const MIB = 1024 * KIB

async function openTemp(t: TestContext, size: number) {
  const dir = await mkdtemp(join(tmpdir(), 'file-source-'))
  t.after(() => rm(dir, { recursive: true }))
  const path = join(dir, 'data')
  await writeFile(path, '')
  await truncate(path, size)
  return { path, file: await open(path) }
}

const isClosed = async (file: { readonly fd: number }) => assert.equal(file.fd, -1)

describe('fileSource()', () => {
  it('reads larger blocks for a quick consumer, and small ones without reading ahead for a slow one', async (t) => {
    const { file } = await openTemp(t, 256 * MIB)
    let now = 0
    t.mock.method(performance, 'now', () => now)
    const taken: number[] = []
    const plain = openBuffers()
    const buffers = {
      ...plain,
      take: (size: number) => {
        taken.push(size)
        return plain.take(size)
      },
    }
    const reader = fileSource(file, { offset: 0, length: 256 * MIB }, new AbortController().signal, buffers)[
      Symbol.asyncIterator
    ]()
    const sizes: number[] = []
    const consume = async (chunks: number, ms: number) => {
      for (let index = 0; index < chunks; index++) {
        sizes.push((await reader.next()).value?.length ?? 0)
        now += ms
      }
    }
    await consume(1, 1)
    assert.equal(sizes.at(-1), 64 * KIB)
    await consume(30, 1)
    assert.equal(sizes.at(-1), 64 * KIB, 'the first two MiB are no proof of a quick consumer')
    await consume(140, 1)
    assert.equal(sizes.at(-1), MIB)
    await consume(8, 1000)
    assert.equal(sizes.at(-1), 64 * KIB)
    const before = taken.length
    await consume(3, 1000)
    assert.equal(taken.length - before, 3, 'a block is read ahead of a slow consumer')
    await reader.return?.()
    await isClosed(file)
  })

  it('uses the same buffers again for a whole file', async (t) => {
    const { file } = await openTemp(t, 4 * MIB)
    const memory = new Set<ArrayBufferLike>()
    for await (const chunk of fileSource(
      file,
      { offset: 0, length: 4 * MIB },
      new AbortController().signal,
      openBuffers(),
    )) {
      memory.add(chunk.buffer)
    }
    assert.ok(memory.size <= 4, `${memory.size} buffers`)
    await isClosed(file)
  })

  it('does not use the chunk again that a leaving reader may still be sending', async (t) => {
    const { file, path } = await openTemp(t, MIB)
    const buffers = openBuffers()
    const signal = new AbortController().signal
    const reader = fileSource(file, { offset: 0, length: MIB }, signal, buffers)[Symbol.asyncIterator]()
    const { value: held } = await reader.next()
    await reader.return?.()
    for await (const chunk of fileSource(await open(path), { offset: 0, length: MIB }, signal, buffers)) {
      assert.notEqual(chunk.buffer, held?.buffer)
    }
  })

  it('closes the file when nobody ever reads and the signal is aborted', async (t) => {
    const { file } = await openTemp(t, MIB)
    const stop = new AbortController()
    const closed = once(file as unknown as EventEmitter, 'close')
    fileSource(file, { offset: 0, length: MIB }, stop.signal, openBuffers())
    stop.abort()
    await closed
  })

  it('ends as unavailable when the file turns out to be shorter', async (t) => {
    const { file, path } = await openTemp(t, MIB)
    const source = fileSource(file, { offset: 0, length: MIB }, new AbortController().signal, openBuffers())
    await truncate(path, 100 * KIB)
    await assert.rejects(
      async () => {
        for await (const _chunk of source);
      },
      (error) => hasKind(error, 'unavailable'),
    )
    await isClosed(file)
  })
})
