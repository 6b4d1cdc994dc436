import { createHash, randomBytes, randomUUID } from 'node:crypto'
import { mkdtemp, readdir, rm, stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import type { ImageId } from '../domain/ids.ts'
import type { Image } from '../domain/image.ts'
import type { ByteRange, ByteSource } from '../io/bytes.ts'
import { type Log, silentLog } from '../log.ts'
import { type CacheSettings, type Fetch, type ImageCache, openImageCache } from './cache.ts'
import type { CacheDriver } from './driver.ts'
import { openLayout } from './layout.ts'

/** Hooks run in the order in which they are made: what is open in a folder is closed before the folder goes. */
const closers = new Map<string, (() => Promise<void>)[]>()

/** A folder that is gone after the test. */
export async function newFolder(t: TestContext): Promise<string> {
  const dir = await mkdtemp(join(tmpdir(), 'glimpse-cache-'))
  t.after(async () => {
    for (const close of closers.get(dir) ?? []) await close()
    await rm(dir, { recursive: true, force: true })
  })
  return dir
}

export interface OpenOptions {
  readonly driver: CacheDriver
  readonly maxSize?: number
  readonly stallMs?: number
  readonly log?: Log
}

/** A cache in `dir`, as one process of a node has it; closed after the test. */
export async function openCache(t: TestContext, dir: string, options: OpenOptions): Promise<ImageCache> {
  const { driver, maxSize = 1e9, stallMs = 60_000, log = silentLog } = options
  const layout = await openLayout(dir)
  const settings: CacheSettings = { dir, layout, driver, maxSize, stallMs, log }
  const cache = await openImageCache(settings)
  let closed: Promise<void> | undefined
  const close = () => {
    closed ??= cache.close()
    return closed
  }
  closers.set(dir, [...(closers.get(dir) ?? []), close])
  t.after(close)
  return { ...cache, close }
}

export interface TestImage extends Image {
  readonly data: Buffer
}

/** With random data, unless `change` brings some. */
export function newImage(size: number, change: Partial<TestImage> = {}): TestImage {
  const { data = randomBytes(size) } = change
  return {
    id: randomUUID() as ImageId,
    name: null,
    status: 'active',
    visibility: 'private',
    owner: null,
    protected: false,
    hidden: false,
    size,
    virtualSize: null,
    minRam: 0,
    minDisk: 0,
    diskFormat: 'raw',
    containerFormat: 'bare',
    checksum: createHash('md5').update(data).digest('hex'),
    osHashAlgo: 'sha512',
    osHashValue: createHash('sha512').update(data).digest('hex'),
    createdAt: new Date(),
    updatedAt: new Date(),
    tags: [],
    properties: new Map(),
    locations: [],
    data,
    ...change,
  }
}

/** A store that counts its reads, and gives no more than it is allowed to. */
export interface TestStore {
  readonly fetch: Fetch
  /** The ranges that were asked for. */
  readonly reads: ByteRange[]
  /** Gives everything up to this byte; all of it without. */
  allow(upTo?: number): void
  /** The next bytes are an error instead. */
  fail(error: Error): void
}

export function newStore({ data }: { readonly data: Buffer }, { held = false, chunk = 65_536 } = {}): TestStore {
  const reads: ByteRange[] = []
  let allowed = held ? 0 : Number.POSITIVE_INFINITY
  let failure: Error | undefined
  const wake: (() => void)[] = []
  const change = () => {
    for (const each of wake.splice(0)) each()
  }
  async function* bytes({ offset, length }: ByteRange, signal: AbortSignal): AsyncGenerator<Buffer> {
    for (let at = offset; at < offset + length; ) {
      while (at >= allowed && failure === undefined && !signal.aborted) {
        await new Promise<void>((resolve) => {
          wake.push(resolve)
          signal.addEventListener('abort', () => resolve(), { once: true })
        })
      }
      signal.throwIfAborted()
      if (failure !== undefined) throw failure
      const part = data.subarray(at, Math.min(at + chunk, offset + length, allowed))
      at += part.length
      yield Buffer.from(part)
    }
  }
  return {
    reads,
    fetch: async (range, signal) => {
      reads.push(range)
      return bytes(range, signal)
    },
    allow: (upTo = Number.POSITIVE_INFINITY) => {
      allowed = upTo
      change()
    },
    fail: (error) => {
      failure = error
      change()
    },
  }
}

export const ALL = (image: Image): ByteRange => ({ offset: 0, length: image.size ?? 0 })

export async function collect(source: ByteSource | undefined): Promise<Buffer> {
  const chunks: Buffer[] = []
  for await (const chunk of source ?? []) chunks.push(Buffer.from(chunk))
  return Buffer.concat(chunks)
}

/** What a client of the service gets: from the cache, or else from the store. */
export async function download(
  cache: ImageCache,
  image: Image,
  { fetch }: Pick<TestStore, 'fetch'>,
  range: ByteRange = ALL(image),
): Promise<Buffer> {
  const { signal } = new AbortController()
  return collect((await cache.read(image, range, { signal, fetch })) ?? (await fetch(range, signal)))
}

/** Bytes of all image data in the folder: copies and what is on its way to become one. */
export async function bytesIn(dir: string): Promise<number> {
  let total = 0
  for (const folder of ['', 'incomplete', 'invalid']) {
    for (const entry of await readdir(join(dir, folder), { withFileTypes: true })) {
      if (!entry.isFile() || !/^[0-9a-f-]{36}$/.test(entry.name)) continue
      total += await stat(join(dir, folder, entry.name)).then(
        ({ size }) => size,
        () => 0,
      )
    }
  }
  return total
}

export const filesIn = async (dir: string, folder: string): Promise<readonly string[]> =>
  (await readdir(join(dir, folder))).toSorted()

export const until = async (condition: () => boolean | Promise<boolean>, what: string): Promise<void> => {
  const end = Date.now() + 10_000
  while (!(await condition())) {
    if (Date.now() > end) throw new Error(`Waited in vain for ${what}`)
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
}
