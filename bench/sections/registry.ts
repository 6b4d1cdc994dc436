import { readFile, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { freePort, type Product, processTree, startProduct } from '../../test/support/product.ts'
import { ADMIN, type Bench, type Measured, TENANT, together, WRITER } from '../bench.ts'
import { seededImage, seedTo, thousands } from '../images.ts'
import { type Load, requestRows, wrk } from '../requests.ts'
import type { Side } from '../sides.ts'

const ROUNDS = 3
const SECONDS = 5
const SECRET = 'of the bench'

/** What the way through a registry costs: the same service with the same database, directly and through one. */
export async function registry(bench: Bench): Promise<Measured> {
  await seedTo(bench, 1000)
  const { side, stop } = await startBehindRegistry(bench)
  try {
    const kinds: readonly (readonly [what: string, token: string, request: readonly string[]])[] = [
      ['show', ADMIN, ['get', `/v2/images/${seededImage(bench)}`]],
      ['list of 25', TENANT, ['get', '/v2/images?limit=25']],
      ['list of 1000', TENANT, ['get', '/v2/images?limit=1000']],
      ['create', WRITER, ['create']],
    ]
    const measured: Measured[] = []
    for (const [what, token, request] of kinds) {
      for (const one of [side, bench.glimpse]) await wrk(one, token, request, { seconds: 1 })
      const [through, direct]: [Load[], Load[]] = [[], []]
      for (let round = 0; round < ROUNDS; round += 1) {
        through.push(await wrk(side, token, request, { seconds: SECONDS }))
        direct.push(await wrk(bench.glimpse, token, request, { seconds: SECONDS }))
      }
      measured.push(requestRows(`${what} at ${thousands(bench.images)}`, { glance: through, glimpse: direct }))
    }
    return { ...together(measured), names: ['through a registry', 'direct', 'direct is better by'] }
  } finally {
    await stop()
  }
}

/** A second service on the database of the first, with as many workers, in front of a registry with as many. */
async function startBehindRegistry(bench: Bench): Promise<{ readonly side: Side; stop(): Promise<void> }> {
  const { glimpse, dir } = bench
  const [apiPort, registryPort] = [await freePort(), await freePort()]
  const start = async (command: string, port: number, config: string): Promise<Product> => {
    const file = join(dir, `behind-${command}.conf`)
    await writeFile(file, config)
    return startProduct({ command, args: ['--config-file', file], port, log: join(dir, `behind-${command}.log`) })
  }
  const secret = `[glimpse]\nregistry_secret = ${SECRET}\n`
  const database = `[database]\nconnection = sqlite:///${glimpse.database}\n`
  const listening = (port: number) => `[DEFAULT]\nbind_host = 127.0.0.1\nbind_port = ${port}\nworkers = 2\n`
  const server = await start('glance-registry', registryPort, `${listening(registryPort)}${database}${secret}`)
  const own = await readFile(join(dirname(glimpse.database), 'glance-api.conf'), 'utf8')
  const client = `data_api = glance.db.registry.api\nregistry_host = 127.0.0.1\nregistry_port = ${registryPort}\n`
  const config = `${own.replace(database, '')}${listening(apiPort)}${client}${secret}`
  const api = await start('glance-api', apiPort, config).catch(async (error: unknown) => {
    await server.kill()
    throw error
  })
  return {
    side: { ...glimpse, url: api.url, processes: () => [api, server].flatMap(({ pid }) => processTree(pid)) },
    stop: async () => {
      await api.stop()
      await server.stop()
    },
  }
}
