import assert from 'node:assert/strict'
import { execFileSync, spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import fc from 'fast-check'
import { hasKind, type ServiceError } from '../domain/errors.ts'
import { type FormatName, type Inspection, inspector, type JudgeOptions, judge, type Match } from './inspect.ts'

const MIB = 1 << 20

/** Inspects `data` in chunks of the lengths given (again and again), each of them spoilt after its call. */
function inspect(data: Buffer, lengths: readonly number[] = [65_536]): Inspection {
  const { update, end } = inspector()
  const chunk = Buffer.alloc(Math.max(...lengths))
  for (let start = 0, turn = 0; start < data.length; turn++) {
    const length = data.copy(chunk, 0, start, start + (lengths[turn % lengths.length] ?? 1))
    update(chunk.subarray(0, length))
    chunk.fill(0xee, 0, length)
    start += length
  }
  return end()
}

const only = (data: Buffer): Match => {
  const { matches } = inspect(data)
  assert.equal(matches.length, 1, `one match, not ${matches.map(({ format }) => format)}`)
  return matches[0] as Match
}
const formats = (data: Buffer): readonly FormatName[] => inspect(data).matches.map(({ format }) => format)
const checks = (data: Buffer): readonly string[] => only(data).failures.map(({ check }) => check)

/** A copy of `data` with changes: bytes by their offset, a number standing for one byte. */
function patched(data: Buffer, changes: Readonly<Record<number, Buffer | string | number>>): Buffer {
  const copy = Buffer.from(data)
  for (const [offset, change] of Object.entries(changes)) {
    if (typeof change === 'number') copy[Number(offset)] = change
    else if (typeof change === 'string') copy.write(change, Number(offset), 'latin1')
    else change.copy(copy, Number(offset))
  }
  return copy
}

/** Tries again where the machine counts CPU time too coarsely for qemu-img, which measures how long a key takes. */
function measured(make: () => void, tries = 50): void {
  try {
    make()
  } catch (error) {
    if (tries === 1 || !String(error).includes('Unable to get accurate CPU usage')) throw error
    measured(make, tries - 1)
  }
}

const u16le = (value: number) => Buffer.of(value & 0xff, value >> 8)
const u32le = (value: number) => Buffer.concat([u16le(value & 0xffff), u16le(value >>> 16)])
const u32be = (value: number) => u32le(value).reverse()
const u64be = (value: bigint) => Buffer.from(value.toString(16).padStart(16, '0'), 'hex')
const u64le = (value: bigint) => u64be(value).reverse()

const qcow2 = (size = 10n * BigInt(MIB)) =>
  patched(Buffer.alloc(1024), { 0: 'QFI\xfb', 4: u32be(3), 24: u64be(size), 100: u32be(104) })

interface PartitionFields {
  readonly flag?: number
  readonly chs?: Buffer
  readonly type: number
  readonly sector?: number
}
const partition = ({ flag = 0, chs = Buffer.of(0, 2, 0), type, sector = 1 }: PartitionFields) =>
  Buffer.concat([Buffer.of(flag), chs, Buffer.of(type, 0, 0, 0), u32le(sector), u32le(100)])
const disk = (...partitions: readonly PartitionFields[]) =>
  patched(Buffer.alloc(4096), { 446: Buffer.concat(partitions.map(partition)), 510: Buffer.of(0x55, 0xaa) })
const PROTECTIVE: PartitionFields = { type: 0xee }

const iso = (magic = 'CD001', type = 1) =>
  patched(Buffer.alloc(40 * 2048), {
    32768: type,
    32769: magic,
    [32_768 + 80]: u32le(300),
    [32_768 + 128]: u16le(2048),
  })

const luks = (version: number) =>
  patched(Buffer.alloc(8192), { 0: 'LUKS\xba\xbe', 6: Buffer.of(0, version), 104: u32be(8) })

const DESCRIPTOR = [
  '# Disk DescriptorFile',
  'version=1',
  'parentCID=ffffffff',
  'createType="monolithicSparse"',
  'RW 10240 SPARSE "disk.vmdk"',
  'ddb.adapterType = "ide"',
  '',
]
const AT_END = 0xffff_ffff_ffff_ffffn
const vmdkHeader = (capacity = 10_240n, directory = 26n) =>
  patched(Buffer.alloc(512), {
    0: 'KDMV',
    4: u32le(1),
    12: u64le(capacity),
    28: u64le(1n),
    36: u64le(20n),
    56: u64le(directory),
  })
const vmdk = (lines: readonly string[] = DESCRIPTOR, header = vmdkHeader()) =>
  Buffer.concat([header, patched(Buffer.alloc(20 * 512), { 0: lines.join('\n') }), Buffer.alloc(4096)])
const streamOptimized = (footer = vmdkHeader()) =>
  Buffer.concat([
    vmdk(
      DESCRIPTOR.map((line) => line.replace('monolithicSparse', 'streamOptimized')),
      vmdkHeader(10_240n, AT_END),
    ),
    patched(Buffer.alloc(512), { 0: 1, 12: u32le(3) }),
    footer,
    Buffer.alloc(512),
  ])
const descriptorWith = (...lines: readonly string[]) => vmdk([...DESCRIPTOR, ...lines])
const descriptorWithout = (start: string) => vmdk(DESCRIPTOR.filter((line) => !line.startsWith(start)))

const vhdFooter = (type: number) =>
  patched(Buffer.alloc(512), { 0: 'conectix', 40: u64be(8_388_608n), 48: u64be(10_485_760n), 60: u32be(type) })
const fixedVhd = (content: Buffer) => Buffer.concat([content, vhdFooter(2)])

describe('inspector() with images made by qemu-img', () => {
  const missing = spawnSync('qemu-img', ['--version']).status !== 0 && 'qemu-img is not installed'
  const skip = process.env['CI'] === 'true' ? false : missing
  let directory: string
  before(() => {
    directory = mkdtempSync(join(tmpdir(), 'inspect-'))
    const content = Buffer.alloc(3 * MIB)
    for (let offset = 0; offset < content.length; offset += 256)
      content.writeUInt32LE((offset * 2_654_435_761) >>> 0, offset)
    writeFileSync(join(directory, 'source'), content)
  })
  after(() => rmSync(directory, { recursive: true }))

  const SECRET = ['--object', 'secret,id=key,data=secret']
  interface Made {
    readonly format: FormatName
    readonly qemu: string
    readonly options?: string
    readonly subformat?: string
    readonly failed?: readonly string[]
    readonly sizeUnknown?: boolean
    readonly secret?: boolean
    /** Whether qemu-img has to be told the format, because it does not find out. */
    readonly told?: boolean
  }
  const DESCRIPTOR_ONLY = { failed: ['descriptor'], sizeUnknown: true }
  const images: readonly Made[] = [
    { format: 'raw', qemu: 'raw' },
    { format: 'qcow2', qemu: 'qcow2' },
    { format: 'qcow2', qemu: 'qcow2', options: 'compat=0.10' },
    { format: 'qcow2', qemu: 'qcow2', options: 'compression_type=zstd,cluster_size=4k' },
    { format: 'qcow2', qemu: 'qcow2', options: 'lazy_refcounts=on,preallocation=metadata' },
    { format: 'qcow2', qemu: 'qcow2', options: 'extended_l2=on', failed: ['unknown_features'] },
    { format: 'qcow2', qemu: 'qcow2', options: 'data_file=data', failed: ['data_file'] },
    { format: 'qcow2', qemu: 'qcow2', options: 'backing_file=source,backing_fmt=raw', failed: ['backing_file'] },
    {
      format: 'qcow2',
      qemu: 'qcow2',
      options: 'compat=0.10,backing_file=source,backing_fmt=raw',
      failed: ['backing_file'],
    },
    { format: 'qed', qemu: 'qed', failed: ['banned'] },
    { format: 'vhd', qemu: 'vpc', subformat: 'dynamic' },
    { format: 'vhd', qemu: 'vpc', options: 'force_size=on', subformat: 'dynamic' },
    { format: 'vhd', qemu: 'vpc', options: 'subformat=fixed', subformat: 'fixed', told: true },
    { format: 'vhd', qemu: 'vpc', options: 'subformat=fixed,force_size=on', subformat: 'fixed', told: true },
    { format: 'vhdx', qemu: 'vhdx' },
    { format: 'vhdx', qemu: 'vhdx', options: 'subformat=fixed' },
    { format: 'vhdx', qemu: 'vhdx', options: 'log_size=4M,block_size=2M' },
    { format: 'vmdk', qemu: 'vmdk', subformat: 'monolithicSparse' },
    { format: 'vmdk', qemu: 'vmdk', options: 'subformat=streamOptimized', subformat: 'streamOptimized' },
    ...['monolithicFlat', 'twoGbMaxExtentSparse', 'twoGbMaxExtentFlat'].map(
      (subformat): Made => ({
        format: 'vmdk',
        qemu: 'vmdk',
        options: `subformat=${subformat}`,
        subformat,
        ...DESCRIPTOR_ONLY,
      }),
    ),
    { format: 'vdi', qemu: 'vdi' },
    { format: 'vdi', qemu: 'vdi', options: 'static=on' },
    { format: 'luks', qemu: 'luks', options: 'key-secret=key,iter-time=10', secret: true },
  ]

  for (const made of images) {
    const { format, qemu, options } = made
    for (const way of ['create', 'convert'] as const) {
      // An image backed by the data says its size, not the data; a key takes qemu-img seconds to derive.
      if (way === 'convert' && (options?.includes('backing_file') || made.secret)) continue
      const name = `${qemu}${options === undefined ? '' : ` with ${options}`}`
      it(`${way} ${name}: format, virtual size and checks are those of qemu-img info`, { skip }, () => {
        const qemuImg = (...args: readonly string[]) =>
          execFileSync('qemu-img', args, { cwd: directory, encoding: 'utf8' })
        const extra = [...(made.secret ? SECRET : []), ...(options === undefined ? [] : ['-o', options])]
        if (way === 'create') measured(() => qemuImg('create', '-q', '-f', qemu, ...extra, 'image', '3M'))
        else qemuImg('convert', '-O', qemu, ...extra, 'source', 'image')

        const info = JSON.parse(qemuImg('info', '--output=json', ...(made.told ? ['-f', qemu] : []), 'image')) as {
          readonly format: string
          readonly 'virtual-size': number
        }
        const data = readFileSync(join(directory, 'image'))
        const match = only(data)
        assert.equal(info.format, qemu)
        assert.equal(match.format, format)
        assert.equal(match.subformat, made.subformat)
        assert.equal(match.virtualSize, made.sizeUnknown ? undefined : info['virtual-size'])
        assert.deepEqual([...new Set(match.failures.map(({ check }) => check))], made.failed ?? [])
        assert.deepEqual(inspect(data, [512]), { matches: [match] }, 'chunks of 512 bytes')
        assert.deepEqual(inspect(data, [1, 70_000, 3]), { matches: [match] }, 'uneven chunks')
        if (data.length < 400_000) assert.deepEqual(inspect(data, [1]), { matches: [match] }, 'single bytes')
      })
    }
  }

  it('a vmdk with a parent fails', { skip }, () => {
    const qemuImg = (...args: readonly string[]) => execFileSync('qemu-img', args, { cwd: directory })
    qemuImg('create', '-q', '-f', 'vmdk', 'parent.vmdk', '3M')
    qemuImg('create', '-q', '-f', 'vmdk', '-o', 'backing_file=parent.vmdk,backing_fmt=vmdk', 'child.vmdk')
    assert.deepEqual(only(readFileSync(join(directory, 'child.vmdk'))).failures, [
      { check: 'descriptor', reason: 'The image has a parent' },
    ])
  })
})

describe('inspector()', () => {
  it('says the same however the data is cut', () => {
    const samples: readonly Buffer[] = [
      Buffer.alloc(0),
      Buffer.alloc(10),
      qcow2(),
      qcow2().subarray(0, 300),
      disk(PROTECTIVE),
      iso(),
      patched(iso(), { 0: disk(PROTECTIVE).subarray(0, 512) }),
      luks(1),
      vmdk(),
      streamOptimized(),
      vhdFooter(3),
      fixedVhd(disk({ type: 0x83 })),
      Buffer.from(`${'# much to say\n'.repeat(5000)}createType="vmfs"\n`),
    ]
    const cuts = fc.array(fc.oneof(fc.integer({ min: 1, max: 600 }), fc.integer({ min: 1, max: 40_000 })), {
      minLength: 1,
      maxLength: 20,
    })
    fc.assert(
      fc.property(fc.constantFrom(...samples), cuts, (data, lengths) => {
        assert.deepEqual(inspect(data, lengths), inspect(data, [Math.max(1, data.length)]))
      }),
    )
  })

  it('says raw of what it does not know, and of nothing', () => {
    for (const size of [0, 1, 511, 512, 100_000]) {
      assert.deepEqual(inspect(Buffer.alloc(size, 'x')).matches, [{ format: 'raw', virtualSize: size, failures: [] }])
    }
  })

  it('never throws, whatever is behind a known beginning', () => {
    const starts = ['QFI\xfb', 'QED\0', 'conectix', 'vhdxfile', 'KDMV', 'LUKS\xba\xbe', '# Disk DescriptorFile\n', '']
    const start = fc.constantFrom(...starts).map((text) => Buffer.from(text, 'latin1'))
    fc.assert(
      fc.property(start, fc.uint8Array({ maxLength: 2000 }), (magic, rest) => {
        assert.ok(inspect(Buffer.concat([magic, rest]), [700]).matches.length > 0)
      }),
    )
  })

  it('keeps little memory, however large the data and whatever it announces', () => {
    const { update, end } = inspector()
    const before = process.memoryUsage().arrayBuffers
    update(patched(vmdkHeader(), { 36: u64le(1n << 40n) }))
    const chunk = Buffer.alloc(MIB, 'a')
    for (let round = 0; round < 256; round++) update(chunk)
    assert.ok(process.memoryUsage().arrayBuffers - before - chunk.length < 300_000)
    assert.equal(end().matches[0]?.format, 'vmdk')
  })

  it('has no virtual size for more bytes than can be counted, and says so', () => {
    for (const data of [qcow2(1n << 53n), qcow2(AT_END), vmdk(DESCRIPTOR, vmdkHeader(1n << 63n))]) {
      assert.equal(only(data).virtualSize, undefined)
      assert.deepEqual(checks(data), ['virtual_size'])
    }
    assert.equal(only(qcow2((1n << 53n) - 1n)).virtualSize, Number.MAX_SAFE_INTEGER)
  })

  it('lets a header fail that the data does not bring to its end', () => {
    const cut = { qcow2: [qcow2(), 300], vhd: [vhdFooter(3), 100], iso: [iso(), 33_000], luks: [luks(1), 100] } as const
    for (const [format, [data, length]] of Object.entries(cut)) {
      const match = only(data.subarray(0, length))
      assert.equal(match.format, format)
      assert.deepEqual(
        match.failures.map(({ check }) => check),
        ['header'],
      )
    }
  })
})

describe('qcow2', () => {
  it('of versions 2 and 3 passes, of others it does not', () => {
    assert.deepEqual(checks(qcow2()), [])
    assert.deepEqual(checks(patched(qcow2(), { 7: 2 })), [])
    for (const version of [0, 1, 4]) assert.deepEqual(checks(patched(qcow2(), { 7: version })), ['unknown_features'])
  })

  it('passes with the incompatible features that are known, and with no other', () => {
    assert.deepEqual(checks(patched(qcow2(), { 79: 0b1011 })), [])
    assert.deepEqual(checks(patched(qcow2(), { 79: 0b0100 })), ['data_file'])
    for (let bit = 4n; bit < 64n; bit++) {
      assert.deepEqual(checks(patched(qcow2(), { 72: u64be(1n << bit) })), ['unknown_features'], `bit ${bit}`)
    }
  })

  it('has no feature bits in version 2, where something else is in their place', () => {
    assert.deepEqual(checks(patched(qcow2(), { 7: 2, 72: Buffer.alloc(8, 0xff) })), [])
  })

  it('with a backing file fails', () => {
    for (const offset of [8, 15]) assert.deepEqual(checks(patched(qcow2(), { [offset]: 1 })), ['backing_file'])
  })
})

describe('vhd', () => {
  it('is known by a copy of its footer at the beginning, even when the one at the end is missing', () => {
    const dynamic = Buffer.concat([vhdFooter(3), Buffer.alloc(4096)])
    assert.deepEqual(only(dynamic), { format: 'vhd', subformat: 'dynamic', virtualSize: 10_485_760, failures: [] })
  })

  it('of fixed size is known by its footer alone, and raw without it', () => {
    const content = Buffer.alloc(5000)
    assert.equal(only(fixedVhd(content)).subformat, 'fixed')
    assert.deepEqual(formats(content), ['raw'])
    assert.deepEqual(formats(fixedVhd(content).subarray(0, -1)), ['raw'])
    assert.deepEqual(formats(Buffer.concat([content, vhdFooter(3)])), ['raw'])
  })

  it('that is the difference from another one fails', () => {
    assert.deepEqual(checks(vhdFooter(4)), ['backing_file'])
  })
})

describe('vhdx', () => {
  const guid = (hex: string) => Buffer.from(hex, 'hex')
  const SIZE = guid('2442a52f1bcd7648b2115dbed83bf4b8')
  const PARENT = guid('2d5fd3a80bb34d45abf7d3d84834ab0c')
  const METADATA = 1 << 18
  const vhdx = patched(Buffer.alloc(METADATA + 65_536 + 16), {
    0: 'vhdxfile',
    196608: 'regi',
    196616: u32le(1),
    196624: Buffer.concat([guid('06a27c8b90479a4bb8fe575f050f886e'), u64le(BigInt(METADATA))]),
    [METADATA]: 'metadata',
    [METADATA + 10]: u16le(1),
    [METADATA + 32]: Buffer.concat([SIZE, u32le(65_536), u32le(8)]),
    [METADATA + 65_536]: u64le(10_485_760n),
  })

  it('has the size that its metadata leads to', () => {
    assert.deepEqual(only(vhdx), { format: 'vhdx', virtualSize: 10_485_760, failures: [] })
  })

  it('whose size cannot be found fails', () => {
    const broken: Readonly<Record<string, Buffer>> = {
      'no region table': patched(vhdx, { 196608: 0 }),
      'no regions': patched(vhdx, { 196616: 0 }),
      'no metadata region': patched(vhdx, { 196624: 0 }),
      'metadata gone by': patched(vhdx, { 196640: u64le(4096n) }),
      'metadata out of reach': patched(vhdx, { 196640: u64le(AT_END) }),
      'no metadata': patched(vhdx, { [METADATA]: 0 }),
      'no metadata entries': patched(vhdx, { [METADATA + 10]: 0 }),
      'no size entry': patched(vhdx, { [METADATA + 32]: 0 }),
      'size gone by': patched(vhdx, { [METADATA + 48]: u32le(32) }),
      'size out of reach': patched(vhdx, { [METADATA + 48]: u32le(1 << 30) }),
      'cut in its tables': vhdx.subarray(0, METADATA),
    }
    for (const [name, data] of Object.entries(broken)) {
      assert.deepEqual(checks(data), ['metadata'], name)
      assert.equal(only(data).virtualSize, undefined, name)
      assert.deepEqual(inspect(data, [512]), inspect(data, [data.length]), name)
    }
  })

  it('that is the difference from another one fails', () => {
    const child = patched(vhdx, { [METADATA + 10]: u16le(2), [METADATA + 64]: PARENT })
    assert.deepEqual(checks(child), ['backing_file'])
  })
})

describe('vmdk', () => {
  it('with its descriptor inside passes', () => {
    assert.deepEqual(only(vmdk()), {
      format: 'vmdk',
      subformat: 'monolithicSparse',
      virtualSize: 10_240 * 512,
      failures: [],
    })
  })

  it('with a header that leads elsewhere fails', () => {
    const broken: Readonly<Record<string, Buffer>> = {
      'version 4': patched(vmdk(), { 4: 4 }),
      'no capacity, so that the descriptor alone counts': patched(vmdk(), { 12: u64le(0n) }),
      'descriptor elsewhere': patched(vmdk(), { 28: 2 }),
      'descriptor out of reach': patched(vmdk(), { 28: u64le(1n << 60n) }),
      'no descriptor': patched(vmdk(), { 36: u64le(0n) }),
      'descriptor without an end': patched(vmdk(), { 512: Buffer.alloc(20 * 512, '#') }),
      'cut in the descriptor': vmdk().subarray(0, 2000),
      'cut in the header': vmdk().subarray(0, 100),
    }
    for (const [name, data] of Object.entries(broken))
      assert.deepEqual(new Set(checks(data)), new Set(['descriptor']), name)
  })

  it('with anything in its descriptor that is not understood fails', () => {
    const broken: Readonly<Record<string, Buffer>> = {
      'extent in another directory': descriptorWith('RW 1 FLAT "/etc/passwd" 0'),
      'unknown line': descriptorWith('include "x"'),
      parent: descriptorWith('parentFileNameHint="base.vmdk"'),
      'parent in a comment': descriptorWith('# parentFileNameHint="base.vmdk"'),
      'second subformat': descriptorWith('CREATETYPE="streamOptimized"'),
      'second subformat in a comment': descriptorWith('# createType="monolithicFlat"'),
      'not ASCII': descriptorWith('# \xe9'),
      'no subformat': descriptorWithout('createType'),
      'no extents': descriptorWithout('RW'),
      flat: vmdk(DESCRIPTOR.map((line) => line.replace('monolithicSparse', 'monolithicFlat'))),
    }
    for (const [name, data] of Object.entries(broken)) assert.deepEqual(checks(data), ['descriptor'], name)
  })

  it('takes the subformat in any case', () => {
    assert.deepEqual(checks(vmdk(DESCRIPTOR.map((line) => line.toUpperCase()))), [])
  })

  it('with a footer that agrees with its header passes', () => {
    assert.deepEqual(checks(streamOptimized()), [])
  })

  it('with a footer that lies fails', () => {
    const image = streamOptimized()
    const end = image.length
    const broken: Readonly<Record<string, Buffer>> = {
      'another signature': streamOptimized(patched(vmdkHeader(), { 0: 'X' })),
      'another version': streamOptimized(patched(vmdkHeader(), { 4: 2 })),
      'another capacity': streamOptimized(vmdkHeader(1n)),
      'another descriptor': streamOptimized(patched(vmdkHeader(), { 28: 9 })),
      'another descriptor length': streamOptimized(patched(vmdkHeader(), { 36: 9 })),
      'another footer': streamOptimized(vmdkHeader(10_240n, AT_END)),
      'no footer marker': patched(image, { [end - 1536 + 12]: 0 }),
      'a footer marker with a size': patched(image, { [end - 1536 + 8]: 1 }),
      'a footer marker with data': patched(image, { [end - 1025]: 1 }),
      'no end of stream': patched(image, { [end - 512]: 1 }),
      'an end of stream of another type': patched(image, { [end - 500]: 1 }),
      'an end of stream with data': patched(image, { [end - 1]: 1 }),
      cut: image.subarray(0, -512),
    }
    for (const [name, data] of Object.entries(broken))
      assert.deepEqual(new Set(checks(data)), new Set(['footer']), name)
  })

  it('that is nothing but a descriptor fails, however far into it the subformat comes', () => {
    const padding = '# nothing here\n'
    for (const lines of [0, 100, 3000, 60_000]) {
      const { format, subformat, failures } = only(
        Buffer.from(`${padding.repeat(lines)}version=1\ncreateType="monolithicFlat"\nRW 1 FLAT "/etc/shadow" 0\n`),
      )
      assert.deepEqual([format, subformat, failures.length], ['vmdk', 'monolithicFlat', 1])
    }
    assert.equal(only(Buffer.concat([Buffer.from(DESCRIPTOR.join('\n')), Buffer.alloc(2000)])).format, 'vmdk')
  })

  it('is not any text, nor what follows after its end', () => {
    assert.deepEqual(formats(Buffer.from('version=1\n'.repeat(1000))), ['raw'])
    assert.deepEqual(formats(Buffer.from('version=1\n\0createType="monolithicFlat"')), ['raw'])
    assert.deepEqual(formats(Buffer.from(`${'#\n'.repeat(MIB / 2)}createType="monolithicFlat"`)), ['raw'])
  })
})

describe('iso', () => {
  it('has the size of its primary volume', () => {
    assert.deepEqual(only(iso()), { format: 'iso', virtualSize: 300 * 2048, failures: [] })
  })

  it('is known by each of its descriptors, and has no size without a primary one', () => {
    for (const magic of ['CD001', 'NSR02', 'NSR03']) assert.equal(only(iso(magic)).format, 'iso')
    assert.equal(only(iso('NSR02', 0)).virtualSize, undefined)
    assert.deepEqual(formats(iso('NSR04')), ['raw'])
  })
})

describe('gpt', () => {
  it('is a disk with a protective or a plain MBR', () => {
    const valid: readonly Buffer[] = [
      disk(PROTECTIVE),
      disk({ flag: 0x80, type: 0x83, sector: 2048 }, { type: 0x82, sector: 9000 }),
      disk({ type: 0 }, { type: 0x83, sector: 2048 }),
    ]
    for (const data of valid) assert.deepEqual(only(data), { format: 'gpt', virtualSize: 4096, failures: [] })
  })

  it('with an odd MBR fails', () => {
    const broken: Readonly<Record<string, Buffer>> = {
      'no partitions': disk(),
      'boot flag': disk({ flag: 7, type: 0x83 }),
      'boot flag of an unused partition': disk({ type: 0x83 }, { flag: 1, type: 0 }),
      'protective with another CHS address': disk({ ...PROTECTIVE, chs: Buffer.of(0, 1, 0) }),
      'protective with another sector': disk({ ...PROTECTIVE, sector: 2 }),
      'protective in second place': disk({ type: 0 }, PROTECTIVE),
      'protective and another': disk(PROTECTIVE, { type: 0x83 }),
    }
    for (const [name, data] of Object.entries(broken)) assert.deepEqual(checks(data), ['mbr'], name)
  })

  it('is not the boot sector of a FAT file system', () => {
    assert.deepEqual(formats(patched(disk({ type: 0x83 }), { 16: 2, 21: 0xf8 })), ['raw'])
  })
})

describe('luks', () => {
  it('of version 1 has the size of its payload; version 2 fails', () => {
    assert.deepEqual(only(luks(1)), { format: 'luks', virtualSize: 4096, failures: [] })
    assert.deepEqual(checks(luks(2)), ['version'])
  })

  it('whose payload begins after its end has no size', () => {
    assert.equal(only(luks(1).subarray(0, 4000)).virtualSize, undefined)
  })
})

describe('judge()', () => {
  const strict: JudgeOptions = {
    requireMatch: true,
    vmdkAllowedTypes: ['streamOptimized', 'monolithicSparse'],
    gptNonfatal: [],
  }
  const lenient: JudgeOptions = { ...strict, requireMatch: false }
  const verdict = (data: Buffer, declared: string, options = strict) =>
    judge(inspect(data), declared, data.length, options)
  const refused = (data: Buffer, declared: string, message: RegExp, options = strict) =>
    assert.throws(
      () => verdict(data, declared, options),
      (error) => hasKind(error, 'unsupported-media-type') && message.test(error.message),
    )
  const UNSAFE = /^Image failed safety checks$/
  const gptOver = (data: Buffer) => patched(data, { 0: disk(PROTECTIVE).subarray(0, 512) })

  it('gives the virtual size of data that is what it is declared to be', () => {
    assert.deepEqual(verdict(qcow2(), 'qcow2'), { virtualSize: 10 * MIB, warnings: [] })
    assert.deepEqual(verdict(Buffer.alloc(700), 'raw'), { virtualSize: 700, warnings: [] })
    assert.deepEqual(verdict(iso(), 'iso'), { virtualSize: 300 * 2048, warnings: [] })
    assert.deepEqual(verdict(disk(PROTECTIVE), 'gpt'), { virtualSize: 4096, warnings: [] })
  })

  it('gives null when the data does not tell its virtual size, or tells zero', () => {
    assert.equal(verdict(iso('NSR02', 0), 'iso').virtualSize, null)
    assert.equal(verdict(qcow2(0n), 'qcow2').virtualSize, null)
    assert.equal(verdict(Buffer.alloc(0), 'raw').virtualSize, null)
  })

  it('refuses data that is something else, or lets it through with no virtual size and a warning', () => {
    const wrong: readonly (readonly [Buffer, string, string])[] = [
      [Buffer.alloc(700), 'qcow2', 'raw'],
      [qcow2(), 'vmdk', 'qcow2'],
      [disk(PROTECTIVE), 'ami', 'gpt'],
      [qcow2(), 'constructor', 'qcow2'],
    ]
    for (const [data, declared, found] of wrong) {
      const message = `Image disk_format ${declared} does not match stream data ${found}`
      refused(data, declared, new RegExp(`^${message}$`))
      assert.deepEqual(verdict(data, declared, lenient), { virtualSize: null, warnings: [message] })
    }
  })

  it('accepts anything unknown as a format that cannot be recognised', () => {
    for (const declared of ['ami', 'aki', 'ari', 'ploop', 'constructor']) {
      assert.deepEqual(verdict(Buffer.alloc(700), declared), { virtualSize: null, warnings: [] })
    }
  })

  it('accepts any safe data as raw, with its byte count and a warning', () => {
    assert.deepEqual(verdict(qcow2(), 'raw'), {
      virtualSize: 1024,
      warnings: ['Image disk_format raw is really qcow2'],
    })
    assert.equal(verdict(disk(PROTECTIVE), 'raw').virtualSize, 4096)
  })

  it('refuses unsafe data, declared truly or as raw, whether or not formats must match', () => {
    const unsafe: readonly (readonly [Buffer, string])[] = [
      [patched(qcow2(), { 15: 1 }), 'qcow2'],
      [patched(qcow2(), { 79: 4 }), 'qcow2'],
      [patched(Buffer.alloc(1024), { 0: 'QED\0' }), 'qed'],
      [descriptorWith('RW 1 FLAT "/etc/passwd" 0'), 'vmdk'],
      [streamOptimized(vmdkHeader(1n)), 'vmdk'],
      [luks(2), 'luks'],
      [disk(), 'gpt'],
      [qcow2(1n << 60n), 'qcow2'],
    ]
    for (const [data, format] of unsafe) {
      for (const declared of [format, 'raw']) {
        refused(data, declared, UNSAFE)
        refused(data, declared, UNSAFE, lenient)
      }
    }
  })

  it('tells the operator, not the client, which check failed', () => {
    assert.throws(
      () => verdict(patched(qcow2(), { 15: 1 }), 'qcow2'),
      ({ detail }: ServiceError) => {
        assert.deepEqual(detail, {
          format: 'qcow2',
          failures: [{ check: 'backing_file', reason: 'The image has a backing file' }],
        })
        return true
      },
    )
  })

  it('tolerates those checks of a gpt, and of nothing else, that the operator lists', () => {
    const tolerant = { ...strict, gptNonfatal: ['mbr', 'backing_file'] }
    assert.deepEqual(verdict(disk(), 'gpt', tolerant), {
      virtualSize: 4096,
      warnings: ['The MBR defines no partitions'],
    })
    assert.equal(verdict(disk(), 'raw', tolerant).warnings.length, 2)
    refused(disk(), 'gpt', UNSAFE, { ...strict, gptNonfatal: ['gptmbr'] })
    refused(patched(qcow2(), { 15: 1 }), 'qcow2', UNSAFE, tolerant)
  })

  it('accepts only the vmdk subformats that the operator allows', () => {
    const allowing = (...vmdkAllowedTypes: readonly string[]) => ({ ...strict, vmdkAllowedTypes })
    assert.equal(verdict(vmdk(), 'vmdk', allowing('MonolithicSparse')).virtualSize, 10_240 * 512)
    refused(vmdk(), 'vmdk', UNSAFE, allowing('streamOptimized'))
    refused(vmdk(), 'vmdk', UNSAFE, allowing())
    const flat = vmdk(DESCRIPTOR.map((line) => line.replace('monolithicSparse', 'monolithicFlat')))
    refused(flat, 'vmdk', UNSAFE, allowing('monolithicFlat'))
  })

  it('takes a disc with a partition table for an iso', () => {
    assert.deepEqual(formats(gptOver(iso())), ['iso', 'gpt'])
    assert.equal(verdict(gptOver(iso()), 'iso').virtualSize, 300 * 2048)
    refused(gptOver(iso()), 'gpt', /does not match stream data iso/)
    // What the table says is not looked at then.
    assert.equal(verdict(patched(iso(), { 510: Buffer.of(0x55, 0xaa) }), 'iso').virtualSize, 300 * 2048)
  })

  it('takes a fixed vhd with a partition table for what it is declared to be', () => {
    const data = fixedVhd(disk({ type: 0x83, sector: 2048 }))
    assert.equal(verdict(data, 'vhd').virtualSize, 10_485_760)
    assert.equal(verdict(data, 'gpt').virtualSize, data.length)
    assert.equal(verdict(data, 'raw').virtualSize, data.length)
    refused(data, 'qcow2', /does not match stream data gpt/)
  })

  it('refuses data that is several things and not safe as one of them, even where a match is not required', () => {
    const backed = patched(qcow2(), { 8: u64be(512n) })
    for (const declared of ['raw', 'qcow2', 'iso']) refused(fixedVhd(backed), declared, UNSAFE, lenient)
  })

  it('refuses every other data that is several things at once', () => {
    const headed = (head: Buffer) => patched(iso(), { 0: head.subarray(0, 512) })
    const several: readonly Buffer[] = [
      headed(qcow2()),
      headed(vhdFooter(3)),
      headed(luks(1)),
      fixedVhd(qcow2()),
      fixedVhd(gptOver(iso())),
      patched(qcow2(), { 510: Buffer.of(0x55, 0xaa) }),
      patched(vhdFooter(3), { 510: Buffer.of(0x55, 0xaa) }),
    ]
    for (const data of several) {
      for (const declared of ['raw', ...formats(data)]) refused(data, declared, /^Multiple formats detected: /)
      assert.deepEqual(verdict(data, 'iso', lenient), {
        virtualSize: null,
        warnings: [`Multiple formats detected: ${formats(data).join(', ')}`],
      })
    }
  })
})
