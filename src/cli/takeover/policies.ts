import { policyOptions } from '../../app.ts'
import type { Config } from '../../config/config.ts'
import { type Check, parseCheck, printCheck } from '../../policy/check.ts'
import { isCredential, openPolicy, readPolicyFiles } from '../../policy/enforcer.ts'
import { RULES, type Rule, type RuleName } from '../../policy/rules.ts'
import { reason } from '../reason.ts'
import { type Finding, few, many, note, ok, problem } from './report.ts'

/** What the policy files change, and what of it cannot be had here. */
export function* checkPolicies(config: Config): Iterable<Finding> {
  const warnings = new Set<string>()
  const options = policyOptions(config, (message) => warnings.add(message))
  const rules = new Map<string, Check>()
  try {
    const files = readPolicyFiles(options)
    for (const file of files) for (const [name, check] of file.rules) rules.set(name, check)
    // Goes through all rules, as the service does when it starts.
    openPolicy(options).close()
    yield files.length === 0
      ? ok('There is no policy file: every rule has its default.')
      : ok('These files were read, the strongest last:', few(files.map(({ path }) => path)))
    if (files.length === 0) yield* forgotten(config)
  } catch (error) {
    yield problem(`The service would not start with these policies: ${reason(error)}`, 'correct the file')
    return
  }
  yield* uneven(rules)
  yield* unasked(rules)
  yield* notHere(rules, warnings)
  yield* scopes(config)
}

/** Upstream's library takes an old policy.json while there is no policy.yaml. */
function* forgotten(config: Config): Iterable<Finding> {
  const { policy_file: wanted } = config.oslo_policy
  const old = wanted === 'policy.yaml' ? config.findFile('policy.json') : undefined
  if (old !== undefined)
    yield problem(
      `There is ${old}, which Glance may be using: it is read here only when it is named.`,
      'set [oslo_policy] policy_file = policy.json',
    )
  else if (config.isSet('oslo_policy', 'policy_file') && config.findFile(wanted) === undefined)
    yield note(`[oslo_policy] policy_file = ${wanted} is not there.`)
}

const isRule = (name: string): name is RuleName => Object.hasOwn(RULES, name)

/** Rules that are not at their default. */
function* uneven(rules: ReadonlyMap<string, Check>): Iterable<Finding> {
  const changed = [...rules].filter(([name, check]) => {
    if (!isRule(name)) return false
    const rule: Rule = RULES[name]
    // As they are printed: brackets and blanks do not count.
    return printCheck(check) !== printCheck(parseCheck(rule.check, () => undefined))
  })
  if (changed.length > 0)
    yield ok(
      `${many(changed.length, 'rule')} other than the default of the newest Glance:`,
      changed.map(([name, check]) => `${name}: ${printCheck(check)}`),
    )
}

/** Rules that nobody asks for, here or in the newest Glance. */
function* unasked(rules: ReadonlyMap<string, Check>): Iterable<Finding> {
  const used = new Set([...rules.values()].flatMap(references))
  const strangers = [...rules.keys()].filter((name) => !isRule(name) && !used.has(name))
  if (strangers.length > 0)
    yield note('Rules that nothing asks for, in the newest Glance neither:', 'look for spelling errors', few(strangers))
  const silent = [...rules.keys()].filter((name) => isRule(name) && SILENT.includes(name))
  if (silent.length > 0)
    yield note(
      `Rules that are kept for old files only, and decide nothing: ${silent.join(', ')}.`,
      'tasks_api_access decides about tasks',
    )
  const cacheRules = ['cache_image', 'cache_list', 'cache_delete']
  if (rules.has('manage_image_cache') && !cacheRules.every((name) => rules.has(name)))
    yield note(
      'manage_image_cache is an older name: it decides only while [oslo_policy] enforce_new_defaults is false.',
      `set ${cacheRules.join(', ')} as well`,
    )
}

const SILENT: readonly string[] = ['get_task', 'get_tasks', 'add_task', 'modify_task']

/** Checks that cannot be had here. */
function* notHere(rules: ReadonlyMap<string, Check>, warnings: ReadonlySet<string>): Iterable<Finding> {
  const remote = [...rules].filter(([, check]) => parts(check).some(({ kind }) => kind === 'remote'))
  if (remote.length > 0)
    yield problem(
      'Checks that ask another server are not supported, and deny:',
      'say the same with roles and attributes',
      remote.map(([name, check]) => `${name}: ${printCheck(check)}`),
    )
  const strange = [...rules].filter(([, check]) => parts(check).some(asksUnknown))
  if (strange.length > 0)
    yield note(
      'Checks about something that no token has here. Kinds of checks that others have added to oslo.policy are not there, and count as false:',
      undefined,
      strange.map(([name, check]) => `${name}: ${printCheck(check)}`),
    )
  // What was said about remote checks has been told above.
  const others = [...warnings].filter((message) => !message.includes('asks another server'))
  if (others.length > 0) yield note('Not all makes sense, in Glance neither:', 'correct the file', few(others))
}

const asksUnknown = (check: Check): boolean =>
  check.kind === 'generic' &&
  !/^(["'\d+-]|None$|True$|False$)/.test(check.left) &&
  !isCredential(check.left.split('.')[0] ?? '')

function parts(check: Check): readonly Check[] {
  if (check.kind === 'not') return parts(check.check)
  if (check.kind === 'and' || check.kind === 'or') return check.checks.flatMap(parts)
  return [check]
}
const references = (check: Check): readonly string[] =>
  parts(check).flatMap((part) => (part.kind === 'rule' ? [part.name] : []))

function* scopes(config: Config): Iterable<Finding> {
  if (!config.oslo_policy.enforce_new_defaults)
    yield note(
      '[oslo_policy] enforce_new_defaults is false: what older defaults allowed is allowed, too.',
      'give the roles reader and member to your users, and set it to true in time',
    )
  if (config.isSet('oslo_policy', 'enforce_scope'))
    yield note(
      '[oslo_policy] enforce_scope has no effect, as in the newest Glance: tokens for the system or a domain are refused.',
    )
}
