import { SORT_KEYS, type SortKey } from '../../domain/query.ts'
import type { PartKind } from './catalog.ts'
import type { Facts } from './facts.ts'

/*
 * What this service adds to upstream's schema. Its names begin with glimpse_, upstream tolerates all of it, and
 * `glimpse db revert` drops it. Tables without which the service is not safe come when it starts; parts, which make
 * it quick, cost time on a large table and come with a new database or by `glimpse db optimize`. A part is known by
 * its name alone: one that is changed gets another name.
 */

export interface Part {
  readonly kind: PartKind
  readonly name: string
  readonly table: string
  /** What follows its name, and of an index and a column that of its table. */
  readonly body: string
}

const index = (name: string, table: string, columns: string): Part => ({ kind: 'index', name, table, body: columns })

/** What an index of a sort key holds: NULL sorts as '' or 0, and ties are broken as in a list. */
const KEY_COLUMNS: Readonly<Record<SortKey, string>> = {
  // With all that a walk asks for, so that it reads nothing else: most lists are in this order.
  created_at: 'created_at, id, status',
  updated_at: 'coalesce(updated_at, created_at), created_at, id',
  name: `coalesce(name, ''), created_at, id`,
  status: 'status, created_at, id',
  container_format: `coalesce(container_format, ''), created_at, id`,
  disk_format: `coalesce(disk_format, ''), created_at, id`,
  size: 'coalesce(size, 0), created_at, id',
  id: 'id',
}

/**
 * MySQL indexes columns: each key that may be NULL is a column of ours in `images`, virtual, so that upstream's rows
 * need no writing.
 */
const MYSQL_KEYS: Readonly<Record<string, readonly [type: string, value: string]>> = {
  glimpse_name: ['VARCHAR(255)', `coalesce(name, '')`],
  glimpse_container_format: ['VARCHAR(20)', `coalesce(container_format, '')`],
  glimpse_disk_format: ['VARCHAR(20)', `coalesce(disk_format, '')`],
  glimpse_size: ['BIGINT', 'coalesce(size, 0)'],
  glimpse_updated_at: ['DATETIME', 'coalesce(updated_at, created_at)'],
}
const MYSQL_KEY_COLUMNS: Readonly<Record<SortKey, string>> = {
  ...KEY_COLUMNS,
  updated_at: 'glimpse_updated_at, created_at, id',
  name: 'glimpse_name, created_at, id',
  container_format: 'glimpse_container_format, created_at, id',
  disk_format: 'glimpse_disk_format, created_at, id',
  size: 'glimpse_size, created_at, id',
}

/** The index in which the images of one visibility are in the order of `key`. */
export const byVisibility = (key: SortKey): string => `glimpse_images_visibility_${key}`

/** The same for the images of one owner. */
export const byOwner = (key: SortKey): string => `glimpse_images_owner_${key}`

const listIndexes = ({ mysql }: { readonly mysql: boolean }) => {
  const columns = mysql ? MYSQL_KEY_COLUMNS : KEY_COLUMNS
  return [
    ...SORT_KEYS.map((key) => index(byVisibility(key), 'images', `(deleted, visibility, os_hidden, ${columns[key]})`)),
    ...SORT_KEYS.map((key) =>
      index(byOwner(key), 'images', `(deleted, owner, visibility, os_hidden, ${columns[key]})`),
    ),
  ]
}

/** A member's shared images in the order of the list, which triggers keep. */
export const MEMBER_IMAGES = 'glimpse_member_images'

const memberImages = (time: string, end: string): Part => ({
  kind: 'table',
  name: MEMBER_IMAGES,
  table: MEMBER_IMAGES,
  body: `(member VARCHAR(255) NOT NULL, status VARCHAR(20) NOT NULL,
    created_at ${time} NOT NULL, image_id VARCHAR(36) NOT NULL, PRIMARY KEY (member, status, created_at, image_id))${end}`,
})

const forget = `DELETE FROM glimpse_member_images WHERE member = OLD.member AND status = OLD.status
  AND created_at = (SELECT created_at FROM images WHERE id = OLD.image_id) AND image_id = OLD.image_id`
