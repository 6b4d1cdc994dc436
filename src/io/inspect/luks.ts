import { at, failIf, failIfCut, last, type Probe, startsWith } from './probe.ts'

const SECTOR = 512n

/** LUKS On-Disk Format Specification 1.2.3; version 2 begins alike. */
export function* luks(): Probe {
  const header = yield at(0, 592)
  if (!startsWith(header.bytes, 'LUKS\xba\xbe')) return undefined
  const version = header.bytes.readUInt16BE(6)
  const { seen } = yield last(0)
  const payload = BigInt(seen) - BigInt(header.bytes.readUInt32BE(104)) * SECTOR
  return {
    // Version 2 says where its payload is in JSON further on.
    virtualSize: version === 1 && payload >= 0n ? payload : undefined,
    failures: [...failIfCut(header), ...failIf(version !== 1, 'version', `LUKS version ${version} is not supported`)],
  }
}
