import { createHash } from 'node:crypto'
import { ServiceError } from '../../domain/errors.ts'
import type { IdentityFile } from './file.ts'

const FAILURES = 5
const WINDOW_MS = 60_000

/** Slows the guessing of passwords down: per user and address, counted over all processes of the machine. */
export interface LoginGuard {
  /**
   * Runs one attempt, which says whether the password was right, and returns what it said.
   * Throws `too-many-requests`, with a `retry-after` in `detail.headers`, when there were too many failures.
   */
  attempt(user: string, address: string, body: () => Promise<boolean>): Promise<boolean>
}

export function loginGuard({ db }: IdentityFile, now: () => number): LoginGuard {
  const failures = db.prepare(
    'SELECT count(*) AS count, min(at) AS oldest FROM (SELECT at FROM failed_logins WHERE who = ? AND at > ? ORDER BY at DESC LIMIT ?)',
  )
  const record = db.prepare('INSERT INTO failed_logins (who, at) VALUES (?, ?)')
  const forget = db.prepare('DELETE FROM failed_logins WHERE who = ?')
  const prune = db.prepare('DELETE FROM failed_logins WHERE at <= ?')

  const count = (who: string) =>
    failures.get(who, now() - WINDOW_MS, FAILURES) as { count: number; oldest: number | null }

  function check(who: string): void {
    const { count: failed, oldest } = count(who)
    if (failed < FAILURES || oldest === null) return
    const retryAfter = Math.max(1, Math.ceil((oldest + WINDOW_MS - now()) / 1000))
    throw new ServiceError('too-many-requests', `Too many failed logins, try again in ${retryAfter} seconds`, {
      detail: { headers: { 'retry-after': String(retryAfter) } },
    })
  }

  return {
    attempt: async (user, address, body) => {
      const who = createHash('sha256')
        .update(JSON.stringify([user, address]))
        .digest('base64url')
      check(who)
      const right = await body()
      // Of many guesses at once, those that end after the limit is reached learn nothing.
      check(who)
      if (!right) {
        prune.run(now() - WINDOW_MS)
        record.run(who, now())
      } else if (count(who).count > 0) {
        forget.run(who)
      }
      return right
    },
  }
}
