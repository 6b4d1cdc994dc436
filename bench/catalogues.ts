import { join } from 'node:path'
import { filledDatabase, filledFile, type Kind } from '../test/support/catalogue.ts'
import { type SqlServer, startMariadb, startPostgres } from '../test/support/servers/sql.ts'

/** A place for databases of many images. */
export interface Catalogues {
  /** A new database with so many: its URL. */
  filled(images: number): Promise<string>
  stop(): Promise<void>
}

/** With memory for a million images, and quick to fill: nothing waits for the disk. */
const START: Readonly<Record<Exclude<Kind, 'sqlite'>, () => Promise<SqlServer>>> = {
  postgresql: () =>
    startPostgres({
      durable: true,
      settings: ['shared_buffers=1GB', 'maintenance_work_mem=512MB', 'max_wal_size=8GB', 'fsync=off'],
    }),
  mysql: () =>
    startMariadb({
      durable: true,
      settings: ['--innodb-buffer-pool-size=2G', '--innodb-log-file-size=1G', '--innodb-flush-log-at-trx-commit=0'],
    }),
}

/** Files of SQLite are in the folder, which is somebody else's to delete. */
export async function openCatalogues(kind: Kind, dir: string): Promise<Catalogues> {
  if (kind === 'sqlite')
    return { filled: (images) => filledFile(join(dir, `${images}.sqlite`), images), stop: async () => undefined }
  const server = await START[kind]()
  return { filled: (images) => filledDatabase(server, images), stop: () => server.stop() }
}
