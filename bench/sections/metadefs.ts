import { join } from 'node:path'
import { root } from '../../test/support/product.ts'
import { ADMIN, type Bench, type Measured, together } from '../bench.ts'
import { get } from '../images.ts'
import { measureRequests } from '../requests.ts'
import type { Side } from '../sides.ts'

const NAMESPACES = '/v2/metadefs/namespaces'

/** All definitions that each of the two comes with: the same namespaces, described in other words; two of Glance's are private. */
export async function metadefs(bench: Bench): Promise<Measured> {
  const { glance, glimpse } = bench
  await glance.manage('db_load_metadefs', '/etc/glance/metadefs')
  await glimpse.manage('db_load_metadefs', join(root, 'etc/metadefs'))
  const [theirs, ours] = [await namesOf(glance), await namesOf(glimpse)]
  const what = `metadef namespaces, ${ours.length}`
  return together([
    await measureRequests(bench, what, ADMIN, ['get', `${NAMESPACES}?limit=100`], { rounds: 3 }),
    await measureRequests(bench, 'metadef namespace, whole', ADMIN, ['get', `${NAMESPACES}/OS::Compute::Libvirt`], {
      rounds: 3,
    }),
    { rows: [], notes: [...lacking(glimpse, ours, theirs), ...lacking(glance, theirs, ours)] },
  ])
}

function lacking({ name }: Side, has: readonly string[], others: readonly string[]): readonly string[] {
  const missing = others.filter((namespace) => !has.includes(namespace))
  return missing.length === 0 ? [] : [`${name} has no ${missing.join(', ')}`]
}

async function namesOf(side: Side): Promise<readonly string[]> {
  const { namespaces } = JSON.parse(await get(side, `${NAMESPACES}?limit=100`, ADMIN)) as {
    namespaces: { namespace: string }[]
  }
  return namespaces.map(({ namespace }) => namespace)
}
