import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, describe } from 'node:test'
import { sqliteFiles } from '../support/schema-dump.ts'
import { schemaSuite } from '../support/schema-suite.ts'

// PostgreSQL and MariaDB go through the same suite beside src/db/sql, where their servers run.
describe('SQLite', () => {
  const dir = mkdtempSync(join(tmpdir(), 'glimpse-schema-'))
  after(() => rmSync(dir, { recursive: true }))
  const files = sqliteFiles(dir)
  schemaSuite(() => files)
})
