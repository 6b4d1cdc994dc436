import { at, type Failure, type Finding, failIf, isZero, last, type Piece, type Probe, startsWith } from './probe.ts'

const SECTOR = 512
/** qemu reads no more of a descriptor that is a file of its own. */
const TEXT_MAX = (1 << 20) - 1
const EMBEDDED_MAX = 64 * 1024
const WINDOW = 16 * 1024
const CREATE_TYPE = /createtype="([^"\n]{1,63})"/i
const CREATE_TYPE_MAX = 'createtype=""'.length + 63
/** Those that are one file, which names no other. */
const SINGLE_FILE_TYPES: readonly string[] = ['monolithicsparse', 'streamoptimized']

/** Virtual Disk Format 5.0 (VMware, 2011). */
export function* vmdk(): Probe {
  const header = yield at(0, SECTOR)
  return startsWith(header.bytes, 'KDMV') ? yield* sparse(header) : yield* text(header)
}

/** A sparse extent, with its descriptor embedded. */
function* sparse(head: Piece): Probe {
  const header = sparseHeader(head.bytes)
  const finding = {
    virtualSize: header.capacity * BigInt(SECTOR),
    failures: [
      ...failDescriptor(!head.complete, 'The data ends within its header'),
      ...failDescriptor(header.version < 1 || header.version > 3, `vmdk version ${header.version} is not supported`),
      // With no capacity of its own, the file is only a descriptor: what it names would be opened.
      ...failDescriptor(header.capacity === 0n, 'The header states no capacity'),
      ...failDescriptor(header.descriptorSector !== 1n, 'The descriptor is not where it should be'),
    ],
  }
  if (finding.failures.length > 0) return finding

  const length = Math.min(Number(header.descriptorSectors) * SECTOR, EMBEDDED_MAX)
  const descriptor = checkDescriptor(yield at(SECTOR, length))
  const footer = header.tablesAtEnd ? checkFooter(header, yield last(3 * SECTOR)) : []
  return { ...finding, ...descriptor, failures: [...descriptor.failures, ...footer] }
}

const failDescriptor = (failed: boolean, reason: string): readonly Failure[] => failIf(failed, 'descriptor', reason)

interface SparseHeader {
  readonly magic: string
  readonly version: number
  readonly capacity: bigint
  readonly descriptorSector: bigint
  readonly descriptorSectors: bigint
  /** The grain directory comes last, and so does the header that counts. */
  readonly tablesAtEnd: boolean
}

const sparseHeader = (bytes: Buffer): SparseHeader => ({
  magic: bytes.toString('latin1', 0, 4),
  version: bytes.readUInt32LE(4),
  capacity: bytes.readBigUInt64LE(12),
  descriptorSector: bytes.readBigUInt64LE(28),
  descriptorSectors: bytes.readBigUInt64LE(36),
  tablesAtEnd: bytes.readBigUInt64LE(56) === 0xffff_ffff_ffff_ffffn,
})

function checkDescriptor({ bytes, complete }: Piece): Pick<Finding, 'subformat' | 'failures'> {
  const end = bytes.indexOf(0)
  if (end === -1 || !complete) return { failures: failDescriptor(true, 'The descriptor does not end') }
  const descriptor = bytes.toString('latin1', 0, end)
  const type = CREATE_TYPE.exec(descriptor)?.[1]
  return {
    ...(type === undefined ? {} : { subformat: type }),
    failures: descriptorFaults(descriptor.toLowerCase(), type?.toLowerCase()).map((reason) => ({
      check: 'descriptor',
      reason,
    })),
  }
}

