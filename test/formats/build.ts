/** Disk images made byte by byte: no larger than what makes them what they are. */

export const MIB = 1 << 20
export const SECTOR = 512

/** What to write where: text is Latin-1, a number one byte. */
export type Changes = Readonly<Record<number, Buffer | string | number>>

/** A copy of `data` with changes by their offset; it grows where they reach beyond its end. */
export function patched(data: Buffer, changes: Changes): Buffer {
  const pieces = Object.entries(changes).map(([offset, change]) => {
    const bytes = typeof change === 'number' ? Buffer.of(change) : Buffer.from(change as string, 'latin1')
    return { offset: Number(offset), bytes: Buffer.isBuffer(change) ? change : bytes }
  })
  const copy = Buffer.alloc(Math.max(data.length, ...pieces.map(({ offset, bytes }) => offset + bytes.length)))
  data.copy(copy)
  for (const { offset, bytes } of pieces) bytes.copy(copy, offset)
  return copy
}

export const zeros = (length: number): Buffer => Buffer.alloc(length)

const number = (value: number | bigint, bytes: number): Buffer =>
  Buffer.from(
    BigInt(value)
      .toString(16)
      .padStart(bytes * 2, '0'),
    'hex',
  )
export const be32 = (value: number): Buffer => number(value, 4)
export const be64 = (value: number | bigint): Buffer => number(value, 8)
export const le16 = (value: number): Buffer => number(value, 2).reverse()
export const le32 = (value: number): Buffer => number(value, 4).reverse()
export const le64 = (value: number | bigint): Buffer => number(value, 8).reverse()

/** Bytes of no pattern, the same each time (a linear congruential generator). */
export function noise(length: number, seed = 1): Buffer {
  const bytes = Buffer.alloc(length)
  let state = seed
  for (let index = 0; index < length; index++) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    bytes[index] = state >>> 24
  }
  return bytes
}

/** Version 3, one cluster of 64 KiB for the header. */
export const qcow2 = (changes: Changes = {}): Buffer =>
  patched(zeros(1024), {
    0: 'QFI\xfb',
    4: be32(3),
    20: be32(16),
    24: be64(10 * MIB),
    40: be64(3 * 65_536),
    48: be64(65_536),
    56: be32(1),
    96: be32(4),
    100: be32(104),
    ...changes,
  })

export const qed = (changes: Changes = {}): Buffer =>
  patched(zeros(1024), { 0: 'QED\0', 4: le32(65_536), 8: le32(4), 12: le32(1), 48: le64(10 * MIB), ...changes })

const footer = (type: number, changes: Changes): Buffer =>
  patched(zeros(SECTOR), {
    0: 'conectix',
    8: be32(2),
    12: be32(0x10000),
    16: be64(type === 2 ? 0xffff_ffff_ffff_ffffn : 512n),
    28: 'qem2',
    40: be64(10 * MIB),
    48: be64(10 * MIB),
    60: be32(type),
    ...changes,
  })

/** Begins with a copy of its footer, as the types with a block table do. */
export const vhd = (type = 3, changes: Changes = {}): Buffer =>
  Buffer.concat([footer(type, changes), patched(zeros(1024), { 0: 'cxsparse' }), zeros(SECTOR), footer(type, changes)])

/** `content`, and the footer behind it. */
export const fixedVhd = (content: Buffer = noise(4096), changes: Changes = {}): Buffer =>
  Buffer.concat([content, footer(2, changes)])

const KIB = 1024
const guid = (text: string): Buffer => {
  const bytes = Buffer.from(text.replaceAll('-', ''), 'hex')
  return Buffer.concat([
    bytes.subarray(0, 4).reverse(),
    bytes.subarray(4, 6).reverse(),
    bytes.subarray(6, 8).reverse(),
    bytes.subarray(8),
  ])
}
export const VHDX = {
  regions: 192 * KIB,
  metadata: 256 * KIB,
  size: 320 * KIB,
  metadataRegion: guid('8B7CA206-4790-4B9A-B8FE-575F050F886E'),
  sizeItem: guid('2FA54224-CD1B-4876-B211-5DBED83BF4B8'),
  parentItem: guid('A8D35F2D-B30B-454D-ABF7-D3D84834AB0C'),
}

/** One region, the metadata at 256 KiB; one item, the virtual size 64 KiB further on. */
export const vhdx = (changes: Changes = {}): Buffer =>
  patched(zeros(VHDX.size + SECTOR), {
    0: 'vhdxfile',
    [VHDX.regions]: 'regi',
    [VHDX.regions + 8]: le32(1),
    [VHDX.regions + 16]: VHDX.metadataRegion,
    [VHDX.regions + 32]: le64(VHDX.metadata),
    [VHDX.regions + 40]: le32(MIB),
    [VHDX.metadata]: 'metadata',
    [VHDX.metadata + 10]: le16(1),
    [VHDX.metadata + 32]: VHDX.sizeItem,
    [VHDX.metadata + 48]: le32(VHDX.size - VHDX.metadata),
    [VHDX.metadata + 52]: le32(8),
    [VHDX.size]: le64(10 * MIB),
    ...changes,
  })

