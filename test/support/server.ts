import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { type App, openApp } from '../../src/app.ts'
import { type IdentityProvider, NOBODY } from '../../src/auth/identity.ts'
import { readConfig } from '../../src/config/config.ts'
import { ServiceError } from '../../src/domain/errors.ts'
import type { ProjectId, UserId } from '../../src/domain/ids.ts'
import { silentLog } from '../../src/log.ts'
import { type SqlServer, startMariadb, startPostgres } from './servers/sql.ts'

export interface TestServer {
  readonly url: string
  readonly app: App
  /** Holds the database, the stores and the configuration; gone after close(). */
  readonly dir: string
  close(): Promise<void>
}

/** Options of glance-api.conf by group. */
export type TestConfig = Readonly<Record<string, Readonly<Record<string, string>> | undefined>>

/**
 * Tokens that say who their bearer is, `USER:PROJECT:ROLE,ROLE[:system=all][:exp=SECONDS]`, believed as they are:
 * the form that stand-in Keystones of the tests understand too.
 */
export const selfSpokenTokens = (): IdentityProvider => ({
  challenge: 'Keystone uri="http://127.0.0.1/identity"',
  authenticate: async (headers) => {
    const token = headers['x-auth-token']
    const service = headers['x-service-token']
    const caller = typeof token === 'string' ? parseToken(token) : undefined
    if (caller === undefined || (caller.expires !== undefined && caller.expires * 1000 < Date.now())) {
      throw new ServiceError('unauthenticated', 'The request you have made requires authentication.')
    }
    return {
      ...NOBODY,
      userId: caller.user as UserId,
      projectId: caller.project === '' ? undefined : (caller.project as ProjectId),
      userDomainId: 'default',
      projectDomainId: 'default',
      roles: caller.roles,
      serviceRoles: typeof service === 'string' ? (parseToken(service)?.roles ?? []) : [],
      systemScope: caller.system,
    }
  },
  close: async () => undefined,
})

function parseToken(token: string) {
  const [user, project, roles, ...more] = token.split(':')
  if (user === undefined || project === undefined || roles === undefined) return undefined
  const extra = new Map(more.map((pair) => pair.split('=') as [string, string]))
  return {
    user,
    project,
    roles: roles
      .split(',')
      .filter((role) => role !== '')
      .map((role) => role.toLowerCase()),
    system: extra.get('system'),
    expires: extra.has('exp') ? Number(extra.get('exp')) : undefined,
  }
}

/** `TEST_DATABASE=postgresql` or `mysql` has the tests use a server, one for all of this process. */
let shared: Promise<SqlServer> | undefined
/** A new database on that server, `otherwise` without one. */
export async function testDatabase(otherwise: string): Promise<string> {
  const kind = process.env['TEST_DATABASE']
  if (kind === undefined) return otherwise
  shared ??= kind === 'mysql' ? startMariadb() : startPostgres()
  return (await shared).database()
}

/** A whole service in this process, on a free loopback port, with SQLite and file stores in a folder of its own. */
export async function startServer(
  options: { readonly config?: TestConfig; readonly identity?: IdentityProvider } = {},
): Promise<TestServer> {
  const dir = await mkdtemp(join(tmpdir(), 'glimpse-test-'))
  const given = options.config ?? {}
  const stores = (given['DEFAULT']?.['enabled_backends'] ?? '')
    .split(',')
    .flatMap((pair) => pair.split(':')[0]?.trim() || [])
  const groups: Record<string, Record<string, string>> = {
    database: { connection: await testDatabase(`sqlite:///${join(dir, 'glance.sqlite')}`) },
    // Where the tests' own servers are.
    glimpse: { import_addresses: 'any' },
    DEFAULT: { node_staging_uri: `file://${join(dir, 'staging')}` },
    os_glance_staging_store: { filesystem_store_datadir: join(dir, 'staging') },
    glance_store: stores.length > 0 ? {} : { filesystem_store_datadir: join(dir, 'images') },
    oslo_policy: { policy_file: join(dir, 'policy.yaml'), policy_dirs: join(dir, 'policy.d') },
  }
  for (const store of stores) groups[store] = { filesystem_store_datadir: join(dir, store) }
  for (const [group, values] of Object.entries(given)) groups[group] = { ...groups[group], ...values }
  const cache = given['DEFAULT']?.['image_cache_dir']
  if (cache !== undefined) groups['DEFAULT'] = { ...groups['DEFAULT'], image_cache_dir: resolve(dir, cache) }
  const file = join(dir, 'glance-api.conf')
  const text = Object.entries(groups).map(([group, values]) =>
    [`[${group}]`, ...Object.entries(values).map(([name, value]) => `${name} = ${value}`)].join('\n'),
  )
  await writeFile(file, `${text.join('\n')}\n`)
  const config = readConfig({ program: 'glance-api', configs: [{ file }], home: dir, etc: dir })
  const app = await openApp({ config, log: silentLog, identity: options.identity ?? selfSpokenTokens() })
  await new Promise<void>((resolve) => app.http.server.listen(0, '127.0.0.1', resolve))
  return {
    url: `http://127.0.0.1:${(app.http.server.address() as AddressInfo).port}`,
    app,
    dir,
    close: async () => {
      await app.close(2000)
      await rm(dir, { recursive: true, force: true })
    },
  }
}
