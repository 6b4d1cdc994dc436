import { sql } from 'kysely'
import { ServiceError } from '../../domain/errors.ts'
import { SORT_KEYS, type SortKey } from '../../domain/query.ts'
import type { Connection, Session } from './session.ts'

/** What upstream's own tools look for: its newest contract revision, whose schema this is. */
const UPSTREAM_REVISION = '2024_1_contract01'

/*
 * Upstream's schema as its migrations leave it on SQLite. Names of tables, columns, indexes and constraints, and the
 * order of columns, are upstream's, because its later migrations address them.
 */
const stamps = `created_at DATETIME NOT NULL, updated_at DATETIME, deleted_at DATETIME, deleted BOOLEAN NOT NULL`
const metadefStamps = `created_at DATETIME NOT NULL, updated_at DATETIME`
const ofImage = `FOREIGN KEY(image_id) REFERENCES images (id), CHECK (deleted IN (0, 1))`
const ofNamespace = `FOREIGN KEY(namespace_id) REFERENCES metadef_namespaces (id)`

const SQLITE_UPSTREAM: readonly string[] = [
  `CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL, CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num))`,

  `CREATE TABLE images (id VARCHAR(36) NOT NULL, name VARCHAR(255), size INTEGER, status VARCHAR(30) NOT NULL, ${stamps},
    disk_format VARCHAR(20), container_format VARCHAR(20), checksum VARCHAR(32), owner VARCHAR(255),
    min_disk INTEGER NOT NULL, min_ram INTEGER NOT NULL, protected BOOLEAN DEFAULT 0 NOT NULL, virtual_size INTEGER,
    visibility VARCHAR(9) DEFAULT 'shared' NOT NULL, os_hidden BOOLEAN DEFAULT 0 NOT NULL,
    os_hash_algo VARCHAR(64), os_hash_value VARCHAR(128), PRIMARY KEY (id))`,
  `CREATE INDEX checksum_image_idx ON images (checksum)`,
  `CREATE INDEX visibility_image_idx ON images (visibility)`,
  `CREATE INDEX ix_images_deleted ON images (deleted)`,
  `CREATE INDEX owner_image_idx ON images (owner)`,
  `CREATE INDEX created_at_image_idx ON images (created_at)`,
  `CREATE INDEX updated_at_image_idx ON images (updated_at)`,
  `CREATE INDEX os_hidden_image_idx ON images (os_hidden)`,
  `CREATE INDEX os_hash_value_image_idx ON images (os_hash_value)`,

  `CREATE TABLE image_properties (id INTEGER NOT NULL, image_id VARCHAR(36) NOT NULL, name VARCHAR(255) NOT NULL,
    value TEXT, ${stamps}, PRIMARY KEY (id), FOREIGN KEY(image_id) REFERENCES images (id),
    CONSTRAINT ix_image_properties_image_id_name UNIQUE (image_id, name), CHECK (deleted IN (0, 1)))`,
  `CREATE INDEX ix_image_properties_image_id ON image_properties (image_id)`,
  `CREATE INDEX ix_image_properties_deleted ON image_properties (deleted)`,

  `CREATE TABLE image_tags (id INTEGER NOT NULL, image_id VARCHAR(36) NOT NULL, value VARCHAR(255) NOT NULL, ${stamps},
    PRIMARY KEY (id), ${ofImage})`,
  `CREATE INDEX ix_image_tags_image_id ON image_tags (image_id)`,
  `CREATE INDEX ix_image_tags_image_id_tag_value ON image_tags (image_id, value)`,

  `CREATE TABLE image_locations (id INTEGER NOT NULL, image_id VARCHAR(36) NOT NULL, value TEXT NOT NULL, ${stamps},
    meta_data TEXT, status VARCHAR(30) DEFAULT 'active' NOT NULL, PRIMARY KEY (id), ${ofImage})`,
  `CREATE INDEX ix_image_locations_image_id ON image_locations (image_id)`,
  `CREATE INDEX ix_image_locations_deleted ON image_locations (deleted)`,

  `CREATE TABLE image_members (id INTEGER NOT NULL, image_id VARCHAR(36) NOT NULL, member VARCHAR(255) NOT NULL,
    can_share BOOLEAN NOT NULL, ${stamps}, status VARCHAR(20) DEFAULT 'pending' NOT NULL, PRIMARY KEY (id),
    FOREIGN KEY(image_id) REFERENCES images (id),
    CONSTRAINT image_members_image_id_member_deleted_at_key UNIQUE (image_id, member, deleted_at),
    CHECK (can_share IN (0, 1)), CHECK (deleted IN (0, 1)))`,
  `CREATE INDEX ix_image_members_image_id ON image_members (image_id)`,
  `CREATE INDEX ix_image_members_deleted ON image_members (deleted)`,
  `CREATE INDEX ix_image_members_image_id_member ON image_members (image_id, member)`,

  `CREATE TABLE tasks (id VARCHAR(36) NOT NULL, type VARCHAR(30) NOT NULL, status VARCHAR(30) NOT NULL,
    owner VARCHAR(255) NOT NULL, expires_at DATETIME, ${stamps}, image_id VARCHAR(36), request_id VARCHAR(64),
    user_id VARCHAR(64), PRIMARY KEY (id), CHECK (deleted IN (0, 1)))`,
  `CREATE INDEX ix_tasks_type ON tasks (type)`,
  `CREATE INDEX ix_tasks_status ON tasks (status)`,
  `CREATE INDEX ix_tasks_owner ON tasks (owner)`,
  `CREATE INDEX ix_tasks_deleted ON tasks (deleted)`,
  `CREATE INDEX ix_tasks_updated_at ON tasks (updated_at)`,
  `CREATE INDEX ix_tasks_image_id ON tasks (image_id)`,
  `CREATE TABLE task_info (task_id VARCHAR(36) NOT NULL, input TEXT, result TEXT, message TEXT, PRIMARY KEY (task_id),
    FOREIGN KEY(task_id) REFERENCES tasks (id))`,

  `CREATE TABLE metadef_namespaces (id INTEGER NOT NULL, namespace VARCHAR(80) NOT NULL, display_name VARCHAR(80),
    description TEXT, visibility VARCHAR(32), protected BOOLEAN, owner VARCHAR(255) NOT NULL, ${metadefStamps},
    PRIMARY KEY (id), CONSTRAINT uq_metadef_namespaces_namespace UNIQUE (namespace), CHECK (protected IN (0, 1)))`,
  `CREATE INDEX ix_metadef_namespaces_owner ON metadef_namespaces (owner)`,
  `CREATE TABLE metadef_resource_types (id INTEGER NOT NULL, name VARCHAR(80) NOT NULL, protected BOOLEAN NOT NULL,
    ${metadefStamps}, PRIMARY KEY (id), CONSTRAINT uq_metadef_resource_types_name UNIQUE (name),
    CHECK (protected IN (0, 1)))`,
  `CREATE TABLE metadef_namespace_resource_types (resource_type_id INTEGER NOT NULL, namespace_id INTEGER NOT NULL,
    properties_target VARCHAR(80), prefix VARCHAR(80), ${metadefStamps}, PRIMARY KEY (resource_type_id, namespace_id),
    ${ofNamespace}, FOREIGN KEY(resource_type_id) REFERENCES metadef_resource_types (id))`,
  `CREATE INDEX ix_metadef_ns_res_types_namespace_id ON metadef_namespace_resource_types (namespace_id)`,
  `CREATE TABLE metadef_objects (id INTEGER NOT NULL, namespace_id INTEGER NOT NULL, name VARCHAR(80) NOT NULL,
    description TEXT, required TEXT, json_schema TEXT NOT NULL, ${metadefStamps}, PRIMARY KEY (id), ${ofNamespace},
    CONSTRAINT uq_metadef_objects_namespace_id_name UNIQUE (namespace_id, name))`,
  `CREATE INDEX ix_metadef_objects_name ON metadef_objects (name)`,
  `CREATE TABLE metadef_properties (id INTEGER NOT NULL, namespace_id INTEGER NOT NULL, name VARCHAR(80) NOT NULL,
    json_schema TEXT NOT NULL, ${metadefStamps}, PRIMARY KEY (id), ${ofNamespace},
    CONSTRAINT uq_metadef_properties_namespace_id_name UNIQUE (namespace_id, name))`,
  `CREATE INDEX ix_metadef_properties_name ON metadef_properties (name)`,
  `CREATE TABLE metadef_tags (id INTEGER NOT NULL, namespace_id INTEGER NOT NULL, name VARCHAR(80) NOT NULL,
    ${metadefStamps}, PRIMARY KEY (id), ${ofNamespace},
    CONSTRAINT uq_metadef_tags_namespace_id_name UNIQUE (namespace_id, name))`,
  `CREATE INDEX ix_metadef_tags_name ON metadef_tags (name)`,

  `CREATE TABLE node_reference (node_reference_id INTEGER NOT NULL, node_reference_url VARCHAR(255) NOT NULL,
    PRIMARY KEY (node_reference_id), CONSTRAINT uq_node_reference_node_reference_url UNIQUE (node_reference_url))`,
  `CREATE TABLE cached_images (id INTEGER NOT NULL, image_id VARCHAR(36) NOT NULL, last_accessed DATETIME NOT NULL,
    last_modified DATETIME NOT NULL, size BIGINT NOT NULL, hits INTEGER NOT NULL, checksum VARCHAR(32),
    node_reference_id INTEGER NOT NULL, PRIMARY KEY (id),
    FOREIGN KEY(node_reference_id) REFERENCES node_reference (node_reference_id),
    CONSTRAINT ix_cached_images_image_id_node_reference_id UNIQUE (image_id, node_reference_id))`,

  `INSERT INTO alembic_version (version_num) VALUES ('${UPSTREAM_REVISION}')`,
]

