/** Every step of every job fails in turn, before and after it did its work, or runs twice: with what a service really does. */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import { existsSync } from 'node:fs'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import { gzipSync } from 'node:zlib'
import { keystoneIdentity } from '../../src/auth/keystone.ts'
import type { Imports } from '../../src/core/core.ts'
import { ServiceError } from '../../src/domain/errors.ts'
import type { Step } from '../../src/imports/import.ts'
import { startServer, type TestConfig, type TestServer } from '../support/server.ts'
import { available, type KeystoneServer, PASSWORD, startKeystone } from '../support/servers/keystone.ts'
import { startWebServer, type WebServer } from '../support/servers/web.ts'
import { assertAtRest, type Client, clientOf, essence, filesIn, type Json } from './client.ts'

type Wrap = (steps: readonly Step[]) => readonly Step[]
const NO_MORE = new ServiceError('unavailable', 'this step fails')

interface Place {
  readonly server: TestServer
  readonly user: Client
  readonly web: WebServer
  wrapSteps(by: Wrap): void
  close(): Promise<void>
}

async function openPlace(config: TestConfig, options: Partial<Parameters<typeof startServer>[0]> = {}): Promise<Place> {
  const server = await startServer({ config, ...options })
  const web = await startWebServer()
  const imports = server.app.core.imports as { -readonly [Name in keyof Imports]: Imports[Name] }
  const { runner } = imports
  let wrap: Wrap = (steps) => steps
  imports.runner = {
    ...runner,
    start: (job, build) =>
      runner.start(job, async (running) => {
        const flow = await build(running)
        return { ...flow, steps: wrap(flow.steps) }
      }),
  }
  return {
    server,
    web,
    user: clientOf(server),
    wrapSteps: (by) => {
      wrap = by
    },
    close: async () => {
      await server.close()
      await web.close()
    },
  }
}

/** One way in which an image comes to its data. */
interface Scenario {
  readonly name: string
  /** How many steps it has at least. */
  readonly steps: number
  /** Steps after which it cannot fail any more, by name: what comes then is a bonus. */
  readonly mayEndWell?: readonly string[]
  open(): Promise<Place>
  /** Begins on a new image, and gives the id of the image, if there is one yet, and the task when it has ended. */
  begin(place: Place): Promise<{ readonly image: string | undefined; readonly before: Json; readonly task: Json }>
  /** Throws unless the image is as it should be. */
  check(place: Place, image: Json): Promise<void>
}

const DATA = randomBytes(1_500_000)
const sha512 = createHash('sha512').update(DATA).digest('hex')
const STAGING = { import_filtering_opts: { allowed_ports: '[]' } }

async function assertData({ user }: Place, image: Json, data = DATA): Promise<void> {
  assert.equal(image['status'], 'active')
  assert.ok(data.equals(await user.data(String(image['id']))))
  assert.equal(image['checksum'], createHash('md5').update(data).digest('hex'))
}

/** Of an image that is made beforehand. */
const onImage =
  (attributes: Json, start: (place: Place, id: string) => Promise<Json>): Scenario['begin'] =>
  async (place) => {
    const image = await place.user.create(attributes)
    const before = await place.user.show(image)
    return { image, before, task: await start(place, image) }
  }

const stores = 'fast:file, web:http'
const locationFlow = (
  name: string,
  options: Readonly<Record<string, string>>,
  stated: Json,
  mayEndWell: string[],
): Scenario => ({
  name,
  steps: 1,
  mayEndWell,
  open: () =>
    openPlace({
      DEFAULT: { enabled_backends: stores, http_retries: '0', ...options },
      glance_store: { default_backend: 'fast' },
    }),
  begin: onImage({}, async ({ user, web }, id) => {
    const url = `${web.url}${web.serve(DATA)}`
    const answer = await user.send('POST', `/v2/images/${id}/locations`, { url, ...stated })
    assert.equal(answer.status, 202, await answer.text())
    const { tasks } = (await user.json('GET', `/v2/images/${id}/tasks`)) as { tasks: { id: string }[] }
    return user.ended(String(tasks.at(-1)?.id))
  }),
  check: async ({ user }, image) => {
    assert.equal(image['status'], 'active')
    assert.ok(DATA.equals(await user.data(String(image['id']))))
    if (options['do_secure_hash'] !== 'False' || 'validation_data' in stated)
      assert.equal(image['os_hash_value'], sha512)
  },
})
const VALIDATION = { validation_data: { os_hash_algo: 'sha512', os_hash_value: sha512 } }
const hasQemu = existsSync('/usr/bin/qemu-img') || process.env['CI'] === 'true'

