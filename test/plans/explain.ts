import { CompiledQuery } from 'kysely'
import { openDatabase } from '../../src/db/sql/connect.ts'
import { connect, type Session } from '../../src/db/sql/session.ts'
import type { Kind } from '../support/catalogue.ts'
import { asQuery, deepMarker, SCOPES, type Who } from '../support/pages.ts'

interface Traced {
  readonly sql: string
  readonly parameters: readonly unknown[]
}

/**
 * How a database carries out the statements that find a page, in its own words without what depends on the data: one
 * line for each table that is read, each sort, and each statement.
 */
export async function explainer(kind: Kind, url: string, images: number) {
  const traced: Traced[] = []
  const db = await openDatabase(url, { trace: (sql, parameters) => traced.push({ sql, parameters }) })
  const connection = await connect(url)
  const explain = async ({ sql, parameters }: Traced): Promise<readonly string[]> => [
    nameOf(sql),
    ...counted(await connection.read((session) => EXPLAIN[kind](session, sql, parameters))).map((line) => `  ${line}`),
  ]
  return {
    db,
    plan: async (who: Who, page: string, deep: boolean): Promise<readonly string[]> => {
      const marker = deep ? await deepMarker(db, who, page, images) : undefined
      traced.length = 0
      await db.images.list({ ...asQuery(page, images), marker }, SCOPES[who])
      const lines: string[] = []
      // A search may go on for as many stretches as there are images; the second one is done like the first.
      let last = ''
      for (const statement of traced.filter(({ sql }) => /\blimit\b/.test(sql))) {
        if (statement.sql === last) continue
        last = statement.sql
        lines.push(...(await explain(statement)))
      }
      return lines
    },
    close: async () => {
      await db.close()
      await connection.close()
    },
  }
}

/** Branches of a list are often read alike. */
const counted = (lines: readonly string[]): readonly string[] => {
  const times = new Map<string, number>()
  for (const line of lines) times.set(line, (times.get(line) ?? 0) + 1)
  return [...times].map(([line, count]) => (count === 1 ? line : `${line} × ${count}`))
}

const nameOf = (sql: string): string => {
  if (sql.includes('count(*)')) return 'count'
  if (sql.includes(' as hit')) return 'look'
  return sql.includes('select distinct id') ? 'look up' : 'walk'
}

type Explain = (session: Session, sql: string, parameters: readonly unknown[]) => Promise<readonly string[]>

const rowsOf = <Row>(session: Session, sql: string, parameters: readonly unknown[]): Promise<readonly Row[]> =>
  session.all<Row>({ kept: false, with: () => CompiledQuery.raw(sql, [...parameters]) as CompiledQuery<Row> })

const explainSqlite: Explain = async (session, sql, parameters) => {
  const rows = await rowsOf<{ detail: string }>(session, `explain query plan ${sql}`, parameters)
  return rows
    .map(({ detail }) => detail)
    .filter((line) => /^(SEARCH|SCAN) (image|glimpse)|TEMP B-TREE/.test(line))
    .map((line) => line.replace(' USING ', ' ').replace('INDEX sqlite_autoindex_images_1', 'PRIMARY KEY'))
}

interface Node {
  readonly 'Node Type': string
  readonly 'Relation Name'?: string
  readonly 'Index Name'?: string
  readonly 'Index Cond'?: string
  readonly Plans?: readonly Node[]
}

/** Which of an index's columns bound what is read of it. */
const bounds = (condition = ''): string => {
  const bare = condition
    .replaceAll(/'[^']*'/g, '?')
    .replaceAll(/::[\w ]+(\[\])?/g, '')
    .replaceAll(/COALESCE\((\w+), [^)]*\)/g, '$1')
  const sides = bare.split(' AND ').map((part) => part.split(/ (?:[<>]=?|=) /)[0] ?? '')
  return sides.map((side) => side.replaceAll(/[()]|\bROW\b/g, '').replaceAll(/, /g, ' ')).join(', ')
}

const explainPostgres: Explain = async (session, sql, parameters) => {
  const [row] = await rowsOf<{ 'QUERY PLAN': readonly { Plan: Node }[] }>(
    session,
    `explain (format json) ${sql}`,
    parameters,
  )
  const lines: string[] = []
  const visit = (node: Node, depth: number): void => {
    const { 'Relation Name': table, 'Index Name': index } = node
    const type = node['Node Type']
    const line = table === undefined ? type : `${type} ${table}${index === undefined ? '' : ` ${index}`}`
    // Their parents and children say it all.
    const silent = /^(Result|Append|Subquery Scan|Function Scan|Aggregate|Unique|Limit)$/.test(type)
    if (!silent)
      lines.push(`${'. '.repeat(depth)}${line}${index === undefined ? '' : ` (${bounds(node['Index Cond'])})`}`)
    for (const child of node.Plans ?? []) visit(child, silent ? depth : depth + 1)
  }
  if (row?.['QUERY PLAN'][0]) visit(row['QUERY PLAN'][0].Plan, 0)
  return lines
}

interface MariadbRow {
  readonly table: string | null
  readonly type: string | null
  readonly key: string | null
  /** Bytes of the index's columns that bound what is read of it. */
  readonly key_len: string | null
  readonly Extra: string | null
}

const explainMariadb: Explain = async (session, sql, parameters) => {
  const rows = await rowsOf<MariadbRow>(session, `explain format=traditional ${sql}`, parameters)
  return rows
    .filter(({ table }) => table !== null && !/^<|elements|^page$/.test(table))
    .map(({ table, type, key, key_len: bytes, Extra }) => {
      const sorts = ['Using filesort', 'Using temporary'].filter((word) => Extra?.includes(word))
      return [table, type, key, `(${bytes ?? ''})`, ...sorts].join(' ')
    })
}

const EXPLAIN: Readonly<Record<Kind, Explain>> = {
  sqlite: explainSqlite,
  postgresql: explainPostgres,
  mysql: explainMariadb,
}
