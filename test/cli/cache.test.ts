import assert from 'node:assert/strict'
import { execFile, spawn } from 'node:child_process'
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { describe, it, type TestContext } from 'node:test'
import { promisify } from 'node:util'
import { parse } from 'yaml'
import { SERVERS } from '../support/golden.ts'
import { freePort, root, startProduct, until } from '../support/product.ts'
import { startServer, type TestServer } from '../support/server.ts'

const run = promisify(execFile)
const ADMIN = 'admin:p:admin,member,reader'

interface Ran {
  readonly code: number
  readonly out: string
  readonly err: string
}

async function command(name: string, args: readonly string[], input = '', env: NodeJS.ProcessEnv = {}): Promise<Ran> {
  const clean = Object.fromEntries(Object.entries(process.env).filter(([key]) => !key.startsWith('OS_')))
  const child = spawn(join(root, 'bin', name), args, { env: { ...clean, ...env } })
  child.stdin.end(input)
  const [out, err, code] = await Promise.all([
    text(child.stdout),
    text(child.stderr),
    new Promise<number>((resolve) => child.once('close', (status) => resolve(status ?? -1))),
  ])
  return { code, out, err }
}

const manage = (server: TestServer, ...args: readonly string[]) =>
  command('glance-cache-manage', [...where(server), '--os-auth-token', ADMIN, ...args])
const where = ({ url }: TestServer) => ['-H', new URL(url).hostname, '-p', new URL(url).port]

async function serve(t: TestContext): Promise<TestServer> {
  const server = await startServer({ config: SERVERS.cache })
  t.after(() => server.close())
  return server
}

async function upload(url: string, token: string, data: Buffer | string): Promise<string> {
  const headers = { 'X-Auth-Token': token, 'Content-Type': 'application/json' }
  const body = JSON.stringify({ disk_format: 'raw', container_format: 'bare' })
  const { id } = (await (await fetch(`${url}/v2/images`, { method: 'POST', headers, body })).json()) as { id: string }
  const put = await fetch(`${url}/v2/images/${id}/file`, {
    method: 'PUT',
    headers: { ...headers, 'Content-Type': 'application/octet-stream' },
    body: data,
  })
  assert.equal(put.status, 204)
  return id
}

const download = (url: string, token: string, id: string) =>
  fetch(`${url}/v2/images/${id}/file`, { headers: { 'X-Auth-Token': token } })

