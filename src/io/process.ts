import { randomUUID } from 'node:crypto'
import { readFileSync, readlinkSync } from 'node:fs'
import { hostname } from 'node:os'

/** Names a process so that a neighbour on the same machine can find out whether it still lives. */
export interface ProcessName {
  /** The machine since its boot, and the process namespace. */
  readonly node: string
  readonly pid: number
  /** Start time in clock ticks since boot (/proc/PID/stat, field 22): a pid may be used again. */
  readonly startedAt: number
}

/**
 * Field 22 of /proc/PID/stat: start time in clock ticks since boot; undefined when there is no such process. One that
 * is dead and only not yet reaped by its parent (state Z or X, proc(5)) is none.
 */
function startTime(pid: number | 'self'): number | undefined {
  let stat: string
  try {
    stat = readFileSync(`/proc/${pid}/stat`, 'latin1')
  } catch {
    return undefined
  }
  // The second field, the program's name, may hold blanks and parentheses.
  const [state, ...fields] = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  return state === 'Z' || state === 'X' ? undefined : Number(fields[18])
}

export function thisProcess(): ProcessName {
  let node: string
  try {
    const boot = readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').trim()
    node = `${boot} ${readlinkSync('/proc/self/ns/pid')}`
  } catch {
    node = `${hostname()} ${randomUUID()}` // no neighbour will know it
  }
  return { node, pid: process.pid, startedAt: startTime('self') ?? 0 }
}

/** Whether a process is known to be gone: false also for one of a machine that cannot be looked at from `here`. */
export const isGone = (other: ProcessName, here: ProcessName): boolean =>
  other.node === here.node && startTime(other.pid) !== other.startedAt
