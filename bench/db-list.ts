/*
 * What pages of the list cost through the database interface, in catalogues of growing size:
 *   node bench/db-list.ts sqlite|postgresql|mysql [sizes, as 1000 10000 100000 1000000]
 *   PAGES=regular-expression          only these pages
 *   ROUNDS=60                         requests of each page, at each size in turn
 *   URLS=url,url                      databases that were filled before
 * Data is below TMPDIR and gone at the end. Prints medians and 99th percentiles in ms, and the ratios of the last
 * median and of the last quickest request to the first.
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { newImage } from '../src/db/conformance.ts'
import type { Database } from '../src/db/database.ts'
import { openDatabase } from '../src/db/sql/connect.ts'
import type { Kind } from '../test/support/catalogue.ts'
import { asQuery, BOUNDED, COMMON, deepMarker, RARE, SCOPES, SERVED, SORTED, type Who } from '../test/support/pages.ts'
import { openCatalogues } from './catalogues.ts'

const kind = (process.argv[2] ?? 'sqlite') as Kind
const sizes = process.argv.length > 3 ? process.argv.slice(3).map(Number) : [1000, 10_000, 100_000, 1_000_000]
const rounds = Number(process.env['ROUNDS'] ?? 60)
const wanted = new RegExp(process.env['PAGES'] ?? '')

const dir = mkdtempSync(join(tmpdir(), 'glimpse-lists-'))
const urls = process.env['URLS']?.split(',') ?? []
const catalogues = urls.length > 0 ? undefined : await openCatalogues(kind, dir)
const databases: { readonly images: number; readonly db: Database }[] = []
// A server is no reason for the process to wait.
const waiting = setInterval(() => undefined, 1000)
const close = async () => {
  for (const { db } of databases) await db.close()
  await catalogues?.stop()
  rmSync(dir, { recursive: true })
  clearInterval(waiting)
}

const seconds = async <T>(what: string, act: () => T | Promise<T>): Promise<T> => {
  const began = performance.now()
  const result = await act()
  console.log(`${what}: ${((performance.now() - began) / 1000).toFixed(1)} s`)
  return result
}

const open = async (images: number, known = ''): Promise<Database> => {
  const url = catalogues ? await seconds(`${images} images`, () => catalogues.filled(images)) : known
  return await openDatabase({ connection: url, sqlite_synchronous: false })
}

const at = (sorted: readonly number[], share: number) => sorted[Math.floor((sorted.length - 1) * share)] ?? Number.NaN
const figure = (ms: number) => ms.toFixed(ms < 10 ? 2 : 1).padStart(8)

/** Milliseconds of each call; sizes in turn, so that a slow moment of the machine meets them all. */
const measure = async (title: string, act: (db: Database, images: number) => Promise<() => Promise<unknown>>) => {
  const acts: (() => Promise<unknown>)[] = []
  const found: number[] = []
  for (const { db, images } of databases) acts.push(await act(db, images))
  const times: number[][] = databases.map(() => [])
  for (let round = -3; round < rounds; round += 1)
    for (const [n, call] of acts.entries()) {
      const began = performance.now()
      const page = await call()
      const took = performance.now() - began
      if (Array.isArray(page)) found[n] = page.length
      if (round >= 0) times[n]?.push(took)
      // A page that takes so long needs no more rounds.
      if (took > 500 && round > 3) round = rounds
    }
  const sorted = times.map((of) => of.toSorted((a, b) => a - b))
  const medians = sorted.map((of) => at(of, 0.5))
  const ratio = (medians.at(-1) ?? 0) / (medians[0] ?? 0)
  // What a busy machine adds is in none of the quickest.
  const least = (sorted.at(-1)?.[0] ?? 0) / (sorted[0]?.[0] ?? 0)
  const cells = sorted.map((of) => `${figure(at(of, 0.5))} ${figure(at(of, 0.99))}`)
  console.log(`${title.padEnd(64)} ${cells.join(' |')} | ${ratio.toFixed(2)} ${least.toFixed(2)} | ${found.join(' ')}`)
}

const list = async (who: Who, page: string, deep: boolean) => {
  const title = `${who} ?${page}${deep ? ' (deep)' : ''}`
  if (!wanted.test(title)) return
  await measure(title, async (db, images) => {
    const marker = deep ? await deepMarker(db, who, page, images) : undefined
    const query = { ...asQuery(page, images), marker }
    return () => db.images.list(query, SCOPES[who])
  })
}

try {
  for (const [n, images] of sizes.entries()) databases.push({ images, db: await open(images, urls[n]) })
  console.log(`p50 and p99 in ms at ${sizes.join(' | ')} images | last p50 / first, and of the quickest | images found`)
  for (const who of ['admin', 'large', 'small', 'stranger'] as const)
    for (const [about, pages] of Object.entries({ '': [''], SORTED, SERVED, RARE, COMMON, BOUNDED })) {
      if (about) console.log(about)
      for (const page of pages)
        for (const deep of about === '' || about === 'SORTED' ? [false, true] : [false]) await list(who, page, deep)
    }
  if (wanted.test('create')) await measure('create', async (db) => () => db.images.insert(newImage()))
} finally {
  await close()
}
