import { type Bench, eachSide, type Measured, together } from '../bench.ts'
import { execute, imageIds, query, seedTo, thousands } from '../images.ts'
import { measureRequests } from '../requests.ts'

/** A project that has no image of its own, and has accepted this many of others. */
const SHARED = 5000
const BORROWER = 'borrower:borrowers:member,reader'

/** Lists of a tenant with many memberships. */
export async function members(bench: Bench): Promise<Measured> {
  // 15 % of the seeded images are shared.
  await seedTo(bench, 40_000)
  await eachSide(bench, async (side) => {
    await side.stop()
    execute(side, SHARE)
    await side.start()
  })
  const [deep] = query(bench.glimpse, MIDDLE)
  const kinds: readonly (readonly [what: string, query: string])[] = [
    ['first page', '?limit=25'],
    ['deep page', `?limit=25&marker=${deep?.id}`],
    ['shared ones', '?limit=25&visibility=shared'],
  ]
  const results: Measured[] = []
  for (const [what, search] of kinds) {
    const path = `/v2/images${search}`
    const title = `list at ${thousands(bench.images)}, tenant of ${SHARED / 1000}k memberships, ${what}`
    results.push(await measureRequests(bench, title, BORROWER, ['get', path], { rounds: 2, seconds: 8 }))
    const same = (await imageIds(bench.glance, path, BORROWER)) === (await imageIds(bench.glimpse, path, BORROWER))
    if (!same) results.push({ rows: [], notes: [`${title}: the two servers answer different images`] })
  }
  return together(results)
}

/** Once; the rows depend on the seeded images alone. */
const SHARE = `
  INSERT INTO image_members (image_id, member, can_share, created_at, updated_at, deleted, status)
  SELECT id, 'borrowers', 0, created_at, created_at, 0, 'accepted' FROM images
    WHERE visibility = 'shared' AND status = 'active' AND owner LIKE 'bench%'
      AND NOT EXISTS (SELECT 1 FROM image_members WHERE member = 'borrowers')
    ORDER BY id LIMIT ${SHARED}`

const MIDDLE = `
  SELECT images.id FROM images JOIN image_members ON image_id = images.id WHERE member = 'borrowers'
    ORDER BY images.created_at DESC, images.id DESC LIMIT 1 OFFSET ${SHARED / 2}`
