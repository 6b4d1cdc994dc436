// A thread that hashes what lies in the shared slots. It is told numbers only; the bytes are never copied.
import { createHash, createVerify } from 'node:crypto'
import { parentPort, workerData } from 'node:worker_threads'
import { type Order, type Reply, type Signature, VERIFIED } from './digest.ts'

interface Job {
  update(bytes: Buffer): void
  end(): string
}

const memory = Buffer.from(workerData as SharedArrayBuffer)
const jobs = new Map<number, Job>()

parentPort?.on('message', (order: Order) => {
  if (order.do === 'begin') jobs.set(order.job, 'signature' in order ? verify(order.signature) : hash(order.algorithm))
  else if (order.do === 'update') {
    jobs.get(order.job)?.update(memory.subarray(order.offset, order.offset + order.length))
    reply({ job: order.job })
  } else {
    reply({ job: order.job, digest: jobs.get(order.job)?.end() ?? '' })
    jobs.delete(order.job)
  }
})

function hash(algorithm: string): Job {
  const hashing = createHash(algorithm)
  return { update: (bytes) => void hashing.update(bytes), end: () => hashing.digest('hex') }
}

function verify({ hash, key, bytes, padding, saltLength }: Signature): Job {
  const verifying = createVerify(hash)
  const options = {
    key: Buffer.from(key),
    format: 'der',
    type: 'spki',
    ...(padding === undefined ? {} : { padding }),
    ...(saltLength === undefined ? {} : { saltLength }),
  } as const
  return {
    update: (chunk) => void verifying.update(chunk),
    end: () => {
      try {
        return verifying.verify(options, bytes) ? VERIFIED : ''
      } catch {
        // Such as a salt that this hash leaves no room for: no signature fits.
        return ''
      }
    },
  }
}

const reply = (message: Reply) => parentPort?.postMessage(message)
