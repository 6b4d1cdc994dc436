import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Identity } from '../../src/auth/identity.ts'
import { NOBODY } from '../../src/auth/identity.ts'
import type { ProjectId, UserId } from '../../src/domain/ids.ts'
import { openPolicy } from '../../src/policy/enforcer.ts'
import { RULES } from '../../src/policy/rules.ts'
import { type Block, CALLERS, IMAGES, type Matrix, NAMESPACES, NOTHING, type Situation } from './situations.ts'

/** A question to a rule, in the terms of policies. */
export interface Question {
  readonly rule: string
  readonly situation: string
  readonly caller: string
  readonly credentials: Readonly<Record<string, unknown>>
  readonly target: Readonly<Record<string, unknown>>
}

const isMetadef = (rule: string): boolean => rule.includes('metadef')
const isImage = (rule: string): boolean => /image|member|download|activate/.test(rule) && !/cache|metadef/.test(rule)

const situationsOf = (rule: string): Readonly<Record<string, Situation>> => {
  if (isMetadef(rule)) return NAMESPACES
  return isImage(rule) ? IMAGES : NOTHING
}

function identityOf(token: string): Identity {
  const [user = '', project = '', roles = '', scope] = token.split(':')
  return {
    ...NOBODY,
    userId: user as UserId,
    projectId: project === '' ? undefined : (project as ProjectId),
    userDomainId: 'default',
    projectDomainId: 'default',
    roles: roles.split(',').filter((role) => role !== ''),
    systemScope: scope === 'system=all' ? 'all' : undefined,
  }
}

/** Every rule about every situation, by every caller. */
export const questions = (): readonly Question[] =>
  Object.keys(RULES).flatMap((rule) =>
    Object.entries(situationsOf(rule)).flatMap(([situation, { owner, visibility, members }]) =>
      Object.entries(CALLERS).map(([caller, token]): Question => {
        const { userId, projectId, roles, systemScope } = identityOf(token)
        const project = projectId ?? null
        // Who sees a shared image of somebody else does so as a member of it.
        const member =
          visibility === 'shared' && project !== owner && members.includes(String(project)) ? project : null
        return {
          rule,
          situation,
          caller,
          credentials: { user_id: userId, project_id: project, roles, system_scope: systemScope ?? null },
          target: { project_id: owner, owner, visibility, member_id: member },
        }
      }),
    ),
  )

/** What the rules answer, `allow` or `deny`. */
export function askEnforcer(asked: readonly Question[]): readonly string[] {
  const policy = openPolicy({
    policyFile: join(tmpdir(), 'no-such-policy.yaml'),
    policyDirs: [],
    defaultRule: 'default',
    enforceNewDefaults: true,
    warn: (message) => {
      throw new Error(message)
    },
  })
  return asked.map(({ rule, caller, target }) =>
    policy.allows(rule, identityOf(CALLERS[caller as keyof typeof CALLERS]), target) ? 'allow' : 'deny',
  )
}

export function matrixOf(asked: readonly Question[], answers: readonly string[]): Matrix {
  const matrix = new Map<string, Record<string, Record<string, string>>>()
  for (const [index, { rule, situation, caller }] of asked.entries()) {
    const block = matrix.get(rule) ?? {}
    matrix.set(rule, { ...block, [situation]: { ...block[situation], [caller]: answers[index] ?? '' } })
  }
  return matrix satisfies ReadonlyMap<string, Block>
}
