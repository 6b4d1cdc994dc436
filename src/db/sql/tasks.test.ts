import assert from 'node:assert/strict'
import { describe, it, type TestContext } from 'node:test'
import type { TaskId, WorkerId } from '../../domain/ids.ts'
import { newImage } from '../conformance.ts'
import type { JobStart } from '../database.ts'
import { taskConformance } from '../task-conformance.ts'
import { openDatabase } from './connect.ts'
import { newFile, openRaw } from './fixtures.ts'

const opened = async (t: TestContext, url: string) => {
  const db = await openDatabase(url)
  t.after(() => db.close())
  return db
}

taskConformance({
  name: 'SQLite',
  open: (t) => opened(t, 'sqlite://'),
  openTwice: async (t) => {
    const url = `sqlite:///${await newFile(t)}`
    return [await opened(t, url), await opened(t, url)]
  },
})

describe('tasks and locks as upstream writes and reads them', () => {
  const ADMIN = { admin: true, project: undefined } as const
  const open = async (t: TestContext) => {
    const file = await newFile(t)
    return { db: await opened(t, `sqlite:///${file}`), raw: openRaw(t, file) }
  }
  const start = (image: JobStart['image'], id: string): JobStart => ({
    task: {
      id: id as TaskId,
      type: 'api_image_import',
      owner: null,
      input: { backend: ['a'] },
      imageId: null,
      requestId: null,
      userId: null,
    },
    image,
    worker: 'w' as WorkerId,
    context: null,
    change: {},
    preempted: { status: 'failure', message: 'Expired lock preempted', keepMs: 60_000 },
  })
  const rows = (found: readonly unknown[]) => found.map((row) => ({ ...(row as object) }))

  it('times are text in UTC, input and result JSON, and what is not there is NULL', async (t) => {
    const { db, raw } = await open(t)
    await db.tasks.insert(start(newImage(), 't').task, { status: 'success', result: { b: 1 }, keepMs: 3_600_000 })
    const task = { ...raw.prepare('select * from tasks').get() } as Record<string, string>
    assert.match(String(task['created_at']), /^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}000$/)
    assert.match(String(task['expires_at']), /^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}000$/)
    assert.ok(Math.abs(new Date(`${task['created_at']}Z`).getTime() - Date.now()) < 60_000)
    assert.deepEqual([task['deleted'], task['deleted_at'], task['owner'], task['image_id']], [0, null, '', null])
    const info = raw.prepare('select * from task_info').all()
    assert.deepEqual(rows(info), [{ task_id: 't', input: '{"backend":["a"]}', result: '{"b":1}', message: '' }])
  })

  it('the lock is a living property while a task holds it, and no row after', async (t) => {
    const { db, raw } = await open(t)
    const { job } = await db.jobs.begin(start(newImage(), 't1'))
    const locks = () =>
      rows(raw.prepare("select value, deleted from image_properties where name = 'os_glance_import_task'").all())
    assert.deepEqual(locks(), [{ value: 't1', deleted: 0 }])
    await db.jobs.finish(job, { task: { status: 'success', keepMs: 1000 } })
    assert.deepEqual(locks(), [])
    // A row that was deleted softly is revived.
    raw.exec(`insert into image_properties (image_id, name, value, created_at, deleted)
      values ('${job.imageId}', 'os_glance_import_task', 'old', '2020-01-01 00:00:00', 1)`)
    await db.jobs.begin(start(job.imageId, 't2'))
    assert.deepEqual(locks(), [{ value: 't2', deleted: 0 }])
  })

  const stale = [
    { status: 'processing', minutes: 59, free: false },
    { status: 'processing', minutes: 61, free: true },
    { status: 'success', minutes: 61, free: true },
    { status: 'pending', minutes: 119, free: false },
    { status: 'pending', minutes: 121, free: true },
  ] as const
  for (const { status, minutes, free } of stale)
    it(`a ${status} task of upstream holds its image ${free ? 'no longer' : 'still'} after ${minutes} minutes`, async (t) => {
      const { db, raw } = await open(t)
      const lists = [
        ['os_glance_import_task', 'upstream'],
        ['os_glance_importing_to_stores', 'a,b,c'],
      ] as const
      const { id } = await db.images.insert(newImage({ properties: new Map(lists) }))
      raw.exec(`insert into tasks (id, type, status, owner, created_at, updated_at, deleted) values ('upstream',
        'api_image_import', '${status}', 'o', '2020-01-01 00:00:00', datetime('now', '-${minutes} minutes'), 0)`)
      raw.exec(`insert into task_info (task_id, input) values ('upstream', '{"backend": ["a", "c"]}')`)
      if (!free) {
        await assert.rejects(db.jobs.begin(start(id, 't')), { kind: 'conflict', message: 'Image has active task' })
        return
      }
      const { image, preempted } = await db.jobs.begin(start(id, 't'))
      assert.deepEqual(Object.fromEntries(image.properties), {
        os_glance_import_task: 't',
        os_glance_importing_to_stores: 'b',
        os_glance_failed_import: '',
      })
      const { status: after, message } = await db.tasks.get('upstream' as TaskId, ADMIN)
      assert.equal(after, status === 'success' ? 'success' : 'failure')
      assert.equal(message, status === 'success' ? '' : 'Expired lock preempted')
      assert.equal(preempted?.id, status === 'success' ? undefined : 'upstream')
    })

  it('a task with a job of ours holds its image however long nothing was heard of it', async (t) => {
    const { db, raw } = await open(t)
    const { job } = await db.jobs.begin(start(newImage(), 't1'))
    raw.exec(`update tasks set created_at = '2020-01-01 00:00:00', updated_at = '2020-01-01 00:00:00'`)
    await assert.rejects(db.jobs.begin(start(job.imageId, 't2')), { kind: 'conflict' })
  })

  it('expired tasks are marked as deleted', async (t) => {
    const { db, raw } = await open(t)
    await db.tasks.insert(start(newImage(), 'old').task, { status: 'success', keepMs: 1 })
    await db.tasks.insert(start(newImage(), 'new').task, { status: 'success', keepMs: 1_000_000 })
    while (await db.tasks.get('old' as TaskId, ADMIN).catch(() => undefined));
    await db.tasks.forgetExpired()
    const found = raw.prepare('select id, deleted, deleted_at is null as living from tasks order by id').all()
    assert.deepEqual(rows(found), [
      { id: 'new', deleted: 0, living: 1 },
      { id: 'old', deleted: 1, living: 0 },
    ])
  })
})
