import { type RawBuilder, sql } from 'kysely'
import type { Connection, Session } from './session.ts'

/*
 * What a database says of itself. Columns get their names with `as`: MySQL would name them in capitals.
 */

interface Named {
  readonly name: string
}

export const tableNames = async (db: Connection, session: Session): Promise<ReadonlySet<string>> => {
  const query = {
    sqlite: sql<Named>`select name from sqlite_master where type = 'table'`,
    postgresql: sql<Named>`select table_name as name from information_schema.tables
      where table_schema = current_schema()`,
    mysql: sql<Named>`select table_name as name from information_schema.tables where table_schema = database()`,
  }[db.facts.name]
  return new Set((await session.all(db.prepare(query))).map(({ name }) => name))
}

export const columnNames = async (db: Connection, session: Session, table: string): Promise<ReadonlySet<string>> => {
  const query = {
    sqlite: sql<Named>`select name from pragma_table_info(${table})`,
    postgresql: sql<Named>`select column_name as name from information_schema.columns
      where table_schema = current_schema() and table_name = ${table}`,
    mysql: sql<Named>`select column_name as name from information_schema.columns
      where table_schema = database() and table_name = ${table}`,
  }[db.facts.name]
  return new Set((await session.all(db.prepare(query))).map(({ name }) => name))
}

export type PartKind = 'index' | 'column' | 'table' | 'function' | 'trigger'

/** Something of ours that is in the database, whichever version of this service made it. */
export interface PresentPart {
  readonly kind: PartKind
  readonly name: string
  /** Its table; its own name, of a table or a function. */
  readonly table: string
  /** Whether it can be used: an index whose making was cut off cannot. */
  readonly whole: boolean | number
}

/** Indexes of our own tables come and go with these, and are left out. */
const PRESENT: Readonly<Record<Connection['facts']['name'], RawBuilder<PresentPart>>> = {
  sqlite: sql`select type as kind, name, tbl_name as "table", 1 as whole from sqlite_master
    where name like 'glimpse\\_%' escape '\\' and (type = 'table' or tbl_name not like 'glimpse\\_%' escape '\\')`,
  postgresql: sql`with ours as (select oid from pg_namespace where nspname = current_schema())
    select 'index' as kind, i.relname as name, t.relname as "table", x.indisvalid as whole
      from pg_index x join pg_class i on i.oid = x.indexrelid join pg_class t on t.oid = x.indrelid
      where t.relnamespace in (select oid from ours) and i.relname like 'glimpse\\_%' and t.relname not like 'glimpse\\_%'
    union all select 'trigger', tgname, t.relname, true from pg_trigger join pg_class t on t.oid = tgrelid
      where t.relnamespace in (select oid from ours) and tgname like 'glimpse\\_%' and not tgisinternal
    union all select 'function', proname, proname, true from pg_proc
      where pronamespace in (select oid from ours) and proname like 'glimpse\\_%'
    union all select 'table', relname, relname, true from pg_class
      where relnamespace in (select oid from ours) and relname like 'glimpse\\_%' and relkind = 'r'`,
  mysql: sql`select distinct 'index' as kind, index_name as name, table_name as \`table\`, 1 as whole
      from information_schema.statistics where table_schema = database()
      and index_name like 'glimpse\\_%' and table_name not like 'glimpse\\_%'
    union all select 'trigger', trigger_name, event_object_table, 1 from information_schema.triggers
      where trigger_schema = database() and trigger_name like 'glimpse\\_%'
    union all select 'column', column_name, table_name, 1 from information_schema.columns
      where table_schema = database() and column_name like 'glimpse\\_%' and table_name not like 'glimpse\\_%'
    union all select 'table', table_name, table_name, 1 from information_schema.tables
      where table_schema = database() and table_name like 'glimpse\\_%'`,
}

/** All that is ours in the database. */
export const presentParts = (db: Connection, session: Session): Promise<readonly PresentPart[]> =>
  session.all(db.prepare(PRESENT[db.facts.name]))