/** What an index of a sort key holds: NULL sorts as '' or 0, and ties are broken as in a list. */
const KEY_COLUMNS: Readonly<Record<SortKey, string>> = {
  created_at: 'created_at, id',
  updated_at: 'coalesce(updated_at, created_at), created_at, id',
  name: `coalesce(name, ''), created_at, id`,
  status: 'status, created_at, id',
  container_format: `coalesce(container_format, ''), created_at, id`,
  disk_format: `coalesce(disk_format, ''), created_at, id`,
  size: 'coalesce(size, 0), created_at, id',
  id: 'id',
}

/** The index in which the images of one visibility are in the order of `key`. */
export const byVisibility = (key: SortKey): string => `glimpse_images_visibility_${key}`

/** The same for the images of one owner. By some keys those few are sorted instead: each index costs every insert. */
const OWNER_KEYS: readonly SortKey[] = ['created_at', 'updated_at', 'name']
export const byOwner = (key: SortKey): string => `glimpse_images_owner_${OWNER_KEYS.includes(key) ? key : 'created_at'}`

const listIndexes = [
  ...SORT_KEYS.map(
    (key) => `CREATE INDEX ${byVisibility(key)} ON images (deleted, visibility, os_hidden, ${KEY_COLUMNS[key]})`,
  ),
  ...OWNER_KEYS.map(
    (key) => `CREATE INDEX ${byOwner(key)} ON images (deleted, owner, visibility, os_hidden, ${KEY_COLUMNS[key]})`,
  ),
]

