import assert from 'node:assert/strict'
import { after, before, describe, it } from 'node:test'
import {
  available,
  type KeystoneServer,
  limitProject,
  PASSWORD,
  registerLimits,
  startKeystone,
} from '../../test/support/servers/keystone.ts'
import { hasKind } from '../domain/errors.ts'
import type { ProjectId } from '../domain/ids.ts'
import { type KeystoneLimitOptions, keystoneLimits } from './keystone-limits.ts'
import type { ProjectLimits } from './limits.ts'

const installed = available()
const skip = !installed.ok && process.env['CI'] !== 'true' && installed.reason

describe('keystoneLimits()', { skip }, () => {
  let keystone: KeystoneServer
  let service: string
  let endpoint: string
  let clock = 0
  const opened: ProjectLimits[] = []
  const warnings: string[] = []

  const open = (options: KeystoneLimitOptions = { endpoint_id: endpoint }): ProjectLimits => {
    const login = {
      auth_url: keystone.url,
      username: 'glance',
      password: PASSWORD,
      user_domain_name: 'Default',
      system_scope: 'all',
    }
    const tools = { warn: (message: string) => void warnings.push(message), now: () => Date.now() + clock }
    const limits = keystoneLimits({ ...login, ...options }, tools)
    opened.push(limits)
    return limits
  }
  const project = (name: string) => keystone.projects[name] as ProjectId

  before(async () => {
    keystone = await startKeystone()
    const registered = { image_size_total: 100, image_stage_total: -1, image_count_total: 20 }
    ;({ service, endpoint } = await registerLimits(keystone, registered))
    await limitProject(keystone, service, project('demo'), { image_size_total: 5, image_count_total: -1 })
  })
  after(async () => {
    await Promise.all(opened.map((limits) => limits.close()))
    await keystone.stop()
  })

  it("gives a project's own limits, else the registered ones, else 0 with a warning", async () => {
    const registered = { image_size_total: 100, image_stage_total: -1, image_count_total: 20, image_count_uploading: 0 }
    const limits = open()
    assert.deepEqual(await limits.of(project('demo')), { ...registered, image_size_total: 5, image_count_total: -1 })
    assert.deepEqual(await limits.of(project('alt_demo')), registered)
    assert.deepEqual(await limits.of(null), registered)
    assert.ok(warnings.includes('Keystone has no registered limit image_count_uploading: it counts as 0'))
  })

  it('finds the endpoint by the type of its service, region and interface', async () => {
    const found = open({
      endpoint_service_type: 'image',
      endpoint_service_name: 'glance',
      endpoint_region_name: 'RegionOne',
      endpoint_interface: 'publicURL',
    })
    assert.equal((await found.of(project('demo'))).image_size_total, 5)
  })

  it('says that its configuration is wrong when it leads to no endpoint', async () => {
    for (const options of [
      {},
      { endpoint_service_type: 'imagine' },
      { endpoint_service_type: 'image', endpoint_region_name: 'Two' },
    ])
      await assert.rejects(open(options).of(null), (error) => hasKind(error, 'internal'), JSON.stringify(options))
  })

  it('sees a change at once, or after cache_time, and keeps the last limits while Keystone is away', async () => {
    const limits = open({ endpoint_id: endpoint, cache_time: 10 })
    const direct = open()
    const other = project('admin')
    assert.equal((await limits.of(other)).image_size_total, 100)
    assert.equal((await direct.of(other)).image_size_total, 100)
    await limitProject(keystone, service, other, { image_size_total: 7 })
    assert.equal((await limits.of(other)).image_size_total, 100)
    assert.equal((await direct.of(other)).image_size_total, 7)
    clock += 11_000
    assert.equal((await limits.of(other)).image_size_total, 7)
    await keystone.halt()
    clock += 3_600_000
    assert.equal((await limits.of(other)).image_size_total, 7)
    assert.equal((await direct.of(other)).image_size_total, 7)
    await assert.rejects(limits.of(project('service')), (error) => hasKind(error, 'unavailable'))
    await keystone.start()
    assert.equal((await limits.of(project('service'))).image_size_total, 100)
  })
})
