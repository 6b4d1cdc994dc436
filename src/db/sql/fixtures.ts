import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import type { TestContext } from 'node:test'

/** The path of a database file that does not exist yet and is gone after the test. */
export const newFile = async (t: TestContext): Promise<string> => {
  const dir = await mkdtemp(join(tmpdir(), 'glimpse-db-'))
  t.after(() => rm(dir, { recursive: true }))
  return join(dir, 'glance.sqlite')
}

/** The file as another program sees it. */
export const openRaw = (t: TestContext, file: string): DatabaseSync => {
  const raw = new DatabaseSync(file)
  t.after(() => raw.close())
  return raw
}
