import type { RowContext } from '../../db/rows.ts'
import { type ErrorKind, ServiceError } from '../../domain/errors.ts'

/** Who calls, as Glance's registry saw it. */
export interface HistoricContext {
  readonly rows: RowContext
  readonly readOnly: boolean
  readonly requestId: string
}

export const noSuchResource = (): ServiceError => new ServiceError('not-found', 'The resource could not be found.')

/** Throws `forbidden` for those who may only read. */
export function requireWriter({ readOnly }: HistoricContext): void {
  if (readOnly) throw new ServiceError('forbidden', 'Read-only access')
}

/** An error whose message follows the general words about its kind, as upstream had them for some and not for others. */
export const inDetail = (kind: ErrorKind, message: string, cause?: unknown): ServiceError =>
  new ServiceError(kind, message, { cause, detail: { general: true } })
