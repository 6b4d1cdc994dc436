import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { ADMIN, type Bench, type Measured, TENANT, together, WRITER } from '../bench.ts'
import { imageIds, query, seededImage, seedTo, thousands } from '../images.ts'
import { measureRequests } from '../requests.ts'

export async function show(bench: Bench): Promise<Measured> {
  await seedTo(bench, 1000)
  return await measureRequests(bench, 'show', ADMIN, ['get', `/v2/images/${seededImage(bench)}`], { rounds: 3 })
}

export async function list(bench: Bench): Promise<Measured> {
  const results: Measured[] = []
  for (const count of [1000, 10_000, 100_000]) {
    await seedTo(bench, count)
    const deep = seededImage(bench, Math.floor(bench.images / 100))
    const kinds: readonly (readonly [what: string, token: string, path: string])[] = [
      ['tenant, 25', TENANT, '?limit=25'],
      ['admin, 25', ADMIN, '?limit=25'],
      ['tenant, 25, deep page', TENANT, `?limit=25&marker=${deep}`],
      ['tenant, 25, by name', TENANT, '?limit=25&name=ubuntu-22.04'],
      ['tenant, 25, by tag', TENANT, '?limit=25&tag=tag-07'],
      ['tenant, 25, by property', TENANT, '?limit=25&os_distro=debian'],
      ['tenant, 1000', TENANT, '?limit=1000'],
    ]
    for (const [what, token, query] of kinds) {
      const path = `/v2/images${query}`
      const title = `list at ${thousands(bench.images)}: ${what}`
      const measured = await measureRequests(bench, title, token, ['get', path], {
        rounds: 2,
        seconds: count < 100_000 ? 2 : query.includes('1000') ? 15 : 6,
      })
      const same = (await imageIds(bench.glance, path, token)) === (await imageIds(bench.glimpse, path, token))
      results.push(measured, { rows: [], notes: same ? [] : [`${title}: the two servers answer different images`] })
    }
  }
  return together(results)
}

export async function create(bench: Bench): Promise<Measured> {
  await seedTo(bench, 1000)
  return await measureRequests(bench, `create at ${thousands(bench.images)}`, WRITER, ['create'], { rounds: 3 })
}

export async function patch(bench: Bench): Promise<Measured> {
  await seedTo(bench, 1000)
  const ids = join(bench.dir, 'ids')
  const rows = query(bench.glimpse, "SELECT id FROM images WHERE owner = 'bench0' AND status = 'active' LIMIT 50")
  await writeFile(ids, rows.map(({ id }) => `${id}\n`).join(''))
  return await measureRequests(bench, `PATCH at ${thousands(bench.images)}`, TENANT, ['patch', ids], { rounds: 3 })
}
