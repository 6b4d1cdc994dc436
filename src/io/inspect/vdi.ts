import { at, failIfCut, type Probe } from './probe.ts'

/** VirtualBox; https://gitlab.com/qemu-project/qemu/-/blob/master/block/vdi.c describes the header. */
export function* vdi(): Probe {
  const header = yield at(0, 512)
  if (header.bytes.readUInt32LE(0x40) !== 0xbeda107f) return undefined
  return { virtualSize: header.bytes.readBigUInt64LE(0x170), failures: failIfCut(header) }
}
