/** What went wrong, as a caller would act on it. One closed list for the whole service. */
export type ErrorKind =
  | 'no-data'
  | 'invalid'
  | 'unauthenticated'
  | 'forbidden'
  | 'not-found'
  | 'not-allowed'
  | 'conflict'
  | 'gone'
  | 'too-large'
  | 'unsupported-media-type'
  | 'range-not-satisfiable'
  | 'header-too-large'
  | 'too-many-requests'
  | 'internal'
  | 'bad-gateway'
  | 'unavailable'
  | 'timeout'

export interface ErrorFields {
  readonly cause?: unknown
  /** For the operator's log; a client never sees it. */
  readonly detail?: Readonly<Record<string, unknown>>
  /** Whether the same call may succeed when repeated. */
  readonly transient?: boolean
}

export class ServiceError extends Error {
  override readonly name = 'ServiceError'
  readonly kind: ErrorKind
  readonly detail: Readonly<Record<string, unknown>>
  readonly transient: boolean

  /** `message` is written for the API client. */
  constructor(kind: ErrorKind, message: string, { cause, detail = {}, transient = false }: ErrorFields = {}) {
    super(message, cause === undefined ? undefined : { cause })
    this.kind = kind
    this.detail = detail
    this.transient = transient
  }
}

export const hasKind = (error: unknown, ...kinds: readonly ErrorKind[]): error is ServiceError =>
  error instanceof ServiceError && kinds.includes(error.kind)
