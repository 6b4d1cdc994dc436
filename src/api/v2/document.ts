// What the API document (api/openapi.ts) knows beyond the schemas that are served.
import { TASK_COLUMNS, TASK_SORT_KEYS } from '../../domain/query.ts'
import { TASK_TRANSITIONS, TASK_TYPES } from '../../domain/task.ts'
import type { JsonSchema } from '../http/route.ts'
import { type DescribedRoute, openApi } from '../openapi.ts'
import { METADEF_SCHEMAS, TAG_LIST } from './metadef-schemas.ts'
import { buildSchemas, NEW_LOCATION, type SchemaOptions, type Schemas } from './schemas.ts'

const TEXT: JsonSchema = { type: 'string' }
const record = (properties: Readonly<Record<string, JsonSchema>>, required = Object.keys(properties)): JsonSchema => ({
  type: 'object',
  properties,
  required,
})
const list = (items: JsonSchema): JsonSchema => ({ type: 'array', items })
const among = (...values: readonly string[]): JsonSchema => ({ type: 'string', enum: values })

const COUNT: JsonSchema = { type: 'integer', minimum: 0 }
const PAGE = { limit: COUNT, marker: TEXT } as const
const DIRECTION = among('asc', 'desc')

export const IMAGE_LIST_QUERY: Readonly<Record<string, JsonSchema>> = {
  ...PAGE,
  sort: { type: 'string', description: 'Keys with directions, such as `name:asc,status:desc`' },
  sort_key: TEXT,
  sort_dir: DIRECTION,
  name: TEXT,
  status: TEXT,
  owner: TEXT,
  visibility: among('all', 'community', 'public', 'private', 'shared'),
  member_status: among('all', 'pending', 'accepted', 'rejected'),
  os_hidden: among('true', 'false'),
  protected: among('true', 'false'),
  container_format: TEXT,
  disk_format: TEXT,
  tag: TEXT,
  size_min: COUNT,
  size_max: COUNT,
  created_at: { type: 'string', description: 'A time, or an operator and a time: `gt:2026-01-01T00:00:00Z`' },
  updated_at: { type: 'string', description: 'As created_at' },
}

export const NAMESPACE_LIST_QUERY: Readonly<Record<string, JsonSchema>> = {
  ...PAGE,
  sort_key: TEXT,
  sort_dir: DIRECTION,
  visibility: among('public', 'private'),
  resource_types: { type: 'string', description: 'Names with commas between them' },
}
export const TASK_LIST_QUERY: Readonly<Record<string, JsonSchema>> = {
  ...PAGE,
  sort_key: among(...TASK_SORT_KEYS),
  sort_dir: DIRECTION,
  ...Object.fromEntries(TASK_COLUMNS.map((name) => [name, TEXT])),
  status: among(...Object.keys(TASK_TRANSITIONS)),
  type: { const: 'import' },
}
export const TAG_LIST_QUERY: Readonly<Record<string, JsonSchema>> = { ...PAGE, sort_key: TEXT, sort_dir: DIRECTION }
export const RESOURCE_TYPE_QUERY: Readonly<Record<string, JsonSchema>> = {
  resource_type: { type: 'string', description: 'Names of properties have the prefix that they have for this type' },
}

/** Media types of changes to an image, the newest first. */
export const IMAGE_PATCHES = {
  'application/openstack-images-v2.1-json-patch': 'image_patch',
  'application/openstack-images-v2.0-json-patch': 'image_patch_draft4',
} as const

const POINTER: JsonSchema = { type: 'string', pattern: '^/' }
const VALUE: JsonSchema = { description: 'What the attribute shall be' }

/** Schemas of the document alone, by the names that routes use. */
const OWN = {
  image_patch: list({
    oneOf: [
      record({ op: among('add', 'replace'), path: POINTER, value: VALUE }),
      record({ op: { const: 'remove' }, path: POINTER }),
    ],
  }),
  image_patch_draft4: list({
    oneOf: [
      record({ add: POINTER, value: VALUE }),
      record({ replace: POINTER, value: VALUE }),
      record({ remove: POINTER }),
    ],
  }),
  member_create: record({ member: { type: 'string', minLength: 1, maxLength: 255 } }),
  member_update: record({ status: among('pending', 'accepted', 'rejected') }),
  locations: list(record({ url: TEXT, metadata: { type: 'object' } })),
  new_location: NEW_LOCATION,
  import_request: record(
    {
      method: record({ name: TEXT, uri: TEXT, glance_region: TEXT, glance_image_id: TEXT }, ['name']),
      stores: list(TEXT),
      all_stores: { type: 'boolean' },
      all_stores_must_succeed: { type: 'boolean' },
    },
    ['method'],
  ),
  task_create: record({ type: among(...TASK_TYPES), input: { type: 'object' } }),
  image_tasks: record({ tasks: list({ type: 'object' }) }),
  import_info: record({
    'import-methods': record({ description: TEXT, type: { const: 'array' }, value: list(TEXT) }),
  }),
  stores: record({
    stores: list(
      record(
        {
          id: TEXT,
          description: TEXT,
          default: { const: 'true' },
          'read-only': { const: 'true' },
          type: TEXT,
          weight: { type: 'integer' },
          properties: { type: 'object' },
        },
        ['id'],
      ),
    ),
  }),
  usage: record({
    usage: { type: 'object', additionalProperties: record({ usage: COUNT, limit: { type: 'integer' } }) },
  }),
  cache: record({ cached_images: list({ type: 'object' }), queued_images: list(TEXT) }),
  cached_images: record({ cached_images: list({ type: 'object' }) }),
  queued_images: record({ queued_images: list(TEXT) }),
  deleted: record({ num_deleted: COUNT }),
  cache_nodes: { type: ['object', 'array'] },
  cache_pruned: record({ total_files_pruned: COUNT, total_bytes_pruned: COUNT }),
  schema: { type: 'object', description: 'A JSON schema' },
  // An item of a list is its schema with what only servers say.
  resource_types: record({ resource_types: list(record({ name: TEXT, created_at: TEXT, updated_at: TEXT })) }),
  metadef_tag_names: TAG_LIST,
  metadef_association_names: record({ resource_type_associations: list(record({ name: TEXT }, ['name'])) }),
} as const satisfies Record<string, JsonSchema>

/** Everything that a description of a v2 route may name. */
const documentSchemas = (schemas: Schemas): Readonly<Record<string, JsonSchema>> => ({
  ...schemas,
  ...Object.fromEntries(Object.entries(METADEF_SCHEMAS).map(([name, schema]) => [`metadef_${name}`, schema])),
  ...OWN,
})

/** The OpenAPI document of the Image API. */
export const v2Document = (routes: readonly DescribedRoute[], schema: SchemaOptions) =>
  openApi({
    title: 'OpenStack Image service',
    version: '2.18',
    prefix: '/v2',
    routes,
    schemas: documentSchemas(buildSchemas(schema)),
  })
