/**
 * Records with the real Glance of tools/python-tools.sh, into test/db/upstream, the schema that its `db sync` makes in
 * each database, and what its commands say. With MYSQL_ROOT (tools/mysql-server.sh) in MySQL too.
 *
 *     node tools/record-schema.ts
 */
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { COURSES, type Said, said } from '../test/db/commands.ts'
import { type Databases, schemaOf, sqliteFiles } from '../test/support/schema-dump.ts'
import { openGlanceManage } from '../test/support/servers/glance-manage.ts'
import { mysqlAvailable, type SqlServer, startMariadb, startMysql, startPostgres } from '../test/support/servers/sql.ts'

const manage = await openGlanceManage()
const dir = await mkdtemp(join(tmpdir(), 'record-schema-'))
const servers: SqlServer[] = []
try {
  const files = sqliteFiles(dir)
  for (const start of [startPostgres, startMariadb, ...(mysqlAvailable().ok ? [startMysql] : [])])
    servers.push(await start())
  for (const databases of [files, ...servers]) await recordSchema(databases)
  const courses: Record<string, readonly Said[]> = {}
  for (const [title, commands] of Object.entries(COURSES)) {
    const url = await files.database()
    const answers: Said[] = []
    for (const command of commands) {
      const { code, stdout, stderr } = await manage.run(url, ...command.split(' '))
      answers.push(said(command, code, stdout, stderr))
    }
    courses[title] = answers
  }
  await save('commands.json', `${JSON.stringify(courses, null, 2)}\n`)
} finally {
  for (const server of servers) await server.stop()
  await manage.stop()
  await rm(dir, { recursive: true })
}

async function recordSchema(databases: Databases): Promise<void> {
  const url = await databases.database()
  const { code, stderr } = await manage.run(url, 'db', 'sync')
  if (code !== 0) throw new Error(stderr)
  await save(`${databases.product}.sql`, await schemaOf(databases, url))
}

async function save(name: string, text: string): Promise<void> {
  await writeFile(new URL(`../test/db/upstream/${name}`, import.meta.url), text)
}
