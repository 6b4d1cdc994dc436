import type { Facts } from './facts.ts'

/** How a database writes what upstream's migrations say to SQLAlchemy. */
interface Types {
  /** A key that counts by itself. */
  readonly id: string
  readonly bigId: string
  readonly bigint: string
  readonly time: string
  /** Which of the columns are checked to be 0 or 1, where flags are numbers. */
  readonly flags: (...columns: readonly string[]) => readonly string[]
  readonly no: string
  readonly visibility: string
  /** `images` was rebuilt on the way, which left its mark on how it is written, and lost and kept checks by it. */
  readonly images: string
  readonly imageChecks: readonly string[]
  /** Before everything else. */
  readonly first: readonly string[]
  /** Behind each table. */
  readonly options: string
}

const numberFlags = (...columns: readonly string[]) => columns.map((column) => `CHECK (${column} IN (0, 1))`)

const TYPES: Readonly<Record<Facts['name'], Types>> = {
  sqlite: {
    id: 'INTEGER NOT NULL',
    bigId: 'INTEGER NOT NULL',
    bigint: 'INTEGER',
    time: 'DATETIME',
    flags: numberFlags,
    no: '0',
    visibility: 'VARCHAR(9)',
    images: '"images"',
    imageChecks: [],
    first: [],
    options: '',
  },
  postgresql: {
    id: 'SERIAL NOT NULL',
    bigId: 'BIGSERIAL NOT NULL',
    bigint: 'BIGINT',
    time: 'TIMESTAMP WITHOUT TIME ZONE',
    flags: () => [],
    no: 'false',
    visibility: 'image_visibility',
    images: 'images',
    imageChecks: [],
    first: [`CREATE TYPE image_visibility AS ENUM ('private', 'public', 'shared', 'community')`],
    options: '',
  },
  mysql: {
    id: 'INTEGER NOT NULL AUTO_INCREMENT',
    bigId: 'BIGINT NOT NULL AUTO_INCREMENT',
    bigint: 'BIGINT',
    time: 'DATETIME',
    flags: numberFlags,
    no: '0',
    visibility: `ENUM('private', 'public', 'shared', 'community')`,
    images: 'images',
    imageChecks: [
      // MariaDB reads the first name alone, and MySQL the second.
      'CONSTRAINT /*M! CONSTRAINT_2 */ /*!80000 images_chk_2 */ CHECK (deleted IN (0, 1))',
      'CONSTRAINT /*M! CONSTRAINT_3 */ /*!80000 images_chk_3 */ CHECK (protected IN (0, 1))',
    ],
    first: [],
    options: ' ENGINE=InnoDB CHARSET=utf8mb3',
  },
}

/** A table in the lines that upstream's library writes: SQLite keeps the very text. */
const tableWriter =
  (options: string) =>
  (name: string, ...lines: readonly (string | readonly string[])[]): string =>
    `CREATE TABLE ${name} (\n\t${lines.flat().join(', \n\t')}\n)${options}`

/** Holds the revisions; upstream's tool makes it before all migrations, with the defaults of the database. */
export const VERSION_TABLE = tableWriter('')(
  'alembic_version',
  'version_num VARCHAR(32) NOT NULL',
  'CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)',
)

/**
 * Upstream's schema as the migrations of Train leave it. Names of tables, columns, indexes and constraints, and the
 * order of columns, are upstream's, because its later migrations address them.
 */
