import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { it, type TestContext } from 'node:test'
import { promisify } from 'node:util'
import { root } from '../support/product.ts'
import { startServer } from '../support/server.ts'

const run = promisify(execFile)
const shipped = join(root, 'etc/metadefs')

const folder = async (t: TestContext): Promise<string> => {
  const dir = await mkdtemp(join(tmpdir(), 'glimpse-metadefs-'))
  t.after(() => rm(dir, { recursive: true }))
  return dir
}

it('the definitions that come with the service are loaded, exported, unloaded and loaded again', async (t) => {
  const dir = await folder(t)
  const conf = join(dir, 'glance.conf')
  await writeFile(
    conf,
    `[DEFAULT]\nmetadata_source_path = ${dir}/none\n[database]\nconnection = sqlite:///${dir}/glance.sqlite\n`,
  )
  const manage = (...args: string[]) => run(join(root, 'bin/glance-manage'), ['--config-file', conf, ...args])
  const files = await readdir(shipped)
  const first = await manage('db', 'load_metadefs')
  assert.equal(first.stdout.match(/is loaded/g)?.length, files.length)
  assert.equal(first.stderr, '')
  assert.equal((await manage('db_load_metadefs', shipped)).stdout.match(/is there already/g)?.length, files.length)
  const out = await folder(t)
  await manage('db_export_metadefs', out)
  assert.equal((await readdir(out)).length, files.length)
  await manage('db', 'unload_metadefs')
  const merge = await manage('db_load_metadefs', out, 'True', 'True', 'False')
  assert.equal(merge.stdout.match(/is loaded/g)?.length, files.length)
  assert.match((await manage('db', 'load_metadefs', '--overwrite')).stderr, /--merge/)
})

it('the API takes each of the definitions that come with the service', async (t) => {
  const server = await startServer({})
  t.after(() => server.close())
  const headers = { 'X-Auth-Token': 'admin:p:admin,member,reader', 'Content-Type': 'application/json' }
  for (const file of await readdir(shipped)) {
    const body = await readFile(join(shipped, file), 'utf8')
    const answer = await fetch(`${server.url}/v2/metadefs/namespaces`, { method: 'POST', headers, body })
    assert.equal(answer.status, 201, `${file}: ${await answer.text()}`)
  }
})
