import { execFile } from 'node:child_process'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { deflateRawSync, gzipSync } from 'node:zlib'
import type { FormatName } from '../../src/io/inspect.ts'
import * as build from './build.ts'

const run = promisify(execFile)

/** Image data, and what a careful reader makes of it. */
export interface Sample {
  readonly name: string
  readonly data: Buffer
  /** The format it counts as; `several` when that cannot be told. */
  readonly is: FormatName | 'several'
  /** What it counts as when it is declared to be that. */
  readonly or?: FormatName
  /** Why it must not be let in as what it is. */
  readonly unsafe?: string
}

type Parts = Omit<Sample, 'name' | 'data' | 'is'>
const sample = (name: string, is: Sample['is'], data: Buffer, parts: Parts = {}): Sample => ({
  name,
  data,
  is,
  ...parts,
})
const unsafe = (name: string, is: Sample['is'], data: Buffer, reason: string): Sample =>
  sample(name, is, data, { unsafe: reason })

const HUGE: readonly bigint[] = [1n << 53n, 1n << 63n, (1n << 64n) - 1n]
const TOO_LARGE = 'a virtual size that is not possible'
const CUT = 'cut within its header'

function qcow2s(): readonly Sample[] {
  const { qcow2, be32, be64, patched } = build
  const feature = (bit: number) => qcow2({ 72: be64(1n << BigInt(bit)) })
  const extension = (type: number, text: string) =>
    patched(qcow2(), { 104: be32(type), 108: be32(text.length), 112: text })
  return [
    sample('qcow2 version 3', 'qcow2', qcow2()),
    sample('qcow2 version 2', 'qcow2', qcow2({ 4: be32(2) })),
    sample('qcow2 version 2 with bits where version 3 has features', 'qcow2', qcow2({ 4: be32(2), 72: be64(8) })),
    ...[0, 1, 4, 256, 0xffff_ffff].map((version) =>
      unsafe(`qcow2 version ${version}`, 'qcow2', qcow2({ 4: be32(version) }), 'a version that is not known'),
    ),
    ...[0, 1, 3].map((bit) => sample(`qcow2 incompatible feature ${bit}`, 'qcow2', feature(bit))),
    unsafe('qcow2 incompatible feature 2', 'qcow2', feature(2), 'its data is in another file'),
    ...[4, 5, 7, 8, 31, 32, 63].map((bit) =>
      unsafe(`qcow2 incompatible feature ${bit}`, 'qcow2', feature(bit), 'a feature that is not known'),
    ),
    unsafe('qcow2 all incompatible features', 'qcow2', qcow2({ 72: be64((1n << 64n) - 1n) }), 'unknown features'),
    sample('qcow2 all compatible features', 'qcow2', qcow2({ 80: be64((1n << 64n) - 1n) })),
    sample('qcow2 all autoclear features', 'qcow2', qcow2({ 88: be64((1n << 64n) - 1n) })),
    unsafe('qcow2 backing file', 'qcow2', qcow2({ 8: be64(512), 16: be32(11), 512: '/etc/passwd' }), 'a backing file'),
    unsafe(
      'qcow2 backing file without a length',
      'qcow2',
      qcow2({ 8: be64(512), 512: '/etc/passwd' }),
      'a backing file',
    ),
    unsafe('qcow2 backing file far away', 'qcow2', qcow2({ 8: be64(1n << 63n), 16: be32(9) }), 'a backing file'),
    sample('qcow2 length of a backing file that is nowhere', 'qcow2', qcow2({ 16: be32(11) })),
    sample('qcow2 extension that names a data file', 'qcow2', extension(0x44415441, '/etc/passwd')),
    sample('qcow2 extension that names a backing format', 'qcow2', extension(0xe2792aca, 'raw')),
    sample('qcow2 encrypted', 'qcow2', qcow2({ 32: be32(1) })),
    sample('qcow2 encrypted with LUKS', 'qcow2', qcow2({ 32: be32(2) })),
    sample('qcow2 odd cluster size', 'qcow2', qcow2({ 20: be32(0xffff_ffff) })),
    sample('qcow2 header length beyond the file', 'qcow2', qcow2({ 100: be32(0x7fff_ffff) })),
    sample('qcow2 virtual size 0', 'qcow2', qcow2({ 24: be64(0) })),
    sample('qcow2 virtual size 2^53 - 1', 'qcow2', qcow2({ 24: be64((1n << 53n) - 1n) })),
    ...HUGE.map((size) => unsafe(`qcow2 virtual size ${size}`, 'qcow2', qcow2({ 24: be64(size) }), TOO_LARGE)),
    unsafe('qed', 'qed', build.qed(), 'a format that is not allowed'),
    unsafe('qed backing file', 'qed', build.qed({ 16: build.le64(1) }), 'a format that is not allowed'),
    unsafe('qed virtual size 2^64 - 1', 'qed', build.qed({ 48: build.le64((1n << 64n) - 1n) }), 'not allowed'),
  ]
}

