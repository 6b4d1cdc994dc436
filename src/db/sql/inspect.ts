import { type RawBuilder, sql } from 'kysely'
import { hasKind } from '../../domain/errors.ts'
import { tableNames } from './catalog.ts'
import { connectDatabase, type DatabaseSettings } from './connect.ts'
import type { Facts } from './facts.ts'
import { type LocationCipher, locationCipher } from './location-cipher.ts'
import { toLocation } from './location-rows.ts'
import { PARTS, type Part } from './migrations.ts'
import { hasOwnTables, lackingParts } from './parts.ts'
import { readSchema } from './prepare.ts'
import type { Session } from './session.ts'
import { readHeads } from './upstream-migrations.ts'

/** The tables that grow with the images. */
export const LARGE_TABLES = [
  'images',
  'image_properties',
  'image_tags',
  'image_locations',
  'image_members',
  'tasks',
  'task_info',
] as const
export type LargeTable = (typeof LARGE_TABLES)[number]

export interface ServerFacts {
  readonly kind: Facts['name']
  /** As the server says it. */
  readonly version: string
  /** The server and its number, such as `MariaDB 10.11.6`. */
  readonly product: string
  readonly supported: boolean
  /** The oldest that is. */
  readonly needed: string
  /** Whether MySQL's binary log keeps a user without special rights from making triggers. */
  readonly refusesTriggers: boolean
}

/** What the user of the connection may do. */
export interface Rights {
  /** Insert, change and delete rows. */
  readonly write: boolean
  readonly makeTables: boolean
  /** Make indexes, columns and triggers of Glance's tables. */
  readonly makeParts: boolean
}

export interface SchemaFacts {
  /** Whether there are Glance's tables. */
  readonly hasImages: boolean
  /** What alembic has noted. */
  readonly revisions: readonly string[]
  /** Why the service cannot work with it, and what to do. */
  readonly refusal: string | undefined
  /** What an upgrade of upstream's schema would bring; undefined when it is the newest. */
  readonly lag: string | undefined
  /** Whether there are the small tables that the service makes when it starts. */
  readonly hasOwnTables: boolean
  /** What `glimpse db optimize` would add, and of how many parts. */
  readonly lacking: readonly Part[]
  readonly parts: number
}

/** A location that is served. */
export interface LocationFacts {
  readonly imageId: string
  readonly uri: string
  readonly store: string | undefined
  /** Of the image, in bytes. */
  readonly size: number | null
}

export interface Underway {
  /** Living images that are on the way from one status to another. */
  readonly images: readonly { readonly id: string; readonly status: string; readonly ageMs: number }[]
  /** Images that an import holds. */
  readonly locks: number
  readonly tasks: readonly { readonly type: string; readonly status: string; readonly count: number }[]
  /** Images whose data waits for the scrubber (`delayed_delete`). */
  readonly delayed: number
}

/** A database that is only looked at: each method is a transaction that cannot write. */
export interface DatabaseInspection {
  server(): Promise<ServerFacts>
  schema(): Promise<SchemaFacts>
  /** Undefined where the server does not tell: on SQLite, and of rights that come by a role of MySQL. */
  rights(): Promise<Rights | undefined>
  /** Rows by table: exact on SQLite, else as the server estimates. */
  sizes(): Promise<ReadonlyMap<LargeTable, number>>
  /** Living images by status. */
  statuses(): Promise<ReadonlyMap<string, number>>
  /** Of living locations, by status, without those that are active. */
  locationStatuses(): Promise<ReadonlyMap<string, number>>
  underway(): Promise<Underway>
  /** All that are active, some thousand at a time. */
  locations(): AsyncGenerator<readonly LocationFacts[]>
  close(): Promise<void>
}

/** How long to wait for a server. */
const CONNECT_MS = 10_000
const BATCH = 2000
/** So many images on their way are named. */
const NAMED = 20

const VERSION: Readonly<Record<Facts['name'], RawBuilder<{ version: string }>>> = {
  sqlite: sql`select sqlite_version() as version`,
  postgresql: sql`select current_setting('server_version') as version`,
  mysql: sql`select version() as version`,
}

