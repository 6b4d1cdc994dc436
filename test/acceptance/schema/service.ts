import assert from 'node:assert/strict'
import { identityHeaders } from '../../support/servers/glance.ts'

const OWNER = identityHeaders('ada:pa:member,reader')
const MEMBER = identityHeaders('bob:pb:member,reader')

/** The life of an image in the real Glance at `url`: each table that has triggers or indexes of ours is written. */
export async function useGlance(url: string): Promise<void> {
  const ask = async (
    headers: Readonly<Record<string, string>>,
    method: string,
    path: string,
    body?: unknown,
    type = 'application/json',
  ) => {
    const answer = await fetch(`${url}/v2${path}`, {
      method,
      headers: { ...headers, ...(body === undefined ? {} : { 'Content-Type': type }) },
      ...(body === undefined ? {} : { body: typeof body === 'string' ? body : JSON.stringify(body) }),
    })
    const text = await answer.text()
    assert.ok(answer.ok, `${method} ${path}: ${answer.status} ${text}`)
    return text === ''
      ? undefined
      : (JSON.parse(text) as { readonly id: string; readonly images: readonly { readonly id: string }[] })
  }
  const shared = async () => (await ask(MEMBER, 'GET', '/images?visibility=shared'))?.images.map(({ id }) => id)

  const draft = { name: 'one', disk_format: 'raw', container_format: 'bare', tags: ['red'], os_distro: 'debian' }
  const id = (await ask(OWNER, 'POST', '/images', draft))?.id ?? ''
  await ask(OWNER, 'PUT', `/images/${id}/file`, 'data', 'application/octet-stream')
  await ask(OWNER, 'POST', `/images/${id}/members`, { member: 'pb' })
  assert.deepEqual(await shared(), [])
  await ask(MEMBER, 'PUT', `/images/${id}/members/pb`, { status: 'accepted' })
  assert.deepEqual(await shared(), [id])
  const patch = [{ op: 'replace', path: '/name', value: 'two' }]
  await ask(OWNER, 'PATCH', `/images/${id}`, patch, 'application/openstack-images-v2.1-json-patch')
  const found = (await ask(OWNER, 'GET', '/images?name=two&tag=red&os_distro=debian'))?.images.map((image) => image.id)
  assert.deepEqual(found, [id])
  await ask(OWNER, 'DELETE', `/images/${id}/members/pb`)
  assert.deepEqual(await shared(), [])
  await ask(OWNER, 'DELETE', `/images/${id}`)
  assert.deepEqual((await ask(OWNER, 'GET', '/images'))?.images, [])
}
