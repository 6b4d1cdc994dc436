import { readdirSync, readFileSync, statSync } from 'node:fs'
import { createRequire } from 'node:module'
import { basename, join } from 'node:path'
import type { Identity } from '../auth/identity.ts'
import { ServiceError } from '../domain/errors.ts'
import { type Check, type Compiled, type Credentials, compileCheck, parseCheck, type Test, type Warn } from './check.ts'
import { RULES, type Rule, type RuleName } from './rules.ts'

/** Attributes that a check may name in `%(key)s`. */
export type Target = Readonly<Record<string, unknown>>

export interface PolicyEnforcer {
  /** Never throws for a denied, unknown or unreadable rule: those are `false` (unknown ones as the default rule says). */
  allows(rule: RuleName | (string & {}), identity: Identity, target: Target): boolean
  /** Whether the owner checks from before the rules knew projects apply as well (`enforce_new_defaults = false`). */
  readonly legacyOwnership?: boolean
}

export interface PolicyOptions {
  /** YAML or JSON; without such a file the defaults hold. */
  readonly policyFile: string
  /** Their files are read in the order of their names, after the policy file; what comes later wins. */
  readonly policyDirs: readonly string[]
  /** The rule that stands in for unknown ones. */
  readonly defaultRule: string
  /** When false, what a rule allowed before its default changed is allowed as well. */
  readonly enforceNewDefaults: boolean
  /** When false, tokens that are scoped to the system or to a domain pass as far as their roles carry them. */
  readonly enforceScope?: boolean
  readonly warn: Warn
  /** Milliseconds; a test's clock. */
  readonly now?: () => number
}

type Overrides = ReadonlyMap<string, Check>
type Rules = ReadonlyMap<string, { readonly test: Test; readonly scoped: boolean }>

const LOOK_AGAIN_MS = 1000

/**
 * Reads the policy files and follows their changes. Throws `invalid` when they cannot be read or refer to themselves;
 * when that happens to a later version of them, the rules stay as they are and `warn` hears about it.
 */
export function openPolicy(options: PolicyOptions): PolicyEnforcer & { close(): void } {
  const { enforceScope = true, defaultRule, warn, now = Date.now } = options
  let seen = stamp(options)
  let overrides = readOverrides(options)
  let rules = compileRules(overrides, options)
  let lookAgain = now() + LOOK_AGAIN_MS

  const follow = () => {
    lookAgain = now() + LOOK_AGAIN_MS
    try {
      const current = stamp(options)
      if (current === seen) return
      seen = current
      // A rule that vanishes from the files keeps its last value until the next start: operators know it so.
      const merged = new Map([...overrides, ...readOverrides(options)])
      rules = compileRules(merged, options)
      overrides = merged
    } catch (error) {
      warn(`Policy is unchanged, since its files cannot be used: ${(error as Error).message}`)
    }
  }

  return {
    legacyOwnership: !options.enforceNewDefaults,
    allows(name, identity, target) {
      if (now() >= lookAgain) follow()
      const rule = rules.get(name) ?? rules.get(defaultRule)
      if (rule === undefined) return false
      const elsewhere = identity.systemScope !== undefined || identity.domainId !== undefined
      if (enforceScope && elsewhere && rules.has(name) && rule.scoped) return false
      return rule.test(credentialsOf(identity), target)
    },
    close() {
      lookAgain = Number.POSITIVE_INFINITY
    },
  }
}

/** What a policy file says. */
export interface PolicyFile {
  readonly path: string
  readonly rules: ReadonlyMap<string, Check>
}

/** The files that are there, in the order in which they are read. Throws `invalid` for one that cannot be. */
export const readPolicyFiles = (options: PolicyOptions): readonly PolicyFile[] =>
  policyFiles(options)
    .filter((path) => statSync(path, { throwIfNoEntry: false }) !== undefined)
    .map((path) => ({ path, rules: new Map(readPolicyFile(path, options.warn)) }))

/** Attributes of the caller that checks may ask for. */
export const isCredential = (name: string): boolean =>
  name === 'system' || Object.hasOwn(credentialsOf({} as Identity), name)

/** Whether the rule `context_is_admin` makes the caller an admin. */
export const isAdmin = (enforcer: PolicyEnforcer, identity: Identity): boolean =>
  identity.isAdmin === true || enforcer.allows('context_is_admin', identity, credentialsOf(identity))

// ---- files

const policyFiles = ({ policyFile, policyDirs }: PolicyOptions): readonly string[] => [
  policyFile,
  ...policyDirs.flatMap((dir) =>
    statSync(dir, { throwIfNoEntry: false }) === undefined
      ? []
      : readdirSync(dir, { withFileTypes: true })
          .filter((entry) => !entry.isDirectory() && !entry.name.startsWith('.'))
          .map(({ name }) => join(dir, name))
          .sort(),
  ),
]

