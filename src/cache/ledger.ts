import { randomUUID } from 'node:crypto'
import type { ImageId } from '../domain/ids.ts'
import { isGone, type ProcessName, thisProcess } from '../io/process.ts'
import { openLocalDatabase, type Statements } from './local-database.ts'

/** A file that is being filled, and the room that is kept for it. */
export interface FillEntry {
  readonly imageId: ImageId
  /** Bytes that it will have. */
  readonly size: number
  /** Names the data, which an image may exchange for other. */
  readonly data: string
  /** Whether it is this process that fills it. */
  readonly ours: boolean
  /** Its process is known to be dead. */
  readonly orphaned: boolean
  /** Its process is of another container, where nobody can look. */
  readonly far: boolean
  /** The image was evicted meanwhile: the file is not to be kept. */
  readonly cancelled: boolean
}

/** What the processes of a node agree on, while one of them has it open. */
export interface Book {
  fills(): readonly FillEntry[]
  begin(id: ImageId, size: number, data: string): void
  cancel(id: ImageId): void
  end(id: ImageId): void
  /** Makes this process the one that serves the queue, unless a neighbour that lives does. */
  takeTurn(): boolean
  endTurn(): void
}

export interface Ledger {
  /** Nobody else on the node changes what is cached while `work` runs. Throws `unavailable` after a long wait. */
  locked<T>(work: (book: Book) => Promise<T>): Promise<T>
  close(): Promise<void>
}

const SCHEMA = `CREATE TABLE IF NOT EXISTS jobs (name TEXT PRIMARY KEY, size INTEGER NOT NULL, data TEXT NOT NULL,
  owner TEXT NOT NULL, node TEXT NOT NULL, pid INTEGER NOT NULL, started_at INTEGER NOT NULL, cancelled INTEGER NOT NULL) WITHOUT ROWID`

/** The job of serving the queue; no image can be called so. */
const TURN = '(queue)'

type JobRow = {
  readonly name: string
  readonly size: number
  readonly data: string
  readonly owner: string
  readonly node: string
  readonly pid: number
  readonly started_at: number
  readonly cancelled: number
}

/** The folder is on a disk of this machine: what was there before its last boot is no more. */
const bootOf = ({ node }: { readonly node: string }): string => node.split(' ')[0] ?? ''

export async function openLedger(path: string): Promise<Ledger> {
  const db = await openLocalDatabase(path, SCHEMA)
  const here: ProcessName = thisProcess()
  const owner = randomUUID()

  const book = ({ all, run }: Statements): Book => {
    const nameOf = ({ node, pid, started_at: startedAt }: JobRow): ProcessName => ({ node, pid, startedAt })
    const put = (name: string, size: number, data: string) =>
      run(
        'INSERT OR REPLACE INTO jobs VALUES (?, ?, ?, ?, ?, ?, ?, 0)',
        ...[name, size, data, owner, here.node, here.pid, here.startedAt],
      )
    return {
      fills: () =>
        all<JobRow>('SELECT * FROM jobs WHERE name <> ? ORDER BY name', TURN).map((row) => ({
          imageId: row.name as ImageId,
          size: row.size,
          data: row.data,
          ours: row.owner === owner,
          orphaned: isGone(nameOf(row), here) || bootOf(row) !== bootOf(here),
          far: row.node !== here.node,
          cancelled: row.cancelled === 1,
        })),
      begin: (id, size, data) => void put(id, size, data),
      cancel: (id) => void run('UPDATE jobs SET cancelled = 1 WHERE name = ?', id),
      end: (id) => void run('DELETE FROM jobs WHERE name = ?', id),
      takeTurn: () => {
        const [holder] = all<JobRow>('SELECT * FROM jobs WHERE name = ?', TURN)
        const alive = holder !== undefined && holder.node === here.node && !isGone(nameOf(holder), here)
        if (alive && holder.owner !== owner) return false
        put(TURN, 0, '')
        return true
      },
      endTurn: () => void run('DELETE FROM jobs WHERE name = ? AND owner = ?', TURN, owner),
    }
  }
  return {
    locked: (work) => db.transact((statements) => work(book(statements))),
    close: () => db.close(),
  }
}
