import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, afterEach, before, beforeEach, describe, it } from 'node:test'
import { gzipSync } from 'node:zlib'
import { lha, zip } from '../../test/formats/pack.ts'
import { startImport, type TestImport } from '../../test/support/import-job.ts'
import { defaults, type OptionGroup, type Values } from '../config/options.ts'
import type { ServiceError } from '../domain/errors.ts'
import { silentLog } from '../log.ts'
import type { ImportJob, ImportPlugin } from './import.ts'
import type { PluginTools } from './plugin.ts'
import { openPlugins } from './plugins.ts'

const tools: PluginTools = {
  formats: { vmdkAllowedTypes: ['streamOptimized', 'monolithicSparse'], gptNonfatal: [] },
  log: silentLog,
  programSeconds: 30,
}
const signal = new AbortController().signal

async function open(name: string, config: Record<string, unknown> = {}): Promise<ImportPlugin> {
  const configure = (_: string, options: OptionGroup) =>
    ({ ...defaults(options), ...config }) as Values<OptionGroup> as never
  const [plugin] = await openPlugins([name], configure, tools)
  if (plugin === undefined) throw new Error('no plugin')
  return plugin
}
const failing = async (work: Promise<unknown> | undefined, kind: string, message: RegExp): Promise<void> =>
  assert.rejects(
    async () => work,
    (error: ServiceError) => {
      assert.equal(error.kind, kind, error.stack)
      assert.match(error.message, message)
      return true
    },
  )

describe('image_decompression', () => {
  const data = Buffer.concat([randomBytes(300_000), Buffer.alloc(3_000_000, 'image data ')])
  let plugin: ImportPlugin
  let test: TestImport
  before(async () => {
    plugin = await open('image_decompression')
  })
  beforeEach(async () => {
    test = await startImport()
  })
  afterEach(() => test.close())
  const run = (job: ImportJob) => plugin.step(job).run(signal)

  const archives = {
    gzip: gzipSync(data),
    'gzip of two members': Buffer.concat([gzipSync(data.subarray(0, 1_000_000)), gzipSync(data.subarray(1_000_000))]),
    zip: zip([{ name: 'disk.raw', data }]),
    'zip of stored data': zip(
      [{ name: '../../disk.raw', data, stored: true }].map((member) => ({ ...member, name: 'a/b' })),
    ),
  }
  for (const [name, archive] of Object.entries(archives)) {
    it(`takes images out of ${name}, once`, async () => {
      // Data that is itself compressed shows whether a second run begins anew.
      await test.stage(archive)
      await run(test.job())
      assert.ok((await test.staged()).equals(data))
      assert.equal(test.image.size, data.length)
      assert.equal(test.progress.at(-1), data.length)
      await run(test.job({ tries: 2 }))
      assert.ok((await test.staged()).equals(data))
      await plugin.step(test.job({ tries: 2 })).undo?.()
      assert.equal(test.image.size, null)
      assert.deepEqual(await test.leftovers(), [])
    })
  }

  it('takes off one layer and no more, however often it runs', async () => {
    const inner = gzipSync(data)
    await test.stage(gzipSync(inner))
    for (const tries of [1, 2, 3]) await run(test.job({ tries }))
    assert.ok((await test.staged()).equals(inner))
  })

  it('goes on after an end between the finished file and the image', async () => {
    await test.stage(gzipSync(gzipSync(data)))
    const job = test.job({
      staging: {
        ...test.job().staging,
        replace: async () => {
          throw new Error('killed')
        },
      },
    })
    await test.stage(gzipSync(gzipSync(data)))
    await assert.rejects(run(job), /killed/)
    await run(test.job({ tries: 2 }))
    assert.ok((await test.staged()).equals(gzipSync(data)))
  })

  it('leaves other data, and images of compressed data, as they are', async () => {
    await test.stage(data)
    await run(test.job())
    assert.ok((await test.staged()).equals(data))
    test.image = { ...test.image, containerFormat: 'compressed' }
    await test.stage(archives.gzip)
    await run(test.job())
    assert.ok((await test.staged()).equals(archives.gzip))
    await test.stage('')
    await run(test.job())
    assert.deepEqual(await test.leftovers(), [])
  })

  it('refuses what is damaged, locked, or not one file', async () => {
    const cases: [Buffer, RegExp][] = [
      [archives.gzip.subarray(0, -1000), /^The gzip data is damaged$/],
      [Buffer.concat([archives.gzip.subarray(0, 1000), randomBytes(1000)]), /^The gzip data is damaged$/],
      [archives.zip.subarray(0, -30), /^The zip data is damaged$/],
      [zip([{ name: 'a', data }], { crc: () => 1 }), /^The zip data is damaged$/],
      [
        zip([
          { name: 'a', data },
          { name: 'b', data },
        ]),
        /^Archive contains more than one file\.$/,
      ],
      [zip([{ name: 'a/', data: Buffer.alloc(0) }]), /^Archive contains no file\.$/],
      [zip([{ name: 'a', data, flags: 1 }]), /^The zip data is encrypted, or compressed in an unknown way$/],
    ]
    for (const [archive, message] of cases) {
      await test.stage(archive)
      await failing(run(test.job()), 'invalid', message)
      assert.ok((await test.staged()).equals(archive))
      assert.deepEqual(await test.leftovers(), [])
    }
  })

  it('stops a bomb at the limit', async () => {
    const bomb = Buffer.alloc(64 * 1_048_576)
    for (const archive of [gzipSync(bomb), zip([{ name: 'a', data: bomb }])]) {
      await test.stage(archive)
      const before = test.progress.length
      await failing(
        run(test.job({ sizeLimit: 1_000_000 })),
        'too-large',
        /larger than the 1000000 bytes that are allowed$/,
      )
      assert.ok(Math.max(0, ...test.progress.slice(before)) <= 1_000_000)
      assert.deepEqual(await test.leftovers(), [])
    }
  })

  it('ends at once when it is told to', async () => {
    await test.stage(gzipSync(Buffer.alloc(256 * 1_048_576), { level: 1 }))
    const stop = new AbortController()
    setTimeout(() => stop.abort(new Error('enough')), 30)
    await assert.rejects(plugin.step(test.job()).run(stop.signal), /enough/)
    assert.deepEqual(await test.leftovers(), [])
  })

  it('takes images out of LHA files where the program for it is installed', async () => {
    await test.stage(lha({ disk: data }))
    if (!isInstalled('lha') && process.env['CI'] !== 'true') {
      await failing(run(test.job()), 'unavailable', /^The program lha is not installed$/)
      return
    }
    await run(test.job())
    assert.ok((await test.staged()).equals(data))
    await test.stage(lha({ one: data, two: data }))
    await plugin.step(test.job()).undo?.()
    await failing(run(test.job()), 'invalid', /^Archive contains more than one file\.$/)
  })
})

