// The composition root of glance-registry: configuration in, the database served to those who may use it.
import { readFileSync } from 'node:fs'
import { createHttpServer, type EnterRequest, type Face } from './api/http/server.ts'
import { historicFace } from './api/registry/face.ts'
import { databaseFace } from './api/registry.ts'
import { healthFace } from './api/root.ts'
import { type App, databaseSettings, databaseTells, openConfiguredPolicy, openProvider } from './app.ts'
import { anonymous, noAuth, nobody, trustedHeaders } from './auth/headers.ts'
import type { IdentityProvider } from './auth/identity.ts'
import { admitNode, admitSecret } from './auth/registry.ts'
import type { Config } from './config/config.ts'
import { REGISTRY_API, registryServer } from './config/registry.ts'
import { databaseOn, openConnection } from './db/sql/connect.ts'
import { onceOnly } from './db/sql/once.ts'
import { rowDatabase } from './db/sql/rows/database.ts'
import { ServiceError } from './domain/errors.ts'
import type { Log } from './log.ts'
import { isAdmin, type PolicyEnforcer } from './policy/enforcer.ts'

/** Bytes of a request: whatever the API takes in one, with room for how it is written here. */
const LONGEST_REQUEST = 64 * 1_048_576

/** `given` authenticates callers, instead of what the configuration's pipeline says. */
export async function openRegistry(
  config: Config,
  log: Log,
  given?: IdentityProvider,
): Promise<Pick<App, 'http' | 'close'>> {
  const { DEFAULT: options, glimpse } = config
  const own = config.group('DEFAULT', registryServer)
  if (options.data_api === REGISTRY_API)
    throw new ServiceError('invalid', `data_api = ${REGISTRY_API}: a registry has the database itself`)
  if (config.database.connection === undefined)
    throw new ServiceError('invalid', '[database] connection is not set: a registry serves a database')
  const tls = readTls(own)
  const identity = given ?? (await openIdentity(config, log))
  const policy = openConfiguredPolicy(config, log)
  const opened = await openConnection(databaseSettings(config), databaseTells(log))
  const connection = onceOnly(opened)
  const historic = historicFace(rowDatabase(connection), {
    identity,
    isAdmin: (caller) => isAdmin(policy, caller),
    limits: { pageDefault: options.limit_param_default, pageMax: options.api_limit_max },
    v1: own.enable_v1_registry,
    v2: own.enable_v2_registry,
    modules: own.allowed_rpc_exception_modules,
    maxRequestIdLength: options.max_request_id_length,
    log,
  })
  const faces = [
    databaseFace(databaseOn({ ...opened, connection }), admission(glimpse.registry_secret, identity, policy)),
    healthFace({ disable_by_file_path: config.healthcheck.disable_by_file_path }),
    historic,
  ]
  const http = createHttpServer({
    faces: faces as unknown as readonly Face<never>[],
    rewrite: (path) => path,
    cors: undefined,
    log,
    jsonLimit: LONGEST_REQUEST,
    headerLimit: Math.max(16_384, options.max_header_line * 8),
    idleTimeoutMs: options.client_socket_timeout * 1000,
    keepAlive: options.http_keepalive,
    trustProxy: false,
    tls,
  })
  await http.ready()
  return {
    http,
    close: async (graceMs) => {
      await http.drain(graceMs)
      await identity.close()
      policy.close()
      await connection.close()
    },
  }
}

/** Who asks in the historic ways, and without a secret in ours too. */
async function openIdentity(config: Config, log: Log): Promise<IdentityProvider> {
  const provider = await providerOf(config, log)
  return config.DEFAULT.allow_anonymous_access ? anonymous(provider) : provider
}

async function providerOf(config: Config, log: Log): Promise<IdentityProvider> {
  const { flavor = '' } = config.paste_deploy
  switch (flavor) {
    case 'keystone':
      return openProvider(config, log, true)
    case 'trusted-auth':
      return trustedHeaders()
    case 'noauth':
      log.warn('[paste_deploy] flavor = noauth: whoever reaches this registry may do anything')
      return noAuth()
    case '':
      if (config.glimpse.registry_secret) return nobody()
      throw new ServiceError(
        'invalid',
        'Who may use the registry? Set [paste_deploy] flavor to keystone, trusted-auth or noauth, or [glimpse] registry_secret',
      )
    default:
      throw new ServiceError('invalid', `[paste_deploy] flavor = ${flavor}: a registry has no such pipeline`)
  }
}

/** Lets nodes in: by the secret where there is one, else by what they may do. */
const admission =
  (secret: string | undefined, identity: IdentityProvider, policy: PolicyEnforcer) =>
  async ({ method, path, headers, signal }: EnterRequest): Promise<void> => {
    if (secret) return admitSecret(secret, headers)
    const caller = await identity.authenticate(headers, signal, { method, path })
    admitNode(caller, isAdmin(policy, caller))
  }

interface TlsFiles {
  readonly cert_file: string | undefined
  readonly key_file: string | undefined
  readonly ca_file: string | undefined
}

/** Throws `invalid` when one of the two is missing, or a file cannot be read. */
function readTls({ cert_file: cert, key_file: key, ca_file: ca }: TlsFiles) {
  if (cert === undefined && key === undefined) return undefined
  if (cert === undefined || key === undefined)
    throw new ServiceError('invalid', 'cert_file and key_file belong together: one of them is not set')
  const read = (file: string): Buffer => {
    try {
      return readFileSync(file)
    } catch (cause) {
      throw new ServiceError('invalid', `${file} cannot be read`, { cause })
    }
  }
  return { cert: read(cert), key: read(key), ...(ca === undefined ? {} : { ca: read(ca) }) }
}
