import { DatabaseSync } from 'node:sqlite'
import { connectDatabase } from '../../src/db/sql/connect.ts'
import { optimize } from '../../src/db/sql/optimize.ts'
import { upgradeSchema } from '../../src/db/sql/upstream-migrations.ts'
import { NEWEST_LEVEL } from '../../src/db/sql/upstream-revisions.ts'
import type { ProjectId } from '../../src/domain/ids.ts'
import type { SqlServer } from './servers/sql.ts'

/*
 * A catalogue of any size as a cloud of many projects has it, made by the database itself: what the n-th image is
 * depends on n and the seed alone, so that every database holds the same.
 */

export type Kind = 'sqlite' | 'postgresql' | 'mysql'

export const PROJECTS = 5_000
/** Owns a tenth of the images, and has 5,000 memberships (or as many as there are images to share). */
export const LARGE = 'project-large' as ProjectId
/** Owns ten images. */
export const SMALL = 'project-small' as ProjectId
/** Owns nothing. */
export const STRANGER = 'project-stranger' as ProjectId
/** Images with the tag `golden`, whatever the size. */
export const GOLDEN = 50
const MEMBERSHIPS = 5_000
/** Deleted ones beside a hundred that live. */
const DELETED_PERCENT = 5

/** A modulus for each salt, so that they have nothing to do with each other. */
const PRIMES = [
  1_000_003, 999_983, 999_979, 999_961, 999_959, 999_953, 999_931, 999_917, 999_907, 999_883, 999_863, 999_853, 999_809,
  999_773, 999_769, 999_763, 999_749, 999_727, 999_721, 999_683, 999_671,
]

interface Words {
  /** A table of the numbers from 0 as `i`. */
  readonly numbers: (count: number) => string
  /** So many digits of a number in base 16. */
  readonly hex: (value: string, digits: number) => string
  /** Seconds since 1970 as a value of a column. */
  readonly time: (seconds: string) => string
  readonly join: (...texts: readonly string[]) => string
  readonly text: (value: string) => string
  readonly no: string
  readonly yes: string
  /** What a text is as a column of `images.visibility`. */
  readonly visibility: (text: string) => string
  /** Before everything else. */
  readonly first: readonly string[]
  /** Afterwards, by itself: counts what there is, for the planner. */
  readonly analyze: string
}

const WORDS: Readonly<Record<Kind, Words>> = {
  sqlite: {
    numbers: (count) =>
      `(WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ${count}) SELECT i FROM n) AS n`,
    hex: (value, digits) => `printf('%0${digits}x', ${value})`,
    time: (seconds) => `strftime('%Y-%m-%d %H:%M:%S', ${seconds}, 'unixepoch') || '.000000'`,
    join: (...texts) => texts.join(' || '),
    text: (value) => `CAST(${value} AS TEXT)`,
    no: '0',
    yes: '1',
    visibility: (text) => text,
    first: ['BEGIN'],
    analyze: 'ANALYZE',
  },
  postgresql: {
    numbers: (count) => `(SELECT i::bigint FROM generate_series(0, ${count - 1}) AS i) AS n`,
    hex: (value, digits) => `lpad(to_hex(${value}), ${digits}, '0')`,
    time: (seconds) => `timezone('UTC', to_timestamp(${seconds}))`,
    join: (...texts) => texts.join(' || '),
    text: (value) => `CAST(${value} AS TEXT)`,
    no: 'false',
    yes: 'true',
    visibility: (text) => `CAST(${text} AS image_visibility)`,
    // Without a look at the image of each row.
    first: ['BEGIN', 'SET LOCAL synchronous_commit = off', 'SET LOCAL session_replication_role = replica'],
    analyze: 'VACUUM ANALYZE',
  },
  mysql: {
    numbers: (count) => `(SELECT seq AS i FROM seq_0_to_${count - 1}) AS n`,
    hex: (value, digits) => `lpad(lower(hex(${value})), ${digits}, '0')`,
    time: (seconds) => `date_add('1970-01-01', INTERVAL ${seconds} SECOND)`,
    join: (...texts) => `concat(${texts.join(', ')})`,
    text: (value) => `CAST(${value} AS CHAR)`,
    no: '0',
    yes: '1',
    visibility: (text) => text,
    first: ['SET foreign_key_checks = 0', 'SET unique_checks = 0', 'SET autocommit = 0'],
    analyze: 'ANALYZE TABLE images, image_properties, image_tags, image_locations, image_members',
  },
}

