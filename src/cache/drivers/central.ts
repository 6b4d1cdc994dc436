import type { CachedRepository } from '../../db/database.ts'
import type { CacheDriver, Copy } from '../driver.ts'

/** The index in the service database, under the address of this node (`worker_self_reference_url`). */
export async function openCentralDriver(records: CachedRepository, node: string): Promise<CacheDriver> {
  await records.addNode(node)
  return {
    name: 'centralized_db',
    find: async ({ imageId }) => (await records.list(node, imageId))[0],
    list: async (copies) => {
      const wanted = new Set(copies.map(({ imageId }) => imageId))
      return (await records.list(node)).filter(({ imageId }) => wanted.has(imageId))
    },
    add: ({ size }: Copy, record) => records.put(node, { ...record, size }),
    touch: ({ imageId, size, modified }) => {
      const now = new Date()
      const first = { imageId, size, hits: 1, lastAccessed: now, lastModified: modified, checksum: null }
      return records.touch(node, first)
    },
    remove: (id) => records.remove(node, id),
    nodes: (id) => records.nodes(id),
    close: async () => undefined,
  }
}
