import { mkdir, writeFile } from 'node:fs/promises'
import { networkInterfaces } from 'node:os'
import { join } from 'node:path'
import { freePort, type Product, root, startProduct } from '../support/product.ts'
import { addRegion, output, type Place, reference, script } from './kit.ts'

/** What an operator decides, as far as the suites ask for it. */
export interface Setup {
  /**
   * File stores, of falling weight and in alphabetical order: tempest takes either order for granted. None: the older
   * single store. An http store stands beside them.
   */
  readonly stores: readonly string[]
  /** Servers with one database, each with staging folder and cache of its own. */
  readonly nodes: 1 | 2
  readonly cache?: true
  /** Locations are added without reading their data. */
  readonly skipHash?: true
  /** Upstream's policies as they are now, by role and scope. */
  readonly newDefaults?: true
  /** The import plugin `image_conversion`. */
  readonly conversion?: true
  /** Limits from Keystone. */
  readonly limits?: true
}

export interface Running {
  readonly place: Place
  /** Of the first node, which is the image service of the region. */
  readonly url: string
  readonly second: string | undefined
}

interface Stoppable {
  stop(): Promise<void>
}

/** Starts the service in a region of its own, and stops it after `use`. */
export async function withService<T>(
  { run, keystone, name }: { readonly run: string; readonly keystone: string; readonly name: string },
  setup: Setup,
  use: (running: Running) => Promise<T>,
): Promise<T> {
  const ports: number[] = []
  while (ports.length < setup.nodes) ports.push(await freePort())
  const [url = '', second] = ports.map((port) => `http://127.0.0.1:${port}`)
  const place = await addRegion(run, keystone, name, url)
  const nodes: Stoppable[] = []
  try {
    if (reference) nodes.push(await startReference(place, setup, ports))
    else for (const [n, port] of ports.entries()) nodes.push(await startGlimpse(place, setup, n + 1, port))
    return await use({ place, url, second })
  } finally {
    await Promise.all(nodes.map((node) => node.stop()))
  }
}

async function startGlimpse(place: Place, setup: Setup, node: number, port: number): Promise<Product> {
  const home = join(place.dir, 'service')
  await mkdir(home, { recursive: true })
  const file = join(home, `glance-api-${node}.conf`)
  const connection = `sqlite:///${home}/glance.sqlite`
  await writeFile(
    file,
    glanceApiConf({ home, port, connection, name: String(node), staging: `staging-${node}` }, setup),
  )
  if (node === 1) {
    // Tempest wants to find some resource types.
    const definitions = join(root, 'etc/metadefs')
    await output(join(root, 'bin/glance-manage'), ['--config-file', file, 'db', 'load_metadefs', '--path', definitions])
  }
  return await startProduct({
    command: 'glance-api',
    args: ['--config-file', file, '--config-file', join(place.keystone, 'keystone_authtoken.conf')],
    port,
    log: join(place.dir, `glance-api-${node}.log`),
    env: await withNames(home),
  })
}

/**
 * Hosts from which suites try to import, to see the request accepted. They resolve to this machine, where nobody serves
 * them, so that a run is the same with the Internet and without.
 */
const NAMES = ['does-not.exist', 'download.cirros-cloud.net']

/** What makes a process know them. */
export async function withNames(home: string): Promise<NodeJS.ProcessEnv> {
  const hosts = join(home, 'hosts')
  await writeFile(hosts, `127.0.0.1 localhost ${NAMES.join(' ')}\n`)
  return { LD_PRELOAD: 'libnss_wrapper.so', NSS_WRAPPER_HOSTS: hosts }
}

/** Weight falls by this from store to store. */
const WEIGHT_STEP = 10

export interface Node {
  /** Of the folders that are its own. */
  readonly name: string
  readonly home: string
  readonly port: number
  readonly connection: string
  /** Below `home`. */
  readonly staging: string
}

/**
 * Debian's tempest uploads random bytes under every format, and the kit's tiny.bin, which stands for several formats,
 * is the head of an ISO image: upstream refuses both unless it is told not to. The part `images` has the default.
 */
export function glanceApiConf({ name, home, port, connection, staging }: Node, setup: Setup): string {
  const { stores, cache = false, skipHash = false, newDefaults = false, conversion = false, limits = false } = setup
  const multi = stores.length > 0
  return `[DEFAULT]
bind_host = 127.0.0.1
bind_port = ${port}
workers = ${setup.nodes === 1 ? 2 : 1}
${multi ? `enabled_backends = ${stores.map((store) => `${store}:file, `).join('')}web:http` : ''}
enabled_import_methods = [glance-direct, web-download, copy-image, glance-download]
node_staging_uri = file://${home}/${staging}
worker_self_reference_url = http://127.0.0.1:${port}
show_multiple_locations = True
do_secure_hash = ${!skipHash}
${cache ? `image_cache_dir = ${home}/cache-${name}` : ''}
use_keystone_limits = ${limits}
[database]
connection = ${connection}
[image_format]
require_image_format_match = False
[paste_deploy]
flavor = keystone${cache ? '+cachemanagement' : ''}
[oslo_policy]
enforce_scope = ${newDefaults}
enforce_new_defaults = ${newDefaults}
[import_filtering_opts]
allowed_ports = []
allowed_hosts = [${fetchedHosts().join(',')}]
${conversion ? '[image_import_opts]\nimage_import_plugins = [image_conversion]\n[image_conversion]\noutput_format = raw' : ''}
[os_glance_staging_store]
filesystem_store_datadir = ${home}/${staging}
[os_glance_tasks_store]
filesystem_store_datadir = ${home}/tasks-${name}
[glance_store]
${multi ? `default_backend = ${stores.at(-1)}` : `stores = file,http\ndefault_store = file\nfilesystem_store_datadir = ${home}/images`}
${stores.map((store, n) => `[${store}]\nfilesystem_store_datadir = ${home}/${store}\nweight = ${WEIGHT_STEP * (stores.length - n)}\n`).join('')}`
}

/** Where the suites serve images from, the loopback device and this machine's own addresses, and what they only name. */
const fetchedHosts = (): readonly string[] => [
  ...Object.values(networkInterfaces()).flatMap((addresses) =>
    (addresses ?? []).filter(({ family }) => family === 'IPv4').map(({ address }) => address),
  ),
  ...NAMES,
]

/** The kit's own configuration of the real Glance, which has two stores whatever is asked for. */
async function startReference(place: Place, setup: Setup, ports: readonly number[]): Promise<Stoppable> {
  const home = join(place.dir, 'service')
  const on = (wanted: true | undefined): string => (wanted ? '1' : '0')
  await script(place, 'reference-up.sh', [place.keystone, home, ...ports.map(String)], {
    DB: 'sqlite',
    LOCATIONS: '1',
    CACHE: on(setup.cache),
    SECURE_RBAC: on(setup.newDefaults),
    CONVERSION: on(setup.conversion),
    LIMITS: on(setup.limits),
  })
  return { stop: () => script(place, 'reference-down.sh', [home]) }
}