function virtualPcs(): readonly Sample[] {
  const { vhd, fixedVhd, vhdx, be64, le16, le32, le64, noise, VHDX } = build
  return [
    sample('vhd dynamic', 'vhd', vhd()),
    unsafe('vhd differencing', 'vhd', vhd(4), 'the difference from another file'),
    ...[0, 1, 2, 5, 255].map((type) => sample(`vhd type ${type} with its footer in front`, 'vhd', vhd(type))),
    sample('vhd resized', 'vhd', vhd(3, { 48: be64(20 * build.MIB) })),
    sample('vhd virtual size 0', 'vhd', vhd(3, { 48: be64(0), 40: be64(0) })),
    ...HUGE.map((size) =>
      unsafe(`vhd virtual size ${size}`, 'vhd', vhd(3, { 40: be64(size), 48: be64(size) }), TOO_LARGE),
    ),
    sample('vhd fixed', 'vhd', fixedVhd()),
    sample('vhd fixed without content', 'vhd', fixedVhd(build.zeros(0))),
    sample('vhd fixed with a footer of 511 bytes', 'raw', fixedVhd(noise(4097)).subarray(0, -1)),
    sample('vhd fixed with a byte behind', 'raw', Buffer.concat([fixedVhd(), Buffer.of(0)])),
    sample('vhd footer of a dynamic one behind noise', 'raw', fixedVhd(noise(4096), { 60: build.be32(3) })),
    unsafe('vhd fixed virtual size 2^64 - 1', 'vhd', fixedVhd(noise(4096), { 48: be64((1n << 64n) - 1n) }), TOO_LARGE),
    sample('vhdx', 'vhdx', vhdx()),
    sample('vhdx virtual size 0', 'vhdx', vhdx({ [VHDX.size]: le64(0) })),
    ...HUGE.map((size) => unsafe(`vhdx virtual size ${size}`, 'vhdx', vhdx({ [VHDX.size]: le64(size) }), TOO_LARGE)),
    unsafe('vhdx no region table', 'vhdx', vhdx({ [VHDX.regions]: le32(0) }), 'no metadata'),
    unsafe('vhdx no regions', 'vhdx', vhdx({ [VHDX.regions + 8]: le32(0) }), 'no metadata'),
    sample('vhdx 2047 regions', 'vhdx', vhdx({ [VHDX.regions + 8]: le32(2047) })),
    sample('vhdx 2^32 - 1 regions', 'vhdx', vhdx({ [VHDX.regions + 8]: le32(0xffff_ffff) })),
    unsafe('vhdx other region', 'vhdx', vhdx({ [VHDX.regions + 16]: noise(16) }), 'no metadata'),
    unsafe('vhdx metadata beyond the file', 'vhdx', vhdx({ [VHDX.regions + 32]: le64(1n << 62n) }), 'no metadata'),
    unsafe('vhdx metadata before the region table', 'vhdx', vhdx({ [VHDX.regions + 32]: le64(0) }), 'no metadata'),
    unsafe('vhdx metadata without signature', 'vhdx', vhdx({ [VHDX.metadata]: le32(0) }), 'no metadata'),
    unsafe('vhdx no metadata items', 'vhdx', vhdx({ [VHDX.metadata + 10]: le16(0) }), 'no virtual size'),
    sample('vhdx 65535 metadata items', 'vhdx', vhdx({ [VHDX.metadata + 10]: le16(0xffff) })),
    unsafe('vhdx size beyond the file', 'vhdx', vhdx({ [VHDX.metadata + 48]: le32(0xffff_ff00) }), 'no virtual size'),
    unsafe('vhdx size within the table', 'vhdx', vhdx({ [VHDX.metadata + 48]: le32(0) }), 'no virtual size'),
    sample('vhdx size of 4 bytes', 'vhdx', vhdx({ [VHDX.metadata + 52]: le32(4) })),
    unsafe(
      'vhdx parent',
      'vhdx',
      vhdx({ [VHDX.metadata + 10]: le16(2), [VHDX.metadata + 64]: VHDX.parentItem }),
      'the difference from another file',
    ),
  ]
}

