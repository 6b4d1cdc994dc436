import { constants } from 'node:fs'
import {
  access,
  chmod,
  type FileHandle,
  link,
  mkdir,
  open,
  readFile,
  rename,
  rm,
  stat,
  statfs,
  unlink,
} from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { bool, integer, multi, text, type Values } from '../../config/options.ts'
import { type ErrorKind, ServiceError } from '../../domain/errors.ts'
import type { ImageId, LocationUri } from '../../domain/ids.ts'
import { abortable, type ByteSource, exactLength } from '../../io/bytes.ts'
import { fileSource, openBuffers, type ReadableFile } from '../../io/file-source.ts'
import { writeAll } from '../../io/write-all.ts'
import { defineStore, guarded, type Reach, type StoreDriver, type WriteOptions, type Written } from '../driver.ts'

const DEFAULT_DATADIR = '/var/lib/glance/images'

const options = {
  filesystem_store_datadir: text({
    default: DEFAULT_DATADIR,
    help: 'Directory for image data; created when it is missing. Not together with filesystem_store_datadirs.',
  }),
  filesystem_store_datadirs: multi({
    help:
      'Several directories for image data, each as path:priority (0 without). The directory of the highest priority ' +
      'that has room is written to; among equals, the one with the most free space.',
  }),
  filesystem_store_metadata_file: text({
    help:
      'JSON file with what is kept beside every location, such as the mount point of a share: an object with id and ' +
      'mountpoint, or a list of these, of which the first whose mount point is above the file counts.',
  }),
  filesystem_store_file_perm: integer({
    default: 0,
    min: 0,
    help:
      'Permissions of image files, as octal digits such as 640; the owner must be able to read. 0 leaves them to the ' +
      'umask. Directories become accessible to whom the files are.',
  }),
  filesystem_store_chunk_size: integer({
    default: 65_536,
    min: 1,
    help:
      'Bytes that are looked at together when zeros are left out (filesystem_thin_provisioning). Reads and writes ' +
      'adapt their size themselves, from 64 KiB to 1 MiB.',
  }),
  filesystem_thin_provisioning: bool({
    default: false,
    help: 'Leave holes in the files where image data is zero.',
  }),
  filesystem_store_timeout: integer({
    default: 0,
    min: 0,
    help: 'Seconds after which deleting, sizes and free space are given up, for shares that hang; 0 waits for ever.',
  }),
  filesystem_store_thread_pool_size: integer({
    default: 10,
    min: 1,
    help: 'Accepted and without effect: all files are served by the threads of the runtime (UV_THREADPOOL_SIZE).',
  }),
  filesystem_store_threadpool_threshold: integer({
    default: 75,
    min: 0,
    max: 100,
    help: 'Accepted and without effect, see filesystem_store_thread_pool_size.',
  }),
}

/** Image data in files named after the image, in one directory or several. */
export const fileStore = defineStore({ type: 'file', options, open: openFileDriver })

interface Datadir {
  readonly path: string
  readonly priority: number
}
interface Mountpoint {
  readonly id: string
  readonly mountpoint: string
}

/** Half of the threads of the runtime (4 unless told otherwise): a disk that stands still leaves the others to everybody else. */
const THREADS = Math.max(1, Math.floor(Number(process.env['UV_THREADPOOL_SIZE'] ?? 4) / 2))
/** Syncs wait for the disk and occupy a thread of those that also serve reads: no more than so many at a time. */
const SYNCS_AT_A_TIME = Math.max(1, Math.floor(THREADS / 2))
const FLUSH_EVERY = 67_108_864

