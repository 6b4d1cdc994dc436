import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import { freePort, type Product, startProduct } from './product.ts'

export interface Node {
  readonly product: Product
  /** Its log file. */
  readonly log: string
}

export interface NodeOptions {
  /** Where its files are, and those that it shares with other nodes. */
  readonly home: string
  readonly name: string
  /** Of the database. */
  readonly url: string
  readonly leaseSeconds: number
  readonly env?: Readonly<Record<string, string | undefined>>
  /** More lines of `[database]`. */
  readonly database?: string
}

/** A node of the service with one worker, beside others that have the same database and home. */
export async function startNode(
  t: TestContext,
  { home, name, url, leaseSeconds, env = {}, database = '' }: NodeOptions,
): Promise<Node> {
  return await startConfigured(
    t,
    { home, name, env },
    (port) => `[DEFAULT]
bind_host = 127.0.0.1
bind_port = ${port}
workers = 1
enabled_import_methods = [glance-direct]
node_staging_uri = file://${home}/staging
[database]
connection = ${url}
${database}[glance_store]
filesystem_store_datadir = ${home}/images
[glimpse]
lease_ttl = ${leaseSeconds}
sweep_interval = 1
`,
  )
}

/** A node with any configuration of its own, whose file and log are in its home. It is gone after the test. */
export async function startConfigured(
  t: TestContext,
  { home, name, env = {} }: Pick<NodeOptions, 'home' | 'name' | 'env'>,
  configOf: (port: number) => string,
): Promise<Node> {
  const port = await freePort()
  const [config, log] = [join(home, `${name}.conf`), join(home, `${name}.log`)]
  await writeFile(config, configOf(port))
  const product = await startProduct({ command: 'glance-api', args: ['--config-file', config], port, log, env })
  t.after(() => product.kill())
  return { product, log }
}
