import { rm, utimes, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { CachedImage } from '../../domain/cached-image.ts'
import { ServiceError } from '../../domain/errors.ts'
import type { CacheDriver, Copy } from '../driver.ts'

/** Extended attributes of files. These calls take microseconds, for the inode has just been looked up. */
interface Attributes {
  /** Undefined when there is no such attribute, or none at all. */
  get(path: string, name: string): string | undefined
  /** Throws `invalid` where the file system keeps no attributes. */
  set(path: string, name: string, value: string): void
}

const LONGEST = 256

/** Node has no call for them; koffi calls the C library and comes compiled. */
async function openAttributes(): Promise<Attributes> {
  const { default: koffi } = await import('koffi').catch((cause: unknown) => {
    throw new ServiceError('invalid', 'image_cache_driver = xattr needs the package koffi', { cause })
  })
  const libc = koffi.load(null)
  const getxattr = libc.func('long getxattr(const char *path, const char *name, _Out_ uint8_t *value, size_t size)')
  const setxattr = libc.func(
    'int setxattr(const char *path, const char *name, const uint8_t *value, size_t size, int flags)',
  )
  return {
    get: (path, name) => {
      const value = Buffer.alloc(LONGEST)
      const length = Number(getxattr(path, name, value, LONGEST))
      return length < 0 ? undefined : value.toString('utf8', 0, length)
    },
    set: (path, name, value) => {
      const bytes = Buffer.from(value)
      if (setxattr(path, name, bytes, bytes.length, 0) === 0) return
      throw new ServiceError('invalid', 'Extended attributes cannot be written', { detail: { errno: koffi.errno() } })
    },
  }
}

const HITS = 'user.hits'
/** Ours; upstream leaves it alone. */
const CHECKSUM = 'user.checksum'

/** The index in the files themselves: hits in an attribute, the last access in the access time. */
export async function openXattrDriver(dir: string): Promise<CacheDriver> {
  const attributes = await openAttributes()
  await probe(attributes, dir)
  const hitsOf = ({ path }: Copy): number | undefined => {
    const hits = attributes.get(path, HITS)
    return hits === undefined ? undefined : Number(hits)
  }
  const find = async (copy: Copy): Promise<CachedImage | undefined> => {
    const hits = hitsOf(copy)
    if (hits === undefined) return undefined
    return {
      imageId: copy.imageId,
      size: copy.size,
      hits,
      lastAccessed: copy.accessed,
      lastModified: copy.modified,
      checksum: attributes.get(copy.path, CHECKSUM) ?? null,
    }
  }
  return {
    name: 'xattr',
    find,
    list: async (copies) => (await Promise.all(copies.map(find))).filter((one) => one !== undefined),
    add: async (copy, { hits, lastAccessed, checksum }) => {
      if (checksum !== null) attributes.set(copy.path, CHECKSUM, checksum)
      attributes.set(copy.path, HITS, String(hits))
      await utimes(copy.path, lastAccessed, copy.modified)
    },
    touch: async (copy) => {
      // Two at once may count as one, as upstream has it too.
      attributes.set(copy.path, HITS, String((hitsOf(copy) ?? 0) + 1))
      // By hand: file systems are mounted so that reading changes the access time once a day at most.
      await utimes(copy.path, new Date(), copy.modified)
    },
    remove: async () => undefined,
    close: async () => undefined,
  }
}

/** Throws `invalid` unless files here can have attributes. */
async function probe(attributes: Attributes, dir: string): Promise<void> {
  const file = join(dir, `.checkme-${process.pid}`)
  try {
    await writeFile(file, '')
    attributes.set(file, HITS, '1')
  } finally {
    await rm(file, { force: true })
  }
}
