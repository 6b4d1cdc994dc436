import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { describe, it, type TestContext } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { imageQuery, newImage } from '../../src/db/conformance.ts'
import { openDatabase } from '../../src/db/sql/connect.ts'
import { PARTS } from '../../src/db/sql/migrations.ts'
import { optimize } from '../../src/db/sql/optimize.ts'
import { lackingParts, readUsableParts } from '../../src/db/sql/parts.ts'
import { revert } from '../../src/db/sql/revert.ts'
import {
  hasPendingRows,
  migrateRows,
  readHeads,
  stampRevision,
  upgradeSchema,
} from '../../src/db/sql/upstream-migrations.ts'
import { NEWEST_LEVEL } from '../../src/db/sql/upstream-revisions.ts'
import { hasKind } from '../../src/domain/errors.ts'
import type { AttemptId, ImageId, ProjectId, StoreId, WorkerId } from '../../src/domain/ids.ts'
import { type Databases, rowsOf, schemaOf, upstreamsSchemaOf } from './schema-dump.ts'
import { trainRows } from './train-rows.ts'
import { makeUpstream, onDatabase } from './upstream-database.ts'

/** Between two changes of a member. */
const PACE_MS = 20

const quiet = () => undefined
const PROJECT = { admin: false, project: 'm' as ProjectId }

/** What upstream's own tool left, recorded by tools/record-schema.ts. */
const recorded = ({ product }: Databases): Promise<string> =>
  readFile(new URL(`../db/upstream/${product}.sql`, import.meta.url), 'utf8')

