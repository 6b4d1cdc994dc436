import { randomBytes } from 'node:crypto'
import type { Caller } from './site.ts'
import type { ExampleName, Stock, World } from './stock.ts'

/**
 * What one service does with what the other one made: every kind of change, each with the answer that both give. Throws
 * at the first other answer.
 */
export async function goOnWith({ client, site, web }: World, { images, namespace }: Stock): Promise<void> {
  const { other, owner } = site.projects
  const on = async (
    name: ExampleName,
    status: number,
    method: string,
    path: string,
    body?: unknown,
    as: Caller = 'owner',
  ) => client.must(status, { as, method, path: `/images/${images[name]}${path}`, body })
  const patch = (name: ExampleName, ...operations: readonly unknown[]) => on(name, 200, 'PATCH', '', operations)
  const bring = async (name: ExampleName, body: unknown, as: Caller = 'owner') => {
    await on(name, 202, 'POST', '/import', body, as)
    await client.settled(images[name])
    await client.becomes(images[name], 'active')
  }

  await on('queued', 204, 'PUT', '/file', randomBytes(70_000))
  await on('queued', 409, 'PUT', '/file', randomBytes(10))
  await patch(
    'full',
    { op: 'replace', path: '/name', value: 'renamed "ü"' },
    { op: 'remove', path: '/quotes' },
    { op: 'replace', path: '/unicode', value: '' },
    { op: 'add', path: '/new ü', value: 'x:"y"' },
    { op: 'replace', path: '/tags', value: ['red', 'new'] },
    { op: 'replace', path: '/protected', value: false },
  )
  await on('full', 204, 'PUT', '/tags/again')
  await on('full', 204, 'DELETE', '/tags/red')
  await patch('named', { op: 'replace', path: '/with"quote', value: 'z' }, { op: 'remove', path: '/Case' })
  await patch('changed', { op: 'remove', path: '/back' }, { op: 'add', path: '/gone', value: 'and back' })
  await patch('null', { op: 'replace', path: '/null', value: 'a text' })

  await on('active', 204, 'POST', '/actions/deactivate', undefined, 'admin')
  await on('active', 403, 'GET', '/file')
  await on('deactivated', 204, 'POST', '/actions/reactivate', undefined, 'admin')
  await bring('staged', { method: { name: 'glance-direct' } })
  await bring('unfetched', { method: { name: 'web-download', uri: `${web.url}/image` } })
  await bring('cheap', { method: { name: 'copy-image' }, stores: ['fast'] }, 'admin')
  await client.must(204, { as: 'admin', method: 'DELETE', path: `/stores/fast/${images.everywhere}` })
  await client.must(204, { as: 'admin', method: 'DELETE', path: `/stores/cheap/${images.twice}` })
  await on(
    'located',
    200,
    'PATCH',
    '',
    [{ op: 'add', path: '/locations/-', value: { url: `${web.url}/second`, metadata: {} } }],
    'admin',
  )
  await on('located', 200, 'PATCH', '', [{ op: 'remove', path: '/locations/0' }], 'admin')

  await on('pending', 200, 'PUT', `/members/${other}`, { status: 'accepted' }, 'other')
  await on('shared', 200, 'PUT', `/members/${other}`, { status: 'rejected' }, 'other')
  await on('rejected', 204, 'DELETE', `/members/${other}`)
  await on('unshared', 200, 'POST', '/members', { member: other })
  await on('unshared', 409, 'POST', '/members', { member: other })
  await on('reshared', 200, 'POST', '/members', { member: 'somebody else ü' })
  await patch('community', { op: 'replace', path: '/visibility', value: 'private' })
  await on('public', 200, 'PATCH', '', [{ op: 'replace', path: '/owner', value: owner }], 'admin')

  for (const name of ['private', 'fetched', 'nameless'] as const) await on(name, 204, 'DELETE', '')
  await on('deleted', 404, 'DELETE', '')

  const path = `/metadefs/namespaces/${encodeURIComponent(namespace)}`
  const admin = (status: number, method: string, where: string, body?: unknown) =>
    client.must(status, { as: 'admin', method, path: `${path}${where}`, body })
  await admin(409, 'POST', '/objects', { name: 'object', properties: {} })
  await admin(200, 'PUT', '/objects/object', { name: 'renamed', description: 'ü', properties: {} })
  await admin(204, 'DELETE', '/properties/a%3Ab')
  await admin(201, 'POST', '/properties', { name: 'a:b', title: 'again', type: 'boolean' })
  await admin(204, 'DELETE', '/tags/tag')
  await admin(204, 'DELETE', '/resource_types/OS%3A%3AGlance%3A%3AImage')
  await admin(201, 'POST', '/resource_types', { name: 'a new type' })
}
