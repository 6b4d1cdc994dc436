import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import type { ByteSource } from './bytes.ts'
import { split } from './split.ts'

/** Fills one buffer again and again, as drivers do; `read` counts the chunks, `left` tells that it was released. */
function source(chunks: number) {
  const state = { read: 0, left: false }
  const buffer = Buffer.alloc(1)
  async function* bytes(): ByteSource {
    try {
      for (let at = 0; at < chunks; at++) {
        buffer[0] = at
        state.read++
        yield buffer
      }
    } finally {
      state.left = true
    }
  }
  return { bytes: bytes(), state }
}

async function collect(bytes: ByteSource, pauseMs = 0): Promise<readonly number[]> {
  const seen: number[] = []
  for await (const [first] of bytes) {
    await sleep(pauseMs)
    seen.push(first ?? -1)
  }
  return seen
}

describe('split()', () => {
  it('gives every reader all bytes, the slow ones too, though the source uses its buffer again', async () => {
    const { bytes, state } = source(5)
    const branches = split(bytes, 3)
    const seen = await Promise.all(branches.map((branch, index) => collect(branch, index * 3)))
    assert.deepEqual(seen, Array(3).fill([0, 1, 2, 3, 4]))
    assert.deepEqual(state, { read: 5, left: true })
  })

  it('asks for nothing before every reader is done with the last chunk', async () => {
    const { bytes, state } = source(5)
    const [one, other] = split(bytes, 2)
    assert.ok(one && other)
    const first = collect(one)
    await sleep(10)
    assert.equal(state.read, 0)
    const slow = other[Symbol.asyncIterator]()
    await slow.next()
    await sleep(10)
    assert.equal(state.read, 1)
    await other.leave()
    assert.deepEqual(await first, [0, 1, 2, 3, 4])
  })

  it('does not wait for a reader that left, before its first chunk or in the middle', async () => {
    const { bytes } = source(4)
    const [one, never, early] = split(bytes, 3)
    assert.ok(one && never && early)
    const all = collect(one)
    const some = (async () => {
      for await (const [first] of early) if (first === 1) return first
      return undefined
    })()
    await never.leave()
    assert.deepEqual(await Promise.all([all, some]), [[0, 1, 2, 3], 1])
  })

  it('releases the source when the last reader leaves', async () => {
    const { bytes, state } = source(4)
    const branches = split(bytes, 2)
    const iterators = branches.map((branch) => branch[Symbol.asyncIterator]())
    await Promise.all(iterators.map((iterator) => iterator.next()))
    for (const branch of branches) await branch.leave()
    assert.deepEqual(state, { read: 1, left: true })
  })

  it('tells every reader of an error, also one that asks later', async () => {
    async function* failing(): ByteSource {
      yield Buffer.from('a')
      throw new Error('torn')
    }
    const branches = split(failing(), 2)
    for (const result of await Promise.allSettled(branches.map((branch) => collect(branch)))) {
      assert.equal(result.status, 'rejected')
    }
    await assert.rejects(async () => branches[0]?.[Symbol.asyncIterator]().next(), /torn/)
  })
})
