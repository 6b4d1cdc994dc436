import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import { keystoneIdentity } from '../../src/auth/keystone.ts'
import { makeSigner, type Signer } from '../support/certificates.ts'
import { startServer, type TestServer } from '../support/server.ts'
import { available, type BarbicanServer, startBarbican } from '../support/servers/barbican.ts'
import { type KeystoneServer, PASSWORD, startKeystone, type UserName } from '../support/servers/keystone.ts'

const DATA = randomBytes(100_000)
const installed = available()
const skip = !installed.ok && process.env['CI'] !== 'true' && installed.reason

describe('Barbican', { skip }, () => {
  let keystone: KeystoneServer
  let barbican: BarbicanServer
  let server: TestServer
  let dir: string
  let signer: Signer
  const tokens = new Map<UserName, string>()

  const call = async (
    user: UserName,
    method: string,
    path: string,
    body?: string | Buffer,
    type = 'application/json',
  ) =>
    fetch(`${server.url}/v2${path}`, {
      method,
      headers: { 'x-auth-token': tokens.get(user) ?? '', 'content-type': type },
      ...(body === undefined ? {} : { body: body as Uint8Array<ArrayBuffer> | string }),
    })
  const create = async (user: UserName, properties: Record<string, string>): Promise<string> => {
    const draft = { disk_format: 'raw', container_format: 'bare', ...properties }
    const response = await call(user, 'POST', '/images', JSON.stringify(draft))
    assert.equal(response.status, 201)
    return ((await response.json()) as { id: string }).id
  }
  const upload = (user: UserName, id: string, data: Buffer = DATA) =>
    call(user, 'PUT', `/images/${id}/file`, data, 'application/octet-stream')
  const signedBy = (id: string) => ({
    img_signature: signer.sign(DATA, 'sha512'),
    img_signature_hash_method: 'SHA-512',
    img_signature_key_type: 'ECC_SECP384R1',
    img_signature_certificate_uuid: id,
  })
  const keyOf = (user: UserName) =>
    barbican.store(tokens.get(user) ?? '', { type: 'symmetric', payload: randomBytes(32).toString('latin1') })

  before(async () => {
    dir = await mkdtemp(join(tmpdir(), 'glimpse-barbican-test-'))
    signer = makeSigner(dir, 'secp384r1')
    keystone = await startKeystone()
    barbican = await startBarbican(keystone)
    for (const user of ['demo', 'alt_demo'] as const) tokens.set(user, await keystone.token(user))
    const login = {
      auth_url: keystone.url,
      username: 'glance',
      password: PASSWORD,
      user_domain_id: 'default',
      project_name: 'service',
      project_domain_id: 'default',
    }
    server = await startServer({
      config: { barbican: { auth_endpoint: keystone.url } },
      identity: keystoneIdentity(login, { warn: () => undefined }),
    })
  })
  after(async () => {
    await keystone.stop()
    await barbican.stop()
    await server.close()
    await rm(dir, { recursive: true, force: true })
  })

  it('has the certificates of signed images, found by the catalog of the user', async () => {
    const certificate = await barbican.store(tokens.get('demo') ?? '', {
      type: 'certificate',
      payload: signer.certificate,
    })
    const id = await create('demo', signedBy(certificate))
    const wrong = await upload('demo', id, DATA.subarray(1))
    assert.equal(wrong.status, 400)
    assert.match(await wrong.text(), /Signature verification failed/)
    assert.equal((await upload('demo', id)).status, 204)

    const foreign = await create('alt_demo', signedBy(certificate))
    const refused = await upload('alt_demo', foreign)
    assert.equal(refused.status, 400)
    assert.match(await refused.text(), new RegExp(`Unable to retrieve certificate with ID: ${certificate}`))
  })

  it('is asked for nothing but certificates', async () => {
    const key = await keyOf('demo')
    for (const [id, reason] of [
      [key, /Invalid certificate format/],
      ['11111111-2222-4333-8444-555555555555', /Certificate not found with ID/],
    ] as const) {
      const answer = await upload('demo', await create('demo', signedBy(id)))
      assert.equal(answer.status, 400)
      assert.match(await answer.text(), reason)
    }
  })

  it('forgets the key of a volume with the image, where the image says so', async () => {
    const token = tokens.get('demo') ?? ''
    const deleteImage = async (user: UserName, key: string, policy: string) => {
      const properties = { cinder_encryption_key_id: key, cinder_encryption_key_deletion_policy: policy }
      const id = await create(user, properties)
      assert.equal((await call(user, 'DELETE', `/images/${id}`)).status, 204)
    }
    const [kept, foreign, doomed] = [await keyOf('demo'), await keyOf('demo'), await keyOf('demo')]
    await deleteImage('demo', kept, 'do_not_delete')
    assert.equal(await barbican.statusOf(token, kept), 200)
    await deleteImage('alt_demo', foreign, 'on_image_deletion')
    assert.equal(await barbican.statusOf(token, foreign), 200)
    await deleteImage('demo', doomed, 'on_image_deletion')
    assert.equal(await barbican.statusOf(token, doomed), 404)
    // What is gone already does not keep the image.
    await deleteImage('demo', doomed, 'on_image_deletion')
  })
})