async function openFileDriver(config: Values<typeof options>, _reach?: Reach, readOnly = false): Promise<StoreDriver> {
  const datadirs = parseDatadirs(config)
  const permissions = parsePermissions(config.filesystem_store_file_perm)
  const mountpoints = await readMountpoints(config.filesystem_store_metadata_file)
  if (!readOnly) for (const { path } of datadirs) await prepareDatadir(path, permissions)

  const { filesystem_thin_provisioning: thin, filesystem_store_chunk_size: chunkSize } = config
  const writeChunk = thin ? sparseWriter(chunkSize) : writeAll
  const buffers = openBuffers()
  const onDisk = withLimit(THREADS)
  const syncs = withLimit(SYNCS_AT_A_TIME)
  const sync = (work: () => Promise<void>): Promise<void> => syncs(() => onDisk(work))
  const timely = <T>(work: () => Promise<T>): Promise<T> => within(config.filesystem_store_timeout, onDisk(work))

  const partOf = (datadir: string, id: string, attempt: string) => join(datadir, `.${id}.${attempt}.part`)

  const freeIn = async (datadir: string): Promise<number> => {
    const { bavail, bsize } = await timely(() => statfs(datadir)).catch(cannotWrite)
    return bavail * bsize
  }
  /** Where data of `size` goes. A single directory is not asked: a disk that compresses may take more than it says. */
  const pickDatadir = async (size: number): Promise<string> => {
    const [only, ...others] = datadirs
    if (only !== undefined && others.length === 0) return only.path
    const found = await Promise.all(
      datadirs.map(async ({ path, priority }) => ({ path, priority, free: await freeIn(path) })),
    )
    const [best] = found
      .filter(({ free }) => free > 0 && free >= size)
      .toSorted((a, b) => b.priority - a.priority || b.free - a.free)
    if (best === undefined) throw full()
    return best.path
  }
  /** The claim on the image in the database keeps two writers apart; this and `link` are the second line. */
  const admitNew = async (id: ImageId): Promise<void> => {
    for (const { path } of datadirs) {
      if (await onDisk(() => exists(join(path, id)))) throw alreadyThere(id)
    }
  }

  const complete = async (file: FileHandle, size: number): Promise<void> => {
    if (thin) await onDisk(() => file.truncate(size))
    if (permissions !== undefined) await onDisk(() => file.chmod(permissions))
    await sync(() => file.datasync())
  }

  const write = async (id: ImageId, body: ByteSource, { size, attempt, signal }: WriteOptions): Promise<Written> => {
    admitName(id)
    admitName(attempt)
    await admitNew(id)
    const datadir = await pickDatadir(size ?? 0)
    const path = join(datadir, id)
    const part = partOf(datadir, id, attempt)
    const file = await onDisk(() => open(part, 'wx')).catch(cannotWrite)
    let named = false
    try {
      let written = 0
      const flushed = flusher(file, sync)
      try {
        const bytes = abortable(body, signal)
        for await (const chunk of size === undefined ? bytes : exactLength(bytes, size)) {
          await onDisk(() => writeChunk(file, chunk, written)).catch(cannotWrite)
          written += chunk.length
          flushed.upTo(written)
        }
        await flushed.idle().catch(cannotWrite)
        await complete(file, written).catch(cannotWrite)
      } finally {
        await flushed.idle().catch(() => undefined)
        await onDisk(() => file.close())
      }
      signal.throwIfAborted()
      await admitNew(id)
      await onDisk(() => giveName(part, path, id)).catch(cannotWrite)
      named = true
      await onDisk(() => rm(part, { force: true })).catch(cannotWrite)
      await sync(() => syncDirectory(datadir)).catch(cannotWrite)
      return { uri: `file://${path}` as LocationUri, size: written, metadata: metadataFor(path, mountpoints) }
    } catch (error) {
      await onDisk(() => rm(part, { force: true }))
      if (named) await onDisk(() => rm(path, { force: true }))
      throw error
    }
  }

  return guarded({
    schemes: ['file', 'filesystem'],
    features: { write: true, randomRead: true, unsizedWrite: true },
    write,
    read: async (uri, { offset = 0, length, signal }) => {
      const path = parseUri(uri)
      // Without blocking: opening a named pipe would wait for a writer, for ever and in a thread that others need.
      const file = await onDisk(() => open(path, constants.O_RDONLY | constants.O_NONBLOCK)).catch(cannotRead)
      try {
        const left = Math.max(0, (await onDisk(() => sizeOf(file))) - offset)
        signal.throwIfAborted()
        const patient: ReadableFile = {
          read: (...range) => onDisk(() => file.read(...range)),
          close: () => onDisk(() => file.close()),
        }
        return fileSource(patient, { offset, length: Math.min(length ?? left, left) }, signal, buffers)
      } catch (error) {
        await file.close()
        throw error
      }
    },
    stat: async (uri) => {
      const found = await timely(() => stat(parseUri(uri))).catch(cannotRead)
      if (!found.isFile()) throw missing()
      return { size: found.size }
    },
    delete: async (uri) => {
      await timely(() => unlink(parseUri(uri))).catch(cannotDelete)
    },
    sweep: async (id, attempt) => {
      admitName(id)
      admitName(attempt)
      for (const { path } of datadirs) {
        await timely(() => rm(partOf(path, id, attempt), { force: true })).catch(cannotDelete)
        await timely(() => rm(join(path, id), { force: true })).catch(cannotDelete)
      }
    },
    close: async () => undefined,
    freeBytes: async () => Math.max(...(await Promise.all(datadirs.map(({ path }) => freeIn(path))))),
    directories: datadirs.map(({ path }) => path),
    properties: () => ({
      data_dir: datadirs.map(({ path }) => path).join(','),
      chunk_size: chunkSize,
      thin_provisioning: thin,
    }),
  })
}

// Configuration

const misconfigured = (message: string, cause?: unknown) => new ServiceError('invalid', message, { cause })

