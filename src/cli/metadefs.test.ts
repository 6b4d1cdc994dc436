import assert from 'node:assert/strict'
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, it, type TestContext } from 'node:test'
import type { LoadMode, MetadefRepository } from '../db/database.ts'
import { openDatabase } from '../db/sql/connect.ts'
import { exportMetadefs, loadMetadefs, loadMode, type Report } from './metadefs.ts'

const FILE = {
  namespace: 'OS::A',
  display_name: 'First_one, of A!',
  description: 'text',
  visibility: 'public',
  protected: true,
  resource_type_associations: [{ name: 'OS::Nova::Flavor', prefix: 'hw:', properties_target: null }],
  properties: { p: { title: 'P', type: 'integer', default: 1 } },
  objects: [{ name: 'o', description: 'd', required: ['q'], properties: { q: { title: 'Q', type: 'string' } } }],
  tags: [{ name: 'one' }, { name: 'two' }],
}

async function start(t: TestContext) {
  const db = await openDatabase('sqlite://')
  const dir = await mkdtemp(join(tmpdir(), 'metadefs-'))
  t.after(async () => {
    await db.close()
    await rm(dir, { recursive: true })
  })
  const errors: string[] = []
  const report: Report = { info: () => undefined, error: (line) => errors.push(line) }
  const write = (name: string, content: unknown) =>
    writeFile(join(dir, name), typeof content === 'string' ? content : JSON.stringify(content))
  const load = (path = dir, mode: LoadMode = 'skip') => loadMetadefs(db.metadefs, path, mode, report)
  return { metadefs: db.metadefs, dir, errors, report, write, load }
}

const all = async (metadefs: MetadefRepository) =>
  (
    await metadefs.list(
      {
        visibility: undefined,
        resourceTypes: undefined,
        sort: { key: 'namespace', descending: false },
        marker: undefined,
        limit: undefined,
      },
      { admin: true, project: undefined },
    )
  ).map(({ namespace }) => `${namespace.name} ${namespace.owner}`)

describe('load_metadefs', () => {
  it('loads every .json file of a folder, and goes on after one that is no use', async (t) => {
    const { metadefs, dir, errors, write, load } = await start(t)
    await write('a.json', FILE)
    await write('b.json', '{')
    await write('c.json', ['OS::C'])
    await write('d.json', { display_name: 'nameless' })
    await write('e.json', { namespace: 'OS::E', owner: 'somebody' })
    await write('f.txt', { namespace: 'OS::F' })
    await mkdir(join(dir, 'g.json'))
    await load()
    assert.deepEqual(await all(metadefs), ['OS::A admin', 'OS::E somebody'])
    assert.equal(errors.length, 3)
    for (const name of ['b', 'c', 'd']) assert.ok(errors.some((line) => line.includes(`${name}.json`)))
  })

  it('loads one file, whatever its name', async (t) => {
    const { metadefs, dir, write, load } = await start(t)
    await write('only', FILE)
    await load(join(dir, 'only'))
    assert.deepEqual(await all(metadefs), ['OS::A admin'])
  })

  it('says when there is nothing to load', async (t) => {
    const { dir, errors, load } = await start(t)
    await load()
    await load(join(dir, 'missing'))
    assert.equal(errors.length, 2)
  })

  it('leaves a namespace that is there as it is, unless told to merge', async (t) => {
    const { metadefs, write, load } = await start(t)
    await write('a.json', FILE)
    await load()
    await write('a.json', { ...FILE, tags: [{ name: 'three' }] })
    await load()
    assert.deepEqual((await metadefs.tags.list('OS::A')).length, 2)
    await load(undefined, 'merge')
    assert.deepEqual((await metadefs.tags.list('OS::A')).length, 3)
  })

  it('takes one way to merge, and only with --merge', async (t) => {
    const { errors, report } = await start(t)
    const mode = (...flags: string[]) =>
      loadMode(
        {
          merge: flags.includes('merge'),
          preferNew: flags.includes('prefer_new'),
          overwrite: flags.includes('overwrite'),
        },
        report,
      )
    const modes = [mode(), mode('merge'), mode('merge', 'prefer_new'), mode('merge', 'overwrite')]
    assert.deepEqual(modes, ['skip', 'merge', 'prefer-new', 'overwrite'])
    assert.deepEqual(errors, [])
    const refused = [mode('prefer_new'), mode('overwrite'), mode('merge', 'prefer_new', 'overwrite')]
    assert.deepEqual(refused, [undefined, undefined, undefined])
    assert.equal(errors.length, 3)
  })
})

describe('export_metadefs', () => {
  it('writes what load_metadefs reads, to files named after the display names', async (t) => {
    const { metadefs, dir, errors, report, write, load } = await start(t)
    await write('a.json', FILE)
    await write('b.json', { ...FILE, namespace: 'OS::B' })
    await write('c.json', { namespace: 'OS::C' })
    await load()
    const out = join(dir, 'out')
    await mkdir(out)
    await exportMetadefs(metadefs, out, report)
    assert.deepEqual((await readdir(out)).toSorted(), ['FirstoneofA.json', 'OSB.json', 'OSC.json'])
    assert.deepEqual(JSON.parse(await readFile(join(out, 'FirstoneofA.json'), 'utf8')), FILE)
    assert.deepEqual(errors, [])
  })

  it('says what cannot be written', async (t) => {
    const { metadefs, dir, errors, report, write, load } = await start(t)
    await write('a.json', FILE)
    await load()
    await exportMetadefs(metadefs, join(dir, 'missing'), report)
    assert.equal(errors.length, 1)
  })
})
