import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { chmod, mkdir, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, afterEach, before, beforeEach, describe, it } from 'node:test'
import { startImport, type TestImport } from '../../test/support/import-job.ts'
import type { ServiceError } from '../domain/errors.ts'
import { silentLog } from '../log.ts'
import type { ImportPlugin } from './import.ts'
import { runLimited } from './limited-process.ts'
import { conversion } from './plugins/conversion.ts'

const isThere = (() => {
  try {
    execFileSync('sh', ['-c', 'command -v qemu-img && command -v prlimit && command -v setpriv'])
    return true
  } catch {
    return process.env['CI'] === 'true'
  }
})()
const needsQemu = isThere ? {} : { skip: 'qemu-img, prlimit or setpriv is not installed' }
const signal = new AbortController().signal
const MIB = 1_048_576

describe('image_conversion', needsQemu, () => {
  let dir: string
  let test: TestImport
  const disk = Buffer.alloc(4 * MIB)
  randomBytes(MIB).copy(disk, MIB)
  before(async () => {
    dir = await mkdtemp(join(tmpdir(), 'glimpse-conversion-'))
    await writeFile(join(dir, 'disk.raw'), disk)
  })
  after(() => rm(dir, { recursive: true, force: true }))
  beforeEach(async () => {
    test = await startImport({ diskFormat: 'qcow2', containerFormat: 'bare' })
  })
  afterEach(() => test.close())

  const qemuImg = (...args: string[]) => execFileSync('qemu-img', args, { cwd: dir, stdio: 'pipe' })
  /** The disk in some format. */
  const made = (format: string, ...options: string[]): Promise<Buffer> => {
    qemuImg('convert', '-f', 'raw', '-O', format, ...options, 'disk.raw', `disk.${format}`)
    return readFile(join(dir, `disk.${format}`))
  }
  const open = async (output_format: 'raw' | 'qcow2' | 'vmdk' = 'raw', programSeconds = 30): Promise<ImportPlugin> =>
    conversion.open(
      { output_format },
      {
        formats: { vmdkAllowedTypes: ['streamOptimized', 'monolithicSparse'], gptNonfatal: [] },
        log: silentLog,
        programSeconds,
      },
    )
  const refused = async (data: Buffer, kind: string, message: RegExp) => {
    await test.stage(data)
    const step = (await open()).step(test.job())
    const before = test.image
    await assert.rejects(step.run(signal), (error: ServiceError) => {
      assert.equal(error.kind, kind, error.stack)
      assert.match(error.message, message)
      assert.ok(!error.message.includes(test.dir))
      return true
    })
    assert.deepEqual(test.image, before)
    assert.deepEqual(await test.leftovers(), [])
  }

  for (const [format, ...options] of [
    ['qcow2'],
    ['qcow2', '-c'],
    ['vmdk', '-o', 'subformat=streamOptimized'],
    ['vmdk', '-o', 'subformat=monolithicSparse'],
    ['vdi'],
    ['vhdx'],
    ['vpc'],
  ] as const) {
    it(`makes raw of ${[format, ...options].join(' ')}, once, and takes it back`, async () => {
      test.image = { ...test.image, diskFormat: format === 'vpc' ? 'vhd' : format, containerFormat: 'ovf' }
      await test.stage(await made(format, ...options))
      const before = test.image
      for (const tries of [1, 2]) await (await open()).step(test.job({ tries })).run(signal)
      const raw = await test.staged()
      assert.ok(raw.subarray(0, disk.length).equals(disk))
      assert.equal(test.image.diskFormat, 'raw')
      assert.equal(test.image.containerFormat, 'bare')
      assert.equal(test.image.virtualSize, raw.length)
      assert.equal(test.image.size, raw.length)
      await (await open()).step(test.job({ tries: 3 })).undo?.()
      assert.deepEqual(test.image, before)
      assert.deepEqual(await test.leftovers(), [])
    })
  }

  it('makes qcow2 and vmdk of raw', async () => {
    for (const format of ['qcow2', 'vmdk'] as const) {
      test.image = { ...test.image, diskFormat: 'raw' }
      await test.stage(disk)
      const step = (await open(format)).step(test.job())
      await step.run(signal)
      assert.equal(test.image.diskFormat, format)
      assert.equal(test.image.virtualSize, disk.length)
      assert.equal(test.image.size, (await test.staged()).length)
      await step.undo?.()
    }
  })

  it('only looks at what has the right format already, and does not touch discs', async () => {
    const same = await made('qcow2')
    await test.stage(same)
    await (await open('qcow2')).step(test.job()).run(signal)
    assert.ok((await test.staged()).equals(same))
    assert.equal(test.image.virtualSize, disk.length)
    const disc = Buffer.alloc(64 * 1024)
    disc.write('\x01CD001\x01', 32_768, 'latin1')
    test.image = { ...test.image, diskFormat: 'iso' }
    await test.stage(disc)
    await (await open()).step(test.job()).run(signal)
    assert.ok((await test.staged()).equals(disc))
    assert.equal(test.image.diskFormat, 'iso')
    test.image = { ...test.image, diskFormat: 'raw' }
    await refused(disc, 'unsupported-media-type', /^Image disk_format raw does not match its data, which is iso$/)
  })

  it('refuses data of another format than stated', async () => {
    const qcow2 = await made('qcow2')
    test.image = { ...test.image, diskFormat: 'raw' }
    await refused(qcow2, 'unsupported-media-type', /^Image disk_format raw does not match its data, which is qcow2$/)
    test.image = { ...test.image, diskFormat: 'vmdk' }
    await refused(qcow2, 'unsupported-media-type', /which is qcow2$/)
    test.image = { ...test.image, diskFormat: 'qcow2' }
    await refused(disk, 'unsupported-media-type', /which is raw$/)
  })

  it('refuses images that would bring in files of this machine, before qemu-img sees them', async () => {
    // A qemu-img that tells when it is run.
    const bin = join(dir, 'bin')
    await mkdir(bin)
    await writeFile(join(bin, 'qemu-img'), `#!/bin/sh\ntouch ${join(dir, 'was-run')}\nexit 1\n`)
    await chmod(join(bin, 'qemu-img'), 0o755)
    await writeFile(join(dir, 'secret'), 'the secret of this machine'.padEnd(65_536))
    const secret = join(dir, 'secret')
    qemuImg('create', '-f', 'qcow2', '-F', 'raw', '-b', secret, 'backed.qcow2')
    qemuImg('create', '-f', 'qcow2', '-o', `data_file=${secret},data_file_raw=on`, 'data.qcow2', '65536')
    const qcow2 = await made('qcow2')
    const unknown = Buffer.from(qcow2)
    unknown.writeUInt8(0x40, 72 + 6)
    const vmdk = Buffer.from(
      [
        '# Disk DescriptorFile',
        'version=1',
        'CID=1',
        'parentCID=ffffffff',
        'createType="monolithicFlat"',
        `RW 128 FLAT "${secret}" 0`,
        '',
      ].join('\n'),
    )
    const cases: [string, Buffer, RegExp][] = [
      ['qcow2', await readFile(join(dir, 'backed.qcow2')), /^Image failed safety checks$/],
      ['qcow2', await readFile(join(dir, 'data.qcow2')), /^Image failed safety checks$/],
      ['qcow2', unknown, /^Image failed safety checks$/],
      ['vmdk', vmdk, /./],
      ['raw', vmdk, /./],
    ]
    const path = process.env['PATH']
    process.env['PATH'] = `${bin}:${path}`
    try {
      for (const [diskFormat, data, message] of cases) {
        test.image = { ...test.image, diskFormat }
        await refused(data, 'unsupported-media-type', message)
      }
      await assert.rejects(stat(join(dir, 'was-run')), /ENOENT/)
      // The witness works: what is harmless does get that far.
      test.image = { ...test.image, diskFormat: 'qcow2' }
      await refused(qcow2, 'invalid', /^qemu-img info failed/)
      await stat(join(dir, 'was-run'))
    } finally {
      process.env['PATH'] = path
    }
  })

  it('refuses a bomb by its virtual size, and one that grows by the limit of its file', async () => {
    qemuImg('create', '-f', 'qcow2', 'bomb.qcow2', '1T')
    await test.stage(await readFile(join(dir, 'bomb.qcow2')))
    const limited = test.job({ sizeLimit: 100 * MIB })
    await assert.rejects((await open()).step(limited).run(signal), {
      kind: 'too-large',
      message: `The image would be larger than the ${100 * MIB} bytes that are allowed`,
    })
    test.image = { ...test.image, diskFormat: 'raw' }
    await test.stage(randomBytes(4 * MIB))
    await assert.rejects(
      (await open('qcow2')).step(test.job({ sizeLimit: 2 * MIB })).run(signal),
      (error: ServiceError) => /^qemu-img convert failed: /.test(error.message) && !error.message.includes(test.dir),
    )
    assert.deepEqual(await test.leftovers(), [])
  })

  it('goes on after an end between the new file and the image', async () => {
    await test.stage(await made('qcow2'))
    const killed = async () => {
      throw new Error('killed')
    }
    const { staging } = test.job()
    await assert.rejects(
      (await open()).step(test.job({ staging: { ...staging, replace: killed } })).run(signal),
      /killed/,
    )
    assert.equal(test.image.diskFormat, 'qcow2')
    await assert.rejects((await open()).step(test.job({ save: killed })).run(signal), /killed/)
    await (await open()).step(test.job({ tries: 2 })).run(signal)
    assert.ok((await test.staged()).subarray(0, disk.length).equals(disk))
    assert.equal(test.image.diskFormat, 'raw')
  })

  it('ends with the import', async () => {
    await test.stage(await made('qcow2'))
    const stop = new AbortController()
    stop.abort(new Error('enough'))
    await assert.rejects((await open()).step(test.job()).run(stop.signal), /enough/)
    assert.deepEqual(await test.leftovers(), [])
  })
})

