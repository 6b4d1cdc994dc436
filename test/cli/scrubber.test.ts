import assert from 'node:assert/strict'
import { execFile, spawn } from 'node:child_process'
import { mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { it, type TestContext } from 'node:test'
import { promisify } from 'node:util'
import { freePort, root, startProduct, until } from '../support/product.ts'

const run = promisify(execFile)

/** A service with delayed delete, and a scrubber that looks at the same stores. */
async function start(t: TestContext) {
  const dir = await mkdtemp(join(tmpdir(), 'glimpse-scrubber-'))
  await mkdir(join(dir, 'images'))
  const port = await freePort()
  const conf = join(dir, 'glance-api.conf')
  await writeFile(
    conf,
    `[DEFAULT]\nbind_host = 127.0.0.1\nbind_port = ${port}\nworkers = 0\ndelayed_delete = True\nscrub_pool_size = 2
[database]\nconnection = sqlite:///${dir}/glance.sqlite
[glance_store]\nfilesystem_store_datadir = ${dir}/images\n[paste_deploy]\nflavor =\n`,
  )
  const args = ['--config-file', conf]
  const service = await startProduct({ command: 'glance-api', args, port, log: join(dir, 'service.log') })
  t.after(async () => {
    await service.kill()
    await rm(dir, { recursive: true })
  })
  const ask = async (method: string, path: string, body?: string | object) => {
    const type = typeof body === 'string' ? 'application/octet-stream' : 'application/json'
    const response = await fetch(`${service.url}/v2/images${path}`, {
      method,
      ...(body === undefined ? {} : { headers: { 'content-type': type } }),
      ...(body === undefined ? {} : { body: typeof body === 'string' ? body : JSON.stringify(body) }),
    })
    return { status: response.status, text: await response.text() }
  }
  return {
    dir,
    args,
    service,
    ask,
    files: () => readdir(join(dir, 'images')),
    create: async (data: string) => {
      const formats = { disk_format: 'raw', container_format: 'bare' }
      const { text } = await ask('POST', '', { name: data, ...formats, tags: ['t'], p: 'v' })
      const { id } = JSON.parse(text) as { id: string }
      assert.equal((await ask('PUT', `/${id}/file`, data)).status, 204)
      return id
    },
    status: (id: string) => {
      const raw = new DatabaseSync(join(dir, 'glance.sqlite'), { timeout: 10_000 })
      const row = raw.prepare('select status from images where id = ?').get(id)
      raw.close()
      return row?.['status']
    },
    scrub: async (...more: readonly string[]) =>
      run(join(root, 'bin/glance-scrubber'), [...args, ...more]).then(
        (printed) => ({ code: 0, ...printed }),
        (error: { code: number; stdout: string; stderr: string }) => error,
      ),
  }
}

it('deleted images keep their data until the scrubber comes, and can be restored before', async (t) => {
  const { args, ask, create, dir, files, scrub, status } = await start(t)
  const [one, two] = [await create('one'), await create('two')]
  const shown = JSON.parse((await ask('GET', `/${one}`)).text) as Record<string, unknown>
  for (const id of [one, two]) assert.equal((await ask('DELETE', `/${id}`)).status, 204)
  assert.equal((await ask('GET', `/${one}`)).status, 404)
  assert.deepEqual([status(one), (await files()).length], ['pending_delete', 2])

  assert.equal((await scrub('--restore', one)).code, 0)
  const { updated_at, ...again } = JSON.parse((await ask('GET', `/${one}`)).text) as Record<string, unknown>
  assert.ok(updated_at !== undefined)
  assert.deepEqual({ ...again, updated_at: shown['updated_at'] }, shown)
  assert.equal((await ask('GET', `/${one}/file`)).text, 'one')
  assert.match((await scrub('--restore', one)).stderr, /ERROR: cannot restore the image from active to active/)
  assert.match((await scrub('--restore', 'nope')).stderr, /ERROR: No image found with ID nope/)
  assert.equal((await scrub('--restore', two, '--daemon')).code, 1)

  await writeFile(join(dir, 'late.conf'), '[DEFAULT]\nscrub_time = 100000\n')
  assert.equal((await scrub('--config-file', join(dir, 'late.conf'))).code, 0)
  assert.deepEqual([status(two), (await files()).length], ['pending_delete', 2])
  assert.equal((await scrub()).code, 0)
  assert.deepEqual([status(two), await files()], ['deleted', [one]])

  await ask('POST', `/${one}/actions/deactivate`)
  assert.equal((await ask('DELETE', `/${one}`)).status, 204)
  assert.equal(status(one), 'pending_delete')
  await writeFile(join(dir, 'often.conf'), '[DEFAULT]\nwakeup_time = 1\n')
  const daemon = spawn(join(root, 'bin/glance-scrubber'), [...args, '--config-file', join(dir, 'often.conf'), '-D'])
  t.after(() => daemon.kill('SIGKILL'))
  await until('the daemon to scrub', () => status(one) === 'deleted')
  const three = await create('three')
  await ask('DELETE', `/${three}`)
  await until('the daemon to scrub again', async () => (await files()).length === 0)
  const ended = new Promise((resolve) => daemon.once('exit', resolve))
  daemon.kill('SIGTERM')
  assert.equal(await ended, 0)
})

it('data that the scrubber cannot remove is removed when that is possible again', async (t) => {
  const { ask, create, dir, files, scrub, service, status } = await start(t)
  const id = await create('data')
  await ask('DELETE', `/${id}`)
  await service.kill()
  await writeFile(join(dir, 'other.conf'), '[glance_store]\nstores = http\ndefault_store = http\n')
  const { stderr } = await scrub('--config-file', join(dir, 'other.conf'))
  assert.match(stderr, /stays in store/)
  assert.deepEqual([status(id), await files()], ['deleted', [id]])
  await scrub()
  assert.deepEqual(await files(), [])
})
