import { sql } from 'kysely'
import { ServiceError } from '../../domain/errors.ts'
import { SORT_KEYS, type SortKey } from '../../domain/query.ts'
import type { Facts } from './facts.ts'
import type { Connection, Session } from './session.ts'
import { upstreamSchema } from './upstream-schema.ts'

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

/** The same for the images of one owner. By some keys those few are sorted instead: each index costs every insert. */
const OWNER_KEYS: readonly SortKey[] = ['created_at', 'updated_at', 'name']
export const byOwner = (key: SortKey): string => `glimpse_images_owner_${OWNER_KEYS.includes(key) ? key : 'created_at'}`

const listIndexes = ({ mysql }: { readonly mysql: boolean }) => {
  const columns = mysql ? MYSQL_KEY_COLUMNS : KEY_COLUMNS
  return [
    ...SORT_KEYS.map(
      (key) => `CREATE INDEX ${byVisibility(key)} ON images (deleted, visibility, os_hidden, ${columns[key]})`,
    ),
    ...OWNER_KEYS.map(
      (key) => `CREATE INDEX ${byOwner(key)} ON images (deleted, owner, visibility, os_hidden, ${columns[key]})`,
    ),
  ]
}

/**
 * A member's shared images in the order of the list. Triggers keep it right whoever writes image_members; there may be
 * two live rows for one member, because upstream's unique key does not hold for them.
 */
const memberImages = (time: string, end: string) => [
  `CREATE TABLE glimpse_member_images (member VARCHAR(255) NOT NULL, status VARCHAR(20) NOT NULL,
    created_at ${time} NOT NULL, image_id VARCHAR(36) NOT NULL, PRIMARY KEY (member, status, created_at, image_id))${end}`,
  `INSERT INTO glimpse_member_images SELECT DISTINCT m.member, m.status, i.created_at, i.id
    FROM image_members m JOIN images i ON i.id = m.image_id WHERE m.deleted = ${time.startsWith('TIMESTAMP') ? 'false' : '0'}`,
]
const forget = `DELETE FROM glimpse_member_images WHERE member = OLD.member AND status = OLD.status
  AND created_at = (SELECT created_at FROM images WHERE id = OLD.image_id) AND image_id = OLD.image_id`
const remembered = (row: 'OLD' | 'NEW', living: string) => `SELECT DISTINCT m.member, m.status, i.created_at, i.id
  FROM image_members m CROSS JOIN images i
  WHERE m.image_id = ${row}.image_id AND m.member = ${row}.member AND ${living} AND i.id = m.image_id`

const sqliteRemember = (row: 'OLD' | 'NEW') =>
  `INSERT OR IGNORE INTO glimpse_member_images ${remembered(row, 'm.deleted = 0')}`
const mysqlRemember = (row: 'OLD' | 'NEW') =>
  `INSERT IGNORE INTO glimpse_member_images ${remembered(row, 'm.deleted = 0')}`
const postgresRemember = (row: 'OLD' | 'NEW') =>
  `INSERT INTO glimpse_member_images ${remembered(row, 'NOT m.deleted')} ON CONFLICT DO NOTHING`

const MEMBER_TRIGGERS: Readonly<Record<Facts['name'], readonly string[]>> = {
  sqlite: [
    `CREATE TRIGGER glimpse_member_inserted AFTER INSERT ON image_members WHEN NEW.deleted = 0
      BEGIN ${sqliteRemember('NEW')}; END`,
    `CREATE TRIGGER glimpse_member_updated AFTER UPDATE OF image_id, member, status, deleted ON image_members
      BEGIN ${forget}; ${sqliteRemember('OLD')}; ${sqliteRemember('NEW')}; END`,
    `CREATE TRIGGER glimpse_member_deleted AFTER DELETE ON image_members
      BEGIN ${forget}; ${sqliteRemember('OLD')}; END`,
  ],
  postgresql: [
    `CREATE FUNCTION glimpse_remember_member() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
      IF TG_OP <> 'INSERT' THEN ${forget}; ${postgresRemember('OLD')}; END IF;
      IF TG_OP <> 'DELETE' THEN ${postgresRemember('NEW')}; END IF;
      RETURN NULL; END $$`,
    `CREATE TRIGGER glimpse_member_changed AFTER INSERT OR DELETE OR UPDATE OF image_id, member, status, deleted
      ON image_members FOR EACH ROW EXECUTE FUNCTION glimpse_remember_member()`,
  ],
  mysql: [
    `CREATE TRIGGER glimpse_member_inserted AFTER INSERT ON image_members FOR EACH ROW ${mysqlRemember('NEW')}`,
    `CREATE TRIGGER glimpse_member_updated AFTER UPDATE ON image_members FOR EACH ROW
      BEGIN ${forget}; ${mysqlRemember('OLD')}; ${mysqlRemember('NEW')}; END`,
    `CREATE TRIGGER glimpse_member_deleted AFTER DELETE ON image_members FOR EACH ROW
      BEGIN ${forget}; ${mysqlRemember('OLD')}; END`,
  ],
}

