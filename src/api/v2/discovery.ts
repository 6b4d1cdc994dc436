import type { RequestContext } from '../../core/core.ts'
import { ServiceError } from '../../domain/errors.ts'
import type { Route } from '../http/route.ts'
import type { Schemas } from './schemas.ts'

/** A store as `/info/stores` shows it. */
export interface StoreInfo {
  readonly id: string
  readonly description: string | undefined
  readonly isDefault: boolean
  readonly readOnly: boolean
}

export const schemaRoutes = (schemas: Schemas): readonly Route<RequestContext>[] =>
  (['image', 'images', 'member', 'members'] as const).map((name) => ({
    method: 'GET',
    path: `/schemas/${name}`,
    rejectsBody: true,
    handle: async () => ({ status: 200, json: schemas[name] }),
  }))

/** `stores` is undefined where there is only one, without a name. */
export const infoRoutes = (
  importMethods: readonly string[],
  stores: readonly StoreInfo[] | undefined,
): readonly Route<RequestContext>[] => [
  {
    method: 'GET',
    path: '/info/import',
    rejectsBody: true,
    handle: async () => ({
      status: 200,
      json: { 'import-methods': { description: 'Import methods available.', type: 'array', value: importMethods } },
    }),
  },
  {
    method: 'GET',
    path: '/info/stores',
    rejectsBody: true,
    handle: async () => {
      if (stores === undefined) throw new ServiceError('not-found', 'Multi backend is not supported at this site.')
      return { status: 200, json: { stores: stores.map(storeView) } }
    },
  },
]

/** Flags are the text "true", and absent where they are false. */
const storeView = (store: StoreInfo) => ({
  id: store.id,
  ...(store.description === undefined ? {} : { description: store.description }),
  ...(store.isDefault ? { default: 'true' } : {}),
  ...(store.readOnly ? { 'read-only': 'true' } : {}),
})
