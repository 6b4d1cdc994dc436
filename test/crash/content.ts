import { createHash } from 'node:crypto'

/** A stream of numbers that depends on its seed alone. */
export function randomFrom(seed: number): { below(limit: number): number; pick<T>(choices: readonly T[]): T } {
  let state = seed >>> 0
  const next = (): number => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
  const below = (limit: number): number => Math.floor(next() * limit)
  return {
    below,
    pick: (choices) => {
      if (choices.length === 0) throw new RangeError('Nothing to pick from')
      return choices[below(choices.length)] as (typeof choices)[number]
    },
  }
}

/** Image data of a kind: the same bytes for the same name, no two names alike. */
export const contentOf = (name: string, size: number): Buffer =>
  createHash('shake128', { outputLength: Math.max(size, 16) })
    .update(name)
    .digest()
    .subarray(0, size)