const REFUSING = 'a location with a stated digest'

const scenarios: readonly Scenario[] = [
  {
    name: 'web-download, through every plugin',
    steps: hasQemu ? 6 : 5,
    open: () =>
      openPlace({
        ...STAGING,
        image_import_opts: {
          image_import_plugins: `[image_decompression,${hasQemu ? 'image_conversion,' : ''}inject_image_metadata,no_op]`,
        },
        image_conversion: { output_format: 'raw' },
        inject_metadata_properties: { inject: 'imported:yes,color:blue', ignore_user_roles: 'nobody' },
      }),
    begin: onImage({ disk_format: hasQemu ? 'qcow2' : 'raw', color: 'red' }, async ({ user, web }, id) => {
      const uri = `${web.url}${web.serve(gzipSync(hasQemu ? await qcow2Of(DATA) : DATA))}`
      return user.import(id, { name: 'web-download', uri })
    }),
    check: async (place, image) => {
      // Of whole sectors.
      const sectors = Buffer.concat([DATA, Buffer.alloc(hasQemu ? (512 - (DATA.length % 512)) % 512 : 0)])
      await assertData(place, image, sectors)
      assert.deepEqual([image['disk_format'], image['imported'], image['color']], ['raw', 'yes', 'blue'])
    },
  },
  {
    name: 'a task of type import',
    steps: 3,
    open: () => openPlace(STAGING),
    begin: async ({ user, web }) => {
      const image_properties = { disk_format: 'raw', container_format: 'bare', name: 'legacy' }
      const input = { import_from: `${web.url}${web.serve(DATA)}`, import_from_format: 'raw', image_properties }
      const { id } = await user.json('POST', '/v2/tasks', { type: 'import', input })
      return { image: undefined, before: {}, task: await user.ended(String(id)) }
    },
    check: (place, image) => assertData(place, image),
  },
  locationFlow(REFUSING, {}, VALIDATION, []),
  locationFlow('a location without one', {}, {}, ['location', 'digest']),
  locationFlow('a location whose digest is believed', { do_secure_hash: 'False' }, VALIDATION, []),
  locationFlow('a location without digests', { do_secure_hash: 'False' }, {}, []),
]

async function qcow2Of(data: Buffer): Promise<Buffer> {
  const dir = await mkdtemp(join(tmpdir(), 'glimpse-steps-'))
  try {
    await writeFile(join(dir, 'raw'), data)
    execFileSync('qemu-img', ['convert', '-f', 'raw', '-O', 'qcow2', join(dir, 'raw'), join(dir, 'qcow2')])
    return await readFile(join(dir, 'qcow2'))
  } finally {
    await rm(dir, { recursive: true })
  }
}

/** The image of a task that has succeeded. */
const imageOf = ({ user }: Place, { result }: Json) => user.show(String((result as Json)['image_id']))
const storesOf = ({ server: { dir } }: Place) =>
  [join(dir, 'images'), join(dir, 'fast')].filter((folder) => existsSync(folder))

