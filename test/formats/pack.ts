import { crc32, deflateRawSync } from 'node:zlib'

export interface ZipMember {
  readonly name: string
  readonly data: Buffer
  readonly stored?: boolean
  readonly flags?: number
  /** What the archive says is the size of the data, when it is not. */
  readonly said?: number
}

/** A zip archive as the format's description has it: local headers, data, the directory. */
export function zip(members: readonly ZipMember[], { crc = (data: Buffer) => crc32(data) } = {}): Buffer {
  const locals: Buffer[] = []
  const directory: Buffer[] = []
  for (const { name, data, stored = false, flags = 0, said = data.length } of members) {
    const packed = stored ? data : deflateRawSync(data)
    const facts = Buffer.alloc(22)
    facts.writeUInt16LE(flags, 0)
    facts.writeUInt16LE(stored ? 0 : 8, 2)
    facts.writeUInt32LE(crc(data), 8)
    facts.writeUInt32LE(packed.length, 12)
    facts.writeUInt32LE(said, 16)
    facts.writeUInt16LE(name.length, 20)
    const offset = Buffer.alloc(16)
    offset.writeUInt32LE(
      locals.reduce((sum, { length }) => sum + length, 0),
      12,
    )
    directory.push(Buffer.from('PK\x01\x02\x14\0\x14\0', 'latin1'), facts, offset, Buffer.from(name))
    locals.push(Buffer.from('PK\x03\x04\x14\0', 'latin1'), facts, Buffer.alloc(2), Buffer.from(name), packed)
  }
  const [body, index] = [Buffer.concat(locals), Buffer.concat(directory)]
  const end = Buffer.alloc(22)
  end.write('PK\x05\x06', 'latin1')
  end.writeUInt16LE(members.length, 8)
  end.writeUInt16LE(members.length, 10)
  end.writeUInt32LE(index.length, 12)
  end.writeUInt32LE(body.length, 16)
  return Buffer.concat([body, index, end])
}

/** An LHA archive whose members are stored (-lh0-), with headers of level 0. */
export function lha(members: Readonly<Record<string, Buffer>>): Buffer {
  const packed = Object.entries(members).map(([name, data]) => {
    const header = Buffer.alloc(24 + name.length)
    header[0] = header.length - 2
    header.write('-lh0-', 2, 'latin1')
    header.writeUInt32LE(data.length, 7)
    header.writeUInt32LE(data.length, 11)
    header.writeUInt32LE(0x5a21_0000, 15)
    header[19] = 0x20
    header[21] = name.length
    header.write(name, 22, 'latin1')
    header.writeUInt16LE(crc16(data), 22 + name.length)
    header[1] = header.subarray(2).reduce((sum, byte) => (sum + byte) & 0xff, 0)
    return Buffer.concat([header, data])
  })
  return Buffer.concat([...packed, Buffer.alloc(1)])
}

function crc16(data: Buffer): number {
  let crc = 0
  for (const byte of data) {
    crc ^= byte
    for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >> 1) ^ 0xa001 : crc >> 1
  }
  return crc
}