const VMDK_TYPES: readonly string[] = [
  ...['monolithicFlat', 'twoGbMaxExtentSparse', 'twoGbMaxExtentFlat', 'vmfs', 'vmfsSparse', 'vmfsThin', 'vmfsRaw'],
  ...['vmfsRawDeviceMap', 'vmfsPassthroughRawDeviceMap', 'fullDevice', 'partitionedDevice', 'seSparse', 'custom'],
  ...['vmfsEagerZeroedThick', 'vmfsPreallocated', '2GbMaxExtentSparse', '', 'x'.repeat(64)],
]
const EXTENTS: Readonly<Record<string, string>> = {
  'an absolute path': 'RW 20480 FLAT "/etc/passwd" 0',
  'a path upwards': 'RW 20480 SPARSE "../../disk.vmdk"',
  'a device': 'RW 20480 FLAT "/dev/sda" 0',
  'a protocol': 'RW 20480 FLAT "nbd://127.0.0.1/x" 0',
  'a path, read-only': 'RDONLY 20480 FLAT "/etc/passwd" 0',
  'a path, no access': 'NOACCESS 20480 FLAT "/etc/passwd" 0',
  'a path, in small letters': 'rw 20480 flat "/etc/passwd" 0',
  'a path behind a tabulator': 'RW\t20480\tFLAT\t"/etc/passwd" 0',
}

