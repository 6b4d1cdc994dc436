import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { mkdtemp, readFile, rm, stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { it, type TestContext } from 'node:test'
import { promisify } from 'node:util'
import { parse } from 'yaml'
import { freePort, type Product, root, startProduct } from '../support/product.ts'

const run = promisify(execFile)

interface Cloud {
  readonly auth: {
    readonly auth_url: string
    readonly username: string
    readonly password: string
    readonly project_name: string
  }
}

async function dataFolder(t: TestContext): Promise<{
  data: string
  start: (port: number) => Promise<Product>
  clouds: () => Promise<Record<string, Cloud | undefined>>
}> {
  const dir = await mkdtemp(join(tmpdir(), 'glimpse-cli-'))
  const data = join(dir, 'data')
  let product: Product | undefined
  t.after(async () => {
    await product?.kill()
    await rm(dir, { recursive: true, force: true })
  })
  return {
    data,
    start: async (port) => {
      const args = ['--data', data, '--port', String(port), '--workers', '2']
      product = await startProduct({ command: 'glimpse', args, port, log: join(dir, 'output') })
      return product
    },
    clouds: async () =>
      (parse(await readFile(join(data, 'clouds.yaml'), 'utf8')) as { clouds: Record<string, Cloud | undefined> })
        .clouds,
  }
}

/** Logs in as clients do, and says which image endpoint the catalog has. */
async function logIn({ auth }: Cloud): Promise<{ token: string; image: string }> {
  const domain = { name: 'Default' }
  const response = await fetch(`${auth.auth_url}/auth/tokens`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({
      auth: {
        identity: {
          methods: ['password'],
          password: { user: { name: auth.username, domain, password: auth.password } },
        },
        scope: { project: { name: auth.project_name, domain } },
      },
    }),
  })
  assert.equal(response.status, 201)
  const { token } = (await response.json()) as {
    token: { catalog: { type: string; endpoints: { interface: string; url: string }[] }[] }
  }
  const image = token.catalog
    .find(({ type }) => type === 'image')
    ?.endpoints.find((endpoint) => endpoint.interface === 'public')
  assert.ok(image)
  return { token: response.headers.get('x-subject-token') ?? '', image: image.url }
}

it('one command makes a cloud, and a second start keeps it', async (t) => {
  const { data, start, clouds } = await dataFolder(t)
  const first = await start(await freePort())
  assert.equal((await stat(join(data, 'clouds.yaml'))).mode & 0o777, 0o600)
  const before = await clouds()
  const admin = before['glimpse']
  assert.ok(admin && before['demo'])
  const { token, image } = await logIn(admin)
  const headers = { 'x-auth-token': token }
  const made = await fetch(`${image}/v2/images`, { method: 'POST', headers, body: '{"name": "kept"}' })
  assert.equal(made.status, 201)
  await first.stop()

  const port = await freePort()
  const second = await start(port)
  const after = await clouds()
  assert.equal(after['glimpse']?.auth.password, admin.auth.password)
  assert.equal(after['glimpse']?.auth.auth_url, `http://127.0.0.1:${port}/identity/v3`)
  const again = await logIn(after['glimpse'] as Cloud)
  const list = (await (
    await fetch(`${again.image}/v2/images`, { headers: { 'x-auth-token': again.token } })
  ).json()) as { images: { name: string }[] }
  assert.deepEqual(
    list.images.map(({ name }) => name),
    ['kept'],
  )
  // The token of before is still good: it is signed, and nobody revoked it.
  assert.equal((await fetch(`${again.image}/v2/images`, { headers })).status, 200)
  await second.stop()
})

it('users are managed while the service runs', async (t) => {
  const { data, start, clouds } = await dataFolder(t)
  const product = await start(await freePort())
  const identity = async (...args: string[]) =>
    (await run(`${root}bin/glimpse`, ['--data', data, 'identity', ...args])).stdout
  const demo = (await clouds())['demo'] as Cloud
  await logIn(demo)
  assert.match(await identity('user', 'list'), /^ID +NAME +ENABLED\n.+ admin +yes\n.+ demo +yes\n$/)
  await identity('user', 'set', 'demo', '--disable')
  await assert.rejects(logIn(demo))
  await assert.rejects(identity('user', 'set', 'nobody', '--enable'), /nobody/)
  await product.stop()
})

it('a port that is taken is one line and exit code 1', async (t) => {
  const { data, start } = await dataFolder(t)
  const port = await freePort()
  const product = await start(port)
  const other = run(`${root}bin/glimpse`, ['--data', `${data}2`, '--port', String(port), '--workers', '2'])
  await assert.rejects(other, (error: Error & { code: number; stderr: string }) => {
    assert.equal(error.code, 1)
    assert.equal(error.stderr, `ERROR: 127.0.0.1:${port} is in use already\n`)
    return true
  })
  await product.stop()
})
