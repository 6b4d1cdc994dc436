import { parse } from 'yaml'
import { ServiceError } from '../domain/errors.ts'
import type { Message, NotifyDriver } from './driver.ts'

/** Which messages a driver gets: those that fit one of the patterns of each list. */
export interface Route {
  readonly driver: string
  readonly accepts: (message: Pick<Message, 'event' | 'priority'>) => boolean
}

/**
 * Reads groups of drivers, each with `accepted_events` and `accepted_priorities`, lists of shell patterns. A driver
 * without lists accepts everything. Throws `invalid`.
 */
export function parseRoutes(yaml: string): readonly Route[] {
  let groups: unknown
  try {
    groups = parse(yaml, { version: '1.1' }) ?? {}
  } catch (cause) {
    throw new ServiceError('invalid', 'routing_config cannot be read as YAML', { cause })
  }
  return Object.values(mapping(groups)).flatMap((group) =>
    Object.entries(mapping(group)).map(([driver, rules]) => {
      const { accepted_events: events, accepted_priorities: priorities } = mapping(rules ?? {})
      const fitsEvent = anyOf(events)
      const fitsPriority = anyOf(priorities, true)
      return { driver, accepts: ({ event, priority }) => fitsEvent(event) && fitsPriority(priority.toLowerCase()) }
    }),
  )
}

/** One driver out of those that the routes name; a message goes to each of them once at most. */
export function routed(routes: readonly Route[], drivers: ReadonlyMap<string, readonly NotifyDriver[]>): NotifyDriver {
  return {
    accept: (message) => {
      const names = new Set(routes.filter(({ accepts }) => accepts(message)).map(({ driver }) => driver))
      for (const name of names) for (const driver of drivers.get(name) ?? []) driver.accept(message)
    },
    close: async (timeoutMs) => {
      await Promise.all([...drivers.values()].flat().map((driver) => driver.close(timeoutMs)))
    },
  }
}

function mapping(value: unknown): Readonly<Record<string, unknown>> {
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Record<string, unknown>
  throw new ServiceError('invalid', 'routing_config must hold groups of drivers, and their rules')
}

function anyOf(patterns: unknown, lower = false): (text: string) => boolean {
  if (patterns === undefined) return () => true
  if (!Array.isArray(patterns) || patterns.some((pattern) => typeof pattern !== 'string'))
    throw new ServiceError('invalid', 'routing_config: accepted_events and accepted_priorities must be lists of texts')
  const forms = (patterns as readonly string[]).map((pattern) => shellPattern(lower ? pattern.toLowerCase() : pattern))
  return (text) => forms.some((form) => form.test(text))
}

/** `*`, `?`, `[abc]` and `[!abc]`, as Python's fnmatch reads them. */
function shellPattern(pattern: string): RegExp {
  const source = pattern.replace(/\[(!?)([^\]]+)\]|[\s\S]/g, (one: string, not: string | undefined, set?: string) => {
    if (set !== undefined) return `[${not ? '^' : ''}${set.replace(/[\\^[]/g, '\\$&')}]`
    return one === '*' ? '[\\s\\S]*' : one === '?' ? '[\\s\\S]' : one.replace(/[.+^${}()|\\[\]/]/g, '\\$&')
  })
  try {
    return new RegExp(`^${source}$`)
  } catch {
    return /(?!)/ // such as [z-a], which nothing fits
  }
}
