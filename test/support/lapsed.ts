import type { Watch } from '../../src/core/lease.ts'

/** Takes the lease's word for it that a worker is dead: nothing of what a test does is an outage. */
export const lapsed: Pick<Watch, 'silent'> = {
  silent: (workers) => new Set(workers.filter(({ expired }) => expired).map(({ worker }) => worker.id)),
}