const WORKER_TABLES = [
  `CREATE TABLE glimpse_workers (id VARCHAR(64) NOT NULL, node VARCHAR(255) NOT NULL, pid BIGINT NOT NULL,
    started_at BIGINT NOT NULL, expires_at BIGINT NOT NULL, PRIMARY KEY (id))`,
  `CREATE TABLE glimpse_claims (attempt VARCHAR(64) NOT NULL, image_id VARCHAR(36) NOT NULL,
    worker VARCHAR(64) NOT NULL, store VARCHAR(255) NOT NULL, PRIMARY KEY (attempt))`,
  `CREATE INDEX glimpse_claims_worker ON glimpse_claims (worker)`,
]

/** The task holds its image by a property, which upstream knows; who works on it is our business. */
const JOB_TABLE = [
  `CREATE TABLE glimpse_jobs (task VARCHAR(36) NOT NULL, image_id VARCHAR(36) NOT NULL, worker VARCHAR(64) NOT NULL,
    tries INTEGER NOT NULL, PRIMARY KEY (task))`,
  `CREATE INDEX glimpse_jobs_worker ON glimpse_jobs (worker)`,
  `CREATE INDEX glimpse_tasks_expires ON tasks (deleted, expires_at)`,
  `CREATE INDEX glimpse_tasks_created ON tasks (created_at, id)`,
]

/** Ours, and only ever added to upstream's; a step that has been released is never changed. */
const STEPS: Readonly<Record<Facts['name'], readonly (readonly string[])[]>> = {
  sqlite: [
    [
      ...listIndexes({ mysql: false }),
      `CREATE INDEX glimpse_image_tags_value ON image_tags (value, deleted, image_id)`,
      `CREATE INDEX glimpse_image_properties_value ON image_properties (name, value, deleted, image_id)`,
      `CREATE INDEX glimpse_image_locations_undropped ON image_locations (id) WHERE status = 'pending_delete'`,
      ...memberImages('DATETIME', ' WITHOUT ROWID'),
      ...MEMBER_TRIGGERS.sqlite,
      ...WORKER_TABLES,
    ],
    JOB_TABLE,
    [`ALTER TABLE glimpse_jobs ADD COLUMN context TEXT NOT NULL DEFAULT 'null'`],
  ],
  postgresql: [
    [
      ...listIndexes({ mysql: false }),
      `CREATE INDEX glimpse_image_tags_value ON image_tags (value, deleted, image_id)`,
      // A value may be longer than an index takes; a hash of it is not.
      `CREATE INDEX glimpse_image_properties_value ON image_properties (name, md5(value), deleted, image_id)`,
      `CREATE INDEX glimpse_image_locations_undropped ON image_locations (id) WHERE status = 'pending_delete'`,
      ...memberImages('TIMESTAMP WITHOUT TIME ZONE', ''),
      ...MEMBER_TRIGGERS.postgresql,
      ...WORKER_TABLES,
      ...JOB_TABLE,
      `ALTER TABLE glimpse_jobs ADD COLUMN context TEXT NOT NULL DEFAULT 'null'`,
    ],
  ],
  mysql: [
    [
      // Keys that may be NULL, as they are compared; SELECT * and INSERT of others do not see them.
      ...Object.entries(MYSQL_KEYS).map(
        ([name, [type, value]]) =>
          `ALTER TABLE images ADD COLUMN ${name} ${type} GENERATED ALWAYS AS (${value}) VIRTUAL INVISIBLE`,
      ),
      ...listIndexes({ mysql: true }),
      `CREATE INDEX glimpse_image_tags_value ON image_tags (value, deleted, image_id)`,
      `CREATE INDEX glimpse_image_properties_value ON image_properties (name, value(255), deleted, image_id)`,
      `CREATE INDEX glimpse_image_locations_undropped ON image_locations (status, id)`,
      ...memberImages('DATETIME', ' ENGINE=InnoDB CHARSET=utf8mb3'),
      ...MEMBER_TRIGGERS.mysql,
      ...[...WORKER_TABLES, ...JOB_TABLE].map((text) =>
        text.startsWith('CREATE TABLE') ? `${text} ENGINE=InnoDB CHARSET=utf8mb3` : text,
      ),
      `ALTER TABLE glimpse_jobs ADD COLUMN context LONGTEXT CHARACTER SET utf8mb4 NOT NULL DEFAULT ('null')`,
    ],
  ],
}

const rawRun = async (db: Connection, session: Session, text: string): Promise<void> => {
  await session.change(db.prepare(sql.raw(text)))
}