function vmdks(): readonly Sample[] {
  const {
    vmdk,
    streamVmdk,
    vmdkHeader,
    descriptor,
    createType,
    le32,
    le64,
    zeros,
    patched,
    DESCRIPTOR,
    FOOTER_MARKER,
  } = build
  const extent = (line: string) => vmdk(descriptor({ RW: line }))
  const header = (changes: build.Changes) => vmdk(DESCRIPTOR, vmdkHeader(changes))
  const refused = (name: string, data: Buffer, reason: string) => unsafe(`vmdk ${name}`, 'vmdk', data, reason)
  const text = (lines: readonly string[]) => Buffer.from(lines.join('\n'))
  const FILES = 'only a descriptor of other files'
  return [
    sample('vmdk monolithicSparse', 'vmdk', vmdk()),
    sample('vmdk streamOptimized', 'vmdk', streamVmdk()),
    sample('vmdk MONOLITHICSPARSE', 'vmdk', vmdk(createType('MONOLITHICSPARSE'))),
    sample('vmdk streamOptimized with its tables in front', 'vmdk', vmdk(createType('streamOptimized'))),
    ...VMDK_TYPES.map((type) => refused(`createType "${type}"`, vmdk(createType(type)), 'not a single file')),
    refused('no createType', vmdk(descriptor({ createType: [] })), 'of no type'),
    refused(
      'two createTypes',
      vmdk(descriptor({ createType: ['createType="monolithicSparse"', 'createType="monolithicFlat"'] })),
      'of two types',
    ),
    refused(
      'createType in a comment first',
      vmdk(['# createType="monolithicSparse"', ...createType('monolithicFlat')]),
      'of two types',
    ),
    ...Object.entries(EXTENTS).map(([name, line]) =>
      refused(`extent with ${name}`, extent(line), 'names another file'),
    ),
    sample('vmdk extent with a Windows path', 'vmdk', extent('RW 20480 FLAT "C:\\secret.txt" 0')),
    sample('vmdk extent with json', 'vmdk', extent('RW 20480 FLAT "json:{}" 0')),
    sample('vmdk extent of zeros', 'vmdk', extent('RW 20480 ZERO')),
    sample('vmdk two extents', 'vmdk', vmdk(descriptor({ RW: ['RW 1 SPARSE "a.vmdk"', 'RW 1 SPARSE "b.vmdk"'] }))),
    refused('no extents', vmdk(descriptor({ RW: [] })), 'no extents'),
    refused('unknown line', vmdk([...DESCRIPTOR, 'INCLUDE "x"']), 'a line that is not known'),
    refused('parent', vmdk([...DESCRIPTOR, 'parentFileNameHint="/etc/passwd"']), 'a parent'),
    sample('vmdk other parentCID', 'vmdk', vmdk(descriptor({ parentCID: 'parentCID=00000001' }))),
    refused('descriptor that is not ASCII', vmdk([...DESCRIPTOR, '# \xfc']), 'not ASCII'),
    sample('vmdk with CR LF', 'vmdk', vmdk(DESCRIPTOR.map((line) => `${line}\r`))),
    refused('empty descriptor', vmdk([]), 'no descriptor'),
    refused('descriptor that does not end', vmdk([...DESCRIPTOR, `#${'x'.repeat(20 * 512)}`]), 'no end'),
    sample('vmdk version 2', 'vmdk', header({ 4: le32(2) })),
    sample('vmdk version 3', 'vmdk', header({ 4: le32(3) })),
    ...[0, 4, 0xffff_ffff].map((version) => refused(`version ${version}`, header({ 4: le32(version) }), 'not known')),
    refused('capacity 0', header({ 12: le64(0) }), 'readers follow the descriptor'),
    ...HUGE.map((size) => refused(`capacity ${size / 512n}`, header({ 12: le64(size / 512n) }), TOO_LARGE)).slice(0, 2),
    refused('capacity 2^64 - 1', header({ 12: le64((1n << 64n) - 1n) }), TOO_LARGE),
    ...[0n, 2n, 1n << 60n].map((sector) =>
      refused(`descriptor in sector ${sector}`, header({ 28: le64(sector) }), 'lost'),
    ),
    refused('descriptor of no sectors', header({ 36: le64(0) }), 'no descriptor'),
    sample('vmdk descriptor of 2^55 sectors', 'vmdk', header({ 36: le64(1n << 55n) }).subarray(0), {
      unsafe: 'the data ends before it',
    }),
    refused('footer missing', vmdk(createType('streamOptimized'), vmdkHeader({ 56: le64(build.AT_END) })), 'no footer'),
    refused('footer without marker', streamVmdk({ marker: zeros(512) }), 'no footer marker'),
    refused('footer of another type', streamVmdk({ marker: patched(FOOTER_MARKER, { 12: le32(2) }) }), 'a marker'),
    refused('footer without signature', streamVmdk({ footer: vmdkHeader({ 0: 'XXXX' }) }), 'not as its header'),
    refused('footer of another version', streamVmdk({ footer: vmdkHeader({ 4: le32(2) }) }), 'not as its header'),
    refused('footer of another capacity', streamVmdk({ footer: vmdkHeader({ 12: le64(1) }) }), 'not as its header'),
    refused('footer with another descriptor', streamVmdk({ footer: vmdkHeader({ 28: le64(2) }) }), 'not as its header'),
    refused('footer with another footer', streamVmdk({ footer: vmdkHeader({ 56: le64(build.AT_END) }) }), 'endless'),
    refused('end of stream that is none', streamVmdk({ end: build.noise(512) }), 'no end'),
    ...['monolithicSparse', 'monolithicFlat', 'vmfs', 'fullDevice'].map((type) =>
      refused(`descriptor file of ${type}`, text(createType(type)), FILES),
    ),
    refused('descriptor file of 700 KiB', text([...createType('vmfs'), `#${'x'.repeat(700 * 1024)}`]), FILES),
    refused('descriptor file with createType late', text([`#${'x'.repeat(700 * 1024)}`, ...createType('vmfs')]), FILES),
    sample('vmdk descriptor file without createType', 'raw', text(descriptor({ createType: [] }))),
    sample('vmdk of version 3, COWD', 'raw', patched(zeros(1024), { 0: 'COWD', 4: le32(1) })),
  ]
}

