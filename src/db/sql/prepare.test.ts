import assert from 'node:assert/strict'
import { execFile, spawnSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { describe, it } from 'node:test'
import { promisify } from 'node:util'
import { schemaOf, sqliteFiles, upstreamsSchemaOf } from '../../../test/support/schema-dump.ts'
import { onDatabase } from '../../../test/support/upstream-database.ts'
import { hasKind } from '../../domain/errors.ts'
import type { ProjectId } from '../../domain/ids.ts'
import { imageQuery, newImage } from '../conformance.ts'
import { openDatabase } from './connect.ts'
import { newFile, openRaw } from './fixtures.ts'
import { revert } from './revert.ts'
import { upgradeSchema } from './upstream-migrations.ts'
import { NEWEST_LEVEL } from './upstream-revisions.ts'

const run = promisify(execFile)
const hasGlance = spawnSync('glance-manage', ['--version']).status === 0
const skip = hasGlance || process.env['CI'] === 'true' ? false : 'glance-manage is not installed'

const files = sqliteFiles('')
const glanceManage = async (file: string, ...args: readonly string[]): Promise<string> => {
  writeFileSync(`${file}.conf`, `[database]\nconnection = sqlite:///${file}\n`)
  const { stdout, stderr } = await run('glance-manage', ['--config-file', `${file}.conf`, ...args])
  return stdout + stderr
}

describe('an empty file', () => {
  it('gets its schema once when several processes open it at once', async (t) => {
    const file = await newFile(t)
    const module = new URL('./connect.ts', import.meta.url).href
    const script = `import { openDatabase } from ${JSON.stringify(module)}
      const db = await openDatabase(${JSON.stringify(`sqlite:///${file}`)})
      await db.workers.renew({ id: String(process.pid), node: 'n', pid: process.pid, startedAt: 1 }, 60_000)
      await db.close()`
    await Promise.all(Array.from({ length: 4 }, () => run(process.execPath, ['--input-type=module', '--eval', script])))
    const db = await openDatabase(`sqlite:///${file}`)
    t.after(() => db.close())
    assert.equal((await db.workers.list()).length, 4)
  })
})

describe('a database of upstream Glance', () => {
  it('is opened as it is, with its images, members and revision; only our parts are added', { skip }, async (t) => {
    const file = await newFile(t)
    await glanceManage(file, 'db_sync')
    const raw = openRaw(t, file)
    const before = await schemaOf(files, `sqlite:///${file}`)
    const id = '6bbe7cc2-eae7-4c0f-b50d-a7160b0c6a86'
    const time = '2019-08-07 06:05:04.030201'
    raw.exec(`INSERT INTO images (id, name, size, status, created_at, updated_at, deleted, min_disk, min_ram, protected, visibility, owner)
        VALUES ('${id}', 'old', 42, 'active', '${time}', '${time}', 0, 1, 2, 0, 'shared', 'owner');
      INSERT INTO image_properties (image_id, name, value, created_at, deleted) VALUES ('${id}', 'p', 'v', '${time}', 0);
      INSERT INTO image_tags (image_id, value, created_at, deleted) VALUES ('${id}', 't', '${time}', 0);
      INSERT INTO image_locations (image_id, value, created_at, deleted, meta_data, status)
        VALUES ('${id}', 'file:///old', '${time}', 0, '{"store": "fast"}', 'active');
      INSERT INTO image_members (image_id, member, can_share, created_at, deleted, status)
        VALUES ('${id}', 'm', 0, '${time}', 0, 'accepted')`)

    const db = await openDatabase(`sqlite:///${file}`)
    t.after(() => db.close())
    const [image] = await db.images.list(imageQuery(), { admin: false, project: 'm' as ProjectId })
    assert.ok(image)
    assert.deepEqual([image.id, image.name, image.size, image.minDisk, image.minRam], [id, 'old', 42, 1, 2])
    assert.deepEqual([image.tags, [...image.properties]], [['t'], [['p', 'v']]])
    assert.deepEqual(image.locations, [{ uri: 'file:///old', store: 'fast', metadata: {} }])
    assert.equal(image.createdAt.toISOString(), '2019-08-07T06:05:04.030Z')
    await db.images.insert(newImage())

    assert.equal(await upstreamsSchemaOf(files, `sqlite:///${file}`), before)
    assert.match(await glanceManage(file, 'db_sync'), /synced successfully|up to date/i)

    await onDatabase(`sqlite:///${file}`, (connection) => upgradeSchema(connection, NEWEST_LEVEL))
    const upgraded = await openDatabase(`sqlite:///${file}`)
    t.after(() => upgraded.close())
    await upgraded.cached.addNode('http://a')
    assert.equal((await upgraded.images.list(imageQuery(), { admin: true, project: undefined })).length, 2)
  })

  it('without a revision, as before Ocata, is refused and left alone', async (t) => {
    const file = await newFile(t)
    const raw = openRaw(t, file)
    raw.exec('CREATE TABLE images (id VARCHAR(36) PRIMARY KEY, is_public BOOLEAN)')
    await assert.rejects(openDatabase(`sqlite:///${file}`), (error) => hasKind(error, 'unavailable'))
    assert.equal(raw.prepare('select count(*) as n from sqlite_master where type = ?').get('table')?.['n'], 1)
  })

  it('that this service opened before it had releases is refused with what to do', async (t) => {
    const file = await newFile(t)
    await (await openDatabase(`sqlite:///${file}`)).close()
    openRaw(t, file).exec('DROP TABLE glimpse_schema; CREATE TABLE glimpse_schema AS SELECT 3 AS version')
    await assert.rejects(openDatabase(`sqlite:///${file}`), /run "glimpse db revert" once/)
    await onDatabase(`sqlite:///${file}`, (db) => revert(db, () => undefined))
    await (await openDatabase(`sqlite:///${file}`)).close()
  })

  it('that a later version of this service has opened is refused', async (t) => {
    const file = await newFile(t)
    await (await openDatabase(`sqlite:///${file}`)).close()
    openRaw(t, file).exec('UPDATE glimpse_schema SET version = version + 1')
    await assert.rejects(openDatabase(`sqlite:///${file}`), (error) => hasKind(error, 'unavailable'))
  })
})
