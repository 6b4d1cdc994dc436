import { ServiceError } from '../domain/errors.ts'
import type { Stores } from '../store/stores.ts'
import type { ImportMethod } from './import.ts'

/** What an active image has in one store, for further stores. Nothing is staged, so any node can go on with it. */
export const copyImage = (stores: Stores): ImportMethod => ({
  name: 'copy-image',
  from: 'active',
  open: async (image, signal) => {
    const inDefault = (location: (typeof image.locations)[number]) => stores.find(location) === stores.default
    const failures: unknown[] = []
    for (const location of image.locations.toSorted((a, b) => Number(inDefault(b)) - Number(inDefault(a)))) {
      try {
        return await stores.holding(location).open(location, undefined, signal)
      } catch (error) {
        signal.throwIfAborted()
        failures.push(error)
      }
    }
    throw new ServiceError('not-found', 'Image not found in any configured store', {
      cause: failures[0],
    })
  },
})
