import { randomUUID } from 'node:crypto'
import { sql } from 'kysely'
import { newImage } from '../../src/db/conformance.ts'
import type { Claim, Database, Job } from '../../src/db/database.ts'
import type { Connection } from '../../src/db/sql/session.ts'
import type {
  AttemptId,
  ImageId,
  LocationUri,
  ProjectId,
  StoreId,
  TaskId,
  UserId,
  WorkerId,
} from '../../src/domain/ids.ts'
import { canBecome, type ImageStatus } from '../../src/domain/image.ts'
import type { randomFrom } from '../crash/content.ts'

type Random = ReturnType<typeof randomFrom>

/** Something that a node does to an image. */
export interface Deed {
  readonly name: string
  readonly node: 0 | 1
  /** Milliseconds to wait before. */
  readonly after: number
  readonly act: (db: Database) => Promise<unknown>
}

/** Made-up deeds on two images of one owner, and what must be true after them whatever their order was. */
export interface Course {
  wave(): readonly Deed[]
  /** Everything that must not be, once a wave is over. */
  wrongs(raw: Connection): Promise<readonly string[]>
  /** The names of what has succeeded so far. */
  successes(): readonly string[]
  story(): string
}

const LIMITS = { storageLimit: 20, countLimit: 3, uploadingLimit: 1 } as const
const MOST_TAGS = 2
const MOST_MEMBERS = 2
const SIZE = 8
const NAMES = ['a', 'b', 'c'] as const
const WORKERS = ['worker-a', 'worker-b'] as const

/** What a deed gives that was not tried, since there was nothing to try it on. */
const NOTHING = Symbol('nothing')

/** One move of the status of an image that somebody was told of. */
interface Move {
  readonly from: ImageStatus | 'none'
  readonly to: ImageStatus
}

interface Tally {
  readonly id: ImageId
  readonly moves: Move[]
  /** Members that were added less those that were removed, by name. */
  readonly members: Map<string, number>
  readonly tags: { readonly added: Set<string>; readonly removed: Set<string> }
  readonly claims: Claim[]
  readonly jobs: Job[]
  /** Jobs that were begun less those that were ended. */
  held: number
}