function describeScenario(
  { name, steps, mayEndWell = [], open, begin, check }: Scenario,
  skip: string | false = false,
) {
  describe(name, { skip }, () => {
    let place: Place
    before(async () => {
      place = await open()
    })
    after(() => place.close())

    it('does the same when every step runs twice', async () => {
      const seen: string[] = []
      place.wrapSteps((all) =>
        all.map((step) => ({
          ...step,
          run: async (signal) => {
            seen.push(step.name)
            await step.run(signal)
            await step.run(signal)
          },
        })),
      )
      const { task } = await begin(place)
      assert.equal(task['status'], 'success', String(task['message']))
      assert.ok(seen.length >= steps, `${seen}`)
      await check(place, await imageOf(place, task))
      await assertAtRest(place.server, [join(place.server.dir, 'staging')])
    })

    for (const when of ['before', 'after'] as const) {
      it(`leaves nothing behind when a step fails ${when} it did its work`, async () => {
        for (let failing = 0, failed: string | undefined = ''; failed !== undefined; failing += 1) {
          failed = undefined
          place.wrapSteps((all) =>
            all.map((step, index) => ({
              ...step,
              run: async (signal) => {
                if (index !== failing || when === 'after') await step.run(signal)
                if (index !== failing) return
                failed = step.name
                throw NO_MORE
              },
            })),
          )
          const kept = (await Promise.all(storesOf(place).map(filesIn))).flat()
          const { image, before, task } = await begin(place)
          await assertAtRest(place.server, [join(place.server.dir, 'staging')])
          if (failed === undefined) {
            assert.equal(task['status'], 'success', String(task['message']))
            continue
          }
          assert.deepEqual([task['status'], task['message']], ['failure', 'this step fails'], failed)
          assert.deepEqual((await Promise.all(storesOf(place).map(filesIn))).flat(), kept, failed)
          const { images } = (await place.user.json('GET', '/v2/images')) as { images: readonly Json[] }
          const found = images.find(({ id }) => id === image)
          if (image === undefined)
            assert.ok(
              images.every(({ status }) => status === 'active'),
              failed,
            )
          else if (mayEndWell.includes(failed) && found?.['status'] === 'active') assert.equal(found['checksum'], null)
          else {
            // A queued image may show where on the web the data is that was refused; nothing is kept by that.
            const { stores: _, ...queued } = essence(found ?? {})
            assert.deepEqual(name === REFUSING ? queued : essence(found ?? {}), essence(before), failed)
          }
        }
      })
    }

    it('and comes to its end after all of that', async () => {
      place.wrapSteps((all) => all)
      const { task } = await begin(place)
      await check(place, await imageOf(place, task))
    })
  })
}

for (const scenario of scenarios) describeScenario(scenario)

const installed = available()
const withoutKeystone = !installed.ok && process.env['CI'] !== 'true' && installed.reason
let keystone: KeystoneServer | undefined
let there: TestServer | undefined

describe('with a Keystone', { skip: withoutKeystone }, () => {
  after(async () => {
    await there?.close()
    await keystone?.stop()
  })
  let source = ''
  describeScenario({
    name: 'glance-download',
    steps: 4,
    open: async () => {
      keystone = await startKeystone()
      const login = {
        auth_url: keystone.url,
        username: 'glance',
        password: PASSWORD,
        user_domain_name: 'Default',
        project_name: 'service',
        project_domain_name: 'Default',
      }
      const config = {
        ...STAGING,
        DEFAULT: { enabled_import_methods: '[glance-download]' },
        keystone_authtoken: login,
        glance_download_properties: { extra_properties: '[hw_]' },
      }
      const identity = () => keystoneIdentity(login, { warn: () => undefined })
      there = await startServer({ config, identity: identity() })
      const place = await openPlace(config, { identity: identity() })
      const { service } = (await keystone.admin('POST', '/services', {
        service: { type: 'image', name: 'glance' },
      })) as { service: { id: string } }
      await keystone.admin('POST', '/regions', { region: { id: 'RegionTwo' } })
      for (const [region, url] of [
        ['RegionOne', place.server.url],
        ['RegionTwo', there.url],
      ]) {
        const endpoint = { service_id: service.id, interface: 'public', region_id: region, url }
        await keystone.admin('POST', '/endpoints', { endpoint })
      }
      const token = await keystone.token('demo')
      const far = clientOf(there, token)
      source = await far.create({ container_format: 'ovf', hw_disk_bus: 'scsi' })
      assert.equal((await far.put(source, 'file', DATA)).status, 204)
      return { ...place, user: clientOf(place.server, token) }
    },
    begin: onImage({ disk_format: 'qcow2', hw_disk_bus: 'virtio', own: 'kept' }, ({ user }, id) =>
      user.import(id, { name: 'glance-download', glance_region: 'RegionTwo', glance_image_id: source }),
    ),
    check: async (place, image) => {
      await assertData(place, image)
      const { disk_format, container_format, hw_disk_bus, own } = image
      assert.deepEqual([disk_format, container_format, hw_disk_bus, own], ['raw', 'ovf', 'scsi', 'kept'])
    },
  })
})
