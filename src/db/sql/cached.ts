import { sql } from 'kysely'
import type { CachedImage } from '../../domain/cached-image.ts'
import { ServiceError } from '../../domain/errors.ts'
import type { ImageId } from '../../domain/ids.ts'
import type { CachedRepository } from '../database.ts'
import { fromText } from '../time.ts'
import type { Connection, Session } from './session.ts'
import { slot } from './statement.ts'

interface CachedRow {
  readonly id: number
  readonly image_id: string
  readonly last_accessed: string
  readonly last_modified: string
  readonly size: number | null
  readonly hits: number
  readonly checksum: string | null
}

const toCachedImage = (row: CachedRow): CachedImage => ({
  row: row.id,
  imageId: row.image_id as ImageId,
  size: row.size ?? 0,
  hits: row.hits,
  lastAccessed: fromText(row.last_accessed),
  lastModified: fromText(row.last_modified),
  checksum: row.checksum,
})

/** node_reference and cached_images, which upstream has had since 2024.1. */
export const cachedRepository = ({ facts, kysely, prepare, read, write }: Connection): CachedRepository => {
  const url = slot<string>('node')
  const image = slot<string>('image')
  const nodeId = kysely.selectFrom('node_reference').select('node_reference_id').where('node_reference_url', '=', url)
  const ofNode = kysely
    .selectFrom('cached_images')
    .select(['id', 'image_id', 'last_accessed', 'last_modified', 'hits', 'checksum'])
    .select(facts.integer(sql.ref('size')).as('size'))
    .where('node_reference_id', '=', slot<number>('nodeId'))
    .orderBy('id')
  const one = kysely.updateTable('cached_images').where('image_id', '=', image)
  const record = {
    last_accessed: slot<string>('accessed'),
    last_modified: slot<string>('modified'),
    size: slot<number>('size'),
    hits: slot<number>('hits'),
    checksum: slot<string>('checksum'),
  }
  const statements = {
    node: prepare(nodeId),
    addNode: prepare(kysely.insertInto('node_reference').values({ node_reference_url: url })),
    list: prepare<CachedRow>(ofNode),
    find: prepare<CachedRow>(ofNode.where('image_id', '=', image)),
    replace: prepare(one.where('node_reference_id', '=', slot<number>('nodeId')).set(record)),
    insert: prepare(
      kysely.insertInto('cached_images').values({ image_id: image, node_reference_id: slot('nodeId'), ...record }),
    ),
    touch: prepare(
      one
        .where('node_reference_id', '=', slot<number>('nodeId'))
        .set({ hits: sql<number>`hits + 1`, last_accessed: slot<string>('accessed') }),
    ),
    remove: prepare(
      kysely
        .deleteFrom('cached_images')
        .where('image_id', '=', image)
        .where('node_reference_id', '=', slot<number>('nodeId')),
    ),
    nodes: prepare(
      kysely
        .selectFrom('cached_images')
        .innerJoin('node_reference', 'node_reference.node_reference_id', 'cached_images.node_reference_id')
        .select('node_reference_url')
        .where('image_id', '=', image)
        .orderBy('cached_images.id'),
    ),
  }

  const find = async (session: Session, node: string): Promise<number | undefined> =>
    (await session.first(statements.node, { node }))?.node_reference_id
  const known = async (session: Session, node: string): Promise<number> => {
    const nodeId = await find(session, node)
    if (nodeId === undefined) throw new ServiceError('not-found', `The node reference ${node} was not found.`)
    return nodeId
  }
  const valuesOf = (nodeId: number, cached: CachedImage) => ({
    nodeId,
    image: cached.imageId,
    accessed: facts.toTime(cached.lastAccessed),
    modified: facts.toTime(cached.lastModified),
    size: cached.size,
    hits: cached.hits,
    checksum: cached.checksum,
  })

  return {
    addNode: (node) =>
      write(async (session) => {
        if ((await find(session, node)) === undefined) await session.change(statements.addNode, { node })
      }),
    list: (node, image) =>
      read(async (session) => {
        const nodeId = await find(session, node)
        if (nodeId === undefined) return []
        const rows =
          image === undefined
            ? await session.all(statements.list, { nodeId })
            : await session.all(statements.find, { nodeId, image })
        return rows.map(toCachedImage)
      }),
    put: (node, cached) =>
      write(async (session) => {
        const values = valuesOf(await known(session, node), cached)
        if ((await session.change(statements.replace, values)) === 0) await session.change(statements.insert, values)
      }),
    touch: (node, first) =>
      write(async (session) => {
        const values = valuesOf(await known(session, node), first)
        if ((await session.change(statements.touch, values)) === 0) await session.change(statements.insert, values)
      }),
    remove: (node, image) =>
      write(async (session) => {
        const nodeId = await find(session, node)
        if (nodeId !== undefined) await session.change(statements.remove, { nodeId, image })
      }),
    nodes: (image) =>
      read(async (session) =>
        (await session.all(statements.nodes, { image })).map(({ node_reference_url }) => node_reference_url),
      ),
  }
}
