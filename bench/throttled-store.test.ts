import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { it } from 'node:test'
import { openThrottledStore } from './throttled-store.ts'

it('openThrottledStore() counts what it sends, whole or in part', async (t) => {
  const data = randomBytes(200_000)
  const store = await openThrottledStore(data, 1e9)
  t.after(() => store.close())

  const head = await fetch(store.url, { method: 'HEAD' })
  assert.deepEqual([head.status, head.headers.get('content-length'), store.sent()], [200, '200000', 0])

  const whole = await fetch(store.url)
  assert.ok(Buffer.from(await whole.arrayBuffer()).equals(data))
  assert.equal(store.sent(), 200_000)

  const part = await fetch(store.url, { headers: { range: 'bytes=150000-' } })
  assert.deepEqual([part.status, part.headers.get('content-range')], [206, 'bytes 150000-199999/200000'])
  assert.ok(Buffer.from(await part.arrayBuffer()).equals(data.subarray(150_000)))
  assert.equal(store.sent(), 250_000)
})

it('openThrottledStore() stops counting when its reader goes away', async (t) => {
  const store = await openThrottledStore(Buffer.alloc(64 * 2 ** 20), 1e9)
  t.after(() => store.close())
  const leaving = new AbortController()
  const answer = await fetch(store.url, { signal: leaving.signal })
  await answer.body?.getReader().read()
  leaving.abort()
  // Another whole answer after it: the first one has ended long before.
  await (await fetch(store.url)).arrayBuffer()
  const sent = store.sent()
  assert.ok(sent < 128 * 2 ** 20, `sent ${sent}`)
})
