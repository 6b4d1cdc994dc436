import { constants } from 'node:fs'
import { access, type FileHandle, mkdir, open, readdir, rename, rm, stat, statfs } from 'node:fs/promises'
import { join } from 'node:path'
import { ServiceError } from '../domain/errors.ts'
import { type ImageId, isUuid } from '../domain/ids.ts'
import type { Copy } from './driver.ts'

/** The folders of a cache, as upstream's node has them, and one of our own. */
export interface Layout {
  /** The complete file of an image; undefined when there is none. */
  copy(id: ImageId): Promise<Copy | undefined>
  copies(): Promise<readonly Copy[]>
  removeCopy(id: ImageId): Promise<boolean>
  openCopy(id: ImageId): Promise<FileHandle | undefined>

  /** A new file to fill; what lay there before is gone. */
  begin(id: ImageId): Promise<FileHandle>
  openPart(id: ImageId): Promise<FileHandle | undefined>
  /** The file that is being filled, as far as it is; undefined when there is none. */
  part(id: ImageId): Promise<Copy | undefined>
  parts(): Promise<readonly ImageId[]>
  /** A filled file becomes the copy. */
  complete(id: ImageId): Promise<void>
  removePart(id: ImageId): Promise<void>

  /** False when it is there already. */
  addMarker(id: ImageId): Promise<boolean>
  /** Oldest first. */
  markers(): Promise<readonly ImageId[]>
  removeMarker(id: ImageId): Promise<boolean>

  /** Removes what upstream put aside. */
  removeInvalid(): Promise<void>
  /** Bytes that can still be written. */
  freeBytes(): Promise<number>
}

const isMissing = (error: unknown): boolean =>
  error instanceof Error && 'code' in error && ['ENOENT', 'ENOTDIR', 'EISDIR'].includes(String(error.code))

/** Undefined where there is no such file. */
const orMissing = async <T>(work: Promise<T>): Promise<T | undefined> =>
  work.catch((error: unknown) => {
    if (isMissing(error)) return undefined
    throw error
  })

const remove = async (path: string): Promise<boolean> => (await orMissing(rm(path).then(() => true))) ?? false

/** An id that comes from a client becomes a file name: it must not lead out of the folder. */
const NAME = /^\w[\w.-]{0,254}$/

/** Creates the folders. Throws `invalid` with a message for the operator when that cannot be. */
export async function openLayout(dir: string): Promise<Layout> {
  try {
    for (const folder of ['incomplete', 'invalid', 'queue', 'fills']) {
      await mkdir(join(dir, folder), { recursive: true, mode: 0o750 })
    }
    await access(dir, constants.R_OK | constants.W_OK | constants.X_OK)
  } catch (cause) {
    throw new ServiceError('invalid', `image_cache_dir: ${dir} cannot be created or written`, { cause })
  }
  const pathIn = (folder: string, id: ImageId): string => {
    if (!NAME.test(id)) throw new ServiceError('invalid', `"${id}" cannot be the id of an image`)
    return join(dir, folder, id)
  }
  const namesIn = async (folder: string): Promise<readonly ImageId[]> =>
    (await readdir(join(dir, folder), { withFileTypes: true }))
      .filter((entry) => entry.isFile() && NAME.test(entry.name))
      .map(({ name }) => name as ImageId)

  const look = async (folder: string, id: ImageId): Promise<Copy | undefined> => {
    const path = pathIn(folder, id)
    const found = await orMissing(stat(path))
    if (!found?.isFile()) return undefined
    return { imageId: id, path, size: found.size, modified: found.mtime, accessed: found.atime }
  }
  // An index or a lock of upstream's may lie beside the copies.
  const copy: Layout['copy'] = async (id) => (isUuid(id) ? look('', id) : undefined)
  const markers: Layout['markers'] = async () => {
    const found = await Promise.all(
      (await namesIn('queue')).map(async (id) => ({
        id,
        since: (await orMissing(stat(pathIn('queue', id))))?.mtimeMs,
      })),
    )
    return found
      .flatMap(({ id, since }) => (since === undefined ? [] : [{ id, since }]))
      .toSorted((a, b) => a.since - b.since || (a.id < b.id ? -1 : 1))
      .map(({ id }) => id)
  }

  return {
    copy,
    copies: async () =>
      (await Promise.all((await namesIn('')).filter(isUuid).toSorted().map(copy))).filter((one) => one !== undefined),
    removeCopy: async (id) => isUuid(id) && remove(pathIn('', id)),
    openCopy: (id) => orMissing(open(pathIn('', id), 'r')),
    begin: async (id) => {
      await remove(pathIn('incomplete', id))
      return open(pathIn('incomplete', id), 'wx', 0o640)
    },
    openPart: (id) => orMissing(open(pathIn('incomplete', id), 'r')),
    part: (id) => look('incomplete', id),
    parts: () => namesIn('incomplete'),
    complete: (id) => rename(pathIn('incomplete', id), pathIn('', id)),
    removePart: async (id) => {
      await remove(pathIn('incomplete', id))
    },
    addMarker: async (id) => {
      try {
        const marker = await open(pathIn('queue', id), 'wx', 0o640)
        // By hand: the clock of the file system has ticks of some milliseconds, and the order counts.
        const now = (performance.timeOrigin + performance.now()) / 1000
        await marker.utimes(now, now).finally(() => marker.close())
        return true
      } catch (error) {
        if (error instanceof Error && 'code' in error && error.code === 'EEXIST') return false
        throw error
      }
    },
    markers,
    removeMarker: (id) => remove(pathIn('queue', id)),
    removeInvalid: async () => {
      for (const id of await namesIn('invalid')) await remove(pathIn('invalid', id))
    },
    freeBytes: async () => {
      const { bavail, bsize } = await statfs(dir)
      return bavail * bsize
    },
  }
}
