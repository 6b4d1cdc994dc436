/** Choices that are the same for the same seed. */
export interface Random {
  /** From 0 to below `limit`. */
  below(limit: number): number
  chance(probability: number): boolean
  pick<T>(items: readonly T[]): T
  /** One of the values, each as likely as its weight says. */
  weighted<T>(items: readonly (readonly [weight: number, value: T])[]): T
  /** `count` of the items, each at most once, in any order. */
  some<T>(items: readonly T[], count: number): readonly T[]
  uuid(): string
}

/** sfc32 of PractRand (Chris Doty-Humphrey, public domain): 128 bits of state are enough for any run. */
export function random(seed: number): Random {
  let [a, b, c, counter] = [0x9e3779b9, 0x243f6a88, seed | 0, 1]
  const next = (): number => {
    const sum = (((a + b) | 0) + counter) | 0
    counter = (counter + 1) | 0
    a = b ^ (b >>> 9)
    b = (c + (c << 3)) | 0
    c = (c << 21) | (c >>> 11)
    c = (c + sum) | 0
    return sum >>> 0
  }
  for (let round = 0; round < 12; round++) next()
  const below = (limit: number): number => Math.floor((next() / 2 ** 32) * limit)
  const pick = <T>(items: readonly T[]): T => {
    if (items.length === 0) throw new Error('nothing to pick from')
    return items[below(items.length)] as T
  }
  const hex = (digits: number): string => Array.from({ length: digits }, () => below(16).toString(16)).join('')
  return {
    below,
    chance: (probability) => next() / 2 ** 32 < probability,
    pick,
    weighted: (items) => {
      let left = below(items.reduce((sum, [weight]) => sum + weight, 0))
      for (const [weight, value] of items) {
        if (left < weight) return value
        left -= weight
      }
      throw new Error('no weights')
    },
    some: (items, count) => {
      const rest = [...items]
      return Array.from({ length: Math.min(count, rest.length) }, () => rest.splice(below(rest.length), 1)[0] as never)
    },
    uuid: () => `${hex(8)}-${hex(4)}-4${hex(3)}-${pick(['8', '9', 'a', 'b'])}${hex(3)}-${hex(12)}`,
  }
}