function others(): readonly Sample[] {
  const { vdi, iso, gpt, luks, le16, le32, le64, be32, zeros, noise, patched, PROTECTIVE } = build
  const badDisk = (name: string, ...partitions: readonly build.Partition[]) =>
    unsafe(`gpt ${name}`, 'gpt', gpt(...partitions), 'an MBR that is not as it should be')
  return [
    sample('vdi', 'vdi', vdi()),
    ...[0, 2, 3, 4, 99].map((type) => sample(`vdi type ${type}`, 'vdi', vdi({ 76: le32(type) }))),
    sample('vdi version 0', 'vdi', vdi({ 68: le32(0) })),
    sample('vdi parent', 'vdi', vdi({ [0x1a8]: noise(16) })),
    sample('vdi virtual size 0', 'vdi', vdi({ [0x170]: le64(0) })),
    ...HUGE.map((size) => unsafe(`vdi virtual size ${size}`, 'vdi', vdi({ [0x170]: le64(size) }), TOO_LARGE)),
    sample('vdi without its first line', 'vdi', patched(vdi(), { 0: zeros(64) })),
    sample('iso', 'iso', iso()),
    ...[0, 2, 3, 255].map((type) => sample(`iso descriptor of type ${type}`, 'iso', iso({ 32768: type }))),
    sample('iso NSR02', 'iso', iso({ 32769: 'NSR02' })),
    sample('iso NSR03', 'iso', iso({ 32769: 'NSR03' })),
    sample('iso BEA01', 'raw', iso({ 32769: 'BEA01' })),
    sample('iso of no sectors', 'iso', iso({ [32_768 + 80]: le32(0) })),
    sample('iso of 2^32 - 1 sectors', 'iso', iso({ [32_768 + 80]: le32(0xffff_ffff), [32_768 + 128]: le16(0xffff) })),
    sample('gpt', 'gpt', gpt()),
    sample('mbr with a boot partition', 'gpt', gpt({ flag: 0x80, type: 0x83, first: 2048 })),
    sample('mbr with four partitions', 'gpt', gpt({ type: 1 }, { type: 2 }, { type: 3 }, { type: 4 })),
    unsafe('mbr without partitions', 'gpt', patched(zeros(4096), { 510: Buffer.of(0x55, 0xaa) }), 'no partitions'),
    badDisk('boot flag 1', { ...PROTECTIVE, flag: 1 }),
    badDisk('boot flag 0x7f in the fourth', { type: 1 }, { type: 1 }, { type: 1 }, { type: 1, flag: 0x7f }),
    badDisk('protective at another address', { ...PROTECTIVE, chs: Buffer.of(0, 1, 0) }),
    badDisk('protective at sector 0', { ...PROTECTIVE, first: 0 }),
    badDisk('protective at sector 2', { ...PROTECTIVE, first: 2 }),
    badDisk('protective is not alone', PROTECTIVE, { type: 0x83, first: 2048 }),
    badDisk('protective is the second', { type: 0x83, first: 2048 }, PROTECTIVE),
    badDisk('protective is the second, alone', { type: 0 }, PROTECTIVE),
    sample('gpt without MBR', 'raw', patched(zeros(4096), { 512: 'EFI PART' })),
    sample('FAT boot sector', 'raw', patched(gpt(), { 16: 2, 21: 0xf8 })),
    unsafe(
      'FAT boot sector of a floppy',
      'gpt',
      patched(zeros(4096), { 16: 2, 21: 0xf0, 510: Buffer.of(0x55, 0xaa) }),
      'no partitions',
    ),
    sample('luks version 1', 'luks', luks()),
    unsafe('luks version 0', 'luks', luks(0), 'a version that is not known'),
    unsafe('luks version 2', 'luks', luks(2), 'a version that is not known'),
    unsafe('luks version 255', 'luks', luks(255), 'a version that is not known'),
    sample('luks payload beyond the file', 'luks', luks(1, { 104: be32(0xffff_ffff) })),
    sample('luks payload at 0', 'luks', luks(1, { 104: be32(0) })),
    sample('luks header of version 2 that is a copy', 'raw', luks(2, { 0: 'SKUL\xba\xbe' })),
    sample('nothing', 'raw', zeros(0)),
    sample('one zero', 'raw', zeros(1)),
    sample('zeros', 'raw', zeros(65_536)),
    sample('noise', 'raw', noise(65_536)),
    sample('text', 'raw', Buffer.from('Nothing to see here.\n')),
    sample('HTML', 'raw', Buffer.from('<!doctype html><title>404</title>\n')),
    sample('shell script', 'raw', Buffer.from('#!/bin/sh\nexit 0\n')),
    sample('parallels', 'raw', patched(zeros(4096), { 0: 'WithoutFreeSpace' })),
    sample('dmg', 'raw', Buffer.concat([zeros(4096), patched(zeros(512), { 0: 'koly' })])),
    sample('squashfs', 'raw', patched(zeros(4096), { 0: 'hsqs' })),
    sample('ELF', 'raw', patched(zeros(4096), { 0: '\x7fELF' })),
    sample('qcow2 behind a byte', 'raw', Buffer.concat([Buffer.of(0), build.qcow2()])),
    ...bombs(),
  ]
}