/** What a row says by itself: looked for, it would be found badly where the planner knows of no rows yet. */
const written = (alive: string) => `SELECT NEW.member, NEW.status, i.created_at, i.id
  FROM images i WHERE i.id = NEW.image_id AND ${alive}`
/** There may be another live row for the same member. */
const others = (living: string) => `SELECT DISTINCT m.member, m.status, i.created_at, i.id
  FROM image_members m CROSS JOIN images i
  WHERE m.image_id = OLD.image_id AND m.member = OLD.member AND ${living} AND i.id = m.image_id`

const remembering = (insert: string, no: (flag: string) => string, end = '') => ({
  remember: `${insert} INTO glimpse_member_images ${written(no('NEW.deleted'))}${end}`,
  recall: `${insert} INTO glimpse_member_images ${others(no('m.deleted'))}${end}`,
})
const ofSqlite = remembering('INSERT OR IGNORE', (flag) => `${flag} = 0`)
const ofMysql = remembering('INSERT IGNORE', (flag) => `${flag} = 0`)
const ofPostgres = remembering('INSERT', (flag) => `NOT ${flag}`, ' ON CONFLICT DO NOTHING')

const onMembers = (name: string, body: string): Part => ({ kind: 'trigger', name, table: 'image_members', body })

/**
 * They keep `MEMBER_IMAGES` right whoever writes image_members; there may be two live rows for one member, because
 * upstream's unique key does not hold for them.
 */
const MEMBER_TRIGGERS: Readonly<Record<Facts['name'], readonly Part[]>> = {
  sqlite: [
    onMembers(
      'glimpse_member_inserted',
      `AFTER INSERT ON image_members WHEN NEW.deleted = 0 BEGIN ${ofSqlite.remember}; END`,
    ),
    onMembers(
      'glimpse_member_updated',
      `AFTER UPDATE OF image_id, member, status, deleted ON image_members
      BEGIN ${forget}; ${ofSqlite.recall}; ${ofSqlite.remember}; END`,
    ),
    onMembers('glimpse_member_deleted', `AFTER DELETE ON image_members BEGIN ${forget}; ${ofSqlite.recall}; END`),
  ],
  postgresql: [
    {
      kind: 'function',
      name: 'glimpse_remember_member',
      table: 'glimpse_remember_member',
      body: `() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
      IF TG_OP <> 'INSERT' THEN ${forget}; ${ofPostgres.recall}; END IF;
      IF TG_OP <> 'DELETE' THEN ${ofPostgres.remember}; END IF;
      RETURN NULL; END $$`,
    },
    onMembers(
      'glimpse_member_changed',
      `AFTER INSERT OR DELETE OR UPDATE OF image_id, member, status, deleted
      ON image_members FOR EACH ROW EXECUTE FUNCTION glimpse_remember_member()`,
    ),
  ],
  mysql: [
    onMembers('glimpse_member_inserted', `AFTER INSERT ON image_members FOR EACH ROW ${ofMysql.remember}`),
    onMembers(
      'glimpse_member_updated',
      `AFTER UPDATE ON image_members FOR EACH ROW
      BEGIN ${forget}; ${ofMysql.recall}; ${ofMysql.remember}; END`,
    ),
    onMembers(
      'glimpse_member_deleted',
      `AFTER DELETE ON image_members FOR EACH ROW BEGIN ${forget}; ${ofMysql.recall}; END`,
    ),
  ],
}

const common = ({ mysql }: { readonly mysql: boolean }): readonly Part[] => [
  ...listIndexes({ mysql }),
  index('glimpse_image_tags_value', 'image_tags', '(value, deleted, image_id)'),
  index('glimpse_tasks_expires', 'tasks', '(deleted, expires_at)'),
  index('glimpse_tasks_created', 'tasks', '(created_at, id)'),
]

