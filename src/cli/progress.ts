/** How far a piece of work has come. */
export interface Progress {
  advance(by: number): void
  /** Takes the bar away; `line` stays. */
  end(line: string): void
}

/** What standard error is. */
export interface Terminal {
  readonly isTTY?: boolean
  readonly columns?: number
  write(text: string): unknown
}

const REDRAW_MS = 100
const CLEAR = '\r\x1b[K'

/** A bar on a terminal; elsewhere nothing until the end. */
export function startProgress(what: string, total: number, out: Terminal = process.stderr): Progress {
  const began = performance.now()
  let done = 0
  let drawn = Number.NEGATIVE_INFINITY
  return {
    advance(by) {
      done += by
      const now = performance.now()
      if (out.isTTY !== true || now - drawn < REDRAW_MS) return
      drawn = now
      out.write(`${CLEAR}${barOf(what, done, total, now - began, out.columns || 80)}`)
    },
    end(line) {
      out.write(`${out.isTTY === true ? CLEAR : ''}${line}\n`)
    },
  }
}

/** One line of fewer than `columns` characters: a longer one could not be taken away again. */
export function barOf(what: string, done: number, total: number, ms: number, columns: number): string {
  // There may be more of it by now than there was at the beginning.
  const part = total > 0 ? Math.min(done / total, 1) : 1
  const left = part > 0 ? ((ms / part) * (1 - part)) / 1000 : 0
  const head = `${what} ${String(Math.floor(part * 100)).padStart(3)} % `
  const tail = ` ${done.toLocaleString('en')} of ${total.toLocaleString('en')}, ${clock(left)} left`
  const width = columns - 3 - head.length - tail.length
  if (width < 5) return `${head}${tail}`.slice(0, Math.max(columns - 1, 0))
  const full = Math.round(width * part)
  return `${head}[${'#'.repeat(full)}${'.'.repeat(width - full)}]${tail}`
}

/** `1:02:03`, or `2:03`. */
function clock(seconds: number): string {
  const whole = Math.ceil(seconds)
  const [hours, minutes, rest] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60]
  const two = (value: number) => String(value).padStart(2, '0')
  return hours > 0 ? `${hours}:${two(minutes)}:${two(rest)}` : `${minutes}:${two(rest)}`
}