/** Small data that unpacks to much: to whoever does not unpack it, it is raw. */
export function bombs(): readonly Sample[] {
  const zeros = gzipSync(Buffer.alloc(64 * build.MIB), { level: 9 })
  const nested = gzipSync(zeros, { level: 9 })
  return [
    sample('gzip bomb', 'raw', zeros),
    sample('gzip bomb within gzip', 'raw', nested),
    sample(
      'gzip of 20 members',
      'raw',
      Buffer.concat(Array.from({ length: 20 }, () => gzipSync(Buffer.alloc(build.MIB)))),
    ),
    sample('gzip cut', 'raw', zeros.subarray(0, 1000)),
    sample('gzip with a wrong sum', 'raw', build.patched(zeros, { [zeros.length - 8]: Buffer.of(1, 2, 3, 4) })),
    sample('zip bomb', 'raw', zip('disk.raw', 64 * build.MIB)),
    sample('zip of a file upwards', 'raw', zip('../../etc/passwd', 10)),
  ]
}

/** An archive of one file of zeros. */
function zip(name: string, size: number): Buffer {
  const { le16, le32 } = build
  const packed = deflateRawSync(Buffer.alloc(size), { level: 9 })
  const common = Buffer.concat([
    ...[le16(20), le16(0), le16(8), le32(0), le32(0), le32(packed.length), le32(size)],
    ...[le16(name.length), le16(0)],
  ])
  const local = Buffer.concat([Buffer.from('PK\x03\x04'), common, Buffer.from(name), packed])
  const central = Buffer.concat([Buffer.from('PK\x01\x02'), le16(20), common, build.zeros(14), Buffer.from(name)])
  const end = [le16(0), le16(0), le16(1), le16(1), le32(central.length), le32(local.length), le16(0)]
  return Buffer.concat([local, central, Buffer.from('PK\x05\x06'), ...end])
}

/** Where in the data each format is recognised: those of one place exclude each other. */
const HEADS = {
  qcow2: build.qcow2(),
  qed: build.qed(),
  vhd: build.vhd(),
  vhdx: build.vhdx(),
  vmdk: build.vmdk(),
  luks: build.luks(),
}
const OVERLAYS = { vdi: build.vdi({ 0: build.zeros(64) }), gpt: build.gpt(), iso: build.iso() }

/** Pairs of which one is refused by itself: what is laid over it changes its header or its descriptor. */
const UNSAFE_PARTS: readonly string[] = ['qcow2 + vdi', 'qed + ', 'vmdk + gpt', 'vmdk descriptor file + ']