/** Everything in a descriptor must be understood: what one reader overlooks, another follows. */
function descriptorFaults(descriptor: string, type: string | undefined): readonly string[] {
  const lines = descriptor.split('\n').map((line) => line.trim())
  const extents = lines.filter(isExtent)
  return [
    ...(/[^\x01-\x7f]/.test(descriptor) ? ['The descriptor is not ASCII text'] : []),
    ...(type !== undefined && SINGLE_FILE_TYPES.includes(type) ? [] : ['The subformat is not supported']),
    // Readers differ about case and about comments.
    ...(descriptor.split('createtype').length > 2 ? ['The descriptor names several subformats'] : []),
    ...(descriptor.includes('parentfilenamehint') ? ['The image has a parent'] : []),
    ...(lines.every((line) => isExtent(line) || isHarmless(line)) ? [] : ['The descriptor has unknown lines']),
    ...(extents.length === 0 ? ['The descriptor has no extents'] : []),
    ...(extents.some((line) => line.includes('/')) ? ['An extent is in another directory'] : []),
  ]
}

const isExtent = (line: string) => /^(?:rw|rdonly|noaccess)(?: |$)/.test(line)

/** Empty, a comment, an entry of the disk database, or `name=value`. */
const isHarmless = (line: string) => line === '' || /^(?:#|ddb|[^ =]*=)/.test(line)

const FOOTER = 3
const END_OF_STREAM = 0

/** The last three sectors of a streamOptimized file: footer marker, footer, end-of-stream marker. */
function checkFooter(header: SparseHeader, { bytes, complete }: Piece): readonly Failure[] {
  const footer = sparseHeader(bytes.subarray(SECTOR))
  const fail = (failed: boolean, reason: string) => failIf(failed, 'footer', reason)
  if (!complete) return fail(true, 'The footer is missing')
  return [
    ...fail(footer.magic !== header.magic, 'Header and footer differ in their signature'),
    ...fail(footer.version !== header.version, 'Header and footer differ in their version'),
    ...fail(footer.capacity !== header.capacity, 'Header and footer differ in their capacity'),
    ...fail(
      footer.descriptorSector !== header.descriptorSector || footer.descriptorSectors !== header.descriptorSectors,
      'Header and footer differ in their descriptor',
    ),
    ...fail(footer.tablesAtEnd, 'The footer points to another footer'),
    ...fail(!isMarker(bytes.subarray(0, SECTOR), FOOTER), 'The footer marker is invalid'),
    ...fail(
      !isMarker(bytes.subarray(2 * SECTOR), END_OF_STREAM) || bytes.readBigUInt64LE(2 * SECTOR) !== 0n,
      'The end-of-stream marker is invalid',
    ),
  ]
}

const isMarker = (sector: Buffer, type: number): boolean =>
  sector.readUInt32LE(8) === 0 && sector.readUInt32LE(12) === type && isZero(sector.subarray(16))

/** A descriptor that is a file of its own. Its extents are other files, which an image cannot bring along. */
function* text(head: Piece): Probe {
  let window = head.bytes
  let searched = 0
  let carried = ''
  if (!isText(beforeNul(window))) return undefined
  for (;;) {
    const part = beforeNul(window)
    // What an expression may have begun to match at the end of one window goes on in the next.
    const found = CREATE_TYPE.exec(carried + part.toString('latin1'))
    if (found?.[1] !== undefined) return textDescriptor(found[1])
    carried = (carried + part.toString('latin1')).slice(-CREATE_TYPE_MAX)
    searched += window.length
    if (part.length < window.length || searched >= TEXT_MAX) return undefined
    window = (yield at(searched, Math.min(WINDOW, TEXT_MAX - searched))).bytes
  }
}

const textDescriptor = (subformat: string): Finding => ({
  virtualSize: undefined,
  subformat,
  failures: failDescriptor(true, 'The image is only a descriptor of other files'),
})

const beforeNul = (bytes: Buffer): Buffer => {
  const end = bytes.indexOf(0)
  return end === -1 ? bytes : bytes.subarray(0, end)
}

/** Nothing below a space but white space. */
const isText = (bytes: Buffer): boolean =>
  bytes.length > 0 && bytes.every((byte) => (byte >= 0x20 && byte !== 0x7f) || (byte >= 0x09 && byte <= 0x0d))
