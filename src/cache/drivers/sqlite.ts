import { join } from 'node:path'
import type { CachedImage } from '../../domain/cached-image.ts'
import type { ImageId } from '../../domain/ids.ts'
import type { CacheDriver, Copy } from '../driver.ts'
import { openLocalDatabase } from '../local-database.ts'

/** As upstream's node has it; times in seconds since 1970. */
const SCHEMA = `CREATE TABLE IF NOT EXISTS cached_images (image_id TEXT PRIMARY KEY, last_accessed REAL DEFAULT 0.0,
  last_modified REAL DEFAULT 0.0, size INTEGER DEFAULT 0, hits INTEGER DEFAULT 0, checksum TEXT)`

type Row = {
  readonly image_id: string
  readonly last_accessed: number | null
  readonly last_modified: number | null
  readonly size: number | null
  readonly hits: number | null
  readonly checksum: string | null
}

const seconds = (time: Date): number => time.getTime() / 1000

const toCachedImage = (row: Row): CachedImage => ({
  imageId: row.image_id as ImageId,
  size: row.size ?? 0,
  hits: row.hits ?? 0,
  lastAccessed: new Date((row.last_accessed ?? 0) * 1000),
  lastModified: new Date((row.last_modified ?? 0) * 1000),
  checksum: row.checksum,
})

/** Every record, also of files that are gone. */
export interface SqliteDriver extends CacheDriver {
  all(): Promise<readonly CachedImage[]>
}

/** The index in a file of the cache's own folder (`image_cache_sqlite_db`). */
export async function openSqliteDriver(dir: string, name: string): Promise<SqliteDriver> {
  const db = await openLocalDatabase(join(dir, name), SCHEMA)
  const all = () => db.transact((rows) => rows.all<Row>('SELECT * FROM cached_images').map(toCachedImage))
  return {
    name: 'sqlite',
    all,
    find: ({ imageId }) =>
      db.transact(
        ({ all }) => all<Row>('SELECT * FROM cached_images WHERE image_id = ?', imageId).map(toCachedImage)[0],
      ),
    list: async (copies) => {
      const wanted = new Set(copies.map(({ imageId }) => imageId))
      return (await all()).filter(({ imageId }) => wanted.has(imageId))
    },
    add: ({ imageId, size }, { hits, lastAccessed, lastModified, checksum }) =>
      db.transact(({ run }) => {
        const values = [imageId, seconds(lastAccessed), seconds(lastModified), size, hits, checksum]
        run(
          `INSERT OR REPLACE INTO cached_images (image_id, last_accessed, last_modified, size, hits, checksum)
            VALUES (?, ?, ?, ?, ?, ?)`,
          ...values,
        )
      }),
    touch: ({ imageId, size, modified }: Copy) =>
      db.transact(({ run }) => {
        run(
          `INSERT INTO cached_images (image_id, last_accessed, last_modified, size, hits) VALUES (?, ?, ?, ?, 1)
            ON CONFLICT (image_id) DO UPDATE SET hits = hits + 1, last_accessed = excluded.last_accessed`,
          ...[imageId, seconds(new Date()), seconds(modified), size],
        )
      }),
    remove: (id) => db.transact(({ run }) => void run('DELETE FROM cached_images WHERE image_id = ?', id)),
    close: () => db.close(),
  }
}
