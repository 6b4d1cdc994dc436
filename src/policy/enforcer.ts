import type { Identity } from '../auth/identity.ts'
import type { RuleName } from './rules.ts'

/** Attributes that a check may name in `%(key)s`. */
export type Target = Readonly<Record<string, unknown>>

export interface PolicyEnforcer {
  /** Never throws for a denied, unknown or unreadable rule: those are `false` (unknown ones as the default rule says). */
  allows(rule: RuleName | (string & {}), identity: Identity, target: Target): boolean
}
