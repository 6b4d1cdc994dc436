import { ServiceError } from '../domain/errors.ts'

export interface BrokerHost {
  readonly hostname: string
  readonly port: number
  readonly username: string
  readonly password: string
}

/** Where a broker is, as oslo.messaging writes it. */
export interface TransportUrl {
  /** Such as `rabbit`, in lower case. */
  readonly scheme: string
  /** At least one. */
  readonly hosts: readonly BrokerHost[]
  readonly vhost: string
  /** Options that replace those of the configuration. */
  readonly query: ReadonlyMap<string, string>
}

/**
 * Reads `scheme://user:password@host:port,user:password@host:port/vhost?option=value`. User, password and vhost are
 * percent-encoded; without them it is `guest` and `/`. Throws `invalid`, without repeating what may be secret.
 */
export function parseTransportUrl(url: string): TransportUrl {
  const [, scheme, netloc = '', path = '', query = ''] =
    /^([a-z][a-z0-9+.-]*):\/\/([^/?#]*)(?:\/([^?#]*))?(?:\?([^#]*))?/i.exec(url) ?? []
  if (scheme === undefined) throw invalid('it does not begin with a scheme such as rabbit://')
  const hosts = netloc.split(',').filter((host) => host !== '')
  return {
    scheme: scheme.toLowerCase(),
    hosts: (hosts.length === 0 ? ['localhost'] : hosts).map(parseHost),
    vhost: decode(path) || '/',
    query: new Map(new URLSearchParams(query)),
  }
}

function parseHost(text: string): BrokerHost {
  const at = text.lastIndexOf('@')
  const [username = '', password = ''] = at === -1 ? [] : splitOnce(text.slice(0, at), ':')
  const [, bracketed, plain = 'localhost', port = '5672'] =
    /^(?:\[([^\]]+)\]|([^:[\]]+))?(?::(\d{1,5}))?$/.exec(text.slice(at + 1)) ?? throwInvalid('a host is not host:port')
  if (Number(port) > 65_535) throw invalid('a port is above 65535')
  return {
    hostname: bracketed ?? plain,
    port: Number(port),
    username: decode(username) || 'guest',
    password: decode(password) || 'guest',
  }
}

function splitOnce(text: string, mark: string): readonly string[] {
  const at = text.indexOf(mark)
  return at === -1 ? [text] : [text.slice(0, at), text.slice(at + 1)]
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text)
  } catch {
    throw invalid('a percent sign is not followed by two hexadecimal digits')
  }
}

const invalid = (what: string) => new ServiceError('invalid', `transport_url: ${what}`)
const throwInvalid = (what: string): never => {
  throw invalid(what)
}
