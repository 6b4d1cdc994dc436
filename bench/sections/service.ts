import { spawn } from 'node:child_process'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { until } from '../../test/support/product.ts'
import { ADMIN, alternate, type Bench, eachSide, inTurn, type Measured, TENANT, WRITER } from '../bench.ts'
import { createImages, get, seededImage, seedTo, uploadOne } from '../images.ts'
import { requestRows, wrk } from '../requests.ts'
import { memoryOf } from '../sides.ts'
import { dataFile } from '../transfers.ts'

const SLOW_CLIENTS = fileURLToPath(new URL('../slow-clients.ts', import.meta.url))

export async function start(bench: Bench): Promise<Measured> {
  await eachSide(bench, (side) => side.stop())
  const seconds = await alternate(bench, 5, async (side) => {
    const began = performance.now()
    await side.start()
    const took = (performance.now() - began) / 1000
    await side.stop()
    return took
  })
  await eachSide(bench, (side) => side.start())
  return { rows: [{ what: 'start to first answer', unit: 's', lessIsBetter: true, ...seconds }] }
}

export async function memory(bench: Bench): Promise<Measured> {
  await seedTo(bench, 1000)
  const id = seededImage(bench)
  const idle = await alternate(bench, 1, async (side) => {
    await side.stop()
    await side.start()
    for (let i = 0; i < 20; i += 1) await get(side, '/v2/images?limit=25', TENANT)
    return memoryOf(side) / 2 ** 20
  })
  const loaded = await alternate(bench, 1, async (side) => {
    await wrk(side, TENANT, ['get', '/v2/images?limit=25'], { connections: 32, seconds: 5 })
    await wrk(side, ADMIN, ['get', `/v2/images/${id}`], { connections: 32, seconds: 5 })
    await inTurn(4, () => uploadOne(side, dataFile(bench)))
    return memoryOf(side) / 2 ** 20
  })
  const row = { unit: 'MiB', lessIsBetter: true }
  return {
    rows: [
      { what: 'memory of all processes, idle', ...row, ...idle },
      { what: 'memory of all processes, after load', ...row, ...loaded },
    ],
  }
}

/** How quick GET stays while 300 uploads and 300 downloads of 64 KiB/s are open. */
export async function slow(bench: Bench): Promise<Measured> {
  await seedTo(bench, 1000)
  const id = seededImage(bench)
  const turnedAway = new Map<string, number>()
  const loads = await alternate(bench, 2, async (side) => {
    const images = [await uploadOne(side, dataFile(bench)), ...(await createImages(side, 300))]
    const clients = spawn(process.execPath, [SLOW_CLIENTS, side.url, WRITER, ...images], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    try {
      let ready = false
      createInterface(clients.stdout).on('line', (line) => {
        if (line === 'ready') ready = true
        else turnedAway.set(side.name, (turnedAway.get(side.name) ?? 0) + 1)
      })
      await until('the slow clients', () => ready)
      return await wrk(side, ADMIN, ['get', `/v2/images/${id}`], { connections: 4, seconds: 8 })
    } finally {
      clients.kill('SIGKILL')
    }
  })
  const { rows, notes = [] } = requestRows('show beside 600 slow clients', loads)
  return {
    rows,
    notes: [...notes, ...[...turnedAway].map(([name, count]) => `${name} turned slow clients away ${count} times`)],
  }
}
