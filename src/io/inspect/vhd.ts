import { at, type Failure, type Finding, failIf, failIfCut, last, type Piece, type Probe, startsWith } from './probe.ts'

const KIB = 1024

const VHD_TYPES: Readonly<Record<number, string>> = { 2: 'fixed', 3: 'dynamic', 4: 'differencing' }

/**
 * Virtual Hard Disk Image Format Specification (Microsoft, 2006). A dynamic disk begins with a copy of its footer.
 * A fixed one is the bare content of the disk followed by the footer.
 */
export function* vhd(): Probe {
  const header = yield at(0, 512)
  if (startsWith(header.bytes, 'conectix')) return vhdFooter(header)
  const footer = yield last(512)
  return startsWith(footer.bytes, 'conectix') && vhdType(footer.bytes) === 'fixed' ? vhdFooter(footer) : undefined
}

const vhdType = (footer: Buffer) => VHD_TYPES[footer.readUInt32BE(60)]

function vhdFooter(footer: Piece): Finding {
  const type = vhdType(footer.bytes)
  return {
    // The current size. The original one, eight bytes before, stays what it was when the disk is resized.
    virtualSize: footer.bytes.readBigUInt64BE(48),
    ...(type === undefined ? {} : { subformat: type }),
    failures: [
      ...failIfCut(footer),
      ...failIf(type === 'differencing', 'backing_file', 'The image is the difference from another one'),
    ],
  }
}

const REGION_TABLE = 192 * KIB
const TABLE_SIZE = 64 * KIB
const ENTRY_SIZE = 32
const ENTRIES_MAX = 2047

/** As GUIDs are stored: the first three groups are little-endian numbers. */
const guid = (text: string): Buffer => {
  const bytes = Buffer.from(text.replaceAll('-', ''), 'hex')
  bytes.subarray(0, 4).reverse()
  bytes.subarray(4, 6).reverse()
  bytes.subarray(6, 8).reverse()
  return bytes
}
const METADATA_REGION = guid('8B7CA206-4790-4B9A-B8FE-575F050F886E')
const VIRTUAL_DISK_SIZE = guid('2FA54224-CD1B-4876-B211-5DBED83BF4B8')
const PARENT_LOCATOR = guid('A8D35F2D-B30B-454D-ABF7-D3D84834AB0C')

/** [MS-VHDX]: a region table leads to the metadata table, and that to the size. */
export function* vhdx(): Probe {
  const identifier = yield at(0, 8)
  if (!startsWith(identifier.bytes, 'vhdxfile')) return undefined

  const regions = (yield at(REGION_TABLE, TABLE_SIZE)).bytes
  const region = startsWith(regions, 'regi') && entry(regions, 16, regions.readUInt32LE(8), METADATA_REGION)
  if (!region) return lost('The region table names no metadata')
  // Beyond 2^53 this is not exact, and no stream gets there.
  const metadataOffset = Number(region.readBigUInt64LE(16))

  const metadata = (yield at(metadataOffset, TABLE_SIZE)).bytes
  const count = metadata.readUInt16LE(10)
  const item = startsWith(metadata, 'metadata') && entry(metadata, 32, count, VIRTUAL_DISK_SIZE)
  if (!item) return lost('The metadata names no virtual disk size')

  const size = yield at(metadataOffset + item.readUInt32LE(16), 8)
  if (!size.complete) return lost('The virtual disk size is not where the metadata says')
  return {
    virtualSize: size.bytes.readBigUInt64LE(0),
    failures: failIf(
      entry(metadata, 32, count, PARENT_LOCATOR) !== undefined,
      'backing_file',
      'The image is the difference from another one',
    ),
  }
}

/** The entry of a region or metadata table that begins with `id`. */
function entry(table: Buffer, first: number, count: number, id: Buffer): Buffer | undefined {
  for (let index = 0; index < Math.min(count, ENTRIES_MAX); index++) {
    const found = table.subarray(first + index * ENTRY_SIZE, first + (index + 1) * ENTRY_SIZE)
    if (found.subarray(0, id.length).equals(id)) return found
  }
  return undefined
}

const lost = (reason: string): { readonly virtualSize: undefined; readonly failures: readonly Failure[] } => ({
  virtualSize: undefined,
  failures: [{ check: 'metadata', reason }],
})
