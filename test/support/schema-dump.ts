import { DatabaseSync } from 'node:sqlite'
import type { SqlServer } from './servers/sql.ts'

/** A database of which something can be told: a server's, or a file. */
export type Databases = Pick<SqlServer, 'database' | 'query' | 'dump'> & {
  readonly kind: 'sqlite' | 'postgresql' | 'mysql'
  readonly product: 'sqlite' | SqlServer['product']
}

const fileIn = (url: string): string => url.replace(/^sqlite:\/\/\//, '')

/** Files in a folder, as SQLite's own tool shows them. */
export const sqliteFiles = (dir: string): Databases => {
  let count = 0
  const rows = (url: string, sql: string) => {
    const raw = new DatabaseSync(fileIn(url))
    try {
      return raw.prepare(sql).all()
    } finally {
      raw.close()
    }
  }
  const run = (url: string, sql: string): readonly string[] => {
    if (/^\s*(select|pragma)/i.test(sql)) return rows(url, sql).map((row) => Object.values(row).join('\t'))
    const raw = new DatabaseSync(fileIn(url))
    try {
      raw.exec(sql)
    } finally {
      raw.close()
    }
    return []
  }
  return {
    kind: 'sqlite',
    product: 'sqlite',
    database: async () => `sqlite:///${dir}/${++count}.sqlite`,
    query: async (url, sql) => run(url, sql),
    dump: async (url, what) => {
      const parts = rows(url, 'select type, name, tbl_name, sql from sqlite_master order by name')
      if (what === 'schema')
        return parts
          .map(({ type, name, tbl_name, sql }) => `-- ${type} ${name} of ${tbl_name}\n${sql ?? ''}`)
          .join('\n\n')
      return parts
        .filter(({ type, name }) => type === 'table' && !`${name}`.startsWith('sqlite_'))
        .flatMap(({ name }) => rows(url, `select * from "${name}"`).map((row) => `${name} ${JSON.stringify(row)}`))
        .join('\n')
    },
  }
}

/** What depends on the tool and the day, and not on the schema. */
const NOISE = [
  /^--(?! (table|index|trigger|view) ).*$/,
  /^\\(un)?restrict .*$/,
  /^SET .*$/,
  /^SELECT pg_catalog\.set_config.*$/,
  /^\/\*.*\*\/ ?;? ?$/,
]

/** The schema, as the database's own tool writes it; with `alembic_version`'s rows at the end. */
export async function schemaOf(databases: Databases, url: string): Promise<string> {
  const lines = (await databases.dump(url, 'schema'))
    .split('\n')
    .filter((line) => !NOISE.some((noise) => noise.test(line)))
    .map((line) => line.replace(/ AUTO_INCREMENT=\d+/, ''))
  const heads = await databases.query(url, 'select version_num from alembic_version order by version_num')
  return `${lines
    .join('\n')
    .replace(/\n{3,}/g, '\n\n')
    .trim()}\n\n-- alembic_version: ${heads.join(', ')}\n`
}

/** The same without what this service added to it. */
export async function upstreamsSchemaOf(databases: Databases, url: string): Promise<string> {
  const text = await schemaOf(databases, url)
  if (databases.kind !== 'mysql')
    return `${text
      .split('\n\n')
      .filter((block) => !block.includes('glimpse_'))
      .join('\n\n')}`
  return text
    .replace(/^CREATE TABLE `glimpse_[\s\S]*?^\).*;\n/gm, '')
    .replace(/^DELIMITER ;;\n[\s\S]*?^DELIMITER ;\n/gm, '')
    .replace(/^ {2}.*`glimpse_.*\n/gm, '')
}

/** All rows of upstream's tables, in an order of their own. */
export async function rowsOf(databases: Databases, url: string): Promise<readonly string[]> {
  return (await databases.dump(url, 'rows'))
    .split('\n')
    .filter((line) => /^(INSERT INTO|\w+ \{)/.test(line) && !/^(INSERT INTO )?\S*glimpse_/.test(line))
    .toSorted((a, b) => (a < b ? -1 : 1))
}
