import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { pipeline } from 'node:stream/promises'
import { until } from '../test/support/product.ts'
import { type Bench, eachSide, inTurn, WRITER } from './bench.ts'
import type { Side } from './sides.ts'
import { curl } from './transfers.ts'

/** Fills both databases up to `count` seeded images; never takes any out. */
export async function seedTo(bench: Bench, count: number): Promise<void> {
  if (bench.images >= count) return
  await eachSide(bench, async (side) => {
    await side.stop()
    const range = ['--start', String(bench.images), '-n', String(count)]
    const seed = spawn('/usr/bin/python3', [
      join(bench.kit, 'seed_db.py'),
      ...range,
      '--dialect',
      'sqlite',
      '--location-prefix',
      side.locations,
    ])
    const sqlite = spawn('sqlite3', ['-bail', side.database], { stdio: ['pipe', 'inherit', 'inherit'] })
    const ended = once(sqlite, 'exit')
    await pipeline(seed.stdout, sqlite.stdin)
    const [code] = await ended
    if (code !== 0) throw new Error(`Seeding ${side.name} ended with code ${code}`)
    await side.start()
  })
  bench.images = count
}

export function query(side: Side, sql: string): readonly { readonly id: string }[] {
  const db = new DatabaseSync(side.database, { readOnly: true, timeout: 5000 })
  try {
    return db.prepare(sql).all() as { id: string }[]
  } finally {
    db.close()
  }
}

/** While the side is stopped. */
export function execute(side: Side, sql: string): void {
  const db = new DatabaseSync(side.database)
  try {
    db.exec(sql)
  } finally {
    db.close()
  }
}

/** An active image of the tenant, so many places before the oldest one. */
export const seededImage = ({ glimpse }: Bench, offset = 0): string =>
  query(
    glimpse,
    `SELECT id FROM images WHERE owner = 'bench0' AND status = 'active' AND visibility = 'private'
      ORDER BY created_at, id LIMIT 1 OFFSET ${Math.floor(offset)}`,
  )[0]?.id ?? ''

export async function get(side: Side, path: string, token: string): Promise<string> {
  const response = await fetch(`${side.url}${path}`, { headers: { 'x-auth-token': token } })
  const text = await response.text()
  if (!response.ok) throw new Error(`${side.name}: GET ${path}: ${response.status} ${text}`)
  return text
}

export async function imageIds(side: Side, path: string, token: string): Promise<string> {
  const { images } = JSON.parse(await get(side, path, token)) as { images: { id: string }[] }
  return images.map(({ id }) => id).join()
}

export const createImages = (side: Side, count: number): Promise<readonly string[]> =>
  inTurn(count, () =>
    persist(`${side.name}: create`, async () => {
      const response = await fetch(`${side.url}/v2/images`, {
        method: 'POST',
        headers: { 'x-auth-token': WRITER, 'content-type': 'application/json' },
        body: JSON.stringify({ name: 'data', disk_format: 'raw', container_format: 'bare' }),
      })
      if (response.status !== 201) throw new Error(`${side.name}: create: ${response.status} ${await response.text()}`)
      return ((await response.json()) as { id: string }).id
    }),
  )

export const uploadOne = (side: Side, file: string): Promise<string> =>
  persist(`${side.name}: upload`, async () => {
    const [id = ''] = await createImages(side, 1)
    await curl(`${side.url}/v2/images/${id}/file`, WRITER, ['-X', 'PUT', '-T', file])
    return id
  })

/** Glance on SQLite answers 500 now and then, when two of its workers write at once: a client would come back. */
async function persist<T>(what: string, act: () => Promise<T>): Promise<T> {
  for (let left = 9; ; left -= 1) {
    try {
      return await act()
    } catch (error) {
      if (left === 0) throw error
      console.error(`bench: ${what}, once more: ${String(error).split('\n')[1] ?? String(error)}`)
    }
  }
}

export async function removeImages(side: Side, ids: readonly string[]): Promise<void> {
  const remove = async (id: string): Promise<boolean> => {
    const headers = { 'x-auth-token': WRITER }
    const response = await fetch(`${side.url}/v2/images/${id}`, { method: 'DELETE', headers })
    await response.arrayBuffer()
    return response.status === 204 || response.status === 404
  }
  // An upload that was cut off may still be ending.
  for (const id of ids) await until(`the deletion of ${id}`, () => remove(id))
}

export const thousands = (count: number): string => `${count / 1000}k images`
