import { sql } from 'kysely'
import { ServiceError } from '../../domain/errors.ts'
import type { ImageId, ProjectId } from '../../domain/ids.ts'
import type { OwnerLimits, OwnerUsage } from '../database.ts'
import type { Connection, Session } from './session.ts'
import { type Fragment, slot } from './statement.ts'

const NO_IMAGE = '' as ImageId

/** Counts what the images of an owner come to. */
export const ownerUsage = ({ facts, prepare }: Connection) => {
  const alive = sql`not images.deleted and images.status not in ('killed', 'deleted', 'pending_delete')`
  /** The images that an import copies to further stores. */
  const copied = sql`exists (select 1 from image_properties where image_properties.image_id = images.id
    and image_properties.name = 'os_glance_importing_to_stores' and image_properties.value <> ''
    and not image_properties.deleted)`

  const statements = (owner: Fragment) => ({
    // The images first, by an index of their owner: a project has few of all locations there are.
    storage: prepare(
      sql<{ n: number | null }>`select ${facts.integer(sql`sum(images.size)`)} as n
        from images cross join image_locations
        where images.owner ${owner} and images.id <> ${slot('id')} and ${alive}
          and image_locations.image_id = images.id and image_locations.status = 'active' and not image_locations.deleted`,
    ),
    staging: prepare(
      sql<{ n: number | null }>`select ${facts.integer(sql`sum(images.size)`)} as n from images
        where images.owner ${owner} and ${alive} and (images.status in ('uploading', 'importing') or ${copied})`,
    ),
    count: prepare(
      sql<{ n: number | null }>`select count(*) as n from images where images.owner ${owner} and ${alive}`,
    ),
    uploading: prepare(
      sql<{ n: number | null }>`select count(*) as n from images
        where images.owner ${owner} and ${alive}
          and (images.status in ('saving', 'uploading', 'importing') or ${copied})`,
    ),
  })
  const ofSomebody = statements(sql`= ${slot('owner')}`)
  const ofNobody = statements(sql`is null`)

  const count = async (
    session: Session,
    what: keyof OwnerUsage,
    owner: ProjectId | null,
    except: ImageId = NO_IMAGE,
  ): Promise<number> => {
    const row = await session.first((owner === null ? ofNobody : ofSomebody)[what], { owner, id: except })
    return Number(row?.n ?? 0)
  }

  return {
    count,

    all: async (session: Session, owner: ProjectId | null): Promise<OwnerUsage> => ({
      storage: await count(session, 'storage', owner),
      staging: await count(session, 'staging', owner),
      count: await count(session, 'count', owner),
      uploading: await count(session, 'uploading', owner),
    }),

    /** Throws `too-large` where the images of `owner`, as they are now, come to more than allowed. */
    admit: async (session: Session, owner: ProjectId | null, limits: OwnerLimits): Promise<void> => {
      if (LIMITS.some(([, exceeded]) => limits[exceeded] !== undefined)) await session.guard('owner', owner)
      for (const [what, exceeded] of LIMITS) {
        const limit = limits[exceeded]
        if (limit === undefined) continue
        const usage = await count(session, what, owner)
        if (usage <= limit) continue
        throw new ServiceError('too-large', `Attempted: ${usage}, Maximum: ${limit}`, {
          detail: { exceeded, usage, limit },
        })
      }
    },
  }
}

const LIMITS = [
  ['storage', 'storageLimit'],
  ['staging', 'stagingLimit'],
  ['count', 'countLimit'],
  ['uploading', 'uploadingLimit'],
] as const satisfies readonly (readonly [keyof OwnerUsage, keyof OwnerLimits])[]
