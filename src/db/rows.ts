import { type ErrorKind, ServiceError } from '../domain/errors.ts'

/** On whose behalf rows are read and written. Admins see deleted rows too. */
export interface RowContext {
  readonly admin: boolean
  readonly owner: string | null
}

/** A time as a column has it, to the microsecond, in UTC. */
export class Timestamp {
  /** As Python's `isoformat()` prints it: no zone, and no fraction of zero. */
  readonly iso: string

  /** From what a database prints, or ISO 8601 without a zone. */
  constructor(text: string) {
    const [, seconds = text, fraction = ''] = /^(.{19})(?:\.(\d+))?/.exec(text) ?? []
    const micros = fraction.slice(0, 6).padEnd(6, '0')
    this.iso = seconds.replace(' ', 'T') + (Number(micros) === 0 ? '' : `.${micros}`)
  }

  toJSON(): string {
    return this.iso
  }
}

/** By the names of columns; flags are booleans, times `Timestamp`s, JSON is parsed. */
export type Row = Readonly<Record<string, unknown>>
/** Arguments by the names that Glance's database drivers gave them; times are `Timestamp`s. */
export type Arguments = Readonly<Record<string, unknown>>

/**
 * The database as the drivers of Glance showed it until Ussuri (glance/db/sqlalchemy/api.py): commands that read and
 * write rows. Each is one atomic unit. Errors carry the name of Glance's exception in `detail.exception`.
 */
export interface RowDatabase {
  has(command: string): boolean
  /** Throws `invalid` for arguments that the command does not have. */
  run(command: string, context: RowContext, args: Arguments): Promise<unknown>
}

/** Glance's exceptions, and what they mean here. */
const EXCEPTIONS = {
  NotFound: 'not-found',
  ImageNotFound: 'not-found',
  TaskNotFound: 'not-found',
  MetadefNamespaceNotFound: 'not-found',
  MetadefObjectNotFound: 'not-found',
  MetadefPropertyNotFound: 'not-found',
  MetadefTagNotFound: 'not-found',
  MetadefResourceTypeNotFound: 'not-found',
  MetadefResourceTypeAssociationNotFound: 'not-found',
  Forbidden: 'forbidden',
  ForbiddenPublicImage: 'forbidden',
  MetadefForbidden: 'forbidden',
  ProtectedMetadefResourceTypeSystemDelete: 'forbidden',
  Duplicate: 'conflict',
  Conflict: 'conflict',
  MetadefDuplicateNamespace: 'conflict',
  MetadefDuplicateObject: 'conflict',
  MetadefDuplicateProperty: 'conflict',
  MetadefDuplicateTag: 'conflict',
  MetadefDuplicateResourceType: 'conflict',
  MetadefDuplicateResourceTypeAssociation: 'conflict',
  MetadefIntegrityError: 'conflict',
  Invalid: 'invalid',
  InvalidSortKey: 'invalid',
  InvalidFilterRangeValue: 'invalid',
  InvalidFilterOperatorValue: 'invalid',
  InvalidParameterValue: 'invalid',
} as const satisfies Record<string, ErrorKind>
export type Exception = keyof typeof EXCEPTIONS

export const raised = (exception: Exception, message: string): ServiceError =>
  new ServiceError(EXCEPTIONS[exception], message, { detail: { exception } })

/** Glance's exception for an error; undefined for one that Glance has no word for. */
export const exceptionOf = (error: ServiceError): Exception | undefined => {
  const { exception } = error.detail
  if (typeof exception === 'string' && Object.hasOwn(EXCEPTIONS, exception)) return exception as Exception
  return ({ invalid: 'Invalid', conflict: 'Duplicate', 'not-found': 'NotFound', forbidden: 'Forbidden' } as const)[
    error.kind as 'invalid'
  ]
}