const forget = `DELETE FROM glimpse_member_images WHERE member = OLD.member AND status = OLD.status
  AND created_at = (SELECT created_at FROM images WHERE id = OLD.image_id) AND image_id = OLD.image_id`
const remember = (row: 'OLD' | 'NEW') => `INSERT OR IGNORE INTO glimpse_member_images
  SELECT m.member, m.status, i.created_at, i.id FROM image_members m CROSS JOIN images i
  WHERE m.image_id = ${row}.image_id AND m.member = ${row}.member AND m.deleted = 0 AND i.id = m.image_id`

/** Ours, and only ever added to upstream's; a step that has been released is never changed. */
const SQLITE_STEPS: readonly (readonly string[])[] = [
  [
    ...listIndexes,
    `CREATE INDEX glimpse_image_tags_value ON image_tags (value, deleted, image_id)`,
    `CREATE INDEX glimpse_image_properties_value ON image_properties (name, value, deleted, image_id)`,
    `CREATE INDEX glimpse_image_locations_undropped ON image_locations (id) WHERE status = 'pending_delete'`,

    // A member's shared images in the order of the list. Triggers keep it right whoever writes image_members; there
    // may be two live rows for one member, because upstream's unique key does not hold for them.
    `CREATE TABLE glimpse_member_images (member VARCHAR(255) NOT NULL, status VARCHAR(20) NOT NULL,
      created_at DATETIME NOT NULL, image_id VARCHAR(36) NOT NULL,
      PRIMARY KEY (member, status, created_at, image_id)) WITHOUT ROWID`,
    `INSERT OR IGNORE INTO glimpse_member_images SELECT m.member, m.status, i.created_at, i.id
      FROM image_members m JOIN images i ON i.id = m.image_id WHERE m.deleted = 0`,
    `CREATE TRIGGER glimpse_member_inserted AFTER INSERT ON image_members WHEN NEW.deleted = 0
      BEGIN ${remember('NEW')}; END`,
    `CREATE TRIGGER glimpse_member_updated AFTER UPDATE OF image_id, member, status, deleted ON image_members
      BEGIN ${forget}; ${remember('OLD')}; ${remember('NEW')}; END`,
    `CREATE TRIGGER glimpse_member_deleted AFTER DELETE ON image_members BEGIN ${forget}; ${remember('OLD')}; END`,

    `CREATE TABLE glimpse_workers (id VARCHAR(64) NOT NULL, node VARCHAR(255) NOT NULL, pid BIGINT NOT NULL,
      started_at BIGINT NOT NULL, expires_at BIGINT NOT NULL, PRIMARY KEY (id))`,
    `CREATE TABLE glimpse_claims (attempt VARCHAR(64) NOT NULL, image_id VARCHAR(36) NOT NULL,
      worker VARCHAR(64) NOT NULL, store VARCHAR(255) NOT NULL, PRIMARY KEY (attempt))`,
    `CREATE INDEX glimpse_claims_worker ON glimpse_claims (worker)`,
  ],
  [
    // The task holds its image by a property, which upstream knows; who works on it is our business.
    `CREATE TABLE glimpse_jobs (task VARCHAR(36) NOT NULL, image_id VARCHAR(36) NOT NULL, worker VARCHAR(64) NOT NULL,
      tries INTEGER NOT NULL, PRIMARY KEY (task))`,
    `CREATE INDEX glimpse_jobs_worker ON glimpse_jobs (worker)`,
    `CREATE INDEX glimpse_tasks_expires ON tasks (deleted, expires_at)`,
    `CREATE INDEX glimpse_tasks_created ON tasks (created_at, id)`,
  ],
  [`ALTER TABLE glimpse_jobs ADD COLUMN context TEXT NOT NULL DEFAULT 'null'`],
]

