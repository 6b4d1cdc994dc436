import assert from 'node:assert/strict'
import { DatabaseSync } from 'node:sqlite'
import { describe, it } from 'node:test'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { hasKind, ServiceError } from '../../domain/errors.ts'
import type { ProjectId } from '../../domain/ids.ts'
import { imageQuery, newImage } from '../conformance.ts'
import type { Scope } from '../database.ts'
import { openDatabase } from './connect.ts'
import { newFile, openRaw } from './fixtures.ts'
import { fromSqlite } from './sqlite-driver.ts'
import { parseDatabaseUrl } from './url.ts'

const ADMIN: Scope = { admin: true, project: 'admins' as ProjectId }

const pathOf = (url: string) => {
  const parsed = parseDatabaseUrl(url)
  return parsed.kind === 'sqlite' ? parsed.path : parsed.kind
}

describe('the database URL', () => {
  it('names a file or memory, as SQLAlchemy has it', () => {
    assert.equal(pathOf('sqlite://'), ':memory:')
    assert.equal(pathOf('sqlite:///'), ':memory:')
    assert.equal(pathOf('sqlite:///:memory:'), ':memory:')
    assert.equal(pathOf('sqlite:///glance.db'), 'glance.db')
    assert.equal(pathOf('sqlite:///var/glance.db'), 'var/glance.db')
    assert.equal(pathOf('sqlite:////var/lib/glance/glance.sqlite'), '/var/lib/glance/glance.sqlite')
    assert.equal(pathOf('sqlite+pysqlite:////a%20b.db?timeout=30'), '/a%20b.db')
  })

  it('of another kind is refused without showing the password', () => {
    for (const url of [
      'oracle://glance:secret@db/glance',
      'mysql+pymysql://glance:secret@db',
      'sqlite://glance:secret@host',
      'secret',
      '',
    ])
      assert.throws(
        () => pathOf(url),
        (error) => hasKind(error, 'invalid') && !error.message.includes('secret'),
        url,
      )
  })

  it('of a file that cannot be opened is unavailable', async () => {
    const opening = openDatabase('sqlite:////nonexistent/folder/glance.sqlite')
    await assert.rejects(opening, (error) => hasKind(error, 'unavailable'))
  })
})

describe('a database that another process is writing to', () => {
  it('can be read; writes are refused as unavailable for now, and work afterwards', async (t) => {
    const file = await newFile(t)
    const db = await openDatabase(`sqlite:///${file}`, { busyTimeoutMs: 0 })
    t.after(() => db.close())
    const { id } = await db.images.insert(newImage())
    const raw = openRaw(t, file)
    raw.exec('BEGIN IMMEDIATE')
    await assert.rejects(
      db.images.update(id, { name: 'x' }, ['queued']),
      (error) => hasKind(error, 'unavailable') && error.transient,
    )
    assert.equal((await db.images.get(id, ADMIN)).id, id)
    raw.exec('COMMIT')
    assert.equal((await db.images.update(id, { name: 'x' }, ['queued'])).name, 'x')
  })

  it('is waited for, while reads go on', async (t) => {
    const file = await newFile(t)
    let attempts = 0
    const trace = (sql: string) => {
      if (sql === 'begin immediate') attempts++
    }
    const db = await openDatabase(`sqlite:///${file}`, { trace })
    t.after(() => db.close())
    const { id } = await db.images.insert(newImage())
    const raw = openRaw(t, file)
    raw.exec('BEGIN IMMEDIATE')
    attempts = 0
    const update = db.images.update(id, { name: 'x' }, ['queued'])
    while (attempts < 3) {
      assert.equal((await db.images.list(imageQuery(), ADMIN)).length, 1)
      await nextTurn()
    }
    raw.exec('ROLLBACK')
    assert.equal((await update).name, 'x')
  })
})

describe('what SQLite refuses', () => {
  it('for want of space is unavailable, and nothing of the change is left', () => {
    const raw = new DatabaseSync(':memory:')
    raw.exec('CREATE TABLE t (x); PRAGMA max_page_count = 3')
    try {
      raw.exec(`INSERT INTO t VALUES (zeroblob(100000))`)
      assert.fail('there is no limit')
    } catch (error) {
      assert.ok(hasKind(fromSqlite(error), 'unavailable'))
    } finally {
      raw.close()
    }
  })

  it('because it exists already is a conflict', () => {
    const raw = new DatabaseSync(':memory:')
    raw.exec('CREATE TABLE t (x PRIMARY KEY); INSERT INTO t VALUES (1)')
    assert.throws(
      () => {
        try {
          raw.exec('INSERT INTO t VALUES (1)')
        } catch (error) {
          throw fromSqlite(error)
        }
      },
      (error) => hasKind(error, 'conflict'),
    )
    raw.close()
  })

  it('because we are wrong stays what it is', () => {
    const raw = new DatabaseSync(':memory:')
    assert.throws(
      () => {
        try {
          raw.exec('SELECT no_such_column')
        } catch (error) {
          throw fromSqlite(error)
        }
      },
      (error) => !(error instanceof ServiceError),
    )
    raw.close()
  })
})
