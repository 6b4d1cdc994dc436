import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { chmod, mkdir, mkdtemp, readdir, readFile, rm, stat, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, it, type TestContext } from 'node:test'
import { promisify } from 'node:util'
import { defaults, type Values } from '../../config/options.ts'
import { hasKind } from '../../domain/errors.ts'
import type { AttemptId, ImageId, LocationUri } from '../../domain/ids.ts'
import type { ByteSource } from '../../io/bytes.ts'
import { type StoreHarness, storeConformance } from '../conformance.ts'
import type { StoreDriver } from '../driver.ts'
import { fileStore } from './file.ts'

const run = promisify(execFile)
const KIB = 1024
const MIB = 1024 * KIB

type Config = Partial<Values<typeof fileStore.options>>
const openWith = (config: Config): Promise<StoreDriver> => fileStore.open({ ...defaults(fileStore.options), ...config })

async function tempDir(t: TestContext): Promise<string> {
  const dir = await mkdtemp(join(tmpdir(), 'file-store-'))
  t.after(() => rm(dir, { recursive: true, force: true }))
  return dir
}

/** A harness' `open`: `count` directories below `base`, and the options that name them. */
const storage = async (base: string, count: number, config: Config = {}) => {
  const dirs = Array.from({ length: count }, (_, index) => join(base, `images-${index}`))
  const [first = ''] = dirs
  const all: Config = {
    ...config,
    ...(count === 1 ? { filesystem_store_datadir: first } : { filesystem_store_datadirs: dirs }),
  }
  return {
    driver: await openWith(all),
    again: () => openWith(all),
    leftovers: async () => (await Promise.all(dirs.map((dir) => readdir(dir)))).flat(),
  }
}

/** Two MiB of disk; undefined where one may not mount. */
const smallDisk = await (async () => {
  const probe = await mkdtemp(join(tmpdir(), 'file-store-probe-'))
  try {
    await run('mount', ['-t', 'tmpfs', '-o', 'size=2m', 'none', probe])
    await run('umount', [probe])
  } catch {
    return undefined
  } finally {
    await rm(probe, { recursive: true })
  }
  return async (t: TestContext): Promise<string> => {
    const dir = await mkdtemp(join(tmpdir(), 'file-store-full-'))
    await run('mount', ['-t', 'tmpfs', '-o', 'size=2m', 'none', dir])
    t.after(async () => {
      await run('umount', [dir])
      await rm(dir, { recursive: true })
    })
    return dir
  }
})()

const harness = (name: string, count: number, config: Config = {}): StoreHarness => ({
  name,
  features: { write: true, randomRead: true, unsizedWrite: true },
  open: async (t) => storage(await tempDir(t), count, config),
  ...(smallDisk && { openFull: async (t: TestContext) => storage(await smallDisk(t), count, config) }),
  foreign: ['file://', 'file://relative/path', 'file:///var/lib/images/../../../etc/passwd', 'file:///'],
})

storeConformance(harness('file', 1))
storeConformance(harness('file in several directories', 3))
storeConformance(harness('thin file', 1, { filesystem_thin_provisioning: true }))

const newId = () => randomUUID() as ImageId
const newAttempt = () => randomUUID() as AttemptId
const call = () => ({ signal: new AbortController().signal, attempt: newAttempt() })
async function* source(...chunks: readonly Buffer[]): ByteSource {
  yield* chunks
}
const store = async (driver: StoreDriver, data: Buffer, id = newId()): Promise<string> =>
  (await driver.write(id, source(data), { ...call(), size: data.length })).uri.replace('file://', '')