/** Data that is of two formats at once, wherever two can be. */
function polyglots(): readonly Sample[] {
  const pairs: Sample[] = []
  const add = (a: string, b: string, data: Buffer, parts: Partial<Sample> = {}) => {
    const name = `${a} + ${b}`
    const reason = UNSAFE_PARTS.some((part) => name.startsWith(part)) ? { unsafe: 'not safe as one of them' } : {}
    pairs.push({ name, data, is: 'several', ...reason, ...parts })
  }
  const withFooter = (data: Buffer) => build.fixedVhd(data)
  for (const [head, data] of Object.entries(HEADS)) {
    for (const [name, above] of Object.entries(OVERLAYS)) add(head, name, build.overlaid(data, above))
    // A footer of a vhd counts only where there is no other one in front.
    if (head !== 'vhd') add(head, 'fixed vhd', withFooter(data))
  }
  const { vdi, gpt, iso } = OVERLAYS
  const MBR = { is: 'iso' } as const
  add('vdi', 'gpt', build.overlaid(vdi, gpt))
  add('vdi', 'iso', build.overlaid(vdi, iso))
  add('vdi', 'fixed vhd', withFooter(vdi))
  add('iso', 'gpt', build.overlaid(iso, gpt), MBR)
  add('iso', 'mbr without partitions', build.patched(iso, { 510: Buffer.of(0x55, 0xaa) }), MBR)
  add('iso', 'fixed vhd', withFooter(iso))
  add('gpt', 'fixed vhd', withFooter(gpt), { is: 'gpt', or: 'vhd' })
  add('iso + gpt', 'fixed vhd', withFooter(build.overlaid(iso, gpt)))
  add('iso + gpt', 'qcow2', build.overlaid(build.overlaid(iso, gpt), HEADS.qcow2))
  add('iso + gpt', 'vdi', build.overlaid(build.overlaid(iso, gpt), vdi))
  add(
    'vmdk descriptor file',
    'iso',
    build.overlaid(build.patched(Buffer.alloc(40 * 2048, '#'), { 0: `${build.createType('vmfs').join('\n')}\n` }), iso),
  )
  add(
    'vmdk descriptor file',
    'fixed vhd',
    withFooter(Buffer.concat([Buffer.from(build.createType('vmfs').join('\n')), build.zeros(4096)])),
  )
  return pairs
}

/** How many bytes it takes to recognise each, and how many its reader wants to see. */
const HEADERS: Readonly<
  Record<string, readonly [data: Buffer, magic: number, needed: number, lengths: readonly number[]]>
> = {
  qcow2: [build.qcow2(), 4, 512, [1, 3, 4, 8, 31, 32, 71, 72, 80, 103, 104, 511, 512, 513]],
  vhd: [build.vhd(), 8, 512, [7, 8, 47, 48, 56, 63, 64, 511, 512, 513]],
  vhdx: [
    build.vhdx(),
    8,
    build.VHDX.size + 8,
    [7, 8, 31, 32, 512, 196_608, 196_612, 262_143, 262_144, 262_176, 327_679, 327_680, 327_687, 327_688],
  ],
  vmdk: [build.vmdk(), 4, 21 * 512, [3, 4, 16, 63, 64, 511, 512, 513, 1024, 21 * 512 - 1, 21 * 512]],
  vdi: [build.vdi({ 0: build.zeros(64) }), 68, 512, [67, 68, 0x16f, 0x170, 0x178, 511, 512]],
  iso: [build.iso(), 32_774, 34_816, [32_768, 32_773, 32_774, 32_848, 32_898, 34_815, 34_816]],
  luks: [build.luks(), 6, 592, [5, 6, 8, 104, 112, 591, 592, 4096]],
  gpt: [build.gpt(), 512, 512, [446, 511, 512, 513]],
}

const truncated = (): readonly Sample[] =>
  Object.entries(HEADERS).flatMap(([format, [data, magic, needed, lengths]]) =>
    lengths.map((length): Sample => {
      const is = length < magic ? 'raw' : (format as FormatName)
      const cut = length >= magic && length < needed
      return { name: `${format} cut to ${length}`, data: data.subarray(0, length), is, ...(cut ? { unsafe: CUT } : {}) }
    }),
  )

