// The composition root: configuration in, running service out. The only file that picks drivers.
import { existsSync, readFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import type { Face, HttpServer } from './api/http/server.ts'
import { createHttpServer } from './api/http/server.ts'
import { identityFace } from './api/identity/face.ts'
import { negotiator, rootFace } from './api/root.ts'
import { v2Document } from './api/v2/document.ts'
import { v2Face } from './api/v2/face.ts'
import { v2Routes } from './api/v2/routes.ts'
import { COMMON_PROPERTIES, type CustomProperties } from './api/v2/schemas.ts'
import { assertSchema } from './api/v2/validation.ts'
import { anonymous, noAuth } from './auth/headers.ts'
import type { IdentityProvider } from './auth/identity.ts'
import type { ProjectLimits } from './auth/limits.ts'
import type { Standalone } from './auth/standalone.ts'
import type { ImageCache } from './cache/cache.ts'
import type { CacheDriver } from './cache/driver.ts'
import type { Layout } from './cache/layout.ts'
import type { Config } from './config/config.ts'
import { keystonePlugin } from './config/groups.ts'
import { REGISTRY_API } from './config/registry.ts'
import { prefetchQueued } from './core/cached-images.ts'
import type { Core, Imports } from './core/core.ts'
import { type Recovery, startRecovery, thisWorker } from './core/recovery.ts'
import type { Database } from './db/database.ts'
import type { NodeCredentials } from './db/remote.ts'
import { type DatabaseSettings, openDatabase } from './db/sql/connect.ts'
import { hasKind, ServiceError } from './domain/errors.ts'
import type { Task } from './domain/task.ts'
import { copyImage } from './imports/copy-image.ts'
import { type DownloadsSetup, openDownloads } from './imports/downloads.ts'
import { glanceDirect } from './imports/glance-direct.ts'
import { filteredConnector } from './imports/http-client.ts'
import type { ImportMethod } from './imports/import.ts'
import { openPlugins } from './imports/plugins.ts'
import { openRelay, type Relay } from './imports/relay.ts'
import { openRunner } from './imports/runner.ts'
import { noStaging, openStaging, STAGING_STORE } from './imports/staging.ts'
import { uriFilter } from './imports/uri-filter.ts'
import { type KeyManager, noKeys } from './keys/key-manager.ts'
import type { Log } from './log.ts'
import { announcer } from './notify/announcer.ts'
import type { NotifyDriver } from './notify/driver.ts'
import type { Notifier } from './notify/notifier.ts'
import { queued } from './notify/queue.ts'
import { isAdmin, openPolicy, type PolicyEnforcer, type PolicyOptions } from './policy/enforcer.ts'
import { openPropertyProtection, type PropertyProtection, UNPROTECTED } from './policy/property-protection.ts'
import type { Reach, StoreType } from './store/driver.ts'
import { openStores, type Stores } from './store/stores.ts'

/** Store types by the name that `enabled_backends` uses; a missing library hurts only those who use its store. */
const STORE_TYPES: Readonly<Record<string, () => Promise<StoreType>>> = {
  file: async () => (await import('./store/drivers/file.ts')).fileStore as unknown as StoreType,
  http: async () => (await import('./store/drivers/http.ts')).httpStore as unknown as StoreType,
}

/** Ways of telling others, by the names in `[oslo_messaging_notifications] driver`; loaded when they are used. */
const NOTIFY_DRIVERS: Readonly<Record<string, (config: Config, log: Log) => Promise<readonly NotifyDriver[]>>> = {
  noop: async () => [],
  test: async () => [(await import('./notify/drivers/test.ts')).testDriver()],
  log: async (_, log) => [(await import('./notify/drivers/log.ts')).logDriver(log)],
  messaging: (config, log) => openMessaging(config, log, false),
  messagingv2: (config, log) => openMessaging(config, log, true),
  webhook: openWebhooks,
}

export interface App {
  readonly http: HttpServer
  readonly core: Core
  /** What the Image API answers to. */
  readonly routes: readonly { readonly method: string; readonly path: string }[]
  /** Stops taking requests, lets running ones end within `graceMs`, and gives everything back. */
  close(graceMs: number): Promise<void>
}

export interface AppOptions {
  readonly config: Config
  readonly log: Log
  /** Built-in identity, with its own face. */
  readonly standalone?: Standalone
  /** Who authenticates, instead of what the configuration's pipeline says. */
  readonly identity?: IdentityProvider
  /**
   * Only to look at what is there: nothing is written to the database (which must have a schema), the stores, the
   * staging area or the image cache, nobody is told, and nothing of dead workers is taken over.
   */
  readonly readOnly?: boolean
}

export async function openApp({
  config,
  log,
  standalone,
  identity: given,
  readOnly = false,
}: AppOptions): Promise<App> {
  const { DEFAULT: options } = config
  const db = await openConfiguredDatabase(config, log, readOnly)
  const stores = await openConfiguredStores(config, log, readOnly)
  const policy = openConfiguredPolicy(config, log)
  const { relay, close: closeRelay } = openRelay()
  const { catalog, ...downloads } = await openConfiguredDownloads(config)
  const core: Core = {
    limits: {
      properties: options.image_property_quota,
      tags: options.image_tag_quota,
      members: options.image_member_quota,
      locations: options.image_location_quota,
      imageSize: options.image_size_cap,
      storage: options.user_storage_quota === 0 ? -1 : options.user_storage_quota,
      pageDefault: options.limit_param_default,
      pageMax: options.api_limit_max,
    },
    projectLimits: await openLimits(config, log),
    dataRules: {
      hashAlgorithm: options.hashing_algorithm,
      requireFormatMatch: config.image_format.require_image_format_match,
      vmdkAllowedTypes: config.image_format.vmdk_allowed_types,
      gptNonfatal: config.image_format.gpt_safety_checks_nonfatal,
    },
    db,
    stores,
    imports: await openImports({
      ...{ config, log, db, stores, relay, readOnly },
      downloading: downloads.methods,
      onTask: (task) => tellOfTask(core.notifier, task),
    }),
    delayedDelete: options.delayed_delete,
    locationRules: { secureHash: options.do_secure_hash, retries: options.http_retries },
    uriFilter: uriFilter(config.import_filtering_opts, reachIn(config)),
    policy,
    protection: openProtection(config, policy, log),
    notifier: readOnly ? silentNotifier() : await openNotifier(config, log),
    keys: await openKeys(config, log),
    cache: readOnly ? undefined : await openConfiguredCache(config, db, log),
    worker: thisWorker(),
    taskKeepMs: taskKeepMs(config),
    attempts: new Set(),
    log,
  }
  const identity = await openIdentity(config, log, given ?? standalone?.provider)
  const faces = buildFaces(core, config, identity, standalone)
  const http = createHttpServer({
    faces,
    rewrite: negotiator(offer(config, stores), [
      'versions',
      'healthcheck',
      'openapi.json',
      ...(standalone ? ['identity'] : []),
    ]),
    cors: config.cors.allowed_origin.length > 0 ? config.cors : undefined,
    log,
    jsonLimit: config.glimpse.json_body_limit,
    headerLimit: Math.max(16_384, options.max_header_line * 8),
    idleTimeoutMs: options.client_socket_timeout * 1000,
    keepAlive: options.http_keepalive,
    trustProxy: config.oslo_middleware.enable_proxy_headers_parsing,
  })
  await http.ready()
  const recovery = readOnly ? undefined : await beginWorking(core, config)
  return {
    http,
    core,
    routes: faces
      .filter(({ prefix }) => prefix === '/v2')
      .flatMap(({ prefix, routes }) => routes.map(({ method, path }) => ({ method, path: prefix + path }))),
    close: async (graceMs) => {
      const end = Date.now() + graceMs
      await http.drain(graceMs)
      await core.imports.runner.stop(graceMs === 0 ? FOREVER_MS : Math.max(0, end - Date.now()))
      await core.cache?.close()
      await recovery?.stop()
      await closeRelay()
      await downloads.close()
      await catalog?.close()
      await core.imports.staging.close()
      await core.notifier.close()
      await identity.close()
      await core.projectLimits?.close()
      await core.keys.close()
      policy.close()
      await stores.close()
      await db.close()
    },
  }
}

export const openConfiguredPolicy = (config: Config, log: Log) =>
  openPolicy(policyOptions(config, (message) => log.warn(message)))

/** What this process needs to serve the database itself. */
export const databaseSettings = ({ DEFAULT: { metadata_encryption_key }, database }: Config): DatabaseSettings => ({
  ...database,
  metadata_encryption_key,
})

/** Where it says what it has to say. */
export const databaseTells = (log: Log) => ({
  warn: (text: string) => log.warn(text),
  debug: (text: string) => log.info(text),
})

/** The database of the configuration, or the registry that stands before it, which cannot be kept from writing. */
export async function openConfiguredDatabase(config: Config, log: Log, readOnly = false): Promise<Database> {
  if (config.DEFAULT.data_api !== REGISTRY_API)
    return openDatabase(databaseSettings(config), { readOnly, ...databaseTells(log) })
  if (readOnly)
    throw new ServiceError('invalid', 'The database is behind a registry, and cannot be opened to read only')
  const { openRemoteDatabase } = await import('./db/remote.ts')
  const { DEFAULT: options, database } = config
  const db = openRemoteDatabase({
    url: `${options.registry_client_protocol.toLowerCase()}://${hostPart(options.registry_host)}:${options.registry_port}`,
    credentials: await openRegistryCredentials(config, log),
    timeout: options.registry_client_timeout,
    cafile: options.registry_client_ca_file,
    certfile: options.registry_client_cert_file,
    keyfile: options.registry_client_key_file,
    insecure: options.registry_client_insecure,
  })
  for (let failures = 0; ; failures += 1) {
    try {
      await db.workers.list()
      return db
    } catch (error) {
      const given = database.max_retries >= 0 && failures >= database.max_retries
      if (given || !hasKind(error, 'unavailable')) {
        await db.close()
        throw error
      }
      log.warn(`The registry cannot be used yet, it is asked again in ${database.retry_interval} s`, error)
    }
    await delay(database.retry_interval * 1000)
  }
}

const hostPart = (host: string): string => (host.includes(':') ? `[${host}]` : host)

/** How this node shows the registry who it is: by a secret, by headers that are believed, or by a token of its own. */
async function openRegistryCredentials(config: Config, log: Log): Promise<NodeCredentials> {
  const { keystoneNode, noCredentials, sharedSecret, trustedNode } = await import('./auth/registry.ts')
  const { DEFAULT: options, glimpse, keystone_authtoken } = config
  const tools = { warn: (message: string) => log.warn(message) }
  if (glimpse.registry_secret) return sharedSecret(glimpse.registry_secret)
  if (options.send_identity_headers) return trustedNode
  if (!options.use_user_token) {
    const { admin_user: username, admin_password: password, admin_tenant_name: project_name, auth_url } = options
    const { cafile, insecure } = keystone_authtoken
    return keystoneNode(
      { username, password, project_name, auth_url, cafile, insecure },
      { ...tools, group: 'DEFAULT' },
    )
  }
  if (!keystone_authtoken.auth_url) return noCredentials
  return keystoneNode(withLogin(config, keystone_authtoken), { ...tools, group: 'keystone_authtoken' })
}

export const policyOptions = (config: Config, warn: (message: string) => void): PolicyOptions => ({
  policyFile: config.findFile(config.oslo_policy.policy_file) ?? config.oslo_policy.policy_file,
  policyDirs: config.oslo_policy.policy_dirs.map((dir) => config.findFile(dir) ?? dir),
  defaultRule: config.oslo_policy.policy_default_rule,
  enforceNewDefaults: config.oslo_policy.enforce_new_defaults,
  warn,
})

/** What goes on beside the requests. */
async function beginWorking(core: Core, config: Config): Promise<Recovery> {
  const recovery = await startRecovery(core, {
    leaseMs: config.glimpse.lease_ttl * 1000,
    sweepMs: config.glimpse.sweep_interval * 1000,
  })
  // What was queued before the service stopped is served now.
  prefetchQueued(core).catch((error: unknown) => core.log.error('Queued images cannot be cached', error))
  return recovery
}

/** Barbican, whose place a folder may take where certificates are concerned. */
async function openKeys(config: Config, log: Log): Promise<KeyManager> {
  const keys = await openKeyManager(config, log)
  if (!config.glimpse.certificate_dir) return keys
  const { certificateFolder } = await import('./keys/folder.ts')
  return { ...keys, ...certificateFolder(config.glimpse.certificate_dir) }
}

async function openKeyManager({ key_manager, barbican, keystone_authtoken }: Config, log: Log): Promise<KeyManager> {
  if (!/barbican/i.test(key_manager.backend)) {
    log.warn(`[key_manager] backend = ${key_manager.backend} is not known: there are no certificates and keys`)
    return noKeys
  }
  const { openBarbican } = await import('./keys/barbican.ts')
  const { keystoneUrl } = await import('./auth/keystone-session.ts')
  const keystone = barbican.auth_endpoint || keystone_authtoken.auth_url
  return openBarbican({
    endpoint: barbican.barbican_endpoint,
    version: barbican.barbican_api_version,
    keystoneUrl: keystone ? keystoneUrl(keystone, 'barbican') : undefined,
    interface: barbican.barbican_endpoint_type,
    region: barbican.barbican_region_name,
    cafile: barbican.verify_ssl_path,
    insecure: !barbican.verify_ssl,
  })
}

/** The longest that a timer can wait. */
const FOREVER_MS = 2 ** 31 - 1

const taskKeepMs = (config: Config): number => config.task.task_time_to_live * 3_600_000

interface ImportsSetup {
  readonly config: Config
  readonly log: Log
  readonly db: Database
  readonly stores: Stores
  readonly relay: Relay
  readonly downloading: readonly ImportMethod[]
  readonly onTask: (task: Task) => void
  readonly readOnly: boolean
}

async function openImports(setup: ImportsSetup): Promise<Imports> {
  const { config, log, db, stores, relay, downloading, onTask, readOnly } = setup
  const { enabled_import_methods: enabled, worker_self_reference_url, public_endpoint } = config.DEFAULT
  const methods = [glanceDirect, copyImage(stores), ...downloading]
  const known = (name: string) => methods.some((method) => method.name === name)
  const runner = openRunner({ db, log, limit: config.wsgi.task_pool_threads, keepMs: taskKeepMs(config), onTask })
  const selfUrl = (worker_self_reference_url ?? public_endpoint)?.replace(/\/+$/, '')
  const plugins = await openConfiguredPlugins(config, log)
  const imports = { methods, plugins, runner, selfUrl, relay }
  try {
    const directory = stagingDirectory(config)
    const { fileStore } = await import('./store/drivers/file.ts')
    const options = { ...config.group(STAGING_STORE, fileStore.options), filesystem_store_datadirs: [] }
    const driver = await fileStore.open({ ...options, filesystem_store_datadir: directory }, undefined, readOnly)
    return { ...imports, offered: enabled.filter(known), staging: openStaging(driver, directory) }
  } catch (error) {
    if (!hasKind(error, 'invalid')) throw error
    if (enabled.length > 0) log.error('Images cannot be imported', error)
    return { ...imports, offered: [], staging: noStaging('Images cannot be imported at this site.') }
  }
}

const openConfiguredPlugins = (config: Config, log: Log) =>
  openPlugins(config.image_import_opts.image_import_plugins, config.group, {
    formats: {
      vmdkAllowedTypes: config.image_format.vmdk_allowed_types,
      gptNonfatal: config.image_format.gpt_safety_checks_nonfatal,
    },
    log,
    programSeconds: config.glimpse.import_program_timeout,
  })

async function openConfiguredDownloads(config: Config) {
  const { auth_url: authUrl } = config.keystone_authtoken
  const catalog = authUrl ? (await import('./auth/catalog.ts')).keystoneCatalog(config.keystone_authtoken) : undefined
  const setup: DownloadsSetup = {
    rules: config.import_filtering_opts,
    ...reachIn(config),
    stallMs: config.glimpse.import_stall_timeout * 1000,
    retries: config.glimpse.import_retries,
    connections: config.glimpse.import_connections,
    properties: config.glance_download_properties.extra_properties,
    catalog,
  }
  return { ...openDownloads(setup), catalog }
}

/** Of the reserved store where stores have names, else of `node_staging_uri`: as upstream has it. */
export function stagingDirectory(config: Config): string {
  if (Object.keys(config.DEFAULT.enabled_backends ?? {}).length > 0) {
    return resolve(config.os_glance_staging_store.filesystem_store_datadir)
  }
  const { node_staging_uri: uri } = config.DEFAULT
  if (!uri.startsWith('file:///'))
    throw new ServiceError('invalid', `node_staging_uri = ${uri} must begin with file:///`)
  return resolve(uri.slice('file://'.length))
}

const reachIn = (config: Config) => ({ reach: config.glimpse.import_addresses })

/**
 * The hosts that imports may not reach, no location leads to either. Schemes and ports are the http store's own matter:
 * upstream lets locations have any, and imports only the usual ones.
 */
function reachOf(config: Config): Reach | undefined {
  const { allowed_hosts, disallowed_hosts } = config.import_filtering_opts
  if (allowed_hosts.length + disallowed_hosts.length === 0 && config.glimpse.import_addresses === 'any')
    return undefined
  const every = { allowed_schemes: [], disallowed_schemes: [], allowed_ports: [], disallowed_ports: [] }
  const filter = uriFilter({ allowed_hosts, disallowed_hosts, ...every }, reachIn(config))
  return { admits: filter.admits, connector: (options) => filteredConnector(filter, options) }
}

/** Upstream tells that a task was run when that is over. */
function tellOfTask(notifier: Notifier, task: Task): void {
  if (task.status === 'pending') return
  notifier.notify({ type: `task.${task.status}`, task })
  if (task.status !== 'processing') notifier.notify({ type: 'task.run', task })
}

function openProtection(config: Config, policy: PolicyEnforcer, log: Log): PropertyProtection {
  const { property_protection_file: file, property_protection_rule_format: format } = config.DEFAULT
  if (file === undefined || file === '') return UNPROTECTED
  return openPropertyProtection({
    file: config.findFile(file) ?? file,
    format,
    policy,
    warn: (message) => log.warn(message),
  })
}

const offer = (config: Config, stores: Stores) => ({
  cache: Boolean(config.DEFAULT.image_cache_dir),
  multiStore: stores.multi,
  publicEndpoint: config.DEFAULT.public_endpoint,
})

function buildFaces(
  core: Core,
  config: Config,
  identity: IdentityProvider,
  standalone: Standalone | undefined,
): readonly Face<never>[] {
  const { DEFAULT: options } = config
  const schema = {
    diskFormats: config.image_format.disk_formats,
    containerFormats: config.image_format.container_formats,
    custom: readCustomProperties(config),
  }
  const routes = v2Routes(core, {
    schema,
    view: {
      multiStore: core.stores.multi,
      showDirectUrl: options.show_image_direct_url,
      showLocations: options.show_multiple_locations,
      order: (locations) => core.stores.inReadingOrder(locations),
    },
    cacheManagement: flavorsOf(config).includes('cachemanagement'),
  })
  const faces = [
    v2Face(core, routes, {
      identity,
      isAdmin: (caller) => isAdmin(core.policy, caller),
      maxRequestIdLength: options.max_request_id_length,
    }),
    ...(standalone === undefined ? [] : [identityFace(standalone, options.public_endpoint)]),
    rootFace(
      offer(config, core.stores),
      { disable_by_file_path: config.healthcheck.disable_by_file_path },
      v2Document(routes, schema),
    ),
  ]
  return faces as unknown as readonly Face<never>[]
}

const flavorsOf = (config: Config): readonly string[] => (config.paste_deploy.flavor ?? '').split('+')

/** The cache of this node; only the pipelines of flavors with `caching` or `cachemanagement` read through it. */
export async function openConfiguredCache(config: Config, db: Database, log: Log): Promise<ImageCache | undefined> {
  const { image_cache_dir: dir, image_cache_max_size: maxSize, image_cache_stall_time: stallSeconds } = config.DEFAULT
  const reads = flavorsOf(config).some((part) => part === 'caching' || part === 'cachemanagement')
  if (dir === undefined || dir === '') {
    if (reads) log.warn('[paste_deploy] flavor asks for the image cache, but image_cache_dir is not set: there is none')
    return undefined
  }
  const { openImageCache } = await import('./cache/cache.ts')
  const { openLayout } = await import('./cache/layout.ts')
  const layout = await openLayout(dir)
  const driver = await openCacheDriver(config, db, { dir, layout, reads, log })
  const cache = await openImageCache({ dir, layout, driver, maxSize, stallMs: stallSeconds * 1000, log })
  return reads ? cache : { ...cache, read: async () => undefined }
}

interface CachePlace {
  readonly dir: string
  readonly layout: Layout
  /** Whether downloads go through the cache. */
  readonly reads: boolean
  readonly log: Log
}

/** The index of the cache; the file of sqlite takes the place of one that cannot be used. */
async function openCacheDriver(config: Config, db: Database, place: CachePlace): Promise<CacheDriver> {
  const { image_cache_driver: wanted, image_cache_sqlite_db: name, worker_self_reference_url: url } = config.DEFAULT
  const { dir, reads, log } = place
  if (wanted === 'centralized_db' && url === undefined && reads) {
    throw new ServiceError(
      'invalid',
      'worker_self_reference_url must be set for image_cache_driver = centralized_db: it is how other nodes know this one',
    )
  }
  const { openSqliteDriver } = await import('./cache/drivers/sqlite.ts')
  try {
    if (wanted === 'xattr') return await (await import('./cache/drivers/xattr.ts')).openXattrDriver(dir)
    if (wanted === 'centralized_db') {
      if (url === undefined) throw new ServiceError('invalid', 'worker_self_reference_url is not set')
      const central = await (await import('./cache/drivers/central.ts')).openCentralDriver(db.cached, url)
      if (reads) await adoptRecords(place, name, central)
      return central
    }
  } catch (error) {
    log.warn(`image_cache_driver = ${wanted} cannot be used, sqlite takes its place`, error)
  }
  return openSqliteDriver(dir, name)
}

/** A node that kept its index in a file until now. */
async function adoptRecords({ dir, layout }: CachePlace, name: string, central: CacheDriver): Promise<void> {
  if (!existsSync(join(dir, name))) return
  const { openSqliteDriver } = await import('./cache/drivers/sqlite.ts')
  const { moveRecords } = await import('./cache/migrate.ts')
  const file = await openSqliteDriver(dir, name)
  try {
    await moveRecords(layout, file, central)
  } finally {
    await file.close()
  }
}

/** Who authenticates: the built-in identity, Keystone, or nobody, as `[paste_deploy] flavor` says. */
async function openIdentity(config: Config, log: Log, given: IdentityProvider | undefined): Promise<IdentityProvider> {
  checkPipeline(config)
  const provider = given ?? (await openProvider(config, log, flavorsOf(config).includes('keystone')))
  return config.DEFAULT.allow_anonymous_access ? anonymous(provider) : provider
}

function checkPipeline(config: Config): void {
  const flavors = flavorsOf(config)
  for (const part of flavors) {
    if (!['', 'keystone', 'caching', 'cachemanagement'].includes(part)) {
      throw new ServiceError('invalid', `[paste_deploy] flavor = ${flavors.join('+')}: unknown pipeline`)
    }
  }
}

export async function openProvider(config: Config, log: Log, keystone: boolean): Promise<IdentityProvider> {
  if (!keystone) return noAuth()
  const { keystoneIdentity } = await import('./auth/keystone.ts')
  return keystoneIdentity(withLogin(config, config.keystone_authtoken), {
    warn: (message: string) => log.warn(message),
  })
}

async function openLimits(config: Config, log: Log): Promise<ProjectLimits | undefined> {
  if (!config.DEFAULT.use_keystone_limits) return undefined
  const { keystoneLimits } = await import('./auth/keystone-limits.ts')
  const options = { ...withLogin(config, config.oslo_limit), cache_time: config.glimpse.limit_cache_time }
  return keystoneLimits(options, { warn: (message: string) => log.warn(message) })
}

/** The options with those of the group that `auth_section` names in their place. */
export const withLogin = <Options extends { readonly auth_section: string | undefined }>(
  config: Config,
  options: Options,
): Options => (options.auth_section ? { ...options, ...config.group(options.auth_section, keystonePlugin) } : options)

/** A store as the configuration has it; `group` holds its options. */
export interface PlannedStore {
  readonly id: string
  readonly type: string
  readonly group: string
}
export interface StoresPlan {
  readonly multi: boolean
  /** Undefined where the configuration names none. */
  readonly defaultStore: string | undefined
  readonly stores: readonly PlannedStore[]
}

/** Which stores the configuration asks for, whether they can be had or not. */
export function plannedStores({ DEFAULT, glance_store }: Config): StoresPlan {
  const backends = Object.entries(DEFAULT.enabled_backends ?? {})
  if (backends.length > 0) {
    const stores = backends.map(([id, type]) => ({ id, type, group: id }))
    return { multi: true, defaultStore: glance_store.default_backend, stores }
  }
  // Upstream's single-store mode: one store takes data; from the others, what locations of old name is read.
  const defaultStore = typeNamed(glance_store.default_store)
  const types = new Set([defaultStore, ...glance_store.stores.map(typeNamed)])
  const stores = [...types].map((type) => ({ id: type, type, group: 'glance_store' }))
  return { multi: false, defaultStore, stores }
}

export const isStoreType = (type: string): boolean => Object.hasOwn(STORE_TYPES, type)

/** Throws `invalid`. */
export async function openStoreDriver(config: Config, { type, group }: PlannedStore, readOnly: boolean) {
  const load = isStoreType(type) ? STORE_TYPES[type] : undefined
  if (load === undefined) {
    throw new ServiceError('invalid', `Unknown store type "${type}"; known are: ${Object.keys(STORE_TYPES).join(', ')}`)
  }
  const store = await load()
  return store.open(config.group(group, store.options), reachOf(config), readOnly)
}

export async function openConfiguredStores(config: Config, log: Log, readOnly = false): Promise<Stores> {
  const { multi, defaultStore = '', stores } = plannedStores(config)
  const opened = []
  for (const planned of stores) {
    const { id, type } = planned
    if (id.startsWith('os_glance_'))
      throw new ServiceError('invalid', `enabled_backends: the prefix of "${id}" is reserved`)
    if (!multi && id !== defaultStore && !isStoreType(type)) {
      log.warn(`[glance_store] stores: there is no store type "${type}" here`)
      continue
    }
    const driver = await openStoreDriver(config, planned, readOnly)
    if (!multi) opened.push({ id, driver })
    else {
      const { store_description, weight } = config.storeGroup(id)
      opened.push({ id, driver, description: store_description, weight })
    }
  }
  if (multi && !stores.some(({ id }) => id === defaultStore)) {
    throw new ServiceError(
      'invalid',
      `[glance_store] default_backend must name one of: ${stores.map(({ id }) => id).join(', ')}`,
    )
  }
  return openStores({ multi, defaultStore, stores: opened })
}

/** A store type by one of its other names: as a scheme, or as the class of upstream's driver. */
function typeNamed(name: string): string {
  const plain = /^glance(?:_store\._drivers|\.store)\.(\w+)\.Store$/.exec(name)?.[1] ?? name
  return (
    { filesystem: 'file', https: 'http', 'swift+http': 'swift', 'swift+https': 'swift', 'swift+config': 'swift' }[
      plain
    ] ?? plain
  )
}

/** schema-image.json: a flat map of properties, or `{ properties, required }`. */
function readCustomProperties(config: Config): CustomProperties {
  const file = config.findFile('schema-image.json')
  if (file === undefined) return COMMON_PROPERTIES
  let data: Record<string, unknown>
  try {
    data = JSON.parse(readFileSync(file, 'utf8')) as Record<string, unknown>
  } catch (cause) {
    throw new ServiceError('invalid', `${file} cannot be read as JSON`, { cause })
  }
  const extended =
    typeof data['properties'] === 'object' && data['properties'] !== null && !('type' in data['properties'])
  const { properties, required = [] } = (extended ? data : { properties: data }) as unknown as CustomProperties
  try {
    assertSchema({ properties, required })
  } catch (cause) {
    throw new ServiceError('invalid', `${file}: ${(cause as Error).message}`, { cause })
  }
  return { properties, required }
}

const silentNotifier = (): Notifier => announcer({ drivers: [], publisher: '', disabled: [], drainMs: 0 })

async function openNotifier(config: Config, log: Log): Promise<Notifier> {
  const names = new Set(config.oslo_messaging_notifications.driver)
  const opened = await Promise.all([...names].map((name) => openNotifyDriver(config, log, name)))
  return announcer({
    drivers: opened.flat(),
    publisher: config.DEFAULT.default_publisher_id,
    disabled: config.DEFAULT.disabled_notifications,
    drainMs: config.glimpse.notification_drain_timeout * 1000,
  })
}

async function openNotifyDriver(config: Config, log: Log, name: string): Promise<readonly NotifyDriver[]> {
  if (name === 'routing') return [await openRouting(config, log)]
  const open = Object.hasOwn(NOTIFY_DRIVERS, name) ? NOTIFY_DRIVERS[name] : undefined
  if (open === undefined) log.warn(`[oslo_messaging_notifications] driver: there is no driver "${name}" here`)
  return (await open?.(config, log)) ?? []
}

async function openRouting(config: Config, log: Log): Promise<NotifyDriver> {
  const { parseRoutes, routed } = await import('./notify/routing.ts')
  const { routing_config: name } = config.oslo_messaging_notifications
  if (name === '') log.warn('[oslo_messaging_notifications] driver = routing has no effect without routing_config')
  const routes = name === '' ? [] : parseRoutes(readNamed('routing_config', config.findFile(name) ?? name).toString())
  const drivers = new Map<string, readonly NotifyDriver[]>()
  for (const driver of new Set(routes.map((route) => route.driver)))
    drivers.set(driver, driver === 'routing' ? [] : await openNotifyDriver(config, log, driver))
  return routed(routes, drivers)
}

const queueLimits = ({ glimpse }: Config) => ({
  maxMessages: glimpse.notification_queue_length,
  maxSize: glimpse.notification_queue_size,
})

async function openMessaging(config: Config, log: Log, envelope: boolean): Promise<readonly NotifyDriver[]> {
  const { rabbitDriver } = await import('./notify/drivers/rabbit.ts')
  return [rabbitDriver(rabbitConfig(config, log), { envelope })]
}

const rabbitConfig = (config: Config, log: Log) => ({
  transportUrl: config.DEFAULT.transport_url,
  exchange: config.DEFAULT.control_exchange,
  notifications: config.oslo_messaging_notifications,
  rabbit: config.oslo_messaging_rabbit,
  limits: queueLimits(config),
  log,
})

/**
 * Logs in to every host of the message broker, and out again: why each refuses, by `host:port`. Throws `invalid` when
 * the options are wrong.
 */
export async function tryBroker(config: Config, log: Log): Promise<ReadonlyMap<string, unknown>> {
  const { tryRabbit } = await import('./notify/drivers/rabbit.ts')
  return tryRabbit(rabbitConfig(config, log))
}

export const isNotifyDriver = (name: string): boolean => name === 'routing' || Object.hasOwn(NOTIFY_DRIVERS, name)

/** Reads what the options name, and gives what would keep the service from starting. */
export async function unusableParts(config: Config, log: Log): Promise<readonly string[]> {
  const parts: readonly (() => unknown)[] = [
    () => openProtection(config, { allows: () => true }, log),
    () => readCustomProperties(config),
    () => openConfiguredPlugins(config, log),
    () => openKeys(config, log),
    () => stagingDirectory(config),
    () => checkPipeline(config),
    async () => {
      if (config.oslo_messaging_notifications.driver.includes('routing')) await openRouting(config, log)
    },
  ]
  const unusable: string[] = []
  for (const open of parts) {
    try {
      await open()
    } catch (error) {
      if (!hasKind(error, 'invalid')) throw error
      unusable.push(error.message)
    }
  }
  return unusable
}

async function openWebhooks(config: Config, log: Log): Promise<readonly NotifyDriver[]> {
  const { webhookSender } = await import('./notify/drivers/webhook.ts')
  const { urls, secret, mode, timeout, retry, retry_interval, retry_interval_max, ca_file } = config.glimpse_webhook
  const ca = ca_file === undefined ? undefined : readNamed('ca_file', ca_file)
  return urls.map((url) =>
    queued(webhookSender({ url, secret, mode, timeoutMs: timeout * 1000, ca }), {
      ...queueLimits(config),
      retries: retry,
      pauseMs: (failures) => Math.min(retry_interval * 2 ** (failures - 1), retry_interval_max) * 1000,
      log,
    }),
  )
}

/** Throws `invalid` when the file that an option names cannot be read. */
function readNamed(option: string, file: string): Buffer {
  try {
    return readFileSync(file)
  } catch (cause) {
    throw new ServiceError('invalid', `${option}: ${file} cannot be read`, { cause })
  }
}