function isInstalled(program: string): boolean {
  try {
    execFileSync('sh', ['-c', `command -v ${program}`])
    return true
  } catch {
    return false
  }
}

describe('inject_image_metadata', () => {
  const inject = { added: 'yes', kept: 'no', os_glance_import_task: 'mine' }
  let test: TestImport
  beforeEach(async () => {
    test = await startImport({ properties: new Map([['kept', 'as it was']]) })
  })
  afterEach(() => test.close())

  it('sets properties, and takes them back', async () => {
    const plugin = await open('inject_image_metadata', { inject })
    for (const tries of [1, 2]) await plugin.step(test.job({ tries })).run(signal)
    assert.deepEqual(
      [...test.image.properties],
      [
        ['kept', 'no'],
        ['added', 'yes'],
      ],
    )
    await plugin.step(test.job({ tries: 3 })).undo?.()
    assert.deepEqual([...test.image.properties], [['kept', 'as it was']])
    await plugin.step(test.job({ tries: 3 })).undo?.()
    assert.deepEqual(await test.leftovers(), [])
  })

  it('leaves the images of certain users alone', async () => {
    const admin = { ...test.job().requester, roles: ['member', 'admin'] }
    const plugin = await open('inject_image_metadata', { inject })
    await plugin.step(test.job({ requester: admin })).run(signal)
    const strict = await open('inject_image_metadata', { inject, ignore_user_roles: ['Member'] })
    await strict.step(test.job()).run(signal)
    await (await open('inject_image_metadata')).step(test.job()).run(signal)
    assert.deepEqual([...test.image.properties], [['kept', 'as it was']])
  })
})

describe('openPlugins', () => {
  let dir: string
  let test: TestImport
  before(async () => {
    dir = await mkdtemp(join(tmpdir(), 'glimpse-plugins-'))
    test = await startImport()
  })
  after(async () => {
    await test.close()
    await rm(dir, { recursive: true, force: true })
  })
  const moduleOf = async (name: string, source: string) => {
    const path = join(dir, name)
    await writeFile(path, source)
    return path
  }

  it('runs the plugin of a module, with its own options', async () => {
    const path = await moduleOf(
      'reverse.mjs',
      `import { readFile, writeFile } from 'node:fs/promises'
       export default ({ options, transformStep, ServiceError }) => ({
         name: 'reverse',
         group: 'reverse',
         options: { largest: options.integer({ default: 10, help: 'Bytes that may be reversed.' }) },
         open: ({ largest }) => ({
           name: 'reverse',
           step: (job) => transformStep(job, 'reverse', async ({ from, to }) => {
             const data = await readFile(from)
             if (data.length > largest) throw new ServiceError('invalid', 'Too much to reverse')
             await writeFile(to, data.reverse())
             return {}
           }),
         }),
       })`,
    )
    const plugin = await open(path)
    await test.stage('desrever')
    for (const tries of [1, 2]) await plugin.step(test.job({ tries })).run(signal)
    assert.equal((await test.staged()).toString(), 'reversed')
    await plugin.step(test.job()).undo?.()
    await test.stage('more than ten bytes')
    await failing(plugin.step(test.job()).run(signal), 'invalid', /^Too much to reverse$/)
  })

  it('runs no_op', async () => {
    await (await open('no_op')).step(test.job()).run(signal)
  })

  it('says what is wrong with a plugin', async () => {
    const twice = openPlugins(['no_op', 'no_op'], () => ({}) as never, tools)
    await failing(twice, 'invalid', /^image_import_plugins names "no_op" twice$/)
    await failing(
      open('scan'),
      'invalid',
      /^image_import_plugins: "scan" is none of no_op, image_decompression, .*: Cannot find package/,
    )
    await failing(open(join(dir, 'none.mjs')), 'invalid', /a module that can be loaded: Cannot find module/)
    await failing(open(await moduleOf('empty.mjs', '')), 'invalid', /does not export a function as its default$/)
    await failing(open(await moduleOf('odd.mjs', 'export default () => undefined')), 'invalid', /gives no plugin/)
  })
})
