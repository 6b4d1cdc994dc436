import { integer } from '../../config/options.ts'
import { ServiceError } from '../../domain/errors.ts'
import type { ImageId, LocationUri } from '../../domain/ids.ts'
import { abortable, type ByteSource, exactLength } from '../../io/bytes.ts'
import { defineStore, guarded, type StoreDriver } from '../driver.ts'

const CHUNK = 65_536

/** The reference: what any store does, without a medium. For tests and as an example. */
export const memoryStore = defineStore({
  type: 'memory',
  options: {
    memory_store_capacity: integer({
      default: 1_073_741_824,
      min: 0,
      help: 'Bytes of image data that the memory store takes. They are lost when the process ends.',
    }),
  },
  open: async (config) => openMemoryDriver({ capacity: config.memory_store_capacity }),
})

export function openMemoryDriver({
  capacity = Number.POSITIVE_INFINITY,
  data = new Map<string, Buffer>(),
}: {
  readonly capacity?: number
  /** What it stores, by image id; two drivers may share it. */
  readonly data?: Map<string, Buffer>
} = {}): StoreDriver {
  const used = () => [...data.values()].reduce((sum, { length }) => sum + length, 0)
  const admitSize = (size: number) => {
    if (used() + size > capacity) throw full()
  }
  const admitId = (id: ImageId) => {
    if (data.has(id)) throw new ServiceError('conflict', `Image ${id} already exists`)
  }
  const find = (uri: LocationUri): Buffer => {
    const found = data.get(parseUri(uri))
    if (found === undefined) throw missing(uri)
    return found
  }

  return guarded({
    schemes: ['memory'],
    features: { write: true, randomRead: true, unsizedWrite: true },
    write: async (id, body, { size, signal }) => {
      admitId(id)
      admitSize(size ?? 0)
      const chunks: Buffer[] = []
      let written = 0
      const bytes = abortable(body, signal)
      for await (const chunk of size === undefined ? bytes : exactLength(bytes, size)) {
        written += chunk.length
        admitSize(written)
        chunks.push(Buffer.from(chunk))
      }
      signal.throwIfAborted()
      admitId(id)
      data.set(id, Buffer.concat(chunks))
      return { uri: printUri(id), size: written, metadata: {} }
    },
    read: async (uri, { offset = 0, length, signal }) => {
      const bytes = find(uri)
      return abortable(inChunks(bytes.subarray(offset, length === undefined ? undefined : offset + length)), signal)
    },
    stat: async (uri) => ({ size: find(uri).length }),
    delete: async (uri) => {
      if (!data.delete(parseUri(uri))) throw missing(uri)
    },
    sweep: async (id) => void data.delete(id),
    close: async () => undefined,
    freeBytes: async () => Math.max(0, capacity - used()),
  })
}

async function* inChunks(bytes: Buffer): ByteSource {
  for (let offset = 0; offset < bytes.length; offset += CHUNK) yield bytes.subarray(offset, offset + CHUNK)
}

const printUri = (id: ImageId) => `memory://${id}` as LocationUri

function parseUri(uri: LocationUri): string {
  const id = /^memory:\/\/(.+)$/s.exec(uri)?.[1]
  if (id === undefined) throw new ServiceError('invalid', 'Not a location of a memory store')
  return id
}

const full = () => new ServiceError('too-large', 'There is not enough disk space on the image storage media.')
const missing = (uri: LocationUri) => new ServiceError('not-found', `Image data not found`, { detail: { uri } })
