// A thread that hashes what lies in the shared slots. It is told numbers only; the bytes are never copied.
import { createHash, type Hash } from 'node:crypto'
import { parentPort, workerData } from 'node:worker_threads'
import type { Order, Reply } from './digest.ts'

const memory = Buffer.from(workerData as SharedArrayBuffer)
const hashes = new Map<number, Hash>()

parentPort?.on('message', (order: Order) => {
  if (order.do === 'begin') hashes.set(order.job, createHash(order.algorithm))
  else if (order.do === 'update') {
    hashes.get(order.job)?.update(memory.subarray(order.offset, order.offset + order.length))
    reply({ job: order.job })
  } else {
    reply({ job: order.job, digest: hashes.get(order.job)?.digest('hex') ?? '' })
    hashes.delete(order.job)
  }
})

const reply = (message: Reply) => parentPort?.postMessage(message)