export async function openCourse(db: Database, number: number, random: Random): Promise<Course> {
  const owner = `owner-${number}` as ProjectId
  const lines: string[] = []
  const done: string[] = []
  const images: Tally[] = []
  const keep = (id: ImageId): Tally => {
    const members = new Map<string, number>()
    const tags = { added: new Set<string>(), removed: new Set<string>() }
    const tally: Tally = { id, moves: [], members, tags, claims: [], jobs: [], held: 0 }
    images.push(tally)
    return tally
  }
  for (let n = 0; n < 2; n += 1) {
    const { id } = await db.images.insert(newImage({ owner }))
    keep(id).moves.push({ from: 'none', to: 'queued' })
  }
  const location = () => ({ uri: `file:///${randomUUID()}` as LocationUri, store: 's' as StoreId, metadata: {} })
  const worker = () => random.pick(WORKERS) as string as WorkerId
  const told = (name: string) => void done.push(name)

  const DEEDS: Readonly<Record<string, (tally: Tally) => (db: Database) => Promise<unknown>>> = {
    claim: (tally) => {
      const attempt = randomUUID() as AttemptId
      const claim: Claim = { attempt, imageId: tally.id, worker: worker(), store: 's' as StoreId }
      return async (db) => {
        await db.images.claim(claim, LIMITS)
        tally.claims.push(claim)
        tally.moves.push({ from: 'queued', to: 'saving' })
      }
    },
    publish: (tally) => {
      const claim = tally.claims.at(-1)
      const to = location()
      return async (db) => {
        if (claim === undefined) return NOTHING
        const change = { status: 'active', size: SIZE, locations: { from: [], to: [to] }, ...LIMITS } as const
        await db.images.settle(claim, change)
        tally.moves.push({ from: 'saving', to: 'active' })
        return undefined
      }
    },
    'queue again': (tally) => {
      const claim = tally.claims.at(-1)
      return async (db) => {
        if (claim === undefined) return NOTHING
        await db.images.settle(claim, { status: 'queued', size: null })
        tally.moves.push({ from: 'saving', to: 'queued' })
        return undefined
      }
    },
    deactivate: (tally) => async (db) => {
      await db.images.update(tally.id, { status: 'deactivated' }, ['active'])
      tally.moves.push({ from: 'active', to: 'deactivated' })
    },
    reactivate: (tally) => async (db) => {
      await db.images.update(tally.id, { status: 'active' }, ['deactivated'])
      tally.moves.push({ from: 'deactivated', to: 'active' })
    },
    copy: (tally) => {
      const more = location()
      return (db) => db.images.update(tally.id, { addLocations: [more], ...LIMITS }, ['active'])
    },
    'add tag': (tally) => {
      const tag = random.pick(NAMES)
      return async (db) => {
        await db.images.addTag(tally.id, tag, MOST_TAGS)
        tally.tags.added.add(tag)
      }
    },
    'remove tag': (tally) => {
      const tag = random.pick(NAMES)
      return async (db) => {
        await db.images.removeTag(tally.id, tag)
        tally.tags.removed.add(tag)
      }
    },
    'add member': (tally) => {
      const member = random.pick(NAMES)
      return async (db) => {
        await db.members.add(tally.id, member as string as ProjectId, MOST_MEMBERS)
        tally.members.set(member, (tally.members.get(member) ?? 0) + 1)
      }
    },
    'remove member': (tally) => {
      const member = random.pick(NAMES)
      return async (db) => {
        await db.members.remove(tally.id, member as string as ProjectId)
        tally.members.set(member, (tally.members.get(member) ?? 0) - 1)
      }
    },
    'set property': (tally) => {
      const [name, value] = [random.pick(NAMES), `${random.below(100)}`]
      const every: readonly ImageStatus[] = ['queued', 'saving', 'active', 'deactivated', 'importing']
      return (db) => db.images.update(tally.id, { setProperties: new Map([[name, value]]) }, every)
    },
    begin: (tally) => {
      const job: Job = {
        task: randomUUID() as TaskId,
        imageId: tally.id,
        worker: worker(),
        tries: 1,
        context: null,
      }
      const task = { id: job.task, type: 'api_image_import', owner, input: {}, imageId: tally.id } as const
      return async (db) => {
        await db.jobs.begin({
          task: { ...task, requestId: null, userId: 'user' as UserId },
          image: tally.id,
          worker: job.worker,
          context: null,
          change: {},
          preempted: { status: 'failure' },
        })
        tally.jobs.push(job)
        tally.held += 1
      }
    },
    finish: (tally) => {
      const job = tally.jobs.at(-1)
      return async (db) => {
        if (job === undefined) return NOTHING
        await db.jobs.finish(job, { task: { status: 'success', keepMs: 60_000 } })
        tally.held -= 1
        return undefined
      }
    },
    'take over': (tally) => {
      const job = tally.jobs.at(-1)
      const [claim, by] = [tally.claims.at(-1), worker()]
      return async (db) => {
        const taken = job && (await db.jobs.takeOver(job, by))
        if (taken) tally.jobs.push(taken)
        if (claim && (await db.workers.takeOver(claim, by))) tally.claims.push({ ...claim, worker: by })
        else if (!taken) return NOTHING
        return undefined
      }
    },
    remove: (tally) => async (db) => {
      const { status } = await db.images.remove(tally.id, ['queued', 'saving', 'active', 'deactivated'])
      tally.moves.push({ from: status, to: 'deleted' })
    },
    insert: () => {
      const image = newImage({ owner })
      return async (db) => {
        await db.images.insert(image, LIMITS)
        keep(image.id).moves.push({ from: 'none', to: 'queued' })
      }
    },
  }
  /** What is tried more often stands there more often. */
  const CHOICES = [
    ...['claim', 'claim', 'publish', 'publish', 'publish', 'queue again', 'deactivate', 'reactivate', 'copy', 'insert'],
    ...['add tag', 'add tag', 'remove tag', 'add member', 'add member', 'remove member', 'set property'],
    ...['begin', 'begin', 'finish', 'take over', 'remove'],
  ] as const

  // One of the two has data from the beginning.
  const [, second] = images as [Tally, Tally]
  await DEEDS['claim']?.(second)(db)
  await DEEDS['publish']?.(second)(db)

  return {
    successes: () => done,
    story: () => `course ${number}:\n${lines.join('\n')}`,
    wave: () => {
      lines.push('--')
      return Array.from({ length: 6 }, () => {
        const name = random.pick(CHOICES)
        const tally = random.pick(images.slice(0, 2))
        const act = (DEEDS[name] as (typeof DEEDS)[string])(tally)
        const node = random.below(2) as 0 | 1
        const who = `node ${node}, image ${images.indexOf(tally)}: ${name}`
        return {
          name,
          node,
          after: random.below(3),
          act: async (db: Database) => {
            if ((await act(db)) === NOTHING) return
            told(name)
            lines.push(who)
          },
        }
      })
    },
    wrongs: async ({ facts, read, prepare }) => {
      const ids = sql`(${sql.join(images.map(({ id }) => sql.lit(id)))})`
      const living = sql`not deleted`
      const [rows, tags, members, properties, locations, claims, jobs] = await read(
        async (session) =>
          [
            await session.all(
              prepare(sql<{ id: string; status: ImageStatus; size: number | null; deleted: unknown }>`
            select id, status, ${facts.integer(sql.ref('size'))} as size, deleted from images where id in ${ids}`),
            ),
            await session.all(
              prepare(
                sql<Child>`select image_id as id, value as name from image_tags where image_id in ${ids} and ${living}`,
              ),
            ),
            await session.all(
              prepare(
                sql<Child>`select image_id as id, member as name from image_members where image_id in ${ids} and ${living}`,
              ),
            ),
            await session.all(
              prepare(sql<Child & { value: string }>`select image_id as id, name, value from image_properties
            where image_id in ${ids} and ${living}`),
            ),
            await session.all(
              prepare(sql<Child & { status: string }>`select image_id as id, value as name, status from image_locations
            where image_id in ${ids} and ${living}`),
            ),
            await session.all(
              prepare(sql<Child>`select image_id as id, attempt as name from glimpse_claims where image_id in ${ids}`),
            ),
            await session.all(
              prepare(sql<Child>`select image_id as id, task as name from glimpse_jobs where image_id in ${ids}`),
            ),
          ] as const,
      )
      const of = <Row extends Child>(all: readonly Row[], { id }: Tally) => all.filter((row) => row.id === id)
      const alive = rows.filter(({ deleted }) => !deleted)
      const stored = locations.reduce((sum, { id }) => sum + (alive.find((row) => row.id === id)?.size ?? 0), 0)
      const perImage = images.flatMap((tally) => {
        const row = rows.find(({ id }) => id === tally.id)
        const [label, gone] = [`image ${images.indexOf(tally)}`, Boolean(row?.deleted)]
        const names = (all: readonly Child[]) => of(all, tally).map(({ name }) => name)
        const lock = of(properties, tally).find(({ name }) => name === 'os_glance_import_task')
        const wrong = (bad: boolean, what: string) => (bad ? [`${label} ${what}`] : [])
        return [
          ...wrong(row === undefined, 'is lost'),
          ...wrongMoves(tally.moves, row?.status ?? 'queued').map((what) => `${label} ${what}`),
          ...wrong(
            gone && [tags, members, properties, locations].some((all) => names(all).length > 0),
            'is deleted with rows',
          ),
          ...wrong(row?.status === 'active' && names(locations).length === 0, 'is active without a location'),
          ...wrong(
            ['queued', 'saving'].includes(row?.status ?? '') && names(locations).length > 0,
            'has data too early',
          ),
          ...wrong(names(tags).length > MOST_TAGS, 'has too many tags'),
          ...wrong(names(members).length > MOST_MEMBERS, 'has too many members'),
          ...[names(tags), names(members), names(properties), names(locations)].flatMap((all) =>
            wrong(new Set(all).size < all.length, `has something twice: ${all}`),
          ),
          ...(gone
            ? []
            : NAMES.flatMap((name) => [
                ...wrong(
                  (tally.members.get(name) ?? 0) !== Number(names(members).includes(name)),
                  `lies about member ${name}`,
                ),
                ...wrong(!tally.tags.added.has(name) && names(tags).includes(name), `has tag ${name} from nowhere`),
                ...wrong(
                  tally.tags.added.has(name) && !tally.tags.removed.has(name) && !names(tags).includes(name),
                  `has lost tag ${name}`,
                ),
              ])),
          ...wrong(names(jobs).length !== tally.held, `has ${names(jobs).length} jobs, and ${tally.held} were begun`),
          ...wrong(names(jobs).length > 1 && !gone, 'is held twice'),
          ...wrong(!gone && lock?.value !== names(jobs)[0], 'is held by another task than the one that works on it'),
          ...wrong(
            !gone && (row?.status === 'saving') !== (names(claims).length === 1),
            `is ${row?.status} with ${names(claims).length} claims`,
          ),
        ]
      })
      return [
        ...perImage,
        ...(stored > LIMITS.storageLimit ? [`the owner has stored ${stored}`] : []),
        ...(alive.length > LIMITS.countLimit ? [`the owner has ${alive.length} images`] : []),
        ...(alive.filter(({ status }) => status === 'saving').length > LIMITS.uploadingLimit
          ? ['two uploads at once']
          : []),
      ]
    },
  }
}

interface Child {
  readonly id: string
  readonly name: string
}

/** Whether the moves can be put in an order that leads to `status`, each of them legal and told of once. */
function wrongMoves(moves: readonly Move[], status: ImageStatus): readonly string[] {
  const illegal = moves.filter(({ from, to }) => from !== 'none' && !canBecome(from, to))
  const balance = new Map<string, number>([
    ['none', 1],
    [status, -1],
  ])
  for (const { from, to } of moves) {
    balance.set(from, (balance.get(from) ?? 0) - 1)
    balance.set(to, (balance.get(to) ?? 0) + 1)
  }
  const told = moves.map(({ from, to }) => `${from}>${to}`).join(' ')
  return [
    ...illegal.map(({ from, to }) => `went from ${from} to ${to}`),
    ...([...balance.values()].some((one) => one !== 0) ? [`is ${status} after ${told}`] : []),
  ]
}
