import assert from 'node:assert/strict'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, it, type TestContext } from 'node:test'
import { startServer, type TestConfig } from '../support/server.ts'

const ADMIN = 'root:p1:admin,member,reader'
const ALICE = 'alice:p1:member,reader'

async function serve(t: TestContext, config: TestConfig = {}) {
  const server = await startServer({ config })
  t.after(() => server.close())
  return async (method: string, path: string, body?: unknown, token: string | undefined = ADMIN) => {
    const answer = await fetch(`${server.url}/v2/metadefs/namespaces${path}`, {
      method,
      headers: token === '' ? {} : { 'x-auth-token': token },
      ...(body === undefined ? {} : { body: typeof body === 'string' ? body : JSON.stringify(body) }),
    })
    const text = await answer.text()
    const isJson = answer.headers.get('content-type') === 'application/json'
    return {
      status: answer.status,
      location: answer.headers.get('location'),
      json: isJson ? JSON.parse(text) : undefined,
      text,
    }
  }
}

async function rules(t: TestContext, text: string): Promise<TestConfig> {
  const dir = await mkdtemp(join(tmpdir(), 'glimpse-rules-'))
  t.after(() => rm(dir, { recursive: true }))
  await writeFile(join(dir, 'policy.yaml'), text)
  return { oslo_policy: { policy_file: join(dir, 'policy.yaml') } }
}

describe('metadata definitions', () => {
  it('a namespace is created with what its creator may create, or not at all', async (t) => {
    const call = await serve(t, await rules(t, 'add_metadef_tag: "!"\n'))
    const tagged = { namespace: 'N', objects: [{ name: 'o' }], tags: [{ name: 't' }] }
    assert.equal((await call('POST', '', tagged)).status, 403)
    assert.equal((await call('GET', '/N')).status, 404)
    assert.equal((await call('POST', '', { ...tagged, tags: [] })).status, 201)
  })

  it('who may list but not see objects is shown none', async (t) => {
    const call = await serve(t, await rules(t, 'get_metadef_object: "role:admin"\n'))
    await call('POST', '', { namespace: 'N', visibility: 'public', objects: [{ name: 'o' }] })
    assert.deepEqual((await call('GET', '/N/objects', undefined, ALICE)).json.objects, [])
    assert.equal((await call('GET', '/N/objects/o', undefined, ALICE)).status, 403)
    assert.equal((await call('GET', '/N/objects')).json.objects.length, 1)
  })

  it('callers without credentials change nothing', async (t) => {
    const call = await serve(t, { DEFAULT: { allow_anonymous_access: 'true' } })
    await call('POST', '', { namespace: 'N', visibility: 'public', tags: [{ name: 't' }] })
    const changes: [string, string, unknown?][] = [
      ['POST', '', { namespace: 'M' }],
      ['PUT', '/N', { namespace: 'N' }],
      ['DELETE', '/N'],
      ['DELETE', '/N/tags'],
      ['POST', '/N/tags/u'],
      ['DELETE', '/N/tags/t'],
      ['POST', '/N/objects', { name: 'o' }],
      ['POST', '/N/resource_types', { name: 'A' }],
      ['DELETE', '/N/resource_types/A'],
    ]
    for (const [method, path, body] of changes) {
      const { status, text } = await call(method, path, body, '')
      assert.deepEqual([status, /Read-only access/.test(text)], [403, true], `${method} ${path}`)
    }
  })

  it('names may be anything but nothing, and Location says where they are', async (t) => {
    const call = await serve(t)
    const name = 'OS::ä b?'
    const { status, location } = await call('POST', '', { namespace: name, visibility: 'public' })
    assert.equal(status, 201)
    assert.match(location ?? '', /\/v2\/metadefs\/namespaces\/OS::%C3%A4%20b%3F$/)
    assert.equal((await call('GET', `/${encodeURIComponent(name)}`)).json.namespace, name)
    assert.equal((await call('POST', '', { namespace: '' })).status, 400)
    assert.equal((await call('POST', '', { namespace: 'N', objects: [{ name: '' }] })).status, 400)
  })

  it('a property may be called __proto__', async (t) => {
    const call = await serve(t)
    const properties = '{"__proto__": {"title": "P", "type": "string", "default": true}}'
    const created = await call('POST', '', `{"namespace": "N", "properties": ${properties}}`)
    assert.equal(created.status, 201)
    for (const { text } of [created, await call('GET', '/N'), await call('GET', '/N/properties')])
      assert.match(text, /"__proto__":\{"title":"P","type":"string","default":"True"\}/)
  })
})