/** What `glance-manage` and `glimpse db` do to a database, and what is there afterwards. */
export function schemaSuite(databases: () => Databases): void {
  const fresh = () => databases().database()
  /** The names of our parts that are not in force. */
  const lacking = (url: string) =>
    onDatabase(url, async (db) => {
      const usable = await db.read((session) => readUsableParts(db, session))
      return lackingParts(databases().kind, usable).map(({ name }) => name)
    })
  const shared = async (t: TestContext, url: string) => {
    const db = await openDatabase(url)
    t.after(() => db.close())
    return (await db.images.list(imageQuery({ visibility: 'shared' }), PROJECT)).map(({ id }) => id)
  }

  describe('the schema', () => {
    it("is upstream's to the byte in a new database, beside what is ours, and when that is dropped", async () => {
      const url = await fresh()
      await (await openDatabase(url)).close()
      assert.equal(await upstreamsSchemaOf(databases(), url), await recorded(databases()))
      assert.deepEqual(await lacking(url), [])
      await onDatabase(url, (db) => revert(db, quiet))
      assert.equal(await schemaOf(databases(), url), await recorded(databases()))
    })

    it('stays as it is when the database is opened again', async () => {
      const url = await fresh()
      await (await openDatabase(url)).close()
      const before = await schemaOf(databases(), url)
      await (await openDatabase(url)).close()
      assert.equal(await schemaOf(databases(), url), before)
    })

    it('is made once when it is opened several times at once', async () => {
      const url = await fresh()
      const opened = await Promise.all(Array.from({ length: 4 }, () => openDatabase(url, { busyTimeoutMs: 60_000 })))
      for (const db of opened) await db.close()
      assert.deepEqual(await lacking(url), [])
      await onDatabase(url, (db) => revert(db, quiet))
      assert.equal(await schemaOf(databases(), url), await recorded(databases()))
    })

    it('of Train is brought up to date with its rows, in steps or at once', async () => {
      const urls = [await fresh(), await fresh()] as const
      for (const url of urls) {
        await makeUpstream(url, { expand: 0, contract: 0 })
        for (const statement of trainRows(databases().kind)) await databases().query(url, statement)
      }
      const [stepwise, atOnce] = urls
      const before = await rowsOf(databases(), stepwise)
      for (let release = 0; release <= NEWEST_LEVEL.expand; release++)
        for (const contract of [release - 1, release])
          await onDatabase(stepwise, (db) => upgradeSchema(db, { expand: release, contract }))
      await onDatabase(atOnce, (db) => upgradeSchema(db, NEWEST_LEVEL))
      for (const url of urls) assert.equal(await schemaOf(databases(), url), await recorded(databases()))
      const rows = await rowsOf(databases(), stepwise)
      assert.deepEqual(rows, await rowsOf(databases(), atOnce))
      assert.equal(rows.length, before.length)
    })

    it('half way through Train has locations to migrate, and only then', async () => {
      const url = await makeUpstream(await fresh(), { expand: 0, contract: 0 })
      for (const statement of trainRows(databases().kind)) await databases().query(url, statement)
      await onDatabase(url, async (db) => {
        assert.equal(await hasPendingRows(db), false)
        await stampRevision(db, 'rocky_contract02')
        await databases().query(url, "insert into alembic_version values ('train_expand01')")
        assert.equal(await hasPendingRows(db), true)
        assert.equal(await migrateRows(db), 1)
        assert.equal(await hasPendingRows(db), false)
      })
      const metadata = await databases().query(url, 'select meta_data from image_locations order by id')
      assert.deepEqual(
        metadata,
        Array.from({ length: 3 }, () => '{"store": "fast", "Backend": 1}'),
      )
    })

    it('that is too old for the service is refused in one line, and left alone', async () => {
      const url = await makeUpstream(await fresh(), { expand: 1, contract: 1 })
      const before = await schemaOf(databases(), url)
      await assert.rejects(openDatabase(url), {
        message:
          'The database schema is at ussuri_contract01, and has to be at 2024_1_contract01: run "glance-manage db sync"',
      })
      await databases().query(url, "update alembic_version set version_num = 'rocky_contract02'")
      await assert.rejects(openDatabase(url), /older than Train: upgrade it with Glance 19.0 or later first/)
      await databases().query(url, "update alembic_version set version_num = '2031_1_contract01'")
      await assert.rejects(openDatabase(url), /2031_1_contract01, which is newer than this service knows/)
      await databases().query(url, "update alembic_version set version_num = 'ussuri_contract01'")
      assert.equal(await schemaOf(databases(), url), before)
    })

    it('that is behind serves, says so, and has no tables for the image cache', async () => {
      const url = await makeUpstream(await fresh(), { expand: 5, contract: 5 })
      const warnings: string[] = []
      const db = await openDatabase(url, { warn: (line) => warnings.push(line) })
      try {
        await db.images.insert(newImage())
        await assert.rejects(db.cached.addNode('http://a'), /at zed_contract01: without 2024_1_contract01/)
      } finally {
        await db.close()
      }
      assert.equal(warnings.length, 2)
      assert.match(warnings[0] ?? '', /at zed_contract01.*"glance-manage db sync" adds them/)
      assert.match(warnings[1] ?? '', /"glimpse db optimize" adds them/)
      assert.deepEqual(await onDatabase(url, (db) => db.read((session) => readHeads(db, session))), ['zed_contract01'])
    })
  })

  describe('optimize', () => {
    it('makes of a database of upstream what a new one is, and a list of what is shared stays the same', async (t) => {
      const [url, model] = [await makeUpstream(await fresh()), await fresh()]
      for (const statement of trainRows(databases().kind)) await databases().query(url, statement)
      await (await openDatabase(url)).close()
      assert.equal((await lacking(url)).length, PARTS[databases().kind].length)
      const before = await shared(t, url)
      assert.equal(before.length, 2)
      await onDatabase(url, (db) => optimize(db, quiet))
      await (await openDatabase(model)).close()
      assert.equal(await schemaOf(databases(), url), await schemaOf(databases(), model))
      assert.deepEqual(await shared(t, url), before)
      assert.equal((await databases().query(url, 'select image_id from glimpse_member_images')).length, 2)
    })

    it('goes on where it was cut off, and counts members anew whose triggers were not all there', async (t) => {
      const url = await fresh()
      await (await openDatabase(url)).close()
      for (const statement of trainRows(databases().kind)) await databases().query(url, statement)
      const complete = await schemaOf(databases(), url)
      const ids = await shared(t, url)
      const trigger = PARTS[databases().kind].find(({ kind }) => kind === 'trigger')
      const on = databases().kind === 'postgresql' ? ' on image_members' : ''
      await databases().query(url, `drop trigger ${trigger?.name}${on}`)
      await databases().query(
        url,
        `drop index glimpse_image_tags_value${databases().kind === 'mysql' ? ' on image_tags' : ''}`,
      )
      // Nobody told the table of this.
      await databases().query(url, `update image_members set member = 'n' where image_id = '${ids[0]}'`)
      await databases().query(url, "delete from glimpse_member_images where member = 'm'")
      assert.deepEqual(await shared(t, url), ids.slice(1))
      const lines: string[] = []
      await onDatabase(url, (db) => optimize(db, (line) => lines.push(line)))
      assert.deepEqual(lines, [
        '1 of 2: index glimpse_image_tags_value of image_tags',
        '2 of 2: table glimpse_member_images and its triggers',
        '  2 rows',
      ])
      assert.equal(await schemaOf(databases(), url), complete)
      assert.deepEqual(await shared(t, url), ids.slice(1))
      assert.equal((await databases().query(url, 'select image_id from glimpse_member_images')).length, 2)
    })
  })

  it('optimize counts every member while others come and go', async (t) => {
    const url = await makeUpstream(await fresh())
    const db = await openDatabase(url, { busyTimeoutMs: 60_000 })
    t.after(() => db.close())
    const ids = await Promise.all(Array.from({ length: 20 }, async () => (await db.images.insert(newImage())).id))
    let done = false
    const comeAndGo = async (member: ProjectId): Promise<void> => {
      const there = new Set<ImageId>()
      for (let turn = 0; !done || turn < ids.length || there.size === 0; turn++) {
        const id = ids[turn % ids.length] as ImageId
        if (there.delete(id)) await db.members.remove(id, member)
        else {
          await db.members.add(id, member, -1)
          if (turn % 3 > 0) await db.members.setStatus(id, member, 'accepted')
          there.add(id)
        }
        // Others are to get between, and SQLite does its work at once.
        await delay(PACE_MS)
      }
    }
    const others = ['a', 'b'].map((name) => comeAndGo(name as ProjectId))
    await onDatabase(url, (connection) => optimize(connection, quiet)).finally(() => {
      done = true
    })
    await Promise.all(others)
    const no = databases().kind === 'postgresql' ? 'false' : '0'
    const rows = (sql: string) => databases().query(url, `select ${sql} order by 1, 2, 3`)
    const living = await rows(`distinct image_id, member, status from image_members where deleted = ${no}`)
    assert.deepEqual(await rows('image_id, member, status from glimpse_member_images'), living)
    assert.ok(living.length > 0)
  })

  describe('revert', () => {
    it('leaves the rows alone, and can be repeated', async () => {
      const url = await makeUpstream(await fresh())
      const db = await openDatabase(url)
      const { id } = await db.images.insert(newImage({ tags: ['t'], properties: new Map([['p', 'v']]) }))
      await db.members.add(id, 'm' as ProjectId, -1)
      await db.close()
      const rows = await rowsOf(databases(), url)
      assert.equal(rows.length, 5)
      await onDatabase(url, (connection) => optimize(connection, quiet))
      for (let n = 0; n < 2; n++) {
        await onDatabase(url, (connection) => revert(connection, quiet))
        assert.deepEqual(await rowsOf(databases(), url), rows)
      }
    })

    it('is refused while somebody serves, and while work waits for recovery, unless it is forced', async (t) => {
      const url = await fresh()
      const db = await openDatabase(url)
      t.after(() => db.close())
      const worker = { id: 'w' as WorkerId, node: 'n', pid: 1, startedAt: 1 }
      await db.workers.renew(worker, 60_000)
      const refused = (error: unknown) => hasKind(error, 'conflict')
      await assert.rejects(
        onDatabase(url, (connection) => revert(connection, quiet)),
        refused,
      )
      const { id } = await db.images.insert(newImage())
      const claim = {
        attempt: randomUUID() as AttemptId,
        imageId: id as ImageId,
        worker: worker.id,
        store: 's' as StoreId,
      }
      await db.images.claim(claim)
      await db.workers.renew(worker, -1)
      await assert.rejects(
        onDatabase(url, (connection) => revert(connection, quiet)),
        refused,
      )
      await onDatabase(url, (connection) => revert(connection, quiet, { force: true }))
      assert.equal(await schemaOf(databases(), url), await recorded(databases()))
    })
  })
}
