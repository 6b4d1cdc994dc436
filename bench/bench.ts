import { join } from 'node:path'
import type { Names, Row } from './report.ts'
import { cpuOf, memoryOf, openSides, type Side, type Sides, type SidesOptions } from './sides.ts'

/** MiB of the image that is uploaded, downloaded and imported. */
export const MIB = Number(process.env['BENCH_MIB'] ?? 1024)

/** The stand-in for Keystone reads user, project and roles from the token itself. */
export const TENANT = 'bench:bench0:member,reader'
export const ADMIN = 'root:admin:admin,member,reader'
export const WRITER = 'writer:writers:member,reader'

export interface Bench extends Sides {
  readonly dir: string
  /** Folder of the scripts that start the real Glance. */
  readonly kit: string
  /** So many seeded images are in both databases. */
  images: number
}

export interface Measured {
  readonly rows: readonly Row[]
  /** What is compared, where that is not Glance with Glimpse. */
  readonly names?: Names
  readonly notes?: readonly string[]
}

export interface Samples<T> {
  readonly glance: readonly T[]
  readonly glimpse: readonly T[]
}

/** A B A B, so that a slow moment of the machine meets both. */
export async function alternate<T>(
  bench: Bench,
  rounds: number,
  measure: (side: Side) => Promise<T>,
): Promise<Samples<T>> {
  const samples = { glance: [] as T[], glimpse: [] as T[] }
  for (let round = 0; round < rounds; round += 1) {
    samples.glance.push(await measure(bench.glance))
    samples.glimpse.push(await measure(bench.glimpse))
  }
  return samples
}

/** Both servers once more, configured otherwise, for as long as `act` runs; those of the bench wait meanwhile. */
export async function otherwise<T>(
  bench: Bench,
  name: string,
  options: SidesOptions,
  act: (other: Bench) => Promise<T>,
): Promise<T> {
  const sides = await openSides(bench.kit, join(bench.dir, name), options)
  try {
    await sides.glimpse.start()
    return await act({ ...sides, dir: bench.dir, kit: bench.kit, images: 0 })
  } finally {
    await sides.glimpse.stop()
    await sides.close()
  }
}

export async function eachSide(bench: Bench, act: (side: Side) => Promise<void>): Promise<void> {
  await act(bench.glance)
  await act(bench.glimpse)
}

export async function timed(
  processes: () => readonly number[],
  act: () => Promise<unknown>,
): Promise<{ seconds: number; cpu: number }> {
  const before = cpuOf(processes())
  const began = performance.now()
  await act()
  return { seconds: (performance.now() - began) / 1000, cpu: cpuOf(processes()) - before }
}

/** As `timed`, with the most bytes that the processes held at once, as far as four looks per second can tell. */
export async function observed(
  side: Side,
  act: () => Promise<unknown>,
): Promise<{ seconds: number; cpu: number; memory: number }> {
  let memory = memoryOf(side)
  const look = setInterval(() => {
    memory = Math.max(memory, memoryOf(side))
  }, 250)
  try {
    return { ...(await timed(side.processes, act)), memory }
  } finally {
    clearInterval(look)
  }
}

export const together = (parts: readonly Measured[]): Measured => ({
  rows: parts.flatMap(({ rows }) => rows),
  notes: parts.flatMap(({ notes = [] }) => notes),
})

export async function inTurn<T>(count: number, act: () => Promise<T>): Promise<readonly T[]> {
  const results: T[] = []
  for (let i = 0; i < count; i += 1) results.push(await act())
  return results
}

/** Those that BENCH_DATABASES names, or all. */
export function chosenDatabases<T>(all: Readonly<Record<string, T>>): readonly (readonly [name: string, T])[] {
  const names = process.env['BENCH_DATABASES']?.split(',') ?? Object.keys(all)
  return names.map((name) => {
    const found = all[name]
    if (found === undefined) throw new Error(`No database ${name}; there are ${Object.keys(all).join(', ')}`)
    return [name, found]
  })
}
