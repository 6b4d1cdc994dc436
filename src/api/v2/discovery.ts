import type { Core, RequestContext } from '../../core/core.ts'
import { projectUsage } from '../../core/quota.ts'
import { listStores, listStoresInDetail } from '../../core/stores.ts'
import type { Route } from '../http/route.ts'
import type { Schemas } from './schemas.ts'

type Store = Core['stores']['default']

export const schemaRoutes = (schemas: Schemas): readonly Route<RequestContext>[] =>
  (['image', 'images', 'member', 'members', 'task', 'tasks'] as const).map((name) => ({
    method: 'GET',
    path: `/schemas/${name}`,
    describe: {
      summary: `The schema of ${name.endsWith('s') ? 'several' : 'one'}: ${name}`,
      answers: { 200: 'schema' },
    },
    rejectsBody: !name.startsWith('task'),
    handle: async () => ({ status: 200, json: schemas[name] }),
  }))

export const infoRoutes = (core: Core): readonly Route<RequestContext>[] => {
  const summary = storeSummary(core)
  return [
    {
      method: 'GET',
      path: '/info/import',
      describe: { summary: 'The ways to import images', answers: { 200: 'import_info' } },
      rejectsBody: true,
      handle: async () => ({
        status: 200,
        json: {
          'import-methods': { description: 'Import methods available.', type: 'array', value: core.imports.offered },
        },
      }),
    },
    {
      method: 'GET',
      path: '/info/stores',
      describe: { summary: 'The stores', answers: { 200: 'stores' } },
      rejectsBody: true,
      handle: async () => ({ status: 200, json: { stores: listStores(core).map(summary) } }),
    },
    {
      method: 'GET',
      path: '/info/stores/detail',
      describe: {
        summary: 'The stores, and how they are configured',
        rules: ['stores_info_detail'],
        answers: { 200: 'stores' },
      },
      rejectsBody: true,
      handle: async ({ context }) => ({
        status: 200,
        json: {
          stores: listStoresInDetail(core, context).map((store) => ({
            ...summary(store),
            type: store.type,
            properties: store.properties(),
            weight: store.weight,
          })),
        },
      }),
    },
    {
      method: 'GET',
      path: '/info/usage',
      describe: { summary: 'What the project uses, and its limits', answers: { 200: 'usage' } },
      rejectsBody: true,
      handle: async ({ context }) => ({
        status: 200,
        json: { usage: await projectUsage(core, context.identity.projectId ?? null) },
      }),
    },
  ]
}

/** Flags are the text "true", and absent where they are false. */
const storeSummary =
  ({ stores }: Core) =>
  (store: Store) => ({
    id: store.id,
    ...(store.description === undefined ? {} : { description: store.description }),
    ...(store === stores.default ? { default: 'true' } : {}),
    ...(store.readOnly ? { 'read-only': 'true' } : {}),
  })