function parseDatadirs(config: Values<typeof options>): readonly Datadir[] {
  const { filesystem_store_datadir: single, filesystem_store_datadirs: several } = config
  if (several.length === 0) {
    if (single === '') throw misconfigured('Specify filesystem_store_datadir or filesystem_store_datadirs')
    return [{ path: resolve(single), priority: 0 }]
  }
  if (single !== '' && single !== DEFAULT_DATADIR) {
    throw misconfigured('Specify either filesystem_store_datadir or filesystem_store_datadirs, not both')
  }
  const datadirs = new Map<string, Datadir>()
  for (const value of several) {
    const [, path = '', priority = '0'] = /^\s*(.*?)\s*(?::\s*([^:]*?)\s*)?$/s.exec(value) ?? []
    if (path === '') throw misconfigured(`filesystem_store_datadirs: no directory in "${value}"`)
    if (!/^([+-]?\d+)?$/.test(priority)) {
      throw misconfigured(`filesystem_store_datadirs: the priority in "${value}" is not a number`)
    }
    const datadir = { path: resolve(path), priority: Number(priority) }
    if ((datadirs.get(datadir.path) ?? datadir).priority !== datadir.priority) {
      throw misconfigured(`filesystem_store_datadirs: ${path} has two priorities`)
    }
    datadirs.set(datadir.path, datadir)
  }
  return [...datadirs.values()]
}

/** The option's decimal digits are meant as octal ones: 640. Undefined leaves permissions to the umask. */
function parsePermissions(digits: number): number | undefined {
  if (digits === 0) return undefined
  const permissions = /^[0-7]{1,4}$/.test(String(digits)) ? Number.parseInt(String(digits), 8) : 0
  if ((permissions & constants.S_IRUSR) === 0) {
    throw misconfigured(`filesystem_store_file_perm = ${digits} would not let the service read its own files`)
  }
  return permissions
}

async function readMountpoints(file: string | undefined): Promise<readonly Mountpoint[]> {
  if (file === undefined || file === '') return []
  let content: unknown
  try {
    content = JSON.parse(await readFile(file, 'utf8'))
  } catch (cause) {
    throw misconfigured(`filesystem_store_metadata_file: ${file} cannot be read as JSON`, cause)
  }
  const list: readonly unknown[] = Array.isArray(content) ? content : [content]
  const isMountpoint = (entry: unknown): entry is Mountpoint =>
    entry instanceof Object &&
    'id' in entry &&
    typeof entry.id === 'string' &&
    'mountpoint' in entry &&
    typeof entry.mountpoint === 'string'
  if (!list.every(isMountpoint)) {
    throw misconfigured(`filesystem_store_metadata_file: ${file} must hold objects with the texts id and mountpoint`)
  }
  return list
}

const metadataFor = (path: string, mountpoints: readonly Mountpoint[]): Readonly<Record<string, unknown>> => ({
  ...mountpoints.find(({ mountpoint }) => path.startsWith(mountpoint)),
})

async function prepareDatadir(path: string, permissions: number | undefined): Promise<void> {
  try {
    await mkdir(path, { recursive: true })
    await access(path, constants.R_OK | constants.W_OK | constants.X_OK)
  } catch (cause) {
    throw misconfigured(`The directory ${path} for image data cannot be created or written`, cause)
  }
  if (permissions === undefined) return
  const { mode } = await stat(path)
  const wanted =
    mode |
    (permissions & constants.S_IRWXG ? constants.S_IXGRP : 0) |
    (permissions & constants.S_IRWXO ? constants.S_IXOTH : 0)
  if (wanted !== mode) await chmod(path, wanted & 0o7777)
}

// Names

/** An id becomes a file name: it must not lead out of the directory. */
function admitName(name: string): void {
  if (!/^[\w][\w.-]*$/.test(name)) throw new ServiceError('invalid', `"${name}" cannot be the name of image data`)
}

/**
 * The path in a location. It may lie outside the configured directories, for these may have changed since it was
 * written; clients cannot set such locations.
 */
function parseUri(uri: LocationUri): string {
  const path = /^file(?:system)?:\/\/(\/.*)$/is.exec(uri)?.[1]
  if (path === undefined || path.includes('\0') || path.split('/').includes('..')) {
    throw new ServiceError('invalid', 'Not a location of a filesystem store')
  }
  return path
}

// Files

/** Writes only blocks that are not zero; the file grows over the others by its next write, or by `truncate` at its end. */
function sparseWriter(blockSize: number): typeof writeAll {
  const zeros = Buffer.alloc(blockSize)
  return async (file, chunk, position) => {
    const isZero = (from: number) => {
      const block = chunk.subarray(from, from + blockSize)
      return block.equals(zeros.subarray(0, block.length))
    }
    for (let from = 0; from < chunk.length; from += blockSize) {
      const start = from
      while (from < chunk.length && !isZero(from)) from += blockSize
      if (from > start) await writeAll(file, chunk.subarray(start, from), position + start)
    }
  }
}

