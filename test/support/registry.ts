import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import type { IdentityProvider } from '../../src/auth/identity.ts'
import { type RegistryCredentials, sharedSecret } from '../../src/auth/registry.ts'
import { readConfig } from '../../src/config/config.ts'
import type { Database } from '../../src/db/database.ts'
import { openRemoteDatabase, type RemoteOptions } from '../../src/db/remote.ts'
import { silentLog } from '../../src/log.ts'
import { openRegistry } from '../../src/registry-app.ts'
import type { TestConfig } from './server.ts'

export interface TestRegistry {
  readonly url: string
  close(): Promise<void>
}

/** Options by group, as a file. */
export const iniOf = (config: TestConfig): string =>
  Object.entries(config)
    .map(([group, values = {}]) =>
      [`[${group}]`, ...Object.entries(values).map(([name, value]) => `${name} = ${value}`), ''].join('\n'),
    )
    .join('\n')

export const SECRET = 'of the registry and its nodes'

/** A registry in this process, on a free loopback port, before a database that is there already. */
export async function startRegistry(
  connection: string,
  config: TestConfig = {},
  identity?: IdentityProvider,
): Promise<TestRegistry> {
  const dir = await mkdtemp(join(tmpdir(), 'glimpse-registry-'))
  const file = join(dir, 'glance-registry.conf')
  const groups = { database: { connection }, glimpse: { registry_secret: SECRET }, ...config }
  await writeFile(file, iniOf(groups))
  const registry = await openRegistry(
    readConfig({ program: 'glance-registry', configs: [{ file }], home: dir, etc: dir }),
    silentLog,
    identity,
  )
  await rm(dir, { recursive: true })
  await new Promise<void>((resolve) => registry.http.server.listen(0, '127.0.0.1', resolve))
  const scheme = config['DEFAULT']?.['cert_file'] === undefined ? 'http' : 'https'
  return {
    url: `${scheme}://127.0.0.1:${(registry.http.server.address() as AddressInfo).port}`,
    close: () => registry.close(1000),
  }
}

/** The database at `connection` behind a registry of its own; both are closed after the test. */
export async function openBehindRegistry(
  t: TestContext,
  connection: string,
  options: Partial<RemoteOptions> = {},
): Promise<Database> {
  const registry = await startRegistry(connection)
  const credentials: RegistryCredentials = sharedSecret(SECRET)
  const db = openRemoteDatabase({ url: registry.url, credentials, ...options })
  t.after(async () => {
    await db.close()
    await registry.close()
  })
  return db
}
