import { ServiceError } from '../domain/errors.ts'

/** What the owner of an import hears when the disk of the staging area is full. */
export const noRoom = (cause?: unknown) =>
  new ServiceError('too-large', 'There is no room left for the data of imports', { cause })

/** Rethrows an error of the file system as what it means to the owner of an import. */
export function rethrowFull(error: NodeJS.ErrnoException): never {
  throw ['ENOSPC', 'EDQUOT', 'EFBIG'].includes(error.code ?? '') ? noRoom(error) : error
}