export function trainSchema(name: Facts['name']): readonly string[] {
  const { id, bigint, time, flags, no, visibility, images, imageChecks, first, options } = TYPES[name]
  const stamps = [`created_at ${time} NOT NULL`, `updated_at ${time}`, `deleted_at ${time}`, 'deleted BOOLEAN NOT NULL']
  const metadefStamps = [`created_at ${time} NOT NULL`, `updated_at ${time}`]
  const ofImage = 'FOREIGN KEY(image_id) REFERENCES images (id)'
  const ofNamespace = 'FOREIGN KEY(namespace_id) REFERENCES metadef_namespaces (id)'
  const byId = 'PRIMARY KEY (id)'
  const table = tableWriter(options)

  return [
    ...first,
    table(
      images,
      'id VARCHAR(36) NOT NULL',
      'name VARCHAR(255)',
      `size ${bigint}`,
      'status VARCHAR(30) NOT NULL',
      stamps,
      'disk_format VARCHAR(20)',
      'container_format VARCHAR(20)',
      'checksum VARCHAR(32)',
      'owner VARCHAR(255)',
      'min_disk INTEGER NOT NULL',
      'min_ram INTEGER NOT NULL',
      `protected BOOLEAN DEFAULT ${no} NOT NULL`,
      `virtual_size ${bigint}`,
      `visibility ${visibility} DEFAULT 'shared' NOT NULL`,
      `os_hidden BOOLEAN DEFAULT ${no} NOT NULL`,
      'os_hash_algo VARCHAR(64)',
      'os_hash_value VARCHAR(128)',
      byId,
      imageChecks,
    ),
    'CREATE INDEX checksum_image_idx ON images (checksum)',
    'CREATE INDEX ix_images_deleted ON images (deleted)',
    'CREATE INDEX owner_image_idx ON images (owner)',
    'CREATE INDEX created_at_image_idx ON images (created_at)',
    'CREATE INDEX updated_at_image_idx ON images (updated_at)',
    'CREATE INDEX visibility_image_idx ON images (visibility)',
    'CREATE INDEX os_hidden_image_idx ON images (os_hidden)',
    'CREATE INDEX os_hash_value_image_idx ON images (os_hash_value)',

    table(
      'image_properties',
      `id ${id}`,
      'image_id VARCHAR(36) NOT NULL',
      'name VARCHAR(255) NOT NULL',
      'value TEXT',
      stamps,
      byId,
      ofImage,
      'CONSTRAINT ix_image_properties_image_id_name UNIQUE (image_id, name)',
      flags('deleted'),
    ),
    'CREATE INDEX ix_image_properties_deleted ON image_properties (deleted)',
    'CREATE INDEX ix_image_properties_image_id ON image_properties (image_id)',

    table(
      'image_locations',
      `id ${id}`,
      'image_id VARCHAR(36) NOT NULL',
      'value TEXT NOT NULL',
      stamps,
      'meta_data TEXT',
      `status VARCHAR(30) DEFAULT 'active' NOT NULL`,
      byId,
      ofImage,
      flags('deleted'),
    ),
    'CREATE INDEX ix_image_locations_deleted ON image_locations (deleted)',
    'CREATE INDEX ix_image_locations_image_id ON image_locations (image_id)',

    table(
      'image_members',
      `id ${id}`,
      'image_id VARCHAR(36) NOT NULL',
      'member VARCHAR(255) NOT NULL',
      'can_share BOOLEAN NOT NULL',
      stamps,
      `status VARCHAR(20) DEFAULT 'pending' NOT NULL`,
      byId,
      ofImage,
      'CONSTRAINT image_members_image_id_member_deleted_at_key UNIQUE (image_id, member, deleted_at)',
      flags('can_share', 'deleted'),
    ),
    'CREATE INDEX ix_image_members_deleted ON image_members (deleted)',
    'CREATE INDEX ix_image_members_image_id ON image_members (image_id)',
    'CREATE INDEX ix_image_members_image_id_member ON image_members (image_id, member)',

    table(
      'image_tags',
      `id ${id}`,
      'image_id VARCHAR(36) NOT NULL',
      'value VARCHAR(255) NOT NULL',
      stamps,
      byId,
      ofImage,
      flags('deleted'),
    ),
    'CREATE INDEX ix_image_tags_image_id ON image_tags (image_id)',
    'CREATE INDEX ix_image_tags_image_id_tag_value ON image_tags (image_id, value)',

    table(
      'tasks',
      'id VARCHAR(36) NOT NULL',
      'type VARCHAR(30) NOT NULL',
      'status VARCHAR(30) NOT NULL',
      'owner VARCHAR(255) NOT NULL',
      `expires_at ${time}`,
      stamps,
      byId,
      flags('deleted'),
    ),
    'CREATE INDEX ix_tasks_deleted ON tasks (deleted)',
    'CREATE INDEX ix_tasks_owner ON tasks (owner)',
    'CREATE INDEX ix_tasks_status ON tasks (status)',
    'CREATE INDEX ix_tasks_type ON tasks (type)',
    'CREATE INDEX ix_tasks_updated_at ON tasks (updated_at)',
    table(
      'task_info',
      'task_id VARCHAR(36) NOT NULL',
      'input TEXT',
      'result TEXT',
      'message TEXT',
      'PRIMARY KEY (task_id)',
      'FOREIGN KEY(task_id) REFERENCES tasks (id)',
    ),

    table(
      'metadef_namespaces',
      `id ${id}`,
      'namespace VARCHAR(80) NOT NULL',
      'display_name VARCHAR(80)',
      'description TEXT',
      'visibility VARCHAR(32)',
      'protected BOOLEAN',
      'owner VARCHAR(255) NOT NULL',
      metadefStamps,
      byId,
      'CONSTRAINT uq_metadef_namespaces_namespace UNIQUE (namespace)',
      flags('protected'),
    ),
    'CREATE INDEX ix_metadef_namespaces_owner ON metadef_namespaces (owner)',
    table(
      'metadef_resource_types',
      `id ${id}`,
      'name VARCHAR(80) NOT NULL',
      'protected BOOLEAN NOT NULL',
      metadefStamps,
      byId,
      'CONSTRAINT uq_metadef_resource_types_name UNIQUE (name)',
      flags('protected'),
    ),
    table(
      'metadef_namespace_resource_types',
      'resource_type_id INTEGER NOT NULL',
      'namespace_id INTEGER NOT NULL',
      'properties_target VARCHAR(80)',
      'prefix VARCHAR(80)',
      metadefStamps,
      'PRIMARY KEY (resource_type_id, namespace_id)',
      ofNamespace,
      'FOREIGN KEY(resource_type_id) REFERENCES metadef_resource_types (id)',
    ),
    'CREATE INDEX ix_metadef_ns_res_types_namespace_id ON metadef_namespace_resource_types (namespace_id)',
    table(
      'metadef_objects',
      `id ${id}`,
      'namespace_id INTEGER NOT NULL',
      'name VARCHAR(80) NOT NULL',
      'description TEXT',
      'required TEXT',
      'json_schema TEXT NOT NULL',
      metadefStamps,
      byId,
      ofNamespace,
      'CONSTRAINT uq_metadef_objects_namespace_id_name UNIQUE (namespace_id, name)',
    ),
    'CREATE INDEX ix_metadef_objects_name ON metadef_objects (name)',
    table(
      'metadef_properties',
      `id ${id}`,
      'namespace_id INTEGER NOT NULL',
      'name VARCHAR(80) NOT NULL',
      'json_schema TEXT NOT NULL',
      metadefStamps,
      byId,
      ofNamespace,
      'CONSTRAINT uq_metadef_properties_namespace_id_name UNIQUE (namespace_id, name)',
    ),
    'CREATE INDEX ix_metadef_properties_name ON metadef_properties (name)',
    table(
      'metadef_tags',
      `id ${id}`,
      'namespace_id INTEGER NOT NULL',
      'name VARCHAR(80) NOT NULL',
      metadefStamps,
      byId,
      ofNamespace,
      'CONSTRAINT uq_metadef_tags_namespace_id_name UNIQUE (namespace_id, name)',
    ),
    'CREATE INDEX ix_metadef_tags_name ON metadef_tags (name)',
  ]
}

