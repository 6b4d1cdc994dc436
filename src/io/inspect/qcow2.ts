import { at, failIf, failIfCut, type Probe, startsWith } from './probe.ts'

const DATA_FILE = 1n << 2n
/** Dirty, corrupt, external data file (which has a check of its own), compression type. */
const KNOWN_FEATURES = 0b1111n

/** https://gitlab.com/qemu-project/qemu/-/blob/master/docs/interop/qcow2.rst */
export function* qcow2(): Probe {
  const header = yield at(0, 512)
  const { bytes } = header
  if (!startsWith(bytes, 'QFI\xfb')) return undefined
  const version = bytes.readUInt32BE(4)
  // Version 2 has no feature bits: its header ends where they would begin.
  const features = version === 3 ? bytes.readBigUInt64BE(72) : 0n
  return {
    virtualSize: bytes.readBigUInt64BE(24),
    failures: [
      ...failIfCut(header),
      ...failIf(bytes.readBigUInt64BE(8) !== 0n, 'backing_file', 'The image has a backing file'),
      ...failIf((features & DATA_FILE) !== 0n, 'data_file', 'The image keeps its data in another file'),
      ...failIf(version !== 2 && version !== 3, 'unknown_features', `qcow2 version ${version} is not supported`),
      ...failIf((features & ~KNOWN_FEATURES) !== 0n, 'unknown_features', 'The image needs features that are not known'),
    ],
  }
}

/** https://gitlab.com/qemu-project/qemu/-/blob/master/docs/interop/qed_spec.rst */
export function* qed(): Probe {
  const { bytes } = yield at(0, 512)
  if (!startsWith(bytes, 'QED\0')) return undefined
  return {
    virtualSize: bytes.readBigUInt64LE(48),
    failures: [{ check: 'banned', reason: 'qed images are not allowed' }],
  }
}