/** Differs whenever a file came, went or changed. */
const stamp = (options: PolicyOptions): string =>
  policyFiles(options)
    .map((path) => {
      const stat = statSync(path, { throwIfNoEntry: false })
      return stat && `${path} ${stat.mtimeMs} ${stat.size} ${stat.ino}`
    })
    .join('\n')

const readOverrides = (options: PolicyOptions): Overrides =>
  new Map(policyFiles(options).flatMap((path) => readPolicyFile(path, options.warn)))

function readPolicyFile(path: string, warn: Warn): readonly (readonly [string, Check])[] {
  if (statSync(path, { throwIfNoEntry: false }) === undefined) return []
  try {
    const content = parseYaml(readFileSync(path, 'utf8')) ?? {}
    if (typeof content !== 'object' || Array.isArray(content))
      throw new Error('expected a mapping from rules to checks')
    return Object.entries(content).map(([name, value]) => {
      const warnOfRule = (message: string) => warn(`${basename(path)}: ${name}: ${message}`)
      try {
        return [name, parseCheck(value, warnOfRule)]
      } catch (cause) {
        throw new Error(`rule ${name}: ${(cause as Error).message}`, { cause })
      }
    })
  } catch (cause) {
    throw new ServiceError('invalid', `Cannot read policy file ${path}: ${(cause as Error).message}`, { cause })
  }
}

const require = createRequire(import.meta.url)

/** JSON is read as such: as YAML, its tabs would be errors. */
function parseYaml(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    // Loaded when it is needed: many services have no such file.
    const { parse } = require('yaml') as typeof import('yaml')
    return parse(text, { version: '1.1', uniqueKeys: false })
  }
}

// ---- rules

const nothing: Compiled = { test: () => false, remote: false }

function compileRules(overrides: Overrides, { defaultRule, enforceNewDefaults, warn }: PolicyOptions): Rules {
  const defaults = Object.entries<Rule>(RULES).map(
    ([name, rule]) => [name, defaultCheck(rule, enforceNewDefaults)] as const,
  )
  const checks = new Map([...defaults, ...overrides])
  const compiled = new Map<string, Compiled>()
  const path: string[] = []

  const resolve = (name: string): Compiled => {
    const done = compiled.get(name)
    if (done !== undefined) return done
    const check = checks.get(name)
    if (check === undefined) {
      warn(`Policy rule ${path.at(-1)} refers to ${name}, which is not defined; ${defaultRule} stands in for it`)
      return checks.has(defaultRule) ? resolve(defaultRule) : nothing
    }
    if (path.includes(name)) {
      throw new ServiceError('invalid', `Policy rule ${name} refers to itself: ${[...path, name].join(' -> ')}`)
    }
    path.push(name)
    const result = compileCheck(check, resolve)
    path.pop()
    if (result.remote) warn(`Policy rule ${name} asks another server, which is not supported: that check denies`)
    const final = name === 'context_is_admin' ? { ...result, test: orAdmin(result.test) } : result
    compiled.set(name, final)
    return final
  }

  return new Map(
    [...checks.keys()].map((name) => {
      const rule: Rule | undefined = Object.hasOwn(RULES, name) ? RULES[name as RuleName] : undefined
      return [name, { test: resolve(name).test, scoped: rule !== undefined && rule.anyScope !== true }]
    }),
  )
}

/** Without authentication everybody is an admin, though of no role. */
const orAdmin =
  (test: Test): Test =>
  (credentials, target) =>
    credentials['is_admin'] === true || test(credentials, target)

function defaultCheck({ check, deprecated }: Rule, enforceNewDefaults: boolean): Check {
  const complain = (message: string) => {
    throw new Error(message)
  }
  const current = parseCheck(check, complain)
  if (enforceNewDefaults || deprecated === undefined) return current
  return { kind: 'or', checks: [current, parseCheck(deprecated, complain)] }
}

// ---- credentials

const known = new WeakMap<Identity, Credentials>()

/** The caller as checks see it; absent ids are null, which a check reads as `None`. */
function credentialsOf(identity: Identity): Credentials {
  const before = known.get(identity)
  if (before !== undefined) return before
  const credentials: Credentials = {
    user_id: identity.userId ?? null,
    user: identity.userId ?? null,
    project_id: identity.projectId ?? null,
    tenant: identity.projectId ?? null,
    domain_id: identity.domainId ?? null,
    user_domain_id: identity.userDomainId ?? null,
    project_domain_id: identity.projectDomainId ?? null,
    system_scope: identity.systemScope ?? null,
    ...(identity.systemScope === undefined ? {} : { system: identity.systemScope }),
    is_admin: identity.isAdmin ?? false,
    is_admin_project: identity.isAdminProject,
    read_only: identity.readOnly,
    roles: identity.roles,
    service_user_id: identity.serviceUserId ?? null,
    service_project_id: identity.serviceProjectId ?? null,
    service_roles: identity.serviceRoles,
  }
  known.set(identity, credentials)
  return credentials
}
