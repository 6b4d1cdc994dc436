import { createHash } from 'node:crypto'
import { extname } from 'node:path'
import { Worker } from 'node:worker_threads'
import { ServiceError } from '../domain/errors.ts'

export type Order =
  | { readonly do: 'begin'; readonly job: number; readonly algorithm: string }
  | { readonly do: 'begin'; readonly job: number; readonly signature: Signature }
  | { readonly do: 'update'; readonly job: number; readonly offset: number; readonly length: number }
  | { readonly do: 'end'; readonly job: number }
/** A signature over all bytes of a stream. */
export interface Signature {
  /** Hash function, as node:crypto names it. */
  readonly hash: string
  /** Public key: SubjectPublicKeyInfo in DER. */
  readonly key: Uint8Array
  readonly bytes: Uint8Array
  /** For RSA: one of `crypto.constants`, and bytes. */
  readonly padding?: number
  readonly saltLength?: number
  /** What a client hears when the bytes are others. */
  readonly refusal: string
}
/** In the place of a digest: the signature fits. */
export const VERIFIED = 'verified'

/** The answer to each `update`, in order, and to `end`. */
export interface Reply {
  readonly job: number
  readonly digest?: string
}

/** Threads that hash the bytes of shared memory, and verify signatures over them. */
export interface Digesters {
  /**
   * Begins to hash one stream, each algorithm in a thread of its own as far as there are some, and to verify its
   * signatures, whose place in the digests `VERIFIED` takes. Throws `invalid` for an unknown algorithm.
   */
  begin(work: readonly (string | Signature)[]): Digesting
  /** Ends the threads; what is under way is rejected with `unavailable`. */
  close(): Promise<void>
}
/** One stream being hashed. */
export interface Digesting {
  /** Hashes bytes of the shared memory, which must not change until `done` is called: once, and also when a thread died. */
  update(offset: number, length: number, done: () => void): void
  /** In hex, in the order of the algorithms. Rejects with `internal` if a thread died meanwhile. */
  end(): Promise<readonly string[]>
  /** Forgets the stream; `done` is still called for what was handed over. */
  drop(): void
}

/** The name of a hash function where Python and OpenSSL differ: operators write the one, node:crypto knows the other. */
const opensslName = (algorithm: string): string =>
  ({ blake2b: 'blake2b512', blake2s: 'blake2s256' })[algorithm] ?? algorithm.replace(/^sha3_/, 'sha3-')

/** Throws `invalid` unless `algorithm` is a hash function that this machine knows. */
export function checkAlgorithm(algorithm: string): void {
  try {
    createHash(opensslName(algorithm))
  } catch (cause) {
    throw new ServiceError('invalid', `Unknown hash algorithm '${algorithm}'`, { cause })
  }
}

/** Bytes of a digest. Throws `invalid` like `checkAlgorithm`. */
export function digestSize(algorithm: string): number {
  checkAlgorithm(algorithm)
  return createHash(opensslName(algorithm)).digest().length
}

/** One stream and one algorithm. */
interface Digest {
  update(offset: number, length: number, done: () => void): void
  end(): Promise<string>
  drop(): void
}

interface Job {
  readonly dones: (() => void)[]
  ended?: { resolve(digest: string): void; reject(error: unknown): void }
}
interface Thread {
  readonly worker: Worker
  readonly jobs: Map<number, Job>
  send(order: Order): void
}

/** Threads are started when the first stream comes, and do not keep the process alive while they have nothing to do. */
export function openDigesters(memory: SharedArrayBuffer, threadCount: number): Digesters {
  const threads: (Thread | undefined)[] = Array.from({ length: threadCount }, () => undefined)
  let lastJob = 0
  let closed = false

  const startThread = (index: number): Thread => {
    // The same extension as this file: .ts in the sources, .js in a build.
    const worker = new Worker(new URL(`./digest-worker${extname(import.meta.url)}`, import.meta.url), {
      workerData: memory,
      // Flags of the process, such as those of a test run, are not for it.
      execArgv: [],
    })
    const jobs = new Map<number, Job>()
    const fail = (cause?: unknown) => {
      if (threads[index]?.worker === worker) threads[index] = undefined
      for (const job of jobs.values()) {
        for (const done of job.dones.splice(0)) done()
        job.ended?.reject(died(cause))
      }
      jobs.clear()
    }
    worker.on('message', ({ job, digest }: Reply) => {
      if (digest === undefined) jobs.get(job)?.dones.shift()?.()
      else jobs.get(job)?.ended?.resolve(digest)
    })
    worker.on('error', fail)
    worker.on('exit', () => fail())
    worker.unref()
    const thread = { worker, jobs, send: (order: Order) => worker.postMessage(order) }
    threads[index] = thread
    return thread
  }
  const died = (cause: unknown) =>
    closed
      ? new ServiceError('unavailable', 'The service is shutting down')
      : new ServiceError('internal', 'A hashing thread died', { cause, transient: true })

  /** The least busy thread that is not taken; any when all are. */
  const pickThread = (taken: ReadonlySet<number>): number => {
    const load = (index: number) => (taken.has(index) ? 1e9 : 0) + (threads[index]?.jobs.size ?? 0)
    return threads.map((_, index) => index).reduce((best, index) => (load(index) < load(best) ? index : best))
  }

  const beginJob = (work: string | Signature, thread: Thread): Digest => {
    const id = ++lastJob
    const job: Job = { dones: [] }
    thread.jobs.set(id, job)
    thread.worker.ref()
    const what = typeof work === 'string' ? { algorithm: opensslName(work) } : { signature: work }
    thread.send({ do: 'begin', job: id, ...what })
    const alive = () => thread.jobs.has(id)
    const forget = () => {
      thread.jobs.delete(id)
      if (thread.jobs.size === 0) thread.worker.unref()
    }
    return {
      update: (offset, length, done) => {
        if (!alive()) return done()
        job.dones.push(done)
        thread.send({ do: 'update', job: id, offset, length })
      },
      end: () =>
        new Promise<string>((resolve, reject) => {
          if (!alive()) return reject(died(undefined))
          job.ended = { resolve, reject }
          thread.send({ do: 'end', job: id })
        }).finally(forget),
      drop: () => {
        if (!alive()) return
        // The answers to what was sent before come first, so `end` also tells when the memory is free again.
        job.ended = { resolve: forget, reject: forget }
        thread.send({ do: 'end', job: id })
      },
    }
  }

  return {
    begin: (work) => {
      if (closed) throw died(undefined)
      for (const one of work) checkAlgorithm(typeof one === 'string' ? one : one.hash)
      const taken = new Set<number>()
      const jobs = work.map((one) => {
        const index = pickThread(taken)
        taken.add(index)
        return beginJob(one, threads[index] ?? startThread(index))
      })
      return {
        update: (offset, length, done) => {
          let waiting = jobs.length
          if (waiting === 0) done()
          for (const job of jobs) job.update(offset, length, () => --waiting === 0 && done())
        },
        end: () => Promise.all(jobs.map((job) => job.end())),
        drop: () => {
          for (const job of jobs) job.drop()
        },
      }
    },
    close: async () => {
      closed = true
      await Promise.all(threads.map((thread) => thread?.worker.terminate()))
    },
  }
}