/** Images of qemu-img: format, options, and what becomes of the name of another file among them. */
const QEMU: readonly (readonly [name: string, is: FormatName, args: readonly string[], unsafe?: string])[] = [
  ['raw', 'raw', ['-f', 'raw']],
  ['qcow2 3', 'qcow2', ['-f', 'qcow2']],
  ['qcow2 2', 'qcow2', ['-f', 'qcow2', '-o', 'compat=0.10']],
  ['qcow2 lazy', 'qcow2', ['-f', 'qcow2', '-o', 'lazy_refcounts=on']],
  ['qcow2 zstd', 'qcow2', ['-f', 'qcow2', '-o', 'compression_type=zstd']],
  ['qcow2 small clusters', 'qcow2', ['-f', 'qcow2', '-o', 'cluster_size=512']],
  ['qcow2 preallocated', 'qcow2', ['-f', 'qcow2', '-o', 'preallocation=metadata,cluster_size=4096']],
  ['qcow2 extended_l2', 'qcow2', ['-f', 'qcow2', '-o', 'extended_l2=on'], 'a feature that is not known'],
  ['qcow2 data file', 'qcow2', ['-f', 'qcow2', '-o', 'data_file=other.raw'], 'its data is in another file'],
  ['qcow2 raw data file', 'qcow2', ['-f', 'qcow2', '-o', 'data_file=other.raw,data_file_raw=on'], 'another file'],
  ['qcow2 backing file', 'qcow2', ['-f', 'qcow2', '-b', 'base.raw', '-F', 'raw'], 'a backing file'],
  ['qed', 'qed', ['-f', 'qed'], 'a format that is not allowed'],
  ['qed backing file', 'qed', ['-f', 'qed', '-b', 'base.raw', '-F', 'raw'], 'a format that is not allowed'],
  ['vmdk sparse', 'vmdk', ['-f', 'vmdk']],
  ['vmdk stream', 'vmdk', ['-f', 'vmdk', '-o', 'subformat=streamOptimized']],
  ['vmdk flat', 'vmdk', ['-f', 'vmdk', '-o', 'subformat=monolithicFlat'], 'only a descriptor of other files'],
  ['vmdk in parts', 'vmdk', ['-f', 'vmdk', '-o', 'subformat=twoGbMaxExtentSparse'], 'only a descriptor'],
  ['vmdk in flat parts', 'vmdk', ['-f', 'vmdk', '-o', 'subformat=twoGbMaxExtentFlat'], 'only a descriptor'],
  ['vmdk backing file', 'vmdk', ['-f', 'vmdk', '-b', 'base.vmdk', '-F', 'vmdk'], 'a parent'],
  ['vhd dynamic', 'vhd', ['-f', 'vpc']],
  ['vhd fixed', 'vhd', ['-f', 'vpc', '-o', 'subformat=fixed']],
  ['vhdx', 'vhdx', ['-f', 'vhdx', '-o', 'log_size=1M,block_size=1M']],
  ['vdi', 'vdi', ['-f', 'vdi']],
  ['vdi static', 'vdi', ['-f', 'vdi', '-o', 'static=on']],
  ['parallels', 'raw', ['-f', 'parallels']],
]

/** Throws where there is no qemu-img. */
async function fromQemu(): Promise<readonly Sample[]> {
  const cwd = await mkdtemp(join(tmpdir(), 'formats-'))
  try {
    await writeFile(join(cwd, 'base.raw'), Buffer.alloc(64 * 1024))
    await run('qemu-img', ['create', '-q', '-f', 'vmdk', 'base.vmdk', '64K'], { cwd })
    const samples: Sample[] = []
    for (const [index, [name, is, args, reason]] of QEMU.entries()) {
      const file = `image${index}`
      await run('qemu-img', ['create', '-q', ...args, file, '64K'], { cwd })
      const data = await readFile(join(cwd, file))
      samples.push({ name: `qemu-img: ${name}`, data, is, ...(reason === undefined ? {} : { unsafe: reason }) })
    }
    return samples
  } finally {
    await rm(cwd, { recursive: true })
  }
}

/** Every sample; their names are unique. Needs qemu-img. */
export async function corpus(): Promise<readonly Sample[]> {
  const all = [
    ...(await fromQemu()),
    ...qcow2s(),
    ...virtualPcs(),
    ...vmdks(),
    ...others(),
    ...polyglots(),
    ...truncated(),
  ]
  const names = new Set(all.map(({ name }) => name))
  if (names.size !== all.length) throw new Error(`the names of samples repeat: ${all.length - names.size}`)
  return all
}

const INSPECTABLE: ReadonlySet<string> = new Set(['qcow2', 'vhd', 'vhdx', 'vmdk', 'vdi', 'iso'])

/** What must become of the upload of a sample as `declared` (docs/formats.md). */
export function expectedStatus({ is, or, unsafe: reason }: Sample, declared: string, requireMatch: boolean): 204 | 415 {
  const counts = or === declared ? or : is
  const fits =
    counts !== 'several' &&
    (counts === declared || declared === 'raw' || (counts === 'raw' && !INSPECTABLE.has(declared)))
  if (!fits && requireMatch) return 415
  // What does not fit is not looked at, unless it may be several things.
  return reason === undefined || (!fits && counts !== 'several') ? 204 : 415
}
