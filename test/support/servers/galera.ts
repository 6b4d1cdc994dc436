import { statSync } from 'node:fs'
import { freePort, until } from '../product.ts'
import { type Availability, mariadbAvailable, type SqlServer, startMariadb } from './sql.ts'

const PROVIDER = '/usr/lib/galera/libgalera_smm.so'

/** Nodes of one cluster, each of which takes writes. */
export interface GaleraCluster {
  readonly nodes: readonly [SqlServer, SqlServer]
  /** A new database: its URL at each node. */
  database(): Promise<readonly [string, string]>
  stop(): Promise<void>
}

export const galeraAvailable = (): Availability =>
  statSync(PROVIDER, { throwIfNoEntry: false })?.isFile() === true
    ? mariadbAvailable()
    : { ok: false, reason: 'Galera is not installed' }

const settings = (name: string, group: number, transfer: number, peer: string) => [
  ...['--wsrep-on=ON', `--wsrep-provider=${PROVIDER}`, `--wsrep-cluster-address=gcomm://${peer}`],
  ...[`--wsrep-node-name=${name}`, '--wsrep-node-address=127.0.0.1', '--binlog-format=ROW'],
  ...['--wsrep-sst-method=rsync', `--wsrep-sst-receive-address=127.0.0.1:${transfer}`, '--innodb-autoinc-lock-mode=2'],
  `--wsrep-provider-options=gmcast.listen_addr=tcp://127.0.0.1:${group};ist.recv_addr=127.0.0.1:${group + 1};pc.recovery=no`,
]

/** Two nodes on the loopback device. */
export async function startGalera(): Promise<GaleraCluster> {
  const [one, two, transfer] = [await freePort(), await freePort(), await freePort()]
  const first = await startMariadb({ settings: settings('one', one, transfer, '') })
  const second = await startMariadb({ settings: settings('two', two, transfer, `127.0.0.1:${one}`) }).catch(
    async (error: unknown) => {
      await first.stop()
      throw error
    },
  )
  const status = async (server: SqlServer) =>
    (await server.query('/mysql', `show status like 'wsrep_local_state_comment'`))[0]?.split('\t')[1]
  await until('both nodes', async () => (await status(first)) === 'Synced' && (await status(second)) === 'Synced')
  return {
    nodes: [first, second],
    database: async () => {
      const url = await first.database()
      return [url, url.replace(`:${first.port}/`, `:${second.port}/`)]
    },
    stop: async () => {
      await second.stop()
      await first.stop()
    },
  }
}
