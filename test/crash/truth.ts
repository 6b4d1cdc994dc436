import { createHash } from 'node:crypto'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { fileURLToPath } from 'node:url'
import type { Books } from './load.ts'

export interface Home {
  readonly database: string
  /** The data folder of the file store. */
  readonly images: string
  /** Where data waits to be imported. */
  readonly staging: string
}

interface ImageRow {
  readonly id: string
  readonly status: string
  readonly size: number | null
  readonly checksum: string | null
  readonly os_hash_value: string | null
  readonly uri: string | null
}

/** Images that are not deleted, each once for every location it has. */
const IMAGES = `SELECT i.id, i.status, i.size, i.checksum, i.os_hash_value, l.value AS uri FROM images i
  LEFT JOIN image_locations l ON l.image_id = i.id AND l.deleted = 0 WHERE i.deleted = 0`

function query<Row>(file: string, sql: string): readonly Row[] {
  const db = new DatabaseSync(file, { readOnly: true, timeout: 5000 })
  try {
    return db.prepare(sql).all() as Row[]
  } finally {
    db.close()
  }
}

/** What must never be seen, not even between a crash and the recovery from it. */
export function brokenPromises({ database }: Home, books: Books): readonly string[] {
  const rows = query<ImageRow>(database, IMAGES)
  const found = new Map(rows.map((row) => [row.id, row]))
  const damaged = rows.filter(({ status }) => status === 'active').flatMap(damage)
  // A delete that was under way is no damage: it takes the row first, then the data.
  const active = new Set(damaged.length === 0 ? [] : query<ImageRow>(database, IMAGES).map(({ id }) => id))
  const kept = (ids: Iterable<string>): readonly string[] => [...ids].filter((id) => !books.deleted.has(id))
  return [
    ...damaged.filter(({ id }) => active.has(id)).map(({ problem }) => problem),
    ...kept(books.created)
      .filter((id) => !found.has(id))
      .map((id) => `image ${id} was created and is gone`),
    ...kept(books.uploaded.keys())
      .filter((id) => found.get(id)?.checksum !== md5(books.uploaded.get(id) as Buffer))
      .map((id) => `image ${id} was uploaded and is ${JSON.stringify(found.get(id))}`),
  ]
}

/** What must be gone once the service has recovered and nobody uploads. */
export function leftovers({ database, images, staging }: Home, { imported }: Books): readonly string[] {
  const rows = query<ImageRow>(database, IMAGES)
  const known = new Set(rows.flatMap(({ uri }) => (uri === null ? [] : [fileURLToPath(uri)])))
  const files = readdirSync(images, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile())
  const found = new Map(rows.map((row) => [row.id, row]))
  return [
    ...rows.filter(({ status }) => status === 'saving').map(({ id }) => `image ${id} is still saving`),
    ...files
      .map((entry) => join(entry.parentPath, entry.name))
      .filter((file) => !known.has(file))
      .map((file) => `file ${file} belongs to no image`),
    ...rows
      .filter(({ status, size }) => status === 'importing' || (status === 'uploading' && size === null))
      .map(({ id, status }) => `image ${id} is still ${status}`),
    ...[...imported]
      .filter(([id, data]) => found.get(id)?.checksum !== md5(data))
      .map(([id]) => `image ${id} was imported and is ${JSON.stringify(found.get(id))}`),
    ...readdirSync(staging)
      .filter((name) => found.get(name)?.status !== 'uploading')
      .map((name) => `file ${name} is staged, and no image waits for it`),
    ...query<object>(database, 'SELECT * FROM glimpse_jobs').map((job) => `job ${JSON.stringify(job)}`),
    ...query<object>(database, 'SELECT * FROM glimpse_claims').map((claim) => `claim ${JSON.stringify(claim)}`),
  ]
}

/** How the data of an active image differs from what its row says. */
function damage({ id, uri, size, checksum, os_hash_value }: ImageRow): { id: string; problem: string }[] {
  if (uri === null) return [{ id, problem: `image ${id} is active without a location` }]
  let data: Buffer
  try {
    data = readFileSync(fileURLToPath(uri))
  } catch (error) {
    return [{ id, problem: `image ${id} is active without data: ${String(error)}` }]
  }
  const sha512 = createHash('sha512').update(data).digest('hex')
  if (data.length === size && md5(data) === checksum && sha512 === os_hash_value) return []
  return [
    { id, problem: `image ${id} is active with ${data.length} bytes of ${size}, md5 ${md5(data)} for ${checksum}` },
  ]
}

const md5 = (data: Buffer): string => createHash('md5').update(data).digest('hex')
