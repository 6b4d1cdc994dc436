import { promises as dns, type LookupAddress } from 'node:dns'
import ipaddr from 'ipaddr.js'

/** `[import_filtering_opts]`. A list of what may not be used counts only where the list of what may be used is empty. */
export interface UriRules {
  readonly allowed_schemes: readonly string[]
  readonly disallowed_schemes: readonly string[]
  readonly allowed_hosts: readonly string[]
  readonly disallowed_hosts: readonly string[]
  readonly allowed_ports: readonly number[]
  readonly disallowed_ports: readonly number[]
}

export interface UriFilter {
  /** Whether data may be fetched from `uri`, as far as can be told from how it is written and that its host has an address. */
  admits(uri: string): Promise<boolean>
  /** Whether a connection may go to this address, to which `host` led. */
  admitsAddress(address: string, host?: string): boolean
  /** All addresses of a host name. Rejects as `dns.lookup` does. */
  resolve(name: string): Promise<readonly LookupAddress[]>
}

/**
 * Which addresses may be connected to: all of them; all but loopback and link-local ones, where the services and the
 * metadata of this machine answer, unless their host is in `allowed_hosts` (glance/common/utils.py,
 * `resolve_pinned_address`); or those of the public Internet alone.
 */
export const REACHES = ['any', 'network', 'public'] as const
export type AddressReach = (typeof REACHES)[number]

export interface UriFilterOptions {
  readonly reach: AddressReach
  /** A test's name server. */
  readonly lookup?: (name: string) => Promise<readonly LookupAddress[]>
}

/** `0.0.0.0` leads to the machine itself as well. */
const OF_THIS_MACHINE: readonly string[] = ['loopback', 'linkLocal', 'unspecified']

export function uriFilter(
  rules: UriRules,
  { reach, lookup = (name) => dns.lookup(name, { all: true }) }: UriFilterOptions,
): UriFilter {
  const allowedHosts = new Set(rules.allowed_hosts.map(normalHost))
  const refusedHosts = new Set(allowedHosts.size > 0 ? [] : rules.disallowed_hosts.map(normalHost))
  const listed = <T>(allowed: readonly T[], refused: readonly T[], value: T) =>
    allowed.length > 0 ? allowed.includes(value) : !refused.includes(value)

  // The dot makes a name of what the system would else take for an address, such as 0x7f000001, and skips search domains.
  const resolve = (name: string) => lookup(name.endsWith('.') ? name : `${name}.`)

  const admitsAddress = (address: string, host = address): boolean => {
    const plain = normalAddress(address)
    if (plain === undefined || refusedHosts.has(plain)) return false
    const range = ipaddr.parse(plain).range()
    if (reach === 'public') return range === 'unicast'
    return reach === 'any' || !OF_THIS_MACHINE.includes(range) || allowedHosts.has(normalHost(host))
  }

  const resolves = async (host: string): Promise<boolean> => {
    try {
      return (await resolve(host)).some(({ address }) => admitsAddress(address, host))
    } catch {
      return false
    }
  }

  return {
    resolve,
    admitsAddress,
    admits: async (uri) => {
      const parts = parseUri(uri)
      if (parts === undefined) return false
      const { scheme, host, port } = parts
      if (!listed(rules.allowed_schemes, rules.disallowed_schemes, scheme)) return false
      if (allowedHosts.size > 0 ? !allowedHosts.has(host) : refusedHosts.has(host)) return false
      if (port !== undefined && !listed(rules.allowed_ports, rules.disallowed_ports, port)) return false
      return normalAddress(host) === undefined ? resolves(host) : admitsAddress(host)
    },
  }
}

interface UriParts {
  readonly scheme: 'http' | 'https'
  /** An address as it is usually written, or a name in lower case without a dot at its end. */
  readonly host: string
  /** Undefined unless the URI names it. */
  readonly port: number | undefined
}

/**
 * Reads a URI as it is written, and refuses what the client that will use it reads in another way: its parser takes
 * `127.1`, `0x7f000001` and full-width digits for addresses, drops line feeds and turns backslashes round.
 */
function parseUri(uri: string): UriParts | undefined {
  if (/[\s\\\p{Cc}]/u.test(uri)) return undefined
  const url = URL.parse(uri)
  const [, authority = ''] = /^https?:\/\/([^/?#]*)/i.exec(uri) ?? []
  const [, written = '', digits] = /^(\[[^\]]*\]|[^:[\]]*)(?::(\d*))?$/.exec(authority.replace(/^.*@/, '')) ?? []
  if (url === null || written === '' || written.includes('%')) return undefined
  const host = normalHost(url.hostname)
  const isAddress = normalAddress(host) !== undefined
  if (isAddress && !ipaddr.IPv4.isValidFourPartDecimal(written) && !written.startsWith('[')) return undefined
  if (!isAddress && !/[^\d.]/.test(host)) return undefined
  const port = digits ? Number(digits) : undefined
  return { scheme: url.protocol === 'https:' ? 'https' : 'http', host, port }
}

/** As hosts are compared. */
const normalHost = (host: string): string => {
  const bare = host
    .toLowerCase()
    .replace(/^\[(.*)\]$/, '$1')
    .replace(/\.$/, '')
  return normalAddress(bare) ?? bare
}

/** An address in its usual form, an IPv4 address within IPv6 as such; undefined for anything else. */
function normalAddress(host: string): string | undefined {
  if (!ipaddr.IPv4.isValidFourPartDecimal(host) && !ipaddr.IPv6.isValid(host)) return undefined
  return ipaddr.process(host).toString()
}