export const DESCRIPTOR: readonly string[] = [
  '# Disk DescriptorFile',
  'version=1',
  'CID=12345678',
  'parentCID=ffffffff',
  'createType="monolithicSparse"',
  '',
  '# Extent description',
  'RW 20480 SPARSE "disk.vmdk"',
  '',
  'ddb.virtualHWVersion = "4"',
  'ddb.adapterType = "ide"',
  '',
]

/** The usual descriptor with lines that begin as given replaced by others. */
export const descriptor = (replaced: Readonly<Record<string, string | readonly string[]>> = {}): readonly string[] =>
  DESCRIPTOR.flatMap((line) => {
    const key = Object.keys(replaced).find((start) => line.startsWith(start))
    return key === undefined ? line : (replaced[key] ?? [])
  })

export const createType = (type: string): readonly string[] => descriptor({ createType: `createType="${type}"` })

export const AT_END = 0xffff_ffff_ffff_ffffn
export const vmdkHeader = (changes: Changes = {}): Buffer =>
  patched(zeros(SECTOR), {
    0: 'KDMV',
    4: le32(1),
    8: le32(3),
    12: le64(20_480),
    20: le64(128),
    28: le64(1),
    36: le64(20),
    44: le32(512),
    56: le64(26),
    73: '\n \r\n',
    ...changes,
  })

export const vmdk = (lines: readonly string[] = DESCRIPTOR, header = vmdkHeader()): Buffer =>
  Buffer.concat([header, patched(zeros(20 * SECTOR), { 0: lines.join('\n') }), zeros(4096)])

export interface StreamParts {
  readonly marker?: Buffer
  readonly footer?: Buffer
  readonly end?: Buffer
}
export const FOOTER_MARKER = patched(zeros(SECTOR), { 0: 1, 12: le32(3) })
/** A header that says the true one comes last, and the last three sectors. */
export const streamVmdk = ({ marker = FOOTER_MARKER, footer = vmdkHeader(), end = zeros(SECTOR) }: StreamParts = {}) =>
  Buffer.concat([vmdk(createType('streamOptimized'), vmdkHeader({ 56: le64(AT_END) })), marker, footer, end])

export const vdi = (changes: Changes = {}): Buffer =>
  patched(zeros(2048), {
    0: '<<< Oracle VM VirtualBox Disk Image >>>\n',
    64: le32(0xbeda107f),
    68: le32(0x10001),
    72: le32(400),
    76: le32(1),
    [0x170]: le64(10 * MIB),
    ...changes,
  })

/** Sixteen sectors for the system, one descriptor of 300 sectors of 2048 bytes. */
export const iso = (changes: Changes = {}): Buffer =>
  patched(zeros(18 * 2048), {
    32768: 1,
    32769: 'CD001\x01',
    [32_768 + 80]: le32(300),
    [32_768 + 128]: le16(2048),
    ...changes,
  })

export interface Partition {
  readonly flag?: number
  readonly chs?: Buffer
  readonly type: number
  readonly first?: number
}
const partition = ({ flag = 0, chs = Buffer.of(0, 2, 0), type, first = 1 }: Partition): Buffer =>
  Buffer.concat([Buffer.of(flag), chs, Buffer.of(type, 0xff, 0xff, 0xff), le32(first), le32(100)])
export const PROTECTIVE: Partition = { type: 0xee }

export const mbr = (...partitions: readonly Partition[]): Changes => ({
  446: Buffer.concat(partitions.map(partition)),
  510: Buffer.of(0x55, 0xaa),
})
/** A disk with a partition table in front of a GPT. */
export const gpt = (...partitions: readonly Partition[]): Buffer =>
  patched(zeros(4096), { ...mbr(...(partitions.length > 0 ? partitions : [PROTECTIVE])), 512: 'EFI PART' })

export const luks = (version = 1, changes: Changes = {}): Buffer =>
  patched(zeros(8192), {
    0: 'LUKS\xba\xbe',
    6: Buffer.of(0, version),
    8: 'aes',
    40: 'xts-plain64',
    72: 'sha256',
    104: be32(8),
    108: be32(64),
    ...changes,
  })

/** Writes over `below` whatever of `above` is not zero. */
export function overlaid(below: Buffer, above: Buffer): Buffer {
  const bytes = Buffer.alloc(Math.max(below.length, above.length))
  below.copy(bytes)
  for (const [offset, byte] of above.entries()) if (byte !== 0) bytes[offset] = byte
  return bytes
}
