import type { DelayedDeleteRepository } from '../db/database.ts'
import type { ImageId } from '../domain/ids.ts'
import { type Eraser, eraseData } from './image-data.ts'

const PAGE = 1000

/**
 * Erases the data of images whose delayed delete has lasted `delayMs`, `parallel` images at a time, and what could not
 * be erased before. Any number of processes may do it at once: each image is ended by one of them, and restored before
 * that or never.
 */
export async function scrub(
  core: Eraser,
  { delayMs, parallel, signal }: { readonly delayMs: number; readonly parallel: number; readonly signal: AbortSignal },
): Promise<void> {
  const { delayed } = core.db
  for (const { id, location } of await core.db.images.undropped(PAGE)) {
    if (signal.aborted) return
    await eraseData(core, id, [location])
  }
  const before = new Date(Date.now() - delayMs)
  for (let ids = await delayed.over(before, PAGE); ids.length > 0; ids = await delayed.over(before, PAGE)) {
    const waiting = ids.values()
    const worker = async () => {
      for (const id of waiting) {
        if (signal.aborted) return
        await end(core, delayed, id)
      }
    }
    await Promise.all(Array.from({ length: parallel }, worker))
    if (signal.aborted) return
  }
}

async function end(core: Eraser, delayed: DelayedDeleteRepository, id: ImageId): Promise<void> {
  const locations = await delayed.end(id)
  await eraseData(core, id, locations)
  core.log.info(`The delayed delete of image ${id} has ended`)
}
