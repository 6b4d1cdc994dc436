import { at, type Failure, failIfCut, last, type Probe } from './probe.ts'

const ISO_MAGICS: readonly string[] = ['CD001', 'NSR02', 'NSR03']
const PRIMARY = 1

/** ECMA-119 (ISO 9660) and ECMA-167 (UDF): sixteen sectors for the system, then volume descriptors. */
export function* iso(): Probe {
  const descriptor = yield at(16 * 2048, 2048)
  const { bytes } = descriptor
  if (!ISO_MAGICS.includes(bytes.toString('latin1', 1, 6))) return undefined
  return {
    virtualSize: bytes[0] === PRIMARY ? BigInt(bytes.readUInt32LE(80)) * BigInt(bytes.readUInt16LE(128)) : undefined,
    failures: failIfCut(descriptor),
  }
}

/** A disk with a partition table, GPT (which begins with a protective MBR) or MBR alone. */
export function* gpt(): Probe {
  const { bytes } = yield at(0, 512)
  if (bytes.readUInt16LE(510) !== 0xaa55 || isFatBootSector(bytes)) return undefined
  const { seen } = yield last(0)
  return {
    virtualSize: BigInt(seen),
    failures: mbrFaults(bytes).map((reason): Failure => ({ check: 'mbr', reason })),
  }
}

/** A FAT file system ends its first sector like an MBR: two FATs, on a fixed disk. */
const isFatBootSector = (sector: Buffer) => sector[0x10] === 2 && sector[0x15] === 0xf8

const PROTECTIVE = 0xee

interface Partition {
  readonly number: number
  readonly flag: number
  readonly firstChs: number
  readonly type: number
  readonly firstSector: number
}

/** UEFI Specification 2.10, 5.2: what an MBR must look like, above all one that stands before a GPT. */
function mbrFaults(sector: Buffer): readonly string[] {
  const partitions = [0, 1, 2, 3].map((number): Partition => {
    const start = 446 + 16 * number
    return {
      number,
      flag: sector.readUInt8(start),
      firstChs: sector.readUIntBE(start + 1, 3),
      type: sector.readUInt8(start + 4),
      firstSector: sector.readUInt32LE(start + 8),
    }
  })
  const used = partitions.filter(({ type }) => type !== 0)
  const faults = partitions
    .filter(({ flag }) => flag !== 0 && flag !== 0x80)
    .map(({ number }) => `Partition ${number} has an invalid boot flag`)
  if (used.length === 0) faults.push('The MBR defines no partitions')
  for (const { number, firstChs, firstSector } of used.filter(({ type }) => type === PROTECTIVE)) {
    if (firstChs !== 0x000200) faults.push(`Protective partition ${number} has an invalid first CHS address`)
    if (firstSector !== 1) faults.push(`Protective partition ${number} does not begin at sector 1`)
    if (number !== 0 || used.length > 1) faults.push('The MBR of a GPT defines other partitions')
  }
  return faults
}
