import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import { gzipSync } from 'node:zlib'
import { keystoneIdentity } from '../../src/auth/keystone.ts'
import { until } from '../support/product.ts'
import { startServer, type TestConfig, type TestServer } from '../support/server.ts'
import { available, type KeystoneServer, PASSWORD, startKeystone } from '../support/servers/keystone.ts'
import { serving, startWebServer, type WebServer } from '../support/servers/web.ts'

const METHODS = '[glance-direct,web-download,glance-download]'
const FILTER = { allowed_ports: '[]', disallowed_ports: '[1]' }

type Json = Record<string, unknown>

const client = (server: TestServer, token: string) => {
  const send = async (method: string, path: string, body?: Json) => {
    const response = await fetch(`${server.url}${path}`, {
      method,
      headers: { 'x-auth-token': token, 'content-type': 'application/json' },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    })
    return response
  }
  const json = async (method: string, path: string, body?: Json) => {
    const response = await send(method, path, body)
    const answer = await response.text()
    assert.ok(response.ok, `${method} ${path}: ${answer}`)
    return JSON.parse(answer) as Json
  }
  return {
    send,
    create: async (more: Json = {}) =>
      String((await json('POST', '/v2/images', { disk_format: 'raw', container_format: 'bare', ...more }))['id']),
    show: (id: string) => json('GET', `/v2/images/${id}`),
    data: async (id: string) => Buffer.from(await (await send('GET', `/v2/images/${id}/file`)).arrayBuffer()),
    upload: (id: string, data: Buffer) =>
      fetch(`${server.url}/v2/images/${id}/file`, {
        method: 'PUT',
        headers: { 'x-auth-token': token, 'content-type': 'application/octet-stream' },
        body: new Uint8Array(data),
      }),
    /** Waits for the end; gives the task. */
    import: async (id: string, method: Json): Promise<Json> => {
      const tasksOf = async () => ((await json('GET', `/v2/images/${id}/tasks`)) as { tasks: readonly Json[] }).tasks
      const before = new Set((await tasksOf()).map((one) => one['id']))
      const response = await send('POST', `/v2/images/${id}/import`, { method })
      assert.equal(response.status, 202, await response.text())
      let task: Json = {}
      await until('the end of the import', async () => {
        task = (await tasksOf()).find((one) => !before.has(one['id'])) ?? {}
        return ['success', 'failure'].includes(String(task['status']))
      })
      return task
    },
  }
}

const stagedIn = (server: TestServer) => readdir(join(server.dir, 'staging'))

describe('web-download', () => {
  let web: WebServer
  let server: TestServer
  let user: ReturnType<typeof client>
  const data = randomBytes(2_000_000)
  const open = (config: TestConfig = {}) =>
    startServer({
      config: {
        import_filtering_opts: FILTER,
        image_import_opts: { image_import_plugins: '[image_decompression,inject_image_metadata,no_op]' },
        inject_metadata_properties: { inject: 'imported:yes' },
        ...config,
      },
    })
  before(async () => {
    web = await startWebServer()
    web.on('/data', serving(data))
    web.on('/data.gz', serving(gzipSync(data)))
    server = await open()
    user = client(server, 'alice:p1:member,reader')
  })
  after(async () => {
    await server.close()
    await web.close()
  })

  it('brings data into an image, through the plugins', async () => {
    for (const path of ['/data', '/data.gz?key=secret']) {
      const id = await user.create()
      const uri = `${web.url.replace('//', '//joe:secret@')}${path}`
      const task = await user.import(id, { name: 'web-download', uri })
      assert.equal(web.requests.at(-1)?.url, path)
      assert.equal(web.requests.at(-1)?.headers.authorization, `Basic ${btoa('joe:secret')}`)
      assert.doesNotMatch(JSON.stringify(task), /secret/)
      assert.equal(task['status'], 'success', String(task['message']))
      const image = await user.show(id)
      assert.equal(image['status'], 'active')
      assert.equal(image['size'], data.length)
      assert.equal(image['imported'], 'yes')
      assert.ok((await user.data(id)).equals(data))
      // What was staged goes after the task has told of its end.
      await until('nothing is staged', async () => (await stagedIn(server)).length === 0)
    }
  })

  it('says why it fails, and leaves the image as it was', async () => {
    const before = await user.show(await user.create())
    const id = String(before['id'])
    const cases: [Json, RegExp][] = [
      [{ uri: `${web.url}/none` }, /^127\.0\.0\.1:\d+ answers 404 Not Found$/],
      [
        { uri: `${web.url.replace('//', '//joe:secret@')}/none?key=secret` },
        /^127\.0\.0\.1:\d+ answers 404 Not Found$/,
      ],
      [
        { uri: `${web.url}/data`, os_hash_algo: 'md5', os_hash_value: '00'.repeat(16) },
        /^The data has the md5 digest [0-9a-f]{32}, expected was 0+$/,
      ],
    ]
    for (const [method, message] of cases) {
      const task = await user.import(id, { name: 'web-download', ...method })
      assert.equal(task['status'], 'failure')
      assert.match(String(task['message']), message)
      assert.doesNotMatch(JSON.stringify(task), /secret/)
      const { updated_at: _, ...image } = await user.show(id)
      const { updated_at: __, ...expected } = before
      assert.deepEqual(image, { ...expected, os_glance_importing_to_stores: '', os_glance_failed_import: '' })
      assert.deepEqual(await stagedIn(server), [])
    }
  })

  it('refuses what does not pass the filter', async () => {
    const id = await user.create()
    const response = await user.send('POST', `/v2/images/${id}/import`, {
      method: { name: 'web-download', uri: 'http://joe:secret@127.0.0.1:1/' },
    })
    assert.equal(response.status, 400)
    assert.match(
      await response.text(),
      /URI for web-download does not pass filtering: http:\/\/\*\*\*@127\.0\.0\.1:1\//,
    )
    const closed = await open({ glimpse: { import_addresses: 'public' } })
    try {
      const other = client(closed, 'alice:p1:member,reader')
      const refused = await other.send('POST', `/v2/images/${await other.create()}/import`, {
        method: { name: 'web-download', uri: `${web.url}/data` },
      })
      assert.equal(refused.status, 400)
    } finally {
      await closed.close()
    }
  })
})