/**
 * Sends what is written to the disk while more is coming, which otherwise would begin at the end of the upload, when
 * the client waits for nothing else.
 */
function flusher(file: FileHandle, sync: (work: () => Promise<void>) => Promise<void>) {
  let flushed = 0
  let flushing: Promise<void> | undefined
  return {
    upTo: (written: number) => {
      if (flushing !== undefined || written - flushed < FLUSH_EVERY) return
      flushed = written
      flushing = sync(() => file.datasync())
      const done = () => {
        flushing = undefined
      }
      flushing.then(done, () => undefined)
    },
    /** Rejects with the failure of an earlier flush. */
    idle: async () => flushing,
  }
}

async function sizeOf(file: FileHandle): Promise<number> {
  const found = await file.stat()
  if (!found.isFile()) throw missing()
  return found.size
}

const exists = (path: string): Promise<boolean> =>
  stat(path).then(
    () => true,
    () => false,
  )

/** Gives `part` the name `path` as well, without ever replacing anything. Throws `conflict` when the name is taken. */
async function giveName(part: string, path: string, id: ImageId): Promise<void> {
  try {
    await link(part, path).catch(async (error: unknown) => {
      if (!NO_LINKS.includes(codeOf(error))) throw error
      // An empty file takes the name first, and who comes second finds it taken.
      await (await open(path, 'wx')).close()
      await rename(part, path).catch(async (failure: unknown) => {
        await rm(path, { force: true })
        throw failure
      })
    })
  } catch (error) {
    throw codeOf(error) === 'EEXIST' ? alreadyThere(id) : error
  }
}
/** A medium without hard links. */
const NO_LINKS = ['EPERM', 'ENOTSUP', 'EOPNOTSUPP', 'ENOSYS']

async function syncDirectory(path: string): Promise<void> {
  const directory = await open(path, 'r')
  try {
    await directory.sync()
  } catch (error) {
    // Some network file systems know no sync of a directory, nor need it.
    if (!['EINVAL', 'ENOTSUP', 'EOPNOTSUPP'].includes(codeOf(error))) throw error
  } finally {
    await directory.close()
  }
}

// Errors and waiting

const codeOf = (error: unknown): string => (error instanceof Error && 'code' in error ? String(error.code) : '')

const full = (cause?: unknown) =>
  new ServiceError('too-large', 'There is not enough disk space on the image storage media.', { cause })
const missing = (cause?: unknown) => new ServiceError('not-found', 'Image data not found', { cause })
const alreadyThere = (id: string) => new ServiceError('conflict', `Image ${id} already exists`)
const failed = (kind: ErrorKind, message: string, cause: unknown) =>
  new ServiceError(kind, message, { cause, transient: ['EMFILE', 'ENFILE'].includes(codeOf(cause)) })

// For `catch`: what an error of the file system means.
const ABSENT = ['ENOENT', 'ENOTDIR', 'EISDIR', 'ENXIO']
const NO_ROOM = ['ENOSPC', 'EDQUOT', 'EFBIG']

const cannotRead = (cause: unknown): never => {
  if (cause instanceof ServiceError) throw cause
  throw ABSENT.includes(codeOf(cause)) ? missing(cause) : failed('unavailable', 'Image data cannot be read', cause)
}
const cannotDelete = (cause: unknown): never => {
  if (cause instanceof ServiceError) throw cause
  throw ABSENT.includes(codeOf(cause)) ? missing(cause) : failed('forbidden', 'Image data cannot be deleted', cause)
}
const cannotWrite = (cause: unknown): never => {
  if (cause instanceof ServiceError) throw cause
  if (NO_ROOM.includes(codeOf(cause))) throw full(cause)
  throw failed('unavailable', 'Permission to write image storage media denied.', cause)
}

/** Gives up waiting after so many seconds; 0 waits for ever. The work itself cannot be stopped. */
async function within<T>(seconds: number, work: Promise<T>): Promise<T> {
  if (seconds === 0) return work
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(
      () => reject(new ServiceError('timeout', 'The image storage media does not answer', { transient: true })),
      seconds * 1000,
    )
  })
  return Promise.race([work, late]).finally(() => clearTimeout(timer))
}

/** Runs what it is given, `limit` at a time, in order. */
function withLimit(limit: number): <T>(work: () => Promise<T>) => Promise<T> {
  let running = 0
  const waiting: (() => void)[] = []
  return async (work) => {
    if (running < limit) running++
    else await new Promise<void>((resolve) => waiting.push(resolve))
    try {
      return await work()
    } finally {
      const next = waiting.shift()
      if (next === undefined) running--
      else next()
    }
  }
}