const ESTIMATES: Readonly<Partial<Record<Facts['name'], RawBuilder<{ name: string; n: number }>>>> = {
  postgresql: sql`select relname as name, cast(reltuples as double precision) as n from pg_class
    where relkind = 'r' and relnamespace = current_schema()::regnamespace`,
  mysql: sql`select table_name as name, cast(table_rows as double) as n from information_schema.tables
    where table_schema = database()`,
}

/**
 * The names of what the user may, asked for where there is the table `images`, and what making parts takes besides making
 * tables. Nothing is said on SQLite.
 */
const RIGHTS: Readonly<
  Partial<Record<Facts['name'], { readonly held: RawBuilder<{ name: string }>; readonly makeParts: readonly string[] }>>
> = {
  postgresql: {
    held: sql`select name from (values
    ('insert', has_table_privilege('images', 'insert')), ('update', has_table_privilege('images', 'update')),
    ('delete', has_table_privilege('images', 'delete')), ('create', has_schema_privilege(current_schema(), 'create')),
    ('own', (select pg_has_role(relowner, 'usage') from pg_class where oid = 'images'::regclass)),
    ('select', true)) as rights (name, held) where held`,
    makeParts: ['own'],
  },
  mysql: {
    held: sql`select lower(privilege_type) as name from (
      select grantee, privilege_type from information_schema.user_privileges
      union all
      select grantee, privilege_type from information_schema.schema_privileges where database() like table_schema
    ) as held
    where coalesce(current_role(), 'NONE') = 'NONE' and grantee = concat('''',
      left(current_user(), char_length(current_user()) - char_length(substring_index(current_user(), '@', -1)) - 1),
      '''@''', substring_index(current_user(), '@', -1), '''')`,
    makeParts: ['index', 'alter', 'trigger'],
  },
}

/**
 * Opens nothing yet: the first question finds out whether the database answers. Throws `invalid` for a wrong URL, and for
 * a key of locations that cannot be one.
 */