const hasQemu = (() => {
  try {
    execFileSync('qemu-img', ['--version'], { stdio: 'pipe' })
    return true
  } catch {
    return process.env['CI'] === 'true'
  }
})()

describe('image_conversion', { skip: hasQemu ? false : 'qemu-img is not installed' }, () => {
  let web: WebServer
  let server: TestServer
  let dir: string
  const disk = Buffer.alloc(1_048_576, 'a disk ')
  const qemuImg = async (...args: string[]) => {
    execFileSync('qemu-img', args, { cwd: dir, stdio: 'pipe' })
    return readFile(join(dir, args.find((one) => one.endsWith('.qcow2')) ?? ''))
  }
  before(async () => {
    dir = await mkdtemp(join(tmpdir(), 'glimpse-conversion-'))
    await writeFile(join(dir, 'disk.raw'), disk)
    web = await startWebServer()
    server = await startServer({
      config: {
        import_filtering_opts: FILTER,
        image_import_opts: { image_import_plugins: '[image_decompression,image_conversion]' },
      },
    })
  })
  after(async () => {
    await server.close()
    await web.close()
    await rm(dir, { recursive: true })
  })

  it('makes raw of what comes, and refuses what refers to files of this machine', async () => {
    const user = client(server, 'alice:p1:member,reader')
    web.on('/good', serving(gzipSync(await qemuImg('convert', '-O', 'qcow2', 'disk.raw', 'good.qcow2'))))
    web.on(
      '/bad',
      serving(await qemuImg('create', '-f', 'qcow2', '-F', 'raw', '-b', join(dir, 'disk.raw'), 'bad.qcow2')),
    )
    const good = await user.create({ disk_format: 'qcow2' })
    const task = await user.import(good, { name: 'web-download', uri: `${web.url}/good` })
    assert.equal(task['status'], 'success', String(task['message']))
    const image = await user.show(good)
    const { disk_format, status, size, virtual_size } = image
    assert.deepEqual([disk_format, status, size, virtual_size], ['raw', 'active', disk.length, disk.length])
    assert.ok((await user.data(good)).equals(disk))

    const bad = await user.create({ disk_format: 'qcow2' })
    const failed = await user.import(bad, { name: 'web-download', uri: `${web.url}/bad` })
    assert.deepEqual([failed['status'], failed['message']], ['failure', 'Image failed safety checks'])
    const after = await user.show(bad)
    assert.deepEqual([after['disk_format'], after['status'], after['size']], ['qcow2', 'queued', null])
    assert.deepEqual(await stagedIn(server), [])
  })
})

const installed = available()
const skip = !installed.ok && process.env['CI'] !== 'true' && installed.reason

