import assert from 'node:assert/strict'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, it, type TestContext } from 'node:test'
import { readConfig } from '../../config/config.ts'
import { checkPaste } from './paste.ts'

/** The shape that upstream ships. */
const PRESENT = `[composite:glance-api-keystone+caching]
paste.composite_factory = glance.api:root_app_factory
/: api
/healthcheck: healthcheck

[composite:api]
paste.composite_factory = glance.api:pipeline_factory
default = cors http_proxy_to_wsgi versionnegotiation unauthenticated-context rootapp
keystone+caching = cors http_proxy_to_wsgi versionnegotiation osprofiler authtoken context cache rootapp

[composite:rootapp]
paste.composite_factory = glance.api:root_app_factory
/: apiversions
/v2: apiv2app

[app:apiversions]
paste.app_factory = glance.api.versions:create_resource
[app:apiv2app]
paste.app_factory = glance.api.v2.router:API.factory
[app:healthcheck]
paste.app_factory = oslo_middleware:Healthcheck.app_factory
backends = disable_by_file
disable_by_file_path = /etc/glance/healthcheck_disable
`
const FILTERS = `
[filter:versionnegotiation]
paste.filter_factory = glance.api.middleware.version_negotiation:VersionNegotiationFilter.factory
[filter:cache]
paste.filter_factory = glance.api.middleware.cache:CacheFilter.factory
[filter:context]
paste.filter_factory = glance.api.middleware.context:ContextMiddleware.factory
[filter:authtoken]
paste.filter_factory = keystonemiddleware.auth_token:filter_factory
delay_auth_decision = true
[filter:osprofiler]
paste.filter_factory = osprofiler.web:WsgiMiddleware.factory
hmac_keys = SECRET_KEY
[filter:cors]
use = egg:oslo.middleware#cors
oslo_config_project = glance
[filter:http_proxy_to_wsgi]
paste.filter_factory = oslo_middleware:HTTPProxyToWSGI.factory
[filter:gzip]
paste.filter_factory = glance.api.middleware.gzip:GzipMiddleware.factory
[filter:audit]
paste.filter_factory = keystonemiddleware.audit:filter_factory
audit_map_file = /etc/glance/audit_map.conf
`
/** The shape of some years ago. */
const FORMER = `[pipeline:glance-api-keystone+caching]
pipeline = cors http_proxy_to_wsgi versionnegotiation authtoken context cache rootapp
[composite:rootapp]
paste.composite_factory = glance.api:root_app_factory
/: apiversions
`

async function found(
  t: TestContext,
  paste: string,
  flavor = 'keystone+caching',
  more = '',
): Promise<readonly string[]> {
  const dir = await mkdtemp(join(tmpdir(), 'paste-'))
  t.after(() => rm(dir, { recursive: true, force: true }))
  const file = join(dir, 'glance-api.conf')
  await writeFile(file, `[paste_deploy]\nflavor = ${flavor}\n${more}`)
  await writeFile(join(dir, 'glance-api-paste.ini'), paste)
  const config = readConfig({ program: 'glance-api', configs: [{ file }], etc: dir })
  return [...checkPaste(config)].map(({ level, text, advice = '' }) => `${level}: ${text} ${advice}`)
}

describe('the paste file in the takeover check', () => {
  it('is followed as upstream ships it: only tracing and the path of the health check are told', async (t) => {
    const [pipeline, tracing, health, ...others] = await found(t, PRESENT + FILTERS)
    assert.match(
      pipeline ?? '',
      /^ok: .*cors http_proxy_to_wsgi versionnegotiation osprofiler authtoken context cache\./,
    )
    assert.match(tracing ?? '', /^note: .*osprofiler/)
    assert.match(health ?? '', /^note: .*\[healthcheck\] disable_by_file_path = \/etc\/glance\/healthcheck_disable/)
    assert.deepEqual(others, [])
  })
  it('need not say what the configuration says as well', async (t) => {
    const health = '[healthcheck]\ndisable_by_file_path = /etc/glance/healthcheck_disable\n'
    assert.equal(
      (await found(t, PRESENT + FILTERS, undefined, health)).some((line) => line.includes('healthcheck')),
      false,
    )
  })
  it('is followed in its former shape', async (t) => {
    const all = await found(t, FORMER + FILTERS)
    assert.equal(all.length, 1)
    assert.match(all[0] ?? '', /^ok: .*: the pipeline of glance-api-keystone\+caching is cors .* cache\./)
  })
  it('may have filters that are lost, and options that are not read', async (t) => {
    const all = await found(
      t,
      FORMER.replace('cache', 'gzip audit cache') +
        FILTERS.replace('delay_auth', 'auth_url = http://other\ndelay_auth'),
    )
    assert.ok(all.some((line) => /^note: .*gzip/.test(line)))
    assert.ok(all.some((line) => /^problem: The filter audit \(keystonemiddleware\.audit/.test(line)))
    assert.ok(all.some((line) => /^problem: Options in \[filter:authtoken\] are not read: auth_url\./.test(line)))
  })
  it('and the flavor agree about Keystone', async (t) => {
    assert.ok(
      (await found(t, FORMER.replace(' authtoken', '') + FILTERS)).some((line) =>
        /^problem: .*has no authtoken/.test(line),
      ),
    )
    const open = FORMER.replace('glance-api-keystone+caching', 'glance-api-caching')
    assert.ok(
      (await found(t, open + FILTERS, 'caching')).some((line) => /^problem: .*everybody for an admin/.test(line)),
    )
  })
  it('lacks the flavor', async (t) => {
    assert.match((await found(t, FORMER, 'keystone'))[0] ?? '', /^problem: .*has no application glance-api-keystone\./)
  })
})
