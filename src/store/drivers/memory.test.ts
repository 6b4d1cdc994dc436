import { storeConformance } from '../conformance.ts'
import { openMemoryDriver } from './memory.ts'

const openAgain = (capacity?: number) => async () => {
  const data = new Map<string, Buffer>()
  const options = capacity === undefined ? { data } : { data, capacity }
  return {
    driver: openMemoryDriver(options),
    again: async () => openMemoryDriver(options),
    leftovers: async () => [...data.keys()],
  }
}

storeConformance({
  name: 'memory',
  features: { write: true, randomRead: true, unsizedWrite: true },
  open: openAgain(),
  openFull: openAgain(1_048_576),
  foreign: ['memory://'],
  skip: { '64 MiB go in and out in constant memory': 'memory is its medium' },
})