describe('runLimited', needsQemu, () => {
  const limits = { cpuSeconds: 10, memory: 1_073_741_824, fileSize: 1000, wallSeconds: 10, signal }
  const took = async (work: Promise<unknown>): Promise<number> => {
    const began = performance.now()
    await work
    return performance.now() - began
  }

  it('gives what a program prints, and how it ends', async () => {
    assert.deepEqual(await runLimited('sh', ['-c', 'echo out; echo err >&2; exit 3'], limits), {
      code: 3,
      killedBy: null,
      stdout: 'out\n',
      stderr: 'err\n',
    })
    await assert.rejects(runLimited('no-such-program', [], limits), { kind: 'unavailable' })
  })

  it('ends a program that calculates, waits, or writes too much', async () => {
    assert.equal(
      (await runLimited('sh', ['-c', 'while :; do :; done'], { ...limits, cpuSeconds: 1 })).killedBy,
      'SIGKILL',
    )
    await assert.rejects(runLimited('sleep', ['20'], { ...limits, wallSeconds: 0.2 }), {
      kind: 'timeout',
      message: 'sleep took longer than 0.2 seconds',
    })
    const file = join(tmpdir(), `glimpse-limited-${process.pid}`)
    const written = await runLimited('dd', ['if=/dev/zero', `of=${file}`, 'bs=500', 'count=10'], limits)
    assert.notEqual(written.code, 0)
    assert.equal((await stat(file)).size, 1000)
    await rm(file)
    const hungry = ['-c', 'x = bytearray(2**31)']
    assert.notEqual((await runLimited('python3', hungry, limits)).code, 0)
  })

  it('ends with the signal, and its own process', async () => {
    const stop = new AbortController()
    setTimeout(() => stop.abort(new Error('enough')), 100)
    const elapsed = await took(
      assert.rejects(runLimited('sleep', ['20'], { ...limits, signal: stop.signal }), /enough/),
    )
    assert.ok(elapsed < 2000)
    const url = new URL('limited-process.ts', import.meta.url).href
    const script = `
      import { runLimited } from '${url}'
      const limits = { cpuSeconds: 10, memory: 2 ** 30, fileSize: 1000, wallSeconds: 30, signal: new AbortController().signal }
      setTimeout(() => process.kill(process.pid, 'SIGKILL'), 500)
      await runLimited('sleep', ['25.25'], limits)`
    assert.throws(() => execFileSync(process.execPath, ['--input-type=module', '-e', script], { stdio: 'pipe' }))
    assert.equal(execFileSync('sh', ['-c', 'pgrep -f "^sleep 25[.]25" || true'], { encoding: 'utf8' }), '')
  })
})
