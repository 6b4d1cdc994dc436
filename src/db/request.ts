import { AsyncLocalStorage } from 'node:async_hooks'

/** A call for a change that may come again, because its answer was lost. */
export interface DatabaseRequest {
  /** The same each time. */
  readonly id: string
  /** Whether it may have been done before. */
  again: boolean
  /** How many transactions of it there have been. */
  writes: number
}

/** The request on whose behalf the database is used; undefined where nobody repeats anything. */
export const currentRequest = new AsyncLocalStorage<DatabaseRequest>()
