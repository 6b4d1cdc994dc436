import { setTimeout as delay } from 'node:timers/promises'

/** `[database] use_db_reconnect` and its intervals. */
export interface Reconnect {
  /** -1 for as long as it takes. */
  readonly retries: number
  readonly intervalMs: number
  /** Each interval is twice the one before, up to `maxIntervalMs`. */
  readonly growing: boolean
  readonly maxIntervalMs: number
}

export interface Patience {
  /** How long to go on when others are in the way, or connections turn out to be lost. */
  readonly busyMs: number
  /** How to wait for a server that cannot be reached; without it, not at all. */
  readonly reconnect?: Reconnect | undefined
}

/** `again`: in conflict with others; `lost`: undone with its connection; `away`: there is no connection to be had. */
export type Setback = 'again' | 'lost' | 'away' | undefined

/** A server that says again and again that it is none, such as a replica, is not waited for as those in the way are. */
const LOST_MS = 5_000

/** Repeats what left nothing behind when it failed. Throws what it threw last. */
export const patiently = async <T>(
  attempt: () => Promise<T>,
  setbackOf: (error: unknown) => Setback,
  { busyMs, reconnect }: Patience,
): Promise<T> => {
  const deadline = Date.now() + busyMs
  let lostDeadline: number | undefined
  let pauseMs = 1
  let tries = 0
  for (;;) {
    try {
      return await attempt()
    } catch (error) {
      const setback = setbackOf(error)
      if (setback === 'lost') lostDeadline ??= Math.min(deadline, Date.now() + LOST_MS)
      const until = setback === 'lost' ? lostDeadline : deadline
      if ((setback === 'again' || setback === 'lost') && Date.now() <= (until ?? deadline)) {
        await delay(pauseMs * (0.5 + Math.random()))
        pauseMs = Math.min(pauseMs * 2, 50)
      } else if (setback !== undefined && setback !== 'again' && isWorthIt(reconnect, tries)) {
        await delay(intervalOf(reconnect, tries))
        tries += 1
      } else throw error
    }
  }
}

const isWorthIt = (reconnect: Reconnect | undefined, tries: number): reconnect is Reconnect =>
  reconnect !== undefined && (reconnect.retries < 0 || tries < reconnect.retries)

const intervalOf = ({ intervalMs, growing, maxIntervalMs }: Reconnect, tries: number): number =>
  growing ? Math.min(intervalMs * 2 ** tries, maxIntervalMs) : intervalMs