/** What counts the rows for the planner, once they are there. */
export const analyze = (kind: Kind): string => WORDS[kind].analyze

/** Statements of one session that fill upstream's tables, empty as yet. */
export function catalogue(kind: Kind, images: number, seed = 1): readonly string[] {
  const { numbers, hex, time, join, text, no, yes, visibility, first } = WORDS[kind]
  /** A number below `below`, which looks random beside those with another salt. */
  const random = (salt: number, below: number) => {
    const part = (factor: number) => `((i * ${factor * salt} + ${seed * 31 * salt}) % ${PRIMES[salt] ?? 1_000_003})`
    return `(${part(7_919)} * ${part(104_729)} % 1000003 % ${below})`
  }
  const id = join(
    hex(`(i * 2654435761 + ${seed}) % 4294967296`, 8),
    `'-'`,
    hex('i % 65536', 4),
    `'-4000-8000-'`,
    hex('i', 12),
  )
  /** By a random number below `below`: the first value whose end it is below. */
  const oneOf = (
    salt: number,
    below: number,
    values: readonly (readonly [value: string, end: number])[],
    rest: string,
  ) => {
    const cases = values.map(([value, end]) => `WHEN ${random(salt, below)} < ${end} THEN ${value}`)
    return `CASE ${cases.join(' ')} ELSE ${rest} END`
  }
  const quoted = (value: string) => `'${value}'`
  // Two at a time.
  const created = time('1600000000 + (i - i % 2) * 60')
  // Ten images of the small tenant, evenly among all.
  const isSmall = `i % ${Math.max(1, Math.floor(images / 10))} = ${Math.min(5, images - 1)} AND i < ${images}`
  const owner = `CASE WHEN ${isSmall} THEN '${SMALL}' WHEN i % 10 = 3 THEN '${LARGE}'
    ELSE ${join(quoted('project-'), text(random(2, PROJECTS)))} END`
  const isLive = `i < ${images}`
  const all = images + Math.floor((images * DELETED_PERCENT) / 100)
  const status = `CASE WHEN ${isLive} THEN ${oneOf(
    3,
    1000,
    [
      [quoted('active'), 950],
      [quoted('queued'), 980],
      [quoted('deactivated'), 990],
      [quoted('saving'), 995],
    ],
    quoted('importing'),
  )} ELSE 'deleted' END`
  const size = `CASE WHEN ${random(4, 20)} = 0 THEN NULL ELSE ${random(5, 1_000_000)} * 10000 + i % 10000 END`
  // Half of the images have a name of their own, the others one of ten.
  const name = `CASE WHEN ${random(6, 2)} = 0 THEN ${join(quoted('image-'), text('i'))}
    ELSE ${join(quoted('name-'), text(random(7, 10)))} END`
  const seen = visibility(
    oneOf(
      8,
      100,
      [
        [quoted('public'), 10],
        [quoted('community'), 15],
        [quoted('private'), 55],
      ],
      quoted('shared'),
    ),
  )
  const format = oneOf(
    9,
    100,
    [
      [quoted('qcow2'), 70],
      [quoted('raw'), 90],
      [quoted('vmdk'), 98],
    ],
    quoted('iso'),
  )
  // The children in the order of the ids of the images, which is that of an index.
  const living = `(SELECT i, ${id} AS id, ${created} AS at FROM ${numbers(images)}) AS images`
  const golden = `i % ${Math.max(1, Math.floor(images / GOLDEN))} = 0 AND i / ${Math.max(1, Math.floor(images / GOLDEN))} < ${GOLDEN}`
  const list = (rows: readonly string[]) => `(${rows.map((row) => `SELECT ${row}`).join(' UNION ALL ')}) AS k`
  const members = `INSERT INTO image_members (image_id, member, can_share, created_at, updated_at, deleted, status)`
  const foreign = `visibility = 'shared' AND deleted = ${no} AND owner <> '${LARGE}'`
  return [
    ...first,
    `INSERT INTO images (id, name, size, status, created_at, updated_at, deleted_at, deleted, disk_format,
        container_format, checksum, owner, min_disk, min_ram, protected, virtual_size, visibility, os_hidden,
        os_hash_algo, os_hash_value)
      SELECT ${id}, ${name}, ${size}, ${status}, ${created}, ${time(`1600000000 + (i - i % 2) * 60 + ${random(10, 100_000)}`)},
        CASE WHEN ${isLive} THEN NULL ELSE ${created} END, CASE WHEN ${isLive} THEN ${no} ELSE ${yes} END,
        ${format}, 'bare', ${join(quoted('c'), text('i'))}, ${owner}, ${random(11, 10)}, ${random(12, 10)} * 512,
        CASE WHEN ${random(13, 100)} = 0 THEN ${yes} ELSE ${no} END, NULL, ${seen},
        CASE WHEN ${random(14, 50)} = 0 THEN ${yes} ELSE ${no} END, 'sha512', ${join(quoted('h'), text('i'))}
      FROM ${numbers(all)}`,
    `INSERT INTO image_properties (image_id, name, value, created_at, deleted)
      SELECT id, k.name, CASE k.name WHEN 'build' THEN ${text('i')} WHEN 'hw_disk_bus' THEN
          CASE WHEN ${random(15, 2)} = 0 THEN 'virtio' ELSE 'scsi' END
        WHEN 'os_distro' THEN ${join(quoted('distro-'), text(random(16, 20)))}
        WHEN 'os_version' THEN ${text(random(17, 5))} ELSE ${join(quoted('rack-'), text(random(18, 1000)))} END,
        at, ${no}
      FROM ${living} CROSS JOIN ${list(["'build' AS name", "'hw_disk_bus'", "'os_distro'", "'os_version'", "'rack'"])}`,
    `INSERT INTO image_tags (image_id, value, created_at, deleted)
      SELECT id, CASE WHEN k.n = 0 THEN ${join(quoted('os-'), text(random(19, 10)))}
        WHEN ${golden} THEN 'golden' ELSE ${join(quoted('team-'), text(random(20, 1000)))} END, at, ${no}
      FROM ${living} CROSS JOIN ${list(['0 AS n', '1'])}`,
    `INSERT INTO image_locations (image_id, value, created_at, deleted, meta_data, status)
      SELECT id, ${join(quoted('file:///var/lib/glance/images/'), 'id')}, at, ${no}, '{"store": "fast"}', 'active'
      FROM ${living}`,
    // The large tenant's memberships are evenly among the shared images of others; each tenth of them has one more member.
    `${members} SELECT id, '${LARGE}', ${no}, created_at, created_at, ${no},
        CASE WHEN place % 20 = 0 THEN 'pending' ELSE 'accepted' END
      FROM (SELECT id, created_at, row_number() OVER (ORDER BY id) AS place FROM images WHERE ${foreign}) AS shared
      WHERE place <= ${MEMBERSHIPS}`,
    `${members} SELECT id, ${join(quoted('project-'), text(`place % ${PROJECTS}`))}, ${no}, created_at, created_at, ${no}, 'accepted'
      FROM (SELECT id, created_at, row_number() OVER (ORDER BY id) AS place FROM images WHERE ${foreign}) AS shared
      WHERE place % 10 = 0`,
    'COMMIT',
  ]
}

/** Makes upstream's schema, has it filled, and adds our parts, as an operator would. */
async function made(url: string, fill: () => Promise<unknown>): Promise<string> {
  const db = await connectDatabase({ connection: url })
  try {
    await upgradeSchema(db, NEWEST_LEVEL)
    await fill()
    await optimize(db, () => undefined)
  } finally {
    await db.close()
  }
  return url
}

/** A new database of a server with so many images: its URL. */
export async function filledDatabase(server: SqlServer, images: number, seed?: number): Promise<string> {
  const url = await server.database()
  return await made(url, async () => {
    await server.query(url, catalogue(server.kind, images, seed).join(';\n'))
    await server.query(url, analyze(server.kind))
  })
}

/** The same as a file that does not exist yet. */
export const filledFile = (file: string, images: number, seed?: number): Promise<string> =>
  made(`sqlite:///${file}`, async () => {
    const db = new DatabaseSync(file)
    try {
      db.exec('PRAGMA synchronous = OFF; PRAGMA cache_size = -1000000')
      for (const text of catalogue('sqlite', images, seed)) db.exec(text)
    } finally {
      db.close()
    }
  })