describe('glance-download', { skip }, () => {
  let keystone: KeystoneServer
  let here: TestServer
  let there: TestServer
  const data = randomBytes(500_000)
  before(async () => {
    keystone = await startKeystone()
    const open = () => {
      const options = {
        auth_url: keystone.url,
        username: 'glance',
        password: PASSWORD,
        user_domain_name: 'Default',
        project_name: 'service',
        project_domain_name: 'Default',
      }
      return startServer({
        identity: keystoneIdentity(options, { warn: () => undefined }),
        config: {
          DEFAULT: { enabled_import_methods: METHODS },
          keystone_authtoken: options,
          import_filtering_opts: FILTER,
          glance_download_properties: { extra_properties: '[hw_,os_]' },
        },
      })
    }
    here = await open()
    there = await open()
    const { service } = (await keystone.admin('POST', '/services', {
      service: { type: 'image', name: 'glance' },
    })) as { service: { id: string } }
    await keystone.admin('POST', '/regions', { region: { id: 'RegionTwo' } })
    for (const [region, url] of [
      ['RegionOne', here.url],
      ['RegionTwo', `${there.url}/`],
    ]) {
      await keystone.admin('POST', '/endpoints', {
        endpoint: { service_id: service.id, interface: 'public', region_id: region, url },
      })
    }
  })
  after(async () => {
    await here.close()
    await there.close()
    await keystone.stop()
  })

  it('copies data, formats and some properties from another region, or takes all of it back', async () => {
    const token = await keystone.token('demo')
    const [near, far] = [client(here, token), client(there, token)]
    const source = await far.create({
      container_format: 'ovf',
      hw_disk_bus: 'scsi',
      os_distro: 'debian',
      color: 'red',
    })
    assert.equal((await far.upload(source, data)).status, 204)
    const target = await near.create({ disk_format: 'qcow2', hw_disk_bus: 'virtio', own: 'kept' })
    const order = { name: 'glance-download', glance_region: 'regiontwo', glance_image_id: source }
    const task = await near.import(target, order)
    assert.equal(task['status'], 'success', String(task['message']))
    const image = await near.show(target)
    assert.equal(image['status'], 'active')
    assert.equal(image['disk_format'], 'raw')
    assert.equal(image['container_format'], 'ovf')
    assert.equal(image['hw_disk_bus'], 'scsi')
    assert.equal(image['os_distro'], 'debian')
    assert.equal(image['own'], 'kept')
    assert.equal('color' in image, false)
    assert.ok((await near.data(target)).equals(data))

    // The data of this one is gone: all that was copied before is taken back.
    const broken = await far.create({ container_format: 'ovf', hw_disk_bus: 'scsi', os_distro: 'debian' })
    await far.upload(broken, data)
    const [file] = (await readdir(join(there.dir, 'images'))).filter((name) => name === broken)
    await rm(join(there.dir, 'images', file ?? ''))
    const before = await near.show(await near.create({ disk_format: 'qcow2', hw_disk_bus: 'virtio' }))
    const failed = await near.import(String(before['id']), { ...order, glance_image_id: broken })
    assert.equal(failed['status'], 'failure')
    assert.equal(failed['message'], 'Downloaded data size 0 is different from expected 500000')
    const { updated_at: _, ...image2 } = await near.show(String(before['id']))
    const { updated_at: __, ...expected } = before
    assert.deepEqual(image2, { ...expected, os_glance_importing_to_stores: '', os_glance_failed_import: '' })
    assert.deepEqual(await stagedIn(here), [])
  })

  it('says what it needs, and what it does not find', async () => {
    const token = await keystone.token('demo')
    const [near, far] = [client(here, token), client(there, token)]
    const empty = await far.create()
    const id = await near.create()
    const refusals: [Json, string][] = [
      [{}, "'glance_region' needs to be set for glance-download import method"],
      [{ glance_region: 'RegionTwo' }, "'glance_image_id' needs to be set for glance-download import method"],
      [{ glance_region: 'RegionTwo', glance_image_id: 'x' }, 'Remote image id does not look like a UUID: x'],
    ]
    for (const [method, message] of refusals) {
      const response = await near.send('POST', `/v2/images/${id}/import`, {
        method: { name: 'glance-download', ...method },
      })
      assert.equal(response.status, 400)
      const text = (await response.text()).replaceAll(/&#(?:x27|39);/g, "'")
      assert.ok(text.includes(message), text)
    }
    const order = { name: 'glance-download', glance_region: 'RegionTwo', glance_image_id: empty }
    const failures: [Json, RegExp][] = [
      [{}, /^Source image status should be active instead of queued$/],
      [{ glance_region: 'Nowhere' }, /^public glance endpoint not found for region Nowhere$/],
      [{ glance_service_interface: 'admin' }, /^admin glance endpoint not found for region RegionTwo$/],
      [{ glance_image_id: crypto.randomUUID() }, /answers 404 Not Found$/],
    ]
    for (const [more, message] of failures) {
      const task = await near.import(id, { ...order, ...more })
      assert.equal(task['status'], 'failure')
      assert.match(String(task['message']), message)
    }
    assert.equal((await near.show(id))['status'], 'queued')
  })
})
