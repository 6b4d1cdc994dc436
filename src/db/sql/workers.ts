import { sql } from 'kysely'
import type { AttemptId, ImageId, StoreId, WorkerId } from '../../domain/ids.ts'
import type { WorkerRepository } from '../database.ts'
import type { Connection } from './session.ts'
import { slot } from './statement.ts'

interface WorkerRow {
  readonly id: string
  readonly node: string
  readonly pid: number
  readonly started_at: number
  readonly expired: boolean | number
  readonly expires_at: number
}

interface ClaimRow {
  readonly attempt: string
  readonly image_id: string
  readonly worker: string
  readonly store: string
}

export const workerRepository = ({ facts, kysely, fixed: prepare, read, write }: Connection): WorkerRepository => {
  const values = {
    node: slot<string>('node'),
    pid: slot<number>('pid'),
    started_at: slot<number>('startedAt'),
    expires_at: sql<number>`${facts.now} + ${slot('ttlMs')}`,
  }
  const id = slot<string>('id')
  const statements = {
    renew: prepare(kysely.updateTable('glimpse_workers').set(values).where('id', '=', id)),
    announce: prepare(kysely.insertInto('glimpse_workers').values({ id, ...values })),
    list: prepare<WorkerRow>(
      kysely
        .selectFrom('glimpse_workers')
        .select([
          'id',
          'node',
          'pid',
          'started_at',
          'expires_at',
          sql<number>`expires_at <= ${facts.now}`.as('expired'),
        ])
        .orderBy('id'),
    ),
    claims: prepare<ClaimRow>(
      kysely.selectFrom('glimpse_claims').selectAll().where('worker', '=', id).orderBy('attempt'),
    ),
    takeOver: prepare(
      kysely
        .updateTable('glimpse_claims')
        .set({ worker: slot<string>('by') })
        .where('attempt', '=', slot<string>('attempt'))
        .where('worker', '=', slot<string>('worker')),
    ),
    remove: prepare(
      kysely
        .deleteFrom('glimpse_workers')
        .where('id', '=', id)
        .where('id', 'not in', kysely.selectFrom('glimpse_claims').select('worker').where('worker', '=', id))
        .where('id', 'not in', kysely.selectFrom('glimpse_jobs').select('worker').where('worker', '=', id)),
    ),
  }

  return {
    renew: ({ id, node, pid, startedAt }, ttlMs) =>
      write(async (session) => {
        const row = { id, node, pid, startedAt, ttlMs }
        if ((await session.change(statements.renew, row)) === 0) await session.change(statements.announce, row)
      }),
    list: () =>
      read(async (session) =>
        (await session.all(statements.list)).map(({ id, node, pid, started_at, expired, expires_at }) => ({
          worker: { id: id as WorkerId, node, pid, startedAt: started_at },
          expired: Boolean(expired),
          renewal: expires_at,
        })),
      ),
    claims: (worker) =>
      read(async (session) =>
        (await session.all(statements.claims, { id: worker })).map(({ attempt, image_id, worker, store }) => ({
          attempt: attempt as AttemptId,
          imageId: image_id as ImageId,
          worker: worker as WorkerId,
          store: store as StoreId,
        })),
      ),
    takeOver: ({ attempt, worker }, by) =>
      write(async (session) => (await session.change(statements.takeOver, { attempt, worker, by })) > 0),
    remove: (worker) =>
      write(async (session) => {
        await session.change(statements.remove, { id: worker })
      }),
  }
}
