import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { hash } from 'node:crypto'
import { readFile, rm, writeFile } from 'node:fs/promises'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { after, before, describe, it, type TestContext } from 'node:test'
import { promisify } from 'node:util'
import { openApp } from '../../src/app.ts'
import { type Course, replay, walk } from '../../src/cli/takeover/shadow/course.ts'
import { type ShadowResult, shadow, shadowFindings } from '../../src/cli/takeover/shadow/shadow.ts'
import { openRest } from '../../src/io/rest.ts'
import { silentLog } from '../../src/log.ts'
import { root } from '../support/product.ts'
import { selfSpokenTokens, type TestConfig } from '../support/server.ts'
import { type Glance, startGlance } from '../support/servers/glance.ts'
import { ADMIN, ALICE, asBoth, BOB, databaseCopy, populate, reader, variant, withoutGlance } from './deployment.ts'

const run = promisify(execFile)

const CONFIG: TestConfig = {
  DEFAULT: { enabled_backends: 'fast:file, cheap:file', enabled_import_methods: '[glance-direct,copy-image]' },
  glance_store: { default_backend: 'fast' },
}

describe('shadow reads beside the real Glance', { skip: withoutGlance() }, () => {
  let glance: Glance
  before(async () => {
    glance = await startGlance({ config: CONFIG })
    await populate(glance)
  })
  after(() => glance.stop())

  /** A Glimpse that only reads, on the database of a configuration. */
  const readOnly = async (t: TestContext, config: string): Promise<string> => {
    const app = await openApp({
      ...{ config: reader(config)(), log: silentLog, readOnly: true },
      identity: selfSpokenTokens(),
    })
    t.after(() => app.close(1000))
    await new Promise<void>((resolve) => app.http.server.listen(0, '127.0.0.1', resolve))
    return `http://127.0.0.1:${(app.http.server.address() as AddressInfo).port}`
  }
  const compare = async (
    ours: string,
    tokens: readonly string[],
    course: () => Course = walk,
  ): Promise<ShadowResult> => {
    const rest = openRest({ name: 'The service', retries: 0 })
    try {
      const callers = tokens.map((token) => async () => asBoth(token))
      return await shadow({ rest, theirs: glance.url, ours, callers, course, rate: 1000, limit: 2000 })
    } finally {
      await rest.close()
    }
  }
  const shownDifferences = ({ differences }: ShadowResult) =>
    differences.map(({ route, where, example }) => `${route} ${where}: ${example.target} ${example.detail}`)

  it('find nothing that is not known, as three callers, and write nothing', async (t) => {
    const file = join(glance.dir, 'glance.sqlite')
    const state = async () =>
      [file, `${file}-wal`].map(async (name) => hash('sha256', await readFile(name).catch(() => '')))
    const before = await Promise.all(await state())
    const ours = await readOnly(t, join(glance.dir, 'glance-api.conf'))
    const result = await compare(ours, [ADMIN, ALICE, BOB])
    assert.deepEqual(shownDifferences(result), [])
    assert.equal(result.different, 0)
    assert.equal(result.asked, result.alike + result.asKnown)
    assert.ok(result.asked > 200, `only ${result.asked} requests`)
    assert.ok(result.alike > 0.9 * result.asked, `only ${result.alike} of ${result.asked} alike`)
    assert.deepEqual(await Promise.all(await state()), before)
  })

  it('find what differs: an attribute, a member, an image that is not there', async (t) => {
    const list = await fetch(`${glance.url}/v2/images?name=image%204%20%C3%BC`, { headers: asBoth(ADMIN) })
    const { images } = (await list.json()) as { readonly images: readonly { readonly id: string }[] }
    const id = images[0]?.id
    const targets = ['/v2/images?limit=20&visibility=all', `/v2/images/${id}`, `/v2/images/${id}/members`]
    const planted = async (change: string): Promise<readonly string[]> => {
      const { config, sql } = await databaseCopy(t, glance)
      sql(change)
      const course = async function* (): Course {
        for (const target of targets) yield target
      }
      return shownDifferences(await compare(await readOnly(t, config), [ADMIN], course))
    }
    assert.deepEqual(await planted(''), [])
    const route = 'GET /v2/images?limit&visibility'
    const [inList = '', inImage = '', ...others] = await planted(`update images set min_ram = 7 where id = '${id}'`)
    assert.match(inList, /^GET \/v2\/images\?limit&visibility body\.images\[\]\.min_ram: .*min_ram: 0 there, 7 here$/)
    assert.equal(inImage, `GET /v2/images/{id} body.min_ram: /v2/images/${id} body.min_ram: 0 there, 7 here`)
    assert.deepEqual(others, [])

    const [member = '', ...otherMembers] = await planted(
      "update image_members set status = 'accepted' where member = 'p3'",
    )
    assert.ok(member.startsWith('GET /v2/images/{id}/members body.members[].status: '), member)
    assert.deepEqual(otherMembers, [])

    const gone = await planted(`update images set deleted = 1, status = 'deleted' where id = '${id}'`)
    assert.equal(gone.length, 3, gone.join('\n'))
    assert.equal(gone[0], `${route} body.images: ${targets[0]} body.images: only there: ${id}; only here: none`)
    assert.ok(gone[1]?.startsWith('GET /v2/images/{id} status: 200 there, 404 here'), gone[1])
  })

  it('repeat the requests of an access log', async (t) => {
    const { dir } = await variant(t, glance)
    const log = join(dir, 'access.log')
    await writeFile(
      log,
      [
        '2026-11-21 10:00:00.123 7 INFO eventlet.wsgi.server [req-1 u p - - -] 127.0.0.1 - - [21/Nov/2026 10:00:00] "GET /v2/images?limit=2 HTTP/1.1" 200 1234 0.012345',
        '127.0.0.1 - - [21/Nov/2026:10:00:01 +0000] "GET /image/v2/schemas/image HTTP/1.1" 200 4000',
        '10.1.2.3 - alice [21/Nov/2026:10:00:02 +0000] "GET /v2/images/nobody HTTP/2.0" 404 100 "-" "curl/8.0"',
        '127.0.0.1 - - [21/Nov/2026:10:00:03 +0000] "GET /v2/images?limit=2 HTTP/1.1" 200 1234',
        '127.0.0.1 - - [21/Nov/2026:10:00:04 +0000] "DELETE /v2/images/nobody HTTP/1.1" 404 100',
        '127.0.0.1 - - [21/Nov/2026:10:00:05 +0000] "GET /v2/images/nobody/file HTTP/1.1" 404 100',
        '127.0.0.1 - - [21/Nov/2026:10:00:06 +0000] "GET /favicon.ico HTTP/1.1" 404 100',
        'nonsense',
      ].join('\n'),
    )
    const targets = []
    for await (const target of replay(log)) targets.push(target)
    assert.deepEqual(targets, ['/v2/images?limit=2', '/v2/schemas/image', '/v2/images/nobody'])
    const ours = await readOnly(t, join(glance.dir, 'glance-api.conf'))
    const result = await compare(ours, [ALICE], () => replay(log))
    assert.deepEqual(shownDifferences(result), [])
    assert.equal(result.asked, 3)
  })

  it('are done by the command, which starts a Glimpse of its own', async (t) => {
    const headers = Object.entries(asBoth(ADMIN)).flatMap(([name, value]) => ['--header', `${name}: ${value}`])
    const check = (config: string, ...args: readonly string[]) =>
      run(`${root}bin/glimpse`, [
        'takeover',
        'check',
        '--config-file',
        config,
        '--shadow',
        glance.url,
        '--rate',
        '500',
        ...headers,
        ...args,
      ]).then(
        ({ stdout }) => ({ code: 0, stdout, stderr: '' }),
        ({ code, stdout, stderr }: { code: number; stdout: string; stderr: string }) => ({ code, stdout, stderr }),
      )
    const good = await check(join(glance.dir, 'glance-api.conf'), '--limit', '80')
    assert.equal(good.code, 0, good.stdout + good.stderr)
    assert.match(
      good.stdout,
      /\n\d+ requests to both: \d+ answered alike, \d+ differ as is known, 0 differ otherwise\.\n$/,
    )

    const deployment = await databaseCopy(t, glance)
    deployment.sql("update images set min_disk = 3 where visibility = 'public'")
    const bad = await check(deployment.config, '--json', '--limit', '25')
    assert.equal(bad.code, 1, bad.stdout + bad.stderr)
    const { shadow: found } = JSON.parse(bad.stdout) as { readonly shadow: ShadowResult }
    assert.ok(found.asked <= 25)
    assert.ok(found.differences.some(({ where }) => where === 'body.images[].min_disk'))

    await rm(join(deployment.dir, 'glance.sqlite'))
    const bare = await check(deployment.config)
    assert.equal(bare.code, 1)
    assert.match(bare.stderr, /^ERROR: The database is not available/)
  })

  it('say so when nobody is let in', async (t) => {
    const ours = await readOnly(t, join(glance.dir, 'glance-api.conf'))
    const rest = openRest({ name: 'The service', retries: 0 })
    t.after(() => rest.close())
    const callers = [async () => ({ 'X-Identity-Status': 'Invalid' })]
    const result = await shadow({ ...{ rest, theirs: glance.url, ours, callers }, course: walk, rate: 1000, limit: 8 })
    const problems = [...shadowFindings(result)].filter(({ level }) => level === 'problem')
    assert.match(problems.at(-1)?.text ?? '', /^Glance does not let the caller read anything/)
  })

  it('cannot be misused to write', async (t) => {
    const deployment = await databaseCopy(t, glance)
    const ours = await readOnly(t, deployment.config)
    const before = hash('sha256', await readFile(join(deployment.dir, 'glance.sqlite')))
    const created = await fetch(`${ours}/v2/images`, {
      method: 'POST',
      headers: { ...asBoth(ADMIN), 'content-type': 'application/json' },
      body: '{}',
    })
    assert.equal(created.status, 503)
    assert.equal(hash('sha256', await readFile(join(deployment.dir, 'glance.sqlite'))), before)
  })
})
