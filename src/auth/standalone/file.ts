import { chmodSync, closeSync, mkdirSync, openSync } from 'node:fs'
import { dirname } from 'node:path'
import { DatabaseSync } from 'node:sqlite'

const SCHEMA_VERSION = 1
const BUSY_TIMEOUT_MS = 5000

const SCHEMA = `
  CREATE TABLE IF NOT EXISTS settings (name TEXT PRIMARY KEY, value ANY NOT NULL) STRICT, WITHOUT ROWID;
  CREATE TABLE IF NOT EXISTS users (
    id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, enabled INTEGER NOT NULL,
    password TEXT, epoch INTEGER NOT NULL DEFAULT 0, extra TEXT NOT NULL
  ) STRICT, WITHOUT ROWID;
  CREATE TABLE IF NOT EXISTS projects (
    id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, enabled INTEGER NOT NULL, extra TEXT NOT NULL
  ) STRICT, WITHOUT ROWID;
  -- Without a project: a role on the system.
  CREATE TABLE IF NOT EXISTS assignments (
    user_id TEXT NOT NULL REFERENCES users ON DELETE CASCADE,
    project_id TEXT REFERENCES projects ON DELETE CASCADE,
    role TEXT NOT NULL
  ) STRICT;
  CREATE UNIQUE INDEX IF NOT EXISTS assignments_key ON assignments (user_id, coalesce(project_id, ''), role);
  CREATE INDEX IF NOT EXISTS assignments_project ON assignments (project_id);
  CREATE TABLE IF NOT EXISTS revoked_tokens (audit_id TEXT PRIMARY KEY, until INTEGER NOT NULL) STRICT, WITHOUT ROWID;
  CREATE TABLE IF NOT EXISTS failed_logins (who TEXT NOT NULL, at INTEGER NOT NULL) STRICT;
  CREATE INDEX IF NOT EXISTS failed_logins_who ON failed_logins (who, at);
  CREATE INDEX IF NOT EXISTS failed_logins_at ON failed_logins (at);
  PRAGMA user_version = ${SCHEMA_VERSION};
`

/** The SQLite file, which several processes have open at once. */
export interface IdentityFile {
  readonly db: DatabaseSync
  /** Runs `body` as one transaction, alone among all processes, and moves `version()`. */
  write<T>(body: () => T): T
  /** Grows with every change that this or another process has made. */
  version(): number
  /** A second time does nothing. */
  close(): void
}

export function openIdentityFile(path: string): IdentityFile {
  makePrivate(path)
  const db = new DatabaseSync(path, { timeout: BUSY_TIMEOUT_MS })
  let ownWrites = 0
  try {
    db.exec('PRAGMA journal_mode = WAL')
    transaction(db, () => prepareSchema(db, path))
  } catch (error) {
    db.close()
    throw error
  }
  const dataVersion = db.prepare('PRAGMA data_version')
  dataVersion.setReturnArrays(true)
  return {
    db,
    write: (body) => {
      try {
        return transaction(db, body)
      } finally {
        ownWrites += 1
      }
    },
    // data_version moves for the writes of all other connections, but not for our own.
    version: () => ((dataVersion.get() as unknown as readonly [number] | undefined)?.[0] ?? 0) + ownWrites,
    close: () => {
      if (db.isOpen) db.close()
    },
  }
}

/** SQLite gives its -wal and -shm files the mode of the main file, so that one has to be right first. */
function makePrivate(path: string): void {
  mkdirSync(dirname(path), { recursive: true, mode: 0o700 })
  closeSync(openSync(path, 'a', 0o600))
  chmodSync(path, 0o600)
}

function prepareSchema(db: DatabaseSync, path: string): void {
  const version = Number(db.prepare('PRAGMA user_version').get()?.['user_version'])
  if (version > SCHEMA_VERSION) throw new Error(`${path} was written by a newer release (schema ${version})`)
  if (version < SCHEMA_VERSION) db.exec(SCHEMA)
}

function transaction<T>(db: DatabaseSync, body: () => T): T {
  db.exec('BEGIN IMMEDIATE')
  try {
    const result = body()
    db.exec('COMMIT')
    return result
  } catch (error) {
    db.exec('ROLLBACK')
    throw error
  }
}