const tableNames = async (db: Connection, session: Session): Promise<ReadonlySet<string>> => {
  const query = {
    sqlite: sql<{ name: string }>`select name from sqlite_master where type = 'table'`,
    postgresql: sql<{ name: string }>`select table_name as name from information_schema.tables
      where table_schema = current_schema()`,
    mysql: sql<{
      name: string
    }>`select table_name as name from information_schema.tables where table_schema = database()`,
  }[db.facts.name]
  return new Set((await session.all(db.prepare(query))).map(({ name }) => name))
}

const columnNames = async (db: Connection, session: Session): Promise<ReadonlySet<string>> => {
  const query = {
    sqlite: sql<{ name: string }>`select name from pragma_table_info('images')`,
    postgresql: sql<{ name: string }>`select column_name as name from information_schema.columns
      where table_schema = current_schema() and table_name = 'images'`,
    mysql: sql<{ name: string }>`select column_name as name from information_schema.columns
      where table_schema = database() and table_name = 'images'`,
  }[db.facts.name]
  return new Set((await session.all(db.prepare(query))).map(({ name }) => name))
}

/** The number of our steps that are in force; undefined in a database without our parts. */
const stepsDone = async (db: Connection, session: Session): Promise<number | undefined> => {
  if (!(await tableNames(db, session)).has('glimpse_schema')) return undefined
  return (await session.first(db.prepare(sql<{ version: number }>`select version from glimpse_schema`)))?.version
}

/** Refuses what upstream's own tools must bring forward first: columns that came until Rocky. */
const requireColumns = async (db: Connection, session: Session): Promise<void> => {
  const columns = await columnNames(db, session)
  const missing = ['visibility', 'os_hidden', 'os_hash_algo', 'os_hash_value'].filter((name) => !columns.has(name))
  if (missing.length === 0) return
  throw new ServiceError('unavailable', 'The database schema is too old: upgrade it with Glance 18.0 or later first', {
    detail: { missing: missing.join(', ') },
  })
}

/** Any number, the same in all processes: those who would change the schema wait for each other. */
const LOCK = 4_711_292
const LOCK_SECONDS = 120

/** Holds others off until `work` is done, where the transaction itself does not. */
const alone = async (db: Connection, session: Session, work: () => Promise<void>): Promise<void> => {
  if (db.facts.name === 'postgresql') await session.all(db.prepare(sql`select pg_advisory_xact_lock(${sql.lit(LOCK)})`))
  if (db.facts.name !== 'mysql') return work()
  await session.all(db.prepare(sql`select get_lock(${String(LOCK)}, ${sql.lit(LOCK_SECONDS)})`))
  try {
    await work()
  } finally {
    await session.all(db.prepare(sql`select release_lock(${String(LOCK)})`))
  }
}

/** MySQL commits each change of the schema by itself: after a crash, what is there already is no error. */
const ALREADY = ['ER_TABLE_EXISTS_ERROR', 'ER_DUP_KEYNAME', 'ER_DUP_FIELDNAME', 'ER_TRG_ALREADY_EXISTS', 'ER_DUP_ENTRY']

const runAll = async (db: Connection, session: Session, texts: readonly string[]): Promise<void> => {
  for (const text of texts) {
    await rawRun(db, session, text).catch((error: unknown) => {
      const code = error instanceof Error && 'code' in error ? String(error.code) : ''
      if (db.facts.name !== 'mysql' || !ALREADY.includes(code)) throw error
    })
  }
}

/**
 * Creates upstream's schema in an empty database, and adds our parts to any. A database of upstream Glance, Rocky or
 * later, keeps its revision: upstream can go on with it. Any number of processes may do this at once.
 */
export const migrate = async (db: Connection): Promise<void> => {
  const steps = STEPS[db.facts.name]
  if ((await db.read((session) => stepsDone(db, session))) === steps.length) return
  await db.write((session) =>
    alone(db, session, async () => {
      let done = await stepsDone(db, session)
      if (done === undefined) {
        const tables = await tableNames(db, session)
        // The last table but one: without it, an earlier run was cut off.
        if (tables.has('images') && (tables.has('task_info') || db.facts.name !== 'mysql'))
          await requireColumns(db, session)
        else await runAll(db, session, upstreamSchema(db.facts.name))
        await runAll(db, session, [
          'CREATE TABLE glimpse_schema (version INTEGER NOT NULL)',
          'INSERT INTO glimpse_schema (version) VALUES (0)',
        ])
        done = 0
      }
      if (done > steps.length)
        throw new ServiceError('unavailable', 'The database was opened by a later version of this service', {
          detail: { found: done, known: steps.length },
        })
      for (const step of steps.slice(done)) await runAll(db, session, step)
      await rawRun(db, session, `UPDATE glimpse_schema SET version = ${steps.length}`)
    }),
  )
}