export async function inspectDatabase(settings: DatabaseSettings): Promise<DatabaseInspection> {
  const cipher = locationCipher(settings.metadata_encryption_key)
  const db = await connectDatabase(settings, { readOnly: true, connections: 1, waitMs: CONNECT_MS })
  const { facts } = db
  const ask = <Row>(session: Session, query: RawBuilder<Row>) => session.all<Row>(db.prepare(query))
  const all = <Row>(query: RawBuilder<Row>) => db.read((session) => ask(session, query))
  const counted = async (query: RawBuilder<{ name: string; n: number }>) =>
    new Map((await all(query)).map(({ name, n }) => [name, Number(n)]))

  return {
    server: async () => {
      const version = (await all(VERSION[facts.name]))[0]?.version ?? ''
      return { kind: facts.name, version, ...judged(facts.name, version), refusesTriggers: await refusesTriggers() }
    },
    schema: async () => {
      const hasImages = (await db.read((session) => tableNames(db, session))).has('images')
      const revisions = await db.read((session) => readHeads(db, session))
      const parts = PARTS[facts.name]
      const found = { hasImages, revisions, parts: parts.length }
      try {
        const { parts: usable, lag } = await readSchema(db)
        const ownTables = await db.read((session) => hasOwnTables(db, session))
        const lacking = lackingParts(facts.name, usable)
        return { ...found, refusal: undefined, lag, hasOwnTables: ownTables, lacking }
      } catch (error) {
        if (!hasKind(error, 'unavailable')) throw error
        return { ...found, refusal: error.message, lag: undefined, hasOwnTables: false, lacking: parts }
      }
    },
    rights: async () => {
      const rights = RIGHTS[facts.name]
      if (rights === undefined) return undefined
      const held = new Set((await all(rights.held)).map(({ name }) => name))
      // It was just read from: where nothing says so, its rights are kept elsewhere.
      if (!held.has('select')) return undefined
      const may = (...names: readonly string[]) => names.every((name) => held.has(name))
      return {
        write: may('insert', 'update', 'delete'),
        makeTables: may('create'),
        makeParts: may('create', ...rights.makeParts),
      }
    },
    sizes: async () => {
      const estimates = ESTIMATES[facts.name]
      const guessed = new Map(estimates === undefined ? [] : (await all(estimates)).map(({ name, n }) => [name, n]))
      const sizes = new Map<LargeTable, number>()
      for (const table of LARGE_TABLES) {
        const rows = guessed.get(table)
        // PostgreSQL says -1 of what nobody has analyzed yet.
        sizes.set(table, rows !== undefined && rows >= 0 ? rows : await countOf(table))
      }
      return sizes
    },
    statuses: () => counted(sql`select status as name, count(*) as n from images where not deleted group by status`),
    locationStatuses: () =>
      counted(sql`select status as name, count(*) as n from image_locations
        where not deleted and status <> 'active' group by status`),
    underway: () =>
      db.read(async (session) => {
        const images = await ask(
          session,
          sql<{ id: string; status: string; age: number }>`select id, status,
            ${facts.age(sql`coalesce(updated_at, created_at)`)} as age from images
            where not deleted and status in ('saving', 'uploading', 'importing') order by id limit ${sql.lit(NAMED)}`,
        )
        const [locks] = await ask(
          session,
          sql<{ n: number }>`select count(*) as n from image_properties
            where name = 'os_glance_import_task' and not deleted`,
        )
        const tasks = await ask(
          session,
          sql<{ type: string; status: string; n: number }>`select type, status, count(*) as n from tasks
            where not deleted and status in ('pending', 'processing') group by type, status`,
        )
        const [delayed] = await ask(
          session,
          sql<{ n: number }>`select count(*) as n from images where deleted and status = 'pending_delete'`,
        )
        return {
          images: images.map(({ id, status, age }) => ({ id, status, ageMs: Number(age) })),
          locks: Number(locks?.n ?? 0),
          tasks: tasks.map(({ type, status, n }) => ({ type, status, count: Number(n) })),
          delayed: Number(delayed?.n ?? 0),
        }
      }),
    locations: async function* () {
      for (let after = 0; ; ) {
        const rows = await all(
          // The part is cut out first: whoever plans the join must not think of the whole table.
          sql<Row>`select l.id, l.image_id, l.value, l.meta_data, i.deleted, ${facts.integer(sql`i.size`)} as size
            from (select id, image_id, value, meta_data from image_locations
              where id > ${sql.lit(after)} and not deleted and status = 'active' order by id limit ${sql.lit(BATCH)}) as l
            left join images i on i.id = l.image_id order by l.id`,
        )
        const living = rows.filter(({ deleted }) => deleted !== null && !deleted)
        if (living.length > 0) yield living.map((row) => toFacts(row, cipher))
        if (rows.length < BATCH) return
        after = rows.at(-1)?.id ?? after
      }
    },
    close: db.close,
  }

  async function countOf(table: LargeTable): Promise<number> {
    const [row] = await all(sql<{ n: number }>`select count(*) as n from ${sql.table(table)}`)
    return Number(row?.n ?? 0)
  }

  async function refusesTriggers(): Promise<boolean> {
    if (facts.name !== 'mysql') return false
    const [row] = await all(
      sql<{ log: number; trust: number }>`select @@log_bin as log, @@log_bin_trust_function_creators as trust`,
    )
    return Number(row?.log) === 1 && Number(row?.trust) === 0
  }
}

interface Row {
  readonly id: number
  readonly image_id: string
  readonly value: string
  readonly meta_data: string | null
  readonly size: number | null
  /** Of the image; null where there is none. */
  readonly deleted: boolean | number | null
}

const toFacts = (row: Row, cipher: LocationCipher): LocationFacts => {
  const { uri, store } = toLocation(row, cipher)
  return { imageId: row.image_id, uri, store, size: row.size }
}

/** The oldest releases that have what the statements use. */
const OLDEST = { SQLite: '3.35', PostgreSQL: '13', MariaDB: '10.6', MySQL: '8.0' } as const

function judged(name: Facts['name'], version: string): Pick<ServerFacts, 'product' | 'supported' | 'needed'> {
  const ofMysql = /mariadb/i.test(version) ? 'MariaDB' : 'MySQL'
  const product = ({ sqlite: 'SQLite', postgresql: 'PostgreSQL', mysql: ofMysql } as const)[name]
  const number = /\d+(?:\.\d+)*/.exec(version)?.[0] ?? ''
  const supported = number.localeCompare(OLDEST[product], 'en', { numeric: true }) >= 0
  return { product: `${product} ${number}`, supported, needed: `${product} ${OLDEST[product]}` }
}