/** In the order of their making. */
export const PARTS: Readonly<Record<Facts['name'], readonly Part[]>> = {
  sqlite: [
    ...common({ mysql: false }),
    index('glimpse_image_properties_value', 'image_properties', '(name, value, deleted, image_id)'),
    index('glimpse_image_locations_undropped', 'image_locations', `(id) WHERE status = 'pending_delete'`),
    memberImages('DATETIME', ' WITHOUT ROWID'),
    ...MEMBER_TRIGGERS.sqlite,
  ],
  postgresql: [
    ...common({ mysql: false }),
    // A value may be longer than an index takes; a hash of it is not.
    index('glimpse_image_properties_value', 'image_properties', '(name, md5(value), deleted, image_id)'),
    index('glimpse_image_locations_undropped', 'image_locations', `(id) WHERE status = 'pending_delete'`),
    memberImages('TIMESTAMP WITHOUT TIME ZONE', ''),
    ...MEMBER_TRIGGERS.postgresql,
  ],
  mysql: [
    // Keys that may be NULL, as they are compared; SELECT * and INSERT of others do not see them.
    ...Object.entries(MYSQL_KEYS).map(
      ([name, [type, value]]): Part => ({
        kind: 'column',
        name,
        table: 'images',
        body: `${type} GENERATED ALWAYS AS (${value}) VIRTUAL INVISIBLE`,
      }),
    ),
    ...common({ mysql: true }),
    index('glimpse_image_properties_value', 'image_properties', '(name, value(255), deleted, image_id)'),
    index('glimpse_image_locations_undropped', 'image_locations', '(status, id)'),
    memberImages('DATETIME', ' ENGINE=InnoDB CHARSET=utf8mb3'),
    ...MEMBER_TRIGGERS.mysql,
  ],
}

/** Of the tables in `ownTables`: raised with each change of them. */
export const TABLES_VERSION = 2

/**
 * Who works on what. A task holds its image by a property, which upstream knows; by whom is our business. And what came
 * of changes that a registry made, in case that their answers get lost.
 */
export const ownTables = (name: Facts['name']): readonly string[] => {
  const [end, text] =
    name === 'mysql' ? [' ENGINE=InnoDB CHARSET=utf8mb3', 'LONGTEXT CHARACTER SET utf8mb4'] : ['', 'TEXT']
  return [
    // What the catalog of the database cannot tell: the version of the tables, and whether a part has its rows.
    `CREATE TABLE glimpse_schema (part VARCHAR(64) NOT NULL, version INTEGER NOT NULL, PRIMARY KEY (part))${end}`,
    `CREATE TABLE glimpse_workers (id VARCHAR(64) NOT NULL, node VARCHAR(255) NOT NULL, pid BIGINT NOT NULL,
      started_at BIGINT NOT NULL, expires_at BIGINT NOT NULL, PRIMARY KEY (id))${end}`,
    `CREATE TABLE glimpse_claims (attempt VARCHAR(64) NOT NULL, image_id VARCHAR(36) NOT NULL,
      worker VARCHAR(64) NOT NULL, store VARCHAR(255) NOT NULL, PRIMARY KEY (attempt))${end}`,
    `CREATE INDEX glimpse_claims_worker ON glimpse_claims (worker)`,
    `CREATE TABLE glimpse_jobs (task VARCHAR(36) NOT NULL, image_id VARCHAR(36) NOT NULL, worker VARCHAR(64) NOT NULL,
      tries INTEGER NOT NULL, context ${text} NOT NULL, PRIMARY KEY (task))${end}`,
    `CREATE INDEX glimpse_jobs_worker ON glimpse_jobs (worker)`,
    `CREATE TABLE glimpse_requests (id VARCHAR(64) NOT NULL, outcome ${text} NOT NULL, made_at BIGINT NOT NULL,
      PRIMARY KEY (id))${end}`,
    `CREATE INDEX glimpse_requests_made ON glimpse_requests (made_at)`,
    // A row for each transaction that may be under way at a time: what becomes of it when its connection is lost.
    ...(name === 'sqlite'
      ? []
      : [
          `CREATE TABLE glimpse_writes (writer VARCHAR(64) NOT NULL, n BIGINT NOT NULL, at BIGINT NOT NULL,
            PRIMARY KEY (writer))${end}`,
        ]),
  ].map((text) => (name === 'mysql' ? text : text.replace(/^CREATE (TABLE|INDEX)/, '$& IF NOT EXISTS')))
}
