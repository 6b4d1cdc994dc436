/**
 * kill -9 at random moments under a mixed load, of the whole service or of one worker, over and over.
 *   CRASH_ROUNDS=200 npm run crash     more rounds than `npm test` has
 *   CRASH_SEED=7                       another course of events
 */
import assert from 'node:assert/strict'
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { it } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { freePort, type Product, startProduct, tail, until } from '../support/product.ts'
import { randomFrom } from './content.ts'
import { type Books, load, openBooks } from './load.ts'
import { brokenPromises, type Home, leftovers } from './truth.ts'

const rounds = Number(process.env['CRASH_ROUNDS'] ?? 10)
const seed = Number(process.env['CRASH_SEED'] ?? 1)
const skip = process.platform === 'linux' ? false : 'processes are found in /proc'

it(`no image is lost or half written in ${rounds} rounds of kill -9 (seed ${seed})`, { skip }, async (t) => {
  const dir = await mkdtemp(join(tmpdir(), 'glimpse-crash-'))
  const home: Home = {
    database: join(dir, 'glance.sqlite'),
    images: join(dir, 'images'),
    staging: join(dir, 'staging'),
  }
  const port = await freePort()
  const log = join(dir, 'service.log')
  const config = join(dir, 'glance-api.conf')
  await mkdir(home.images)
  await writeFile(config, glanceApiConf(home, port))
  const start = (): Promise<Product> =>
    startProduct({ command: 'glance-api', args: ['--config-file', config], port, log })

  const random = randomFrom(seed)
  const books = openBooks()
  let product = await start()
  t.after(() => product.kill())
  for (let round = 1; round <= rounds; round += 1) {
    const end = new AbortController()
    const clients = load(product.url, seed * 10_000 + round, books, end.signal)
    // However slow the machine is: something was done in every round, and one thing of each kind in all of them.
    const before = doneIn(books)
    const isProgress = () => total(doneIn(books)) > total(before) && (round < rounds || !doneIn(books).includes(0))
    // A client that got a wrong answer ends the round at once, and with it the test.
    await Promise.race([clients, until('the load to do something', isProgress, { seconds: 120 })])
    await Promise.race([clients, sleep(50 + random.below(800))])
    const worker = random.pick(product.processes().slice(1).concat(product.pid))
    if (worker === product.pid) await product.kill()
    else {
      process.kill(worker, 'SIGKILL')
      await Promise.race([clients, sleep(random.below(200))])
    }
    end.abort()
    await clients
    assert.deepEqual(brokenPromises(home, books), [], `after the kill of round ${round}\n${tail(log)}`)
    if (worker === product.pid) product = await start()
    // What is left over in vain is named by the assertion.
    await until('recovery', () => leftovers(home, books).length === 0).catch(() => undefined)
    assert.deepEqual(leftovers(home, books), [], `after recovery in round ${round}\n${tail(log)}`)
    assert.deepEqual(brokenPromises(home, books), [], `after recovery in round ${round}\n${tail(log)}`)
  }
  assert.ok(!doneIn(books).includes(0), `the load did something: uploads, imports, deletes ${doneIn(books)}`)
  await product.stop()
  await rm(dir, { recursive: true })
})

/** Uploads, imports, deletes. */
const doneIn = ({ uploaded, imported, deleted }: Books) => [uploaded.size, imported.size, deleted.size]
const total = (numbers: readonly number[]) => numbers.reduce((sum, one) => sum + one, 0)

/** Without a flavor everybody is an administrator: the test is not about who may do what. */
const glanceApiConf = ({ database, images, staging }: Home, port: number): string => `[DEFAULT]
node_staging_uri = file://${staging}
enabled_import_methods = [glance-direct]
bind_host = 127.0.0.1
bind_port = ${port}
workers = 2
[database]
connection = sqlite:///${database}
[glance_store]
stores = file
default_store = file
filesystem_store_datadir = ${images}
[glimpse]
import_addresses = any
sweep_interval = 1
`
