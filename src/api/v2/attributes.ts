import { ServiceError } from '../../domain/errors.ts'
import type { ImageAttributes } from '../../domain/image.ts'

/** What clients may set, by its name on the wire. */
export const WRITABLE = {
  name: 'name',
  owner: 'owner',
  visibility: 'visibility',
  protected: 'protected',
  os_hidden: 'hidden',
  min_ram: 'minRam',
  min_disk: 'minDisk',
  disk_format: 'diskFormat',
  container_format: 'containerFormat',
} as const satisfies Record<string, keyof ImageAttributes>
export type WritableName = keyof typeof WRITABLE
export const isWritable = (name: string): name is WritableName => Object.hasOwn(WRITABLE, name)

/** What the service alone sets. */
export const READ_ONLY: ReadonlySet<string> = new Set([
  'created_at',
  'updated_at',
  'status',
  'checksum',
  'size',
  'virtual_size',
  'direct_url',
  'self',
  'file',
  'schema',
  'id',
  'os_hash_algo',
  'os_hash_value',
  'stores',
])
const RESERVED: ReadonlySet<string> = new Set(['location', 'deleted', 'deleted_at'])
const RESERVED_PREFIX = 'os_glance'
const MAX_INT32 = 2 ** 31 - 1

export const reservedError = (name: string) => new ServiceError('forbidden', `Attribute '${name}' is reserved.`)
export const readOnlyError = (name: string) => new ServiceError('forbidden', `Attribute '${name}' is read-only.`)

/** Throws `forbidden` for names that no client may use. */
export function admitName(name: string): void {
  if (RESERVED.has(name) || name.startsWith(RESERVED_PREFIX)) {
    throw reservedError(name)
  }
}

/** Throws `invalid` for amounts that the database cannot hold (signed 32 bit) or that make no sense. */
export function admitAmount(name: string, value: unknown): void {
  if ((name !== 'min_ram' && name !== 'min_disk') || typeof value !== 'number') return
  if (value < 0) {
    throw new ServiceError('invalid', `Invalid value '${value}' for parameter '${name}': Cannot be a negative value`)
  }
  if (value > MAX_INT32) {
    throw new ServiceError('invalid', `'${name}' value out of range, must not exceed ${MAX_INT32}.`)
  }
}

export const attribute = (name: WritableName, value: unknown): Partial<ImageAttributes> => ({ [WRITABLE[name]]: value })
