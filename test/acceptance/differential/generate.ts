import { cacheGenerators } from './cache.ts'
import { discoveryGenerators } from './discovery.ts'
import { imageGenerators } from './images.ts'
import { importGenerators } from './imports.ts'
import { metadefGenerators } from './metadefs.ts'
import type { Model } from './model.ts'
import type { Random } from './random.ts'
import type { Asked } from './request.ts'
import { taskGenerators } from './tasks.ts'
import { CALLERS, type Caller } from './values.ts'

export interface World {
  readonly random: Random
  readonly model: Model
  /** URL of a web server that both sides may fetch from. */
  readonly source: string
  /** Anybody, those who may do most a little more often. */
  caller(): Caller
}

/** Makes the next request of its kind out of what is there. */
export type Generator = (world: World) => Asked

export function worldOf(random: Random, model: Model, source: string): World {
  const everybody = Object.keys(CALLERS) as Caller[]
  const likely: readonly Caller[] = ['alice', 'alice', 'bob', 'ada', 'admin', 'rita']
  return { random, model, source, caller: () => random.pick(random.chance(0.5) ? likely : everybody) }
}

/** All kinds of requests, each with its weight. */
export const GENERATORS: readonly (readonly [weight: number, generator: Generator])[] = [
  ...imageGenerators,
  ...importGenerators,
  ...taskGenerators,
  ...metadefGenerators,
  ...discoveryGenerators,
  ...cacheGenerators,
]