describe('file store', () => {
  it('keeps the data of an image in a file with its id, in the configured directory', async (t) => {
    const dir = await tempDir(t)
    const driver = await openWith({ filesystem_store_datadir: dir })
    const id = newId()
    assert.equal(await store(driver, Buffer.from('data'), id), join(dir, id))
    assert.equal(await readFile(join(dir, id), 'utf8'), 'data')
    assert.deepEqual(await readdir(dir), [id])
  })

  it('shows nothing under the id of the image until all of it is written', async (t) => {
    const dir = await tempDir(t)
    const driver = await openWith({ filesystem_store_datadir: dir })
    const id = newId()
    const attempt = newAttempt()
    const seen: string[][] = []
    const body = async function* (): ByteSource {
      yield Buffer.from('first')
      seen.push(await readdir(dir))
      yield Buffer.from('second')
    }
    await driver.write(id, body(), { ...call(), attempt })
    assert.deepEqual(seen, [[`.${id}.${attempt}.part`]])
    assert.deepEqual(await readdir(dir), [id])
  })

  it('reads what an earlier configuration left in another directory', async (t) => {
    const [old, current] = [await tempDir(t), await tempDir(t)]
    const path = await store(await openWith({ filesystem_store_datadir: old }), Buffer.from('data'))
    const driver = await openWith({ filesystem_store_datadir: current })
    for (const scheme of ['file', 'filesystem']) {
      assert.deepEqual(await driver.stat(`${scheme}://${path}` as LocationUri, call()), { size: 4 })
    }
    await driver.delete(`file://${path}` as LocationUri, call())
    assert.deepEqual(await readdir(old), [])
  })

  it('finds no data in a directory or a named pipe', async (t) => {
    const dir = await tempDir(t)
    const driver = await openWith({ filesystem_store_datadir: dir })
    await mkdir(join(dir, 'directory'))
    await run('mkfifo', [join(dir, 'pipe')])
    for (const name of ['directory', 'pipe']) {
      const uri = `file://${join(dir, name)}` as LocationUri
      await assert.rejects(driver.read(uri, call()), (error) => hasKind(error, 'not-found'))
      await assert.rejects(driver.stat(uri, call()), (error) => hasKind(error, 'not-found'))
    }
    await assert.rejects(driver.delete(`file://${join(dir, 'directory')}` as LocationUri, call()), (error) =>
      hasKind(error, 'not-found'),
    )
  })

  it('refuses an id that would lead out of its directory', async (t) => {
    const driver = await openWith({ filesystem_store_datadir: await tempDir(t) })
    for (const id of ['../escape', 'a/b', '.hidden', '', '..']) {
      await assert.rejects(store(driver, Buffer.from('x'), id as ImageId), (error) => hasKind(error, 'invalid'))
      await assert.rejects(driver.sweep(id as ImageId, newAttempt(), call()), (error) => hasKind(error, 'invalid'))
    }
  })

  it('is unavailable for writing when the directory went away', async (t) => {
    const dir = join(await tempDir(t), 'images')
    const driver = await openWith({ filesystem_store_datadir: dir })
    await rm(dir, { recursive: true })
    await assert.rejects(store(driver, Buffer.from('x')), (error) => hasKind(error, 'unavailable'))
  })

  it('takes a file larger than the process may write for a full medium, and removes it', async (t) => {
    const dir = await tempDir(t)
    const script = `
      import { defaults } from ${JSON.stringify(join(import.meta.dirname, '../../config/options.ts'))}
      import { fileStore } from ${JSON.stringify(join(import.meta.dirname, 'file.ts'))}
      const driver = await fileStore.open({ ...defaults(fileStore.options), filesystem_store_datadir: ${JSON.stringify(dir)} })
      const body = async function* () { for (let n = 0; n < 4; n++) yield Buffer.alloc(65536, 1) }
      const options = { signal: new AbortController().signal, attempt: 'attempt' }
      console.log(await driver.write('image', body(), options).catch((error) => error.kind))`
    const limited = ['-c', 'ulimit -f 128; exec "$0" --input-type=module -e "$1"', process.execPath, script]
    const { stdout } = await run('sh', limited)
    assert.equal(stdout.trim(), 'too-large')
    assert.deepEqual(await readdir(dir), [])
  })

  it('reports the free space of the medium', async (t) => {
    const driver = await openWith({ filesystem_store_datadir: await tempDir(t) })
    assert.ok(((await driver.freeBytes?.(call())) ?? 0) > 0)
  })

  describe('with thin provisioning', () => {
    it('leaves holes where the data is zero, and reads them as zeros', async (t) => {
      const dir = await tempDir(t)
      const driver = await openWith({ filesystem_store_datadir: dir, filesystem_thin_provisioning: true })
      const data = Buffer.concat([Buffer.alloc(MIB), Buffer.alloc(64 * KIB, 1), Buffer.alloc(2 * MIB)])
      const path = await store(driver, data)
      const { size, blocks } = await stat(path)
      assert.equal(size, data.length)
      assert.ok(blocks * 512 < MIB, `${blocks} blocks`)
      assert.ok((await readFile(path)).equals(data))
    })
  })

  describe('with permissions', () => {
    it('gives files the configured ones, and lets into the directory whom they name', async (t) => {
      const dir = join(await tempDir(t), 'images')
      await mkdir(dir, { mode: 0o700 })
      const driver = await openWith({ filesystem_store_datadir: dir, filesystem_store_file_perm: 644 })
      const path = await store(driver, Buffer.from('x'))
      assert.equal((await stat(path)).mode & 0o777, 0o644)
      assert.equal((await stat(dir)).mode & 0o777, 0o711)
    })

    it('leaves them to the umask without', async (t) => {
      const umask = process.umask(0o027)
      t.after(() => process.umask(umask))
      const path = await store(await openWith({ filesystem_store_datadir: await tempDir(t) }), Buffer.from('x'))
      assert.equal((await stat(path)).mode & 0o777, 0o640)
    })
  })

  describe('with several directories', () => {
    it('writes into the one of the highest priority', async (t) => {
      const [low, high] = [await tempDir(t), await tempDir(t)]
      const driver = await openWith({ filesystem_store_datadirs: [`${low}:10`, `${high}:200`] })
      assert.ok((await store(driver, Buffer.from('x'))).startsWith(high))
    })

    it('takes the next priority when there is no room', {
      skip: smallDisk ? false : 'mount is not permitted',
    }, async (t) => {
      assert.ok(smallDisk)
      const [small, large] = [await smallDisk(t), await tempDir(t)]
      const driver = await openWith({ filesystem_store_datadirs: [`${small}:2`, `${large}:1`] })
      assert.ok((await store(driver, Buffer.alloc(KIB))).startsWith(small))
      assert.ok((await store(driver, Buffer.alloc(4 * MIB))).startsWith(large))
    })

    it('is full when none of them has room', async (t) => {
      const driver = await openWith({ filesystem_store_datadirs: [await tempDir(t), await tempDir(t)] })
      const options = { ...call(), size: Number.MAX_SAFE_INTEGER }
      await assert.rejects(driver.write(newId(), source(Buffer.alloc(1)), options), (error) =>
        hasKind(error, 'too-large'),
      )
    })

    it('refuses an image whose data is in any of them', async (t) => {
      const [one, other] = [await tempDir(t), await tempDir(t)]
      const id = newId()
      await store(await openWith({ filesystem_store_datadir: one }), Buffer.from('x'), id)
      const driver = await openWith({ filesystem_store_datadirs: [`${one}:1`, `${other}:2`] })
      await assert.rejects(store(driver, Buffer.from('x'), id), (error) => hasKind(error, 'conflict'))
    })
  })

  describe('with a metadata file', () => {
    it('keeps the mount point of the share that holds the file beside the location', async (t) => {
      const dir = await tempDir(t)
      const file = join(dir, 'shares.json')
      const share = { id: 'share-2', mountpoint: dir }
      for (const [content, expected] of [
        [[{ id: 'share-1', mountpoint: '/elsewhere' }, share], share],
        [share, share],
        [{ id: 'share-1', mountpoint: '/elsewhere' }, {}],
      ] as const) {
        await writeFile(file, JSON.stringify(content))
        const driver = await openWith({ filesystem_store_datadir: dir, filesystem_store_metadata_file: file })
        const { metadata } = await driver.write(newId(), source(Buffer.from('x')), call())
        assert.deepEqual(metadata, expected)
      }
    })

    it('does not start with one that is not understood', async (t) => {
      const dir = await tempDir(t)
      const file = join(dir, 'shares.json')
      for (const content of ['{', '{"id": "share"}', '[{"id": 1, "mountpoint": "/"}]', '["share"]']) {
        await writeFile(file, content)
        const opening = openWith({ filesystem_store_datadir: dir, filesystem_store_metadata_file: file })
        await assert.rejects(opening, (error) => hasKind(error, 'invalid'), content)
      }
    })
  })

  it('does not start with a configuration that cannot work', async (t) => {
    const dir = await tempDir(t)
    await writeFile(join(dir, 'plain'), '')
    await symlink(join(dir, 'nowhere'), join(dir, 'dangling'))
    await mkdir(join(dir, 'closed'))
    await chmod(join(dir, 'closed'), 0o000)
    for (const config of [
      { filesystem_store_datadir: '' },
      { filesystem_store_datadir: join(dir, 'plain') },
      { filesystem_store_datadir: join(dir, 'dangling') },
      ...(process.getuid?.() === 0 ? [] : [{ filesystem_store_datadir: join(dir, 'closed') }]),
      { filesystem_store_datadir: dir, filesystem_store_datadirs: [dir] },
      { filesystem_store_datadirs: [':10'] },
      { filesystem_store_datadirs: [`${dir}:high`] },
      { filesystem_store_datadirs: [`${dir}:1`, `${dir}:2`] },
      { filesystem_store_datadir: dir, filesystem_store_file_perm: 240 },
      { filesystem_store_datadir: dir, filesystem_store_file_perm: 689 },
    ] as Config[]) {
      await assert.rejects(openWith(config), (error) => hasKind(error, 'invalid'), JSON.stringify(config))
    }
  })
})
