import type { Dialect } from 'kysely'

/** `direct`: every statement is a transaction by itself. */
export type Mode = 'read' | 'write' | 'direct'

export interface Result {
  readonly rows: readonly unknown[]
  /** Rows that were written, or that were already as they should be. */
  readonly changed: number
}

/** Names one transaction among all that ever write to a database: the `n`th of `writer`. */
export interface Mark {
  readonly writer: string
  readonly n: number
}

/** A connection that belongs to one caller until it is released. */
export interface Link {
  run(sql: string, values: readonly unknown[], kept?: boolean): Promise<Result>
  /**
   * Begins a transaction of the mode that the link was acquired for. Returns whether it carries the mark, so that
   * `happened` can tell its outcome.
   */
  begin(mark?: Mark): Promise<boolean>
  /**
   * Of two transactions under way that guard the same name, one fails. Only a cluster needs that whose nodes compare
   * what was written, and not what was read; elsewhere there is no such method.
   */
  guard?(name: string): Promise<void>
  commit(): Promise<void>
  rollback(): Promise<void>
  /** Unless it is `sound`, nobody gets it again. */
  release(sound: boolean): void
}

/** A database as this process reaches it: everything that differs between products, except their SQL. */
export interface SqlDriver {
  acquire(mode: Mode): Promise<Link>
  /**
   * Whether the transaction was committed, whose connection was lost meanwhile. When this says no, it never will be:
   * a commit that is still on its way is refused. Where there is no connection to lose, there is no such method.
   */
  happened?(mark: Mark): Promise<boolean>
  close(): Promise<void>
}

/** What builds the SQL of the product; statements run in links, and not here. */
export type Language = Pick<Dialect, 'createAdapter' | 'createIntrospector' | 'createQueryCompiler'>

/** Sees every statement before it runs. */
export type Trace = (sql: string, values: readonly unknown[]) => void

/** How connections to a server are kept. */
export interface PoolOptions {
  /** Connections at most. */
  readonly most: number
  /** Of those, so many are kept when nobody needs them. */
  readonly kept: number
  /** How long to wait for a free connection, and for a new one. */
  readonly waitMs: number
  /** A connection of this age is replaced by a new one before its next use; 0 for never. */
  readonly recycleMs: number
  /** What the sessions of links for reading are told besides. */
  readonly reading: readonly string[]
  /** Only links for reading are asked for. */
  readonly readOnly: boolean
  readonly trace?: Trace | undefined
}

/**
 * A server ends a transaction of ours that says nothing for so long: when a machine loses power, nothing else would
 * release its locks for hours.
 */
export const SILENT_TRANSACTION_S = 30

/** A peer that has vanished without a word is noticed some ten seconds after these. */
export const KEEP_ALIVE_MS = 10_000
