import { sql } from 'kysely'
import { hasKind, ServiceError } from '../../domain/errors.ts'
import type { LocationUri } from '../../domain/ids.ts'
import { parse, print } from '../codec.ts'
import { currentRequest } from '../request.ts'
import type { OpenConnection } from './connect.ts'
import type { Connection } from './session.ts'
import { slot } from './statement.ts'

/** What is sealed has to look like a location. */
const ENVELOPE = 'outcome://'
/** A node repeats a request for half a minute. */
const KEEP_MS = 600_000
/** After so many changes, those that are older are forgotten. */
const SWEEP_EVERY = 256

/**
 * The same connection, on which a change that is asked for twice is made once: what came of it is kept in the
 * transaction that made it, under the id of the request, and is the answer from then on.
 */
export const onceOnly = ({ connection, cipher }: Pick<OpenConnection, 'connection' | 'cipher'>): Connection => {
  const { facts, kysely, prepare } = connection
  const find = prepare<{ outcome: string }>(
    kysely.selectFrom('glimpse_requests').select('outcome').where('id', '=', slot<string>('id')),
  )
  const keep = prepare(
    kysely.insertInto('glimpse_requests').values({ id: slot('id'), outcome: slot('outcome'), made_at: facts.now }),
  )
  const forget = prepare(
    kysely.deleteFrom('glimpse_requests').where('made_at', '<', sql<number>`${facts.now} - ${sql.lit(KEEP_MS)}`),
  )
  // An image tells its locations: they are no more readable here than in their own table.
  const wrap = (outcome: unknown): string => cipher.seal(`${ENVELOPE}${print(outcome)}` as LocationUri)
  const unwrap = (text: string): unknown => parse(cipher.open(text).slice(ENVELOPE.length))
  let changes = 0

  return {
    ...connection,
    write: async (work, options) => {
      const request = currentRequest.getStore()
      if (request === undefined) return connection.write(work, options)
      const id = `${request.id}.${request.writes}`
      request.writes += 1
      const result = await connection.write(async (session) => {
        const before = request.again ? await session.first(find, { id }) : undefined
        if (before !== undefined) return unwrap(before.outcome) as Awaited<ReturnType<typeof work>>
        const outcome = await work(session)
        await session.change(keep, { id, outcome: wrap(outcome) }).catch((cause: unknown) => {
          // The other one was quicker: what it did is found at the next attempt.
          request.again = true
          throw hasKind(facts.translate(cause), 'conflict')
            ? new ServiceError('unavailable', 'The same change is being made', { cause, transient: true })
            : cause
        })
        return outcome
      }, options)
      changes += 1
      // Nobody waits for it, and the next time makes up for a failure.
      if (changes % SWEEP_EVERY === 0) connection.write((session) => session.change(forget)).catch(() => undefined)
      return result
    },
  }
}
