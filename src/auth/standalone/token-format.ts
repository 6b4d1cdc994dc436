import { createHmac, randomBytes, timingSafeEqual } from 'node:crypto'
import type { ProjectId, UserId } from '../../domain/ids.ts'

export type Scope =
  | { readonly kind: 'unscoped' }
  | { readonly kind: 'project'; readonly projectId: ProjectId }
  | { readonly kind: 'system' }

export type LoginMethod = 'password' | 'token'

/** What a token says about itself. Roles are not in it: they are looked up, so that taking one away works at once. */
export interface Claims {
  readonly userId: UserId
  readonly scope: Scope
  readonly methods: readonly LoginMethod[]
  /** The user's epoch when the token was issued; an older one is no longer good. */
  readonly epoch: number
  /** Milliseconds. */
  readonly issuedAt: number
  readonly expiresAt: number
  /** The token's own audit id, then those of the tokens it was derived from, the first login last. */
  readonly auditIds: readonly [string, ...string[]]
}

/** A token made from a token made from … a login: this long a chain at most. */
export const LONGEST_CHAIN = 16

// version 1, methods 1, scope 1, user 16, project 16, epoch 4, issued 6, expires 6, audit ids 16 each, signature 32
const VERSION = 1
const HEADER = 51
const ID = 16
const SIGNATURE = 32
const SCOPES = ['unscoped', 'project', 'system'] as const
const METHODS = ['password', 'token'] as const
const LONGEST_TEXT = Math.ceil(((HEADER + LONGEST_CHAIN * ID + SIGNATURE) * 4) / 3)

export const newAuditId = (): string => randomBytes(ID).toString('base64url')

const sign = (key: Uint8Array, payload: Uint8Array): Buffer => createHmac('sha256', key).update(payload).digest()

/** Compact and safe in URLs, headers and shell commands. User and project ids are 32 hex digits. */
export function sealToken(key: Uint8Array, claims: Claims): string {
  const payload = Buffer.alloc(HEADER + claims.auditIds.length * ID)
  payload[0] = VERSION
  payload[1] = METHODS.reduce((bits, method, index) => bits | (claims.methods.includes(method) ? 1 << index : 0), 0)
  payload[2] = SCOPES.indexOf(claims.scope.kind)
  payload.write(claims.userId, 3, 'hex')
  if (claims.scope.kind === 'project') payload.write(claims.scope.projectId, 19, 'hex')
  payload.writeUInt32BE(claims.epoch, 35)
  payload.writeUIntBE(claims.issuedAt, 39, 6)
  payload.writeUIntBE(claims.expiresAt, 45, 6)
  claims.auditIds.forEach((id, index) => {
    payload.write(id, HEADER + index * ID, 'base64url')
  })
  return Buffer.concat([payload, sign(key, payload)]).toString('base64url')
}

/** `undefined` for anything that was not sealed with this key. Says nothing about expiry or revocation. */
export function openToken(key: Uint8Array, text: string): Claims | undefined {
  if (text.length > LONGEST_TEXT) return undefined
  const bytes = Buffer.from(text, 'base64url')
  if (bytes.length < HEADER + ID + SIGNATURE || bytes[0] !== VERSION) return undefined
  const payload = bytes.subarray(0, -SIGNATURE)
  if (!timingSafeEqual(sign(key, payload), bytes.subarray(-SIGNATURE))) return undefined
  const auditIds: string[] = []
  for (let at = HEADER; at < payload.length; at += ID) auditIds.push(payload.toString('base64url', at, at + ID))
  return {
    userId: payload.toString('hex', 3, 19) as UserId,
    scope: readScope(payload),
    methods: METHODS.filter((_, index) => ((payload[1] ?? 0) >> index) & 1),
    epoch: payload.readUInt32BE(35),
    issuedAt: payload.readUIntBE(39, 6),
    expiresAt: payload.readUIntBE(45, 6),
    auditIds: auditIds as [string, ...string[]],
  }
}

function readScope(payload: Buffer): Scope {
  const kind = SCOPES[payload[2] ?? 0] ?? 'unscoped'
  return kind === 'project' ? { kind, projectId: payload.toString('hex', 19, 35) as ProjectId } : { kind }
}