describe('glance-cache-manage', () => {
  it('shows and changes what is cached and queued', async (t) => {
    const server = await serve(t)
    const id = await upload(server.url, ADMIN, 'hello')
    assert.deepEqual((await manage(server, 'list-cached')).out, 'No cached images.\n')
    assert.deepEqual((await manage(server, 'list-queued')).out, 'No queued images.\n')
    const queued = await manage(server, '-f', '-v', 'queue-image', id)
    assert.match(queued.out, new RegExp(`^Queued image ${id} for caching\nCompleted in \\d\\.\\d{4} sec\\.\n$`))
    const rule = `+${'-'.repeat(38)}+`
    const list = [
      `Found 1 queued images...`,
      rule,
      `|                  ID                  |`,
      rule,
      `| ${id} |`,
      rule,
      '',
    ]
    assert.deepEqual((await manage(server, 'list-queued')).out.split('\n'), list)
    assert.equal(
      (await manage(server, 'delete-all-queued-images', '-f', '-v')).out.split('\n')[0],
      'Deleted 1 queued images',
    )

    assert.equal(await (await download(server.url, ADMIN, id)).text(), 'hello')
    const [found, , head, , row] = (await manage(server, 'list-cached')).out.split('\n')
    assert.equal(found, 'Found 1 cached images...')
    assert.match(head ?? '', /^\| {18}ID {18}\| +Last Accessed \(UTC\) +\| +Last Modified \(UTC\) +\| Size \| Hits \|$/)
    assert.match(row ?? '', new RegExp(`^\\| ${id} \\| +20\\S+T\\S+ +\\| +20\\S+T\\S+ +\\|    5 \\|    0 \\|$`))
    assert.equal(
      (await manage(server, 'delete-cached-image', id, '-f', '-v')).out.split('\n')[0],
      `Deleted cached image ${id}`,
    )
    assert.equal(
      (await manage(server, 'delete-all-cached-images', '-fv')).out.split('\n')[0],
      'Deleted 0 cached images',
    )
  })

  it('asks before it changes anything', async (t) => {
    const server = await serve(t)
    const id = await upload(server.url, ADMIN, 'hello')
    const args = [...where(server), '--auth_token', ADMIN, 'queue-image', id]
    for (const [answer, queued] of [
      ['n\n', 0],
      ['', 0],
      ['\n', 0],
      ['y\n', 1],
    ] as const) {
      const { code, out } = await command('glance-cache-manage', args, answer)
      assert.deepEqual([code, out.startsWith(`Queue image ${id} for caching? [y/N] `)], [0, true])
      assert.equal((await server.app.core.cache?.queued())?.length, queued, answer)
    }
  })

  it('says what went wrong', async (t) => {
    const server = await serve(t)
    const off = await startServer({})
    t.after(() => off.close())
    const id = '11111111-1111-4111-8111-111111111111'
    const out = async (ran: Promise<Ran>) => {
      const { code, out: said } = await ran
      return [code, said]
    }
    assert.deepEqual(await out(manage(server, '-f', 'queue-image', 'x')), [1, "Image ID 'x' is not a valid UUID.\n"])
    for (const ids of [[], [id, id]]) {
      const [code, said] = await out(manage(server, '-f', 'queue-image', ...ids))
      assert.equal(code, 1)
      assert.match(String(said), /^Please specify the ID of the image you wish for command 'queue-image'/)
    }
    const [code, said] = await out(manage(server, 'nonsense'))
    assert.deepEqual([code, String(said).split('\n')[1]], [1, 'Error: "nonsense" is not a valid command.'])
    const alice = command('glance-cache-manage', [...where(server), '-A', 'alice:p:member', 'list-cached'])
    assert.deepEqual(await out(alice), [1, 'Not authorized to make this request.\n'])
    const bad = command('glance-cache-manage', [...where(server), '-A', 'bad', 'list-cached'])
    assert.deepEqual(await out(bad), [
      1,
      'Failed to show cached images. Got error:\nMissing required credential: username\n',
    ])
    const host = new URL(off.url).hostname
    assert.deepEqual(await out(manage(off, 'list-cached')), [
      1,
      `Cache management middleware not enabled on host ${host}\n`,
    ])
    const nobody = command('glance-cache-manage', ['-H', '127.0.0.1', '-p', String(await freePort()), 'list-cached'])
    assert.match(String((await out(nobody))[1]), /^Failed to show cached images\. Got error:\n.*ECONNREFUSED/)
    const help = await command('glance-cache-manage', ['help'])
    assert.match(help.out, /delete-queued-image +Deletes an image from the cache queue/)
  })
})

