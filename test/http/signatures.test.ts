import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { randomBytes, randomUUID } from 'node:crypto'
import { readdirSync, renameSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { type KeyKind, makeSigner, pss, type Signer } from '../support/certificates.ts'
import { startServer, type TestServer } from '../support/server.ts'

const TOKEN = 'alice:p1:member,reader'
const DATA = randomBytes(3_000_000)

const KINDS: readonly (readonly [keyType: string, kind: KeyKind, hashMethod: string, hash: string])[] = [
  ['RSA-PSS', 'rsa', 'SHA-224', 'sha224'],
  ['RSA-PSS', 'rsa', 'SHA-256', 'sha256'],
  ['RSA-PSS', 'rsa-odd', 'SHA-384', 'sha384'],
  ['RSA-PSS', 'rsa', 'SHA-512', 'sha512'],
  ['DSA', 'dsa', 'SHA-256', 'sha256'],
  ['ECC_SECP384R1', 'secp384r1', 'SHA-384', 'sha384'],
  ['ECC_SECP521R1', 'secp521r1', 'SHA-512', 'sha512'],
  ['ECC_SECT409K1', 'sect409k1', 'SHA-224', 'sha224'],
  ['ECC_SECT409R1', 'sect409r1', 'SHA-256', 'sha256'],
  ['ECC_SECT571K1', 'sect571k1', 'SHA-384', 'sha384'],
  ['ECC_SECT571R1', 'sect571r1', 'SHA-512', 'sha512'],
]

const installed = (() => {
  try {
    execFileSync('openssl', ['version'], { stdio: 'ignore' })
    return true
  } catch {
    return false
  }
})()
const skip = !installed && process.env['CI'] !== 'true' && 'openssl is not installed'

describe('signed images', { skip }, () => {
  let server: TestServer
  let dir: string
  let rsa: Signer

  const call = (method: string, path: string, body?: string | Buffer, type = 'application/json') =>
    fetch(`${server.url}/v2${path}`, {
      method,
      headers: { 'x-auth-token': TOKEN, 'content-type': type },
      ...(body === undefined ? {} : { body: body as Uint8Array<ArrayBuffer> | string }),
    })
  const create = async (properties: Record<string, string | undefined>): Promise<string> => {
    const draft = { disk_format: 'raw', container_format: 'bare', ...properties }
    const response = await call('POST', '/images', JSON.stringify(draft))
    assert.equal(response.status, 201)
    return ((await response.json()) as { id: string }).id
  }
  const upload = (id: string, data: Buffer = DATA) =>
    call('PUT', `/images/${id}/file`, data, 'application/octet-stream')
  const statusOf = async (id: string): Promise<string> =>
    ((await (await call('GET', `/images/${id}`)).json()) as { status: string }).status
  const signed = (signer: Signer, keyType: string, hashMethod: string, signature: string) => ({
    img_signature: signature,
    img_signature_hash_method: hashMethod,
    img_signature_key_type: keyType,
    img_signature_certificate_uuid: signer.id,
  })
  const byRsa = (signature = rsa.sign(DATA, 'sha256')) => signed(rsa, 'RSA-PSS', 'SHA-256', signature)
  const stored = () => readdirSync(join(server.dir, 'images'), { recursive: true, withFileTypes: true })
  const refuses = async (properties: Record<string, string | undefined>, reason: RegExp, data = DATA) => {
    const id = await create(properties)
    const before = stored().filter((entry) => entry.isFile()).length
    const response = await upload(id, data)
    assert.equal(response.status, 400)
    const text = await response.text()
    assert.match(text, reason)
    assert.match(text, new RegExp(`Signature verification failed for image ${id}: `))
    assert.equal(await statusOf(id), 'queued')
    assert.equal(stored().filter((entry) => entry.isFile()).length, before)
    return id
  }

  before(async () => {
    dir = await mkdtemp(join(tmpdir(), 'glimpse-certificates-'))
    server = await startServer({ config: { glimpse: { certificate_dir: dir } } })
    rsa = makeSigner(dir, 'rsa')
  })
  after(async () => {
    await server.close()
    await rm(dir, { recursive: true, force: true })
  })

  for (const [keyType, kind, hashMethod, hash] of KINDS) {
    it(`accepts what is signed by ${keyType} (${kind}) over ${hashMethod}, and nothing else`, async () => {
      const signer = makeSigner(dir, kind)
      const id = await refuses(
        signed(signer, keyType, hashMethod, signer.sign(DATA, hash)),
        /: Signature verification failed</,
        Buffer.concat([DATA.subarray(0, -1), Buffer.from([(DATA.at(-1) ?? 0) ^ 1])]),
      )
      assert.equal((await upload(id)).status, 204)
      assert.equal(await statusOf(id), 'active')
    })
  }

  it('verifies data of unknown length, of no length, and many at once', async () => {
    const id = await create(byRsa())
    const chunked = await fetch(`${server.url}/v2/images/${id}/file`, {
      method: 'PUT',
      headers: { 'x-auth-token': TOKEN, 'content-type': 'application/octet-stream' },
      body: new Blob([DATA]).stream(),
      duplex: 'half',
    } as RequestInit)
    assert.equal(chunked.status, 204)

    const empty = await create(byRsa(rsa.sign(Buffer.alloc(0), 'sha256')))
    assert.equal((await upload(empty, Buffer.alloc(0))).status, 204)

    const many = await Promise.all(Array.from({ length: 12 }, () => create(byRsa())))
    const answers = await Promise.all(many.map((one, n) => upload(one, n % 2 === 0 ? DATA : DATA.subarray(1))))
    assert.deepEqual(
      answers.map(({ status }) => status),
      many.map((_, n) => (n % 2 === 0 ? 204 : 400)),
    )
  })

  it('does not verify when one of the four properties is missing', async () => {
    for (const missing of Object.keys(byRsa())) {
      const id = await create({ ...byRsa('bm9uc2Vuc2U='), [missing]: undefined })
      assert.equal((await upload(id)).status, 204, missing)
    }
  })

  it('is asked of what is imported, too', async () => {
    const imported = async (data: Buffer) => {
      const id = await create(byRsa())
      assert.equal((await call('PUT', `/images/${id}/stage`, data, 'application/octet-stream')).status, 204)
      const order = { method: { name: 'glance-direct' } }
      assert.equal((await call('POST', `/images/${id}/import`, JSON.stringify(order))).status, 202)
      for (;;) {
        const { tasks } = (await (await call('GET', `/images/${id}/tasks`)).json()) as {
          tasks: readonly { readonly status: string; readonly message: string }[]
        }
        const [task] = tasks
        if (task?.status === 'success' || task?.status === 'failure') return { ...task, image: await statusOf(id) }
        await delay(20)
      }
    }
    const before = stored().length
    const wrong = await imported(DATA.subarray(1))
    assert.equal(wrong.status, 'failure')
    assert.match(wrong.message, /Signature verification failed/)
    assert.equal(wrong.image, 'queued')
    assert.equal(stored().length, before)
    assert.deepEqual(await imported(DATA).then(({ status, image }) => [status, image]), ['success', 'active'])
  })

  it('wants the longest salt', async () => {
    await refuses(byRsa(rsa.sign(DATA, 'sha256', pss('digest'))), /: Signature verification failed</)
    await refuses(byRsa(rsa.sign(DATA, 'sha256', [])), /: Signature verification failed</)
  })

  it('wants a certificate that is there, in its time, and of the right kind', async () => {
    const expired = makeSigner(dir, 'rsa', { expired: true })
    const expiredSignature = signed(expired, 'RSA-PSS', 'SHA-256', expired.sign(DATA, 'sha256'))
    await refuses(expiredSignature, /The certificate is outside its valid date range/)
    await refuses({ ...byRsa(), img_signature_key_type: 'DSA' }, /Invalid public key type for signature key type: DSA/)
    const nowhere = randomUUID()
    await refuses(
      { ...byRsa(), img_signature_certificate_uuid: nowhere },
      new RegExp(`Certificate not found with ID: ${nowhere}`),
    )
    await refuses({ ...byRsa(), img_signature_certificate_uuid: `x/../${rsa.id}` }, /Certificate not found with ID/)
    const noCertificate = randomUUID()
    renameSync(join(dir, `${expired.id}.key`), join(dir, `${noCertificate}.pem`))
    await refuses({ ...byRsa(), img_signature_certificate_uuid: noCertificate }, /Invalid certificate format/)
  })

  it('wants a signature in base64, by a hash function and a kind of key that it knows', async () => {
    await refuses(byRsa('not base64!'), /The signature data was not properly encoded using base64/)
    await refuses({ ...byRsa(), img_signature_hash_method: 'MD5' }, /Invalid signature hash method: MD5/)
    await refuses({ ...byRsa(), img_signature_key_type: 'RSA' }, /Invalid signature key type: RSA/)
  })
})
