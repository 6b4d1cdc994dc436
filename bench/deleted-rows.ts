type Kind = 'sqlite' | 'postgresql' | 'mysql'

interface Maker {
  /** A table with a column `n`. */
  readonly numbers: (count: number) => string
  /** An id, and a time in 2021, of it. */
  readonly id: string
  readonly time: string
}

const MAKERS: Readonly<Record<Kind, Maker>> = {
  sqlite: {
    numbers: (count) =>
      `(with recursive c(n) as (select 0 union all select n + 1 from c where n + 1 < ${count}) select n from c)`,
    id: `printf('%08x-0000-4000-8000-%012d', n * 2654435761 % 4294967296, n)`,
    time: `strftime('%Y-%m-%d %H:%M:%S.000000', 1609459200 + n, 'unixepoch')`,
  },
  postgresql: {
    numbers: (count) => `(select generate_series(0, ${count - 1})::bigint as n)`,
    id: `lpad(to_hex(n * 2654435761 % 4294967296), 8, '0') || '-0000-4000-8000-' || lpad(n::text, 12, '0')`,
    time: `timestamp '2021-01-01' + n * interval '1 second'`,
  },
  mysql: {
    numbers: (count) => `(select seq as n from seq_0_to_${count - 1})`,
    id: `concat(lpad(lower(hex(n * 2654435761 % 4294967296)), 8, '0'), '-0000-4000-8000-', lpad(n, 12, '0'))`,
    time: `date_add('2021-01-01', interval n second)`,
  },
}

const BORN = `'2020-01-01 00:00:00'`

/**
 * SQL that fills a new database with `living` images and `dead` ones, which were deleted in 2021; the ids of both are
 * spread over the whole range. Each has a property, a tag and a location, every fifth a member and a task.
 */
export function deletedRows(kind: Kind, living: number, dead: number): readonly string[] {
  const { numbers, id, time } = MAKERS[kind]
  const from = `from ${numbers(living + dead)} numbers`
  const fifth = `${from} where n % 5 = 0`
  const marks = `case when n < ${living} then false else true end`
  const gone = `${marks}, case when n < ${living} then null else ${time} end`
  const born = kind === 'postgresql' ? `${BORN}::timestamp` : BORN
  const status = (dead: string) => `case when n < ${living} then 'active' else '${dead}' end`
  return [
    `insert into images (id, name, size, status, visibility, owner, created_at, updated_at, deleted, deleted_at, min_disk,
      min_ram, protected, os_hidden, disk_format, container_format)
      select ${id}, 'image', 1000, ${status('deleted')}, 'public', 'p', ${born}, ${born}, ${gone}, 0, 0, false, false,
      'raw', 'bare' ${from}`,
    `insert into image_properties (image_id, name, value, created_at, deleted, deleted_at)
      select ${id}, 'os_distro', 'debian', ${born}, ${gone} ${from}`,
    `insert into image_tags (image_id, value, created_at, deleted, deleted_at)
      select ${id}, 'tag', ${born}, ${gone} ${from}`,
    `insert into image_locations (image_id, value, meta_data, status, created_at, deleted, deleted_at)
      select ${id}, 'file:///none', '{}', ${status('deleted')}, ${born}, ${gone} ${from}`,
    `insert into image_members (image_id, member, can_share, status, created_at, deleted, deleted_at)
      select ${id}, 'm', false, 'accepted', ${born}, ${gone} ${fifth}`,
    `insert into tasks (id, type, status, owner, created_at, updated_at, deleted, deleted_at)
      select ${id}, 'import', 'success', 'p', ${born}, ${born}, ${gone} ${fifth}`,
    `insert into task_info (task_id, input, result, message) select ${id}, '{}', '{}', '' ${fifth}`,
  ]
}