const rawRun = async (db: Connection, session: Session, text: string): Promise<void> => {
  await session.change(db.prepare(sql.raw(text)))
}

const tableNames = async (db: Connection, session: Session): Promise<ReadonlySet<string>> => {
  const query = sql<{ name: string }>`select name from sqlite_master where type = 'table'`
  return new Set((await session.all(db.prepare(query))).map(({ name }) => name))
}

/** The number of our steps that are in force; undefined in a database without our parts. */
const stepsDone = async (db: Connection, session: Session): Promise<number | undefined> => {
  if (!(await tableNames(db, session)).has('glimpse_schema')) return undefined
  return (await session.first(db.prepare(sql<{ version: number }>`select version from glimpse_schema`)))?.version
}

/** Refuses what upstream's own tools must bring forward first: columns that came until Rocky. */
const requireColumns = async (db: Connection, session: Session): Promise<void> => {
  const query = sql<{ name: string }>`select name from pragma_table_info('images')`
  const columns = new Set((await session.all(db.prepare(query))).map(({ name }) => name))
  const missing = ['visibility', 'os_hidden', 'os_hash_algo', 'os_hash_value'].filter((name) => !columns.has(name))
  if (missing.length === 0) return
  throw new ServiceError('unavailable', 'The database schema is too old: upgrade it with Glance 18.0 or later first', {
    detail: { missing: missing.join(', ') },
  })
}

/**
 * Creates upstream's schema in an empty database, and adds our parts to any. A database of upstream Glance, Rocky or
 * later, keeps its revision: upstream can go on with it. Any number of processes may do this at once.
 */
export const migrate = async (db: Connection): Promise<void> => {
  if ((await db.read((session) => stepsDone(db, session))) === SQLITE_STEPS.length) return
  await db.write(async (session) => {
    let done = await stepsDone(db, session)
    if (done === undefined) {
      if ((await tableNames(db, session)).has('images')) await requireColumns(db, session)
      else for (const text of SQLITE_UPSTREAM) await rawRun(db, session, text)
      await rawRun(db, session, 'CREATE TABLE glimpse_schema (version INTEGER NOT NULL)')
      await rawRun(db, session, 'INSERT INTO glimpse_schema (version) VALUES (0)')
      done = 0
    }
    if (done > SQLITE_STEPS.length)
      throw new ServiceError('unavailable', 'The database was opened by a later version of this service', {
        detail: { found: done, known: SQLITE_STEPS.length },
      })
    for (const step of SQLITE_STEPS.slice(done)) for (const text of step) await rawRun(db, session, text)
    await rawRun(db, session, `UPDATE glimpse_schema SET version = ${SQLITE_STEPS.length}`)
  })
}