/** What a release after Train adds, while the one before may still be running. None has taken anything away. */
export function expandSchema(release: string, name: Facts['name']): readonly string[] {
  const { bigId, time, options } = TYPES[name]
  const table = tableWriter(options)
  switch (release) {
    case 'wallaby':
      return [
        'ALTER TABLE tasks ADD COLUMN image_id VARCHAR(36)',
        'ALTER TABLE tasks ADD COLUMN request_id VARCHAR(64)',
        'ALTER TABLE tasks ADD COLUMN user_id VARCHAR(64)',
        'CREATE INDEX ix_tasks_image_id ON tasks (image_id)',
      ]
    case '2024_1':
      return [
        table(
          'node_reference',
          `node_reference_id ${bigId}`,
          'node_reference_url VARCHAR(255) NOT NULL',
          'PRIMARY KEY (node_reference_id)',
          'CONSTRAINT uq_node_reference_node_reference_url UNIQUE (node_reference_url)',
        ),
        table(
          'cached_images',
          `id ${bigId}`,
          'image_id VARCHAR(36) NOT NULL',
          `last_accessed ${time} NOT NULL`,
          `last_modified ${time} NOT NULL`,
          'size BIGINT NOT NULL',
          'hits INTEGER NOT NULL',
          'checksum VARCHAR(32)',
          `node_reference_id ${name === 'sqlite' ? 'INTEGER' : 'BIGINT'} NOT NULL`,
          'PRIMARY KEY (id)',
          'FOREIGN KEY(node_reference_id) REFERENCES node_reference (node_reference_id)',
          'CONSTRAINT ix_cached_images_image_id_node_reference_id UNIQUE (image_id, node_reference_id)',
        ),
      ]
    default:
      return []
  }
}
