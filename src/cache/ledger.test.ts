import assert from 'node:assert/strict'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { it } from 'node:test'
import { newFolder, newImage } from './fixtures.ts'
import { openLedger } from './ledger.ts'

const { id } = newImage(0)

it('an entry is ours, a living neighbour’s, far away, or an orphan', async (t) => {
  const path = join(await newFolder(t), 'ledger.db')
  const [here, there] = [await openLedger(path), await openLedger(path)]
  t.after(() => Promise.all([here.close(), there.close()]))
  await here.locked(async (book) => book.begin(id, 7, 'd'))
  const seen = (ledger: typeof here) => ledger.locked(async (book) => book.fills()[0])
  const entry = { imageId: id, size: 7, data: 'd', ours: true, orphaned: false, far: false, cancelled: false }
  assert.deepEqual(await seen(here), entry)
  assert.deepEqual(await seen(there), { ...entry, ours: false })
  const raw = new DatabaseSync(path)
  t.after(() => raw.close())
  const node = String(raw.prepare('SELECT node FROM jobs').get()?.['node'])
  const [boot] = node.split(' ')
  raw.prepare('UPDATE jobs SET node = ?').run(`${boot} pid:[1]`)
  assert.deepEqual(await seen(there), { ...entry, ours: false, far: true })
  raw.prepare('UPDATE jobs SET node = ?').run('another-boot pid:[1]')
  assert.deepEqual(await seen(there), { ...entry, ours: false, far: true, orphaned: true })
  raw.prepare('UPDATE jobs SET node = ?, pid = ?').run(node, 2 ** 22 + 1)
  assert.deepEqual(await seen(there), { ...entry, ours: false, orphaned: true })
})

it('nobody else has the book open, and who dies with it has written nothing', async (t) => {
  const path = join(await newFolder(t), 'ledger.db')
  const [here, there] = [await openLedger(path), await openLedger(path)]
  t.after(() => Promise.all([here.close(), there.close()]))
  let inside = 0
  const work = async () => {
    inside += 1
    assert.equal(inside, 1)
    await new Promise((resolve) => setTimeout(resolve, 5))
    inside -= 1
  }
  await Promise.all([here, there, here, there].map((ledger) => ledger.locked(work)))
  const failing = here.locked(async (book) => {
    book.begin(id, 1, 'd')
    throw new Error('killed')
  })
  await assert.rejects(failing, /killed/)
  assert.deepEqual(await there.locked(async (book) => book.fills()), [])
})

it('the queue is served by one process that lives', async (t) => {
  const path = join(await newFolder(t), 'ledger.db')
  const [here, there] = [await openLedger(path), await openLedger(path)]
  t.after(() => Promise.all([here.close(), there.close()]))
  const take = (ledger: typeof here) => ledger.locked(async (book) => book.takeTurn())
  assert.deepEqual([await take(here), await take(here), await take(there)], [true, true, false])
  await there.locked(async (book) => book.endTurn())
  assert.equal(await take(there), false)
  await here.locked(async (book) => book.endTurn())
  assert.equal(await take(there), true)
  const raw = new DatabaseSync(path)
  t.after(() => raw.close())
  raw.exec(`UPDATE jobs SET pid = ${2 ** 22 + 1}`)
  assert.equal(await take(here), true)
})
