import { ServiceError } from '../../domain/errors.ts'
import type { Database } from '../database.ts'
import { isSlow } from './facts.ts'

/** For so long nobody asks a replica that has failed. */
const PAUSE_MS = 10_000

/**
 * Lists of images and tasks come from a replica; everything else, and lists that it cannot give, from the primary. So
 * a page may be as old as the replica is behind, but an image that was just written is shown as it is now. A marker
 * that the replica does not know is looked for in the primary.
 */
export const withReplica = (primary: Database, replica: Pick<Database, 'images' | 'tasks' | 'close'>): Database => {
  let askAgainAt = 0
  const preferring =
    <Args extends readonly unknown[], Page>(
      ofReplica: (...args: Args) => Promise<Page>,
      ofPrimary: (...args: Args) => Promise<Page>,
    ) =>
    async (...args: Args): Promise<Page> => {
      if (Date.now() < askAgainAt) return await ofPrimary(...args)
      try {
        return await ofReplica(...args)
      } catch (error) {
        if (isSlow(error)) throw error
        const isAnswer = error instanceof ServiceError && error.kind !== 'unavailable'
        if (!isAnswer) askAgainAt = Date.now() + PAUSE_MS
        return await ofPrimary(...args)
      }
    }
  return {
    ...primary,
    images: { ...primary.images, list: preferring(replica.images.list, primary.images.list) },
    tasks: { ...primary.tasks, list: preferring(replica.tasks.list, primary.tasks.list) },
    close: async () => {
      await replica.close()
      await primary.close()
    },
  }
}
