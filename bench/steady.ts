import { Pool } from 'undici'

/** Requests at a steady pace, whatever the answers take. */
export interface SteadyLoad {
  /** Milliseconds from when each request was due since the last look; and how many did not answer 200. */
  look(): { readonly latencies: readonly number[]; readonly failed: number }
  stop(): Promise<void>
}

const TICK_MS = 2

/** GETs the paths in turn, so many a second. One that has to wait for a connection waits in its latency, too. */
export function steadyLoad(
  url: string,
  paths: readonly string[],
  rate: number,
  headers: Readonly<Record<string, string>> = {},
): SteadyLoad {
  const pool = new Pool(url, { connections: 32, pipelining: 1 })
  let latencies: number[] = []
  let failed = 0
  let sent = 0
  const began = performance.now()
  const ask = async (due: number, path: string): Promise<void> => {
    try {
      const { statusCode, body } = await pool.request({ method: 'GET', path, headers: { ...headers } })
      await body.dump()
      if (statusCode !== 200) failed += 1
    } catch {
      failed += 1
    }
    latencies.push(performance.now() - due)
  }
  const timer = setInterval(() => {
    const now = performance.now()
    for (let due = began + (sent * 1000) / rate; due <= now; due = began + (sent * 1000) / rate) {
      void ask(due, paths[sent % paths.length] ?? '/')
      sent += 1
    }
  }, TICK_MS)
  return {
    look: () => {
      const seen = { latencies, failed }
      latencies = []
      failed = 0
      return seen
    },
    stop: async () => {
      clearInterval(timer)
      await pool.close()
    },
  }
}

/** The value that so much of them (0 to 1) do not exceed. */
export function quantile(values: readonly number[], part: number): number {
  const sorted = values.toSorted((a, b) => a - b)
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))] ?? Number.NaN
}