describe('the commands of a node with a cache', () => {
  const configure = async (t: TestContext, more = '') => {
    const dir = await mkdtemp(join(tmpdir(), 'glimpse-node-'))
    t.after(() => rm(dir, { recursive: true, force: true }))
    const conf = join(dir, 'glance-api.conf')
    await writeFile(
      conf,
      `[DEFAULT]\nimage_cache_dir = ${dir}/cache\nworker_self_reference_url = http://node-1:9292\n${more}
[paste_deploy]\nflavor = cachemanagement\n[glance_store]\nfilesystem_store_datadir = ${dir}/images
[database]\nconnection = sqlite:///${dir}/glance.sqlite\n`,
    )
    const job = async (name: string, extra: readonly string[] = []) => {
      const { code, err } = await command(name, ['--config-file', conf, ...extra])
      assert.equal(code, 0, err)
      assert.match(err, new RegExp(`^${name} is deprecated`))
    }
    const files = async (folder = '') =>
      (await readdir(join(dir, 'cache', folder), { withFileTypes: true }))
        .filter((entry) => entry.isFile())
        .map(({ name }) => name)
    return { dir, conf, job, files }
  }

  it('prefetch, prune and clean', async (t) => {
    const { dir, conf, job, files } = await configure(t)
    const api = ['--config-file', conf]
    const port = await freePort()
    const start = async () => {
      const env = { OS_DEFAULT__BIND_PORT: String(port), OS_DEFAULT__BIND_HOST: '127.0.0.1', OS_DEFAULT__WORKERS: '0' }
      return startProduct({ command: 'glance-api', args: api, port, log: join(dir, 'log'), env })
    }
    const service = await start()
    const id = await upload(service.url, '', 'x'.repeat(1000))
    const headers = { Accept: 'application/json' }
    await fetch(`${service.url}/v2/queued_images/${id}`, { method: 'PUT', headers })
    assert.deepEqual(await files('queue'), [id])
    await service.stop()
    await job('glance-cache-prefetcher')
    assert.deepEqual([await files(), await files('queue')], [[id], []])
    assert.equal(await readFile(join(dir, 'cache', id), 'utf8'), 'x'.repeat(1000))
    await writeFile(join(dir, 'cache', 'invalid', id), 'x')
    await writeFile(join(dir, 'cache', 'incomplete', id), 'x')
    await job('glance-cache-cleaner')
    assert.deepEqual([await files('invalid'), await files('incomplete')], [[], [id]])
    const small = join(dir, 'glance-cache.conf')
    await writeFile(small, '[DEFAULT]\nimage_cache_max_size = 999\nimage_cache_stall_time = 0\n')
    await new Promise((resolve) => setTimeout(resolve, 10))
    await job('glance-cache-cleaner', ['--config-file', small])
    await job('glance-cache-pruner', ['--config-file', small])
    assert.deepEqual([await files(), await files('incomplete')], [[], []])
  })

  it('the workers of one node fill one copy, and glance-cache-manage logs in with a password', async (t) => {
    const { dir, conf, files } = await configure(t)
    const port = await freePort()
    const data = join(dir, 'data')
    const args = ['--config-file', conf, '--data', data, '--port', String(port), '--workers', '2']
    const service = await startProduct({ command: 'glimpse', args, port, log: join(dir, 'log') })
    t.after(() => service.kill())
    const { clouds } = parse(await readFile(join(data, 'clouds.yaml'), 'utf8')) as {
      clouds: { glimpse: { auth: { username: string; password: string; project_name: string } } }
    }
    const { username, password, project_name: project } = clouds.glimpse.auth
    const login = { user: { name: username, password, domain: { id: 'default' } } }
    const answer = await fetch(`${service.url}/identity/v3/auth/tokens`, {
      method: 'POST',
      headers: { 'Content-Type': 'application/json' },
      body: JSON.stringify({
        auth: {
          identity: { methods: ['password'], password: login },
          scope: { project: { name: project, domain: { id: 'default' } } },
        },
      }),
    })
    const token = answer.headers.get('x-subject-token') ?? ''
    const image = Buffer.alloc(30_000_000, 'glimpse')
    const id = await upload(service.url, token, image)
    const clients = Array.from({ length: 20 }, async () => {
      const { stdout } = await run(
        'curl',
        ['-sS', '-H', `X-Auth-Token: ${token}`, `${service.url}/v2/images/${id}/file`],
        {
          encoding: 'buffer',
          maxBuffer: 40_000_000,
        },
      )
      assert.ok(stdout.equals(image))
    })
    await Promise.all(clients)
    await until('the copy', async () => (await files()).includes(id))
    assert.deepEqual(await files('incomplete'), [])
    const ranged = await fetch(`${service.url}/v2/images/${id}/file`, {
      headers: { 'X-Auth-Token': token, Range: 'bytes=7-13' },
    })
    assert.deepEqual([ranged.status, await ranged.text()], [206, 'glimpse'])
    const listed = await command('glance-cache-manage', ['-H', '127.0.0.1', '-p', String(port), 'list-cached'], '', {
      OS_AUTH_URL: `${service.url}/identity`,
      OS_USERNAME: username,
      OS_PASSWORD: password,
      OS_PROJECT_NAME: project,
    })
    assert.match(listed.out, new RegExp(`${id}.*30000000`), listed.out)
    const nodes = await fetch(`${service.url}/v2/cache/nodes/${id}`, { headers: { 'X-Auth-Token': token } })
    assert.deepEqual(await nodes.json(), ['http://node-1:9292'])
    await service.stop()
    assert.deepEqual(await files(), [id])
    assert.ok((await readFile(join(dir, 'cache', id))).equals(image))
  })
})
