import type { Databases } from './schema-dump.ts'

const IMAGES = [
  '11111111-1111-4111-8111-111111111111',
  '22222222-2222-4222-8222-222222222222',
  '33333333-3333-4333-8333-333333333333',
] as const

/**
 * SQL that fills a database as Train left it: odd characters, deleted rows, tasks, metadata definitions. The second
 * location names its store as Glance did before Train. Two images are shared with project `m`.
 */
export function trainRows(kind: Databases['kind']): readonly string[] {
  const [no, yes] = kind === 'postgresql' ? ['false', 'true'] : ['0', '1']
  const time = "'2019-08-07 06:05:04'"
  const stamps = (deleted: boolean) => `${time}, ${time}, ${deleted ? time : 'null'}, ${deleted ? yes : no}`
  const insert = (table: string, columns: string, values: string) =>
    `insert into ${table} (${columns}) values (${values})`
  const child = (n: number, columns: string, values: string) =>
    [
      `image_id, created_at, updated_at, deleted_at, deleted, ${columns}`,
      `'${IMAGES[n]}', ${stamps(n === 2)}, ${values}`,
    ] as const
  const json = kind === 'mysql' ? '{"a": "b\\\\\\\\c"}' : '{"a": "b\\\\c"}'
  return [
    ...IMAGES.flatMap((id, n) => [
      insert(
        'images',
        'id, name, size, status, created_at, updated_at, deleted_at, deleted, min_disk, min_ram, protected, visibility, owner',
        `'${id}', 'o''ld "é" ${n}', ${n === 1 ? 'null' : 2 ** 40 + n}, '${n === 2 ? 'deleted' : 'active'}', ${stamps(n === 2)},
          1, 2, ${n === 1 ? yes : no}, 'shared', ${n === 1 ? 'null' : "'owner'"}`,
      ),
      insert(
        'image_locations',
        ...child(
          n,
          'value, meta_data, status',
          `'file:///${n}', '{"${n === 1 ? 'backend' : 'store'}": "fast", "Backend": 1}', 'active'`,
        ),
      ),
      insert('image_members', ...child(n, 'member, can_share, status', `'m', ${no}, 'accepted'`)),
      insert('image_properties', ...child(n, 'name, value', `'os_distro', 'ü ''${n}'''`)),
      insert('image_tags', ...child(n, 'value', `'tag ${n}'`)),
    ]),
    insert(
      'tasks',
      'id, type, status, owner, created_at, updated_at, deleted_at, deleted, expires_at',
      `'${IMAGES[0]}', 'import', 'success', 'owner', ${stamps(false)}, ${time}`,
    ),
    insert('task_info', 'task_id, input, result, message', `'${IMAGES[0]}', '${json}', null, ''`),
    insert(
      'metadef_namespaces',
      'namespace, display_name, visibility, protected, owner, created_at, updated_at',
      `'OS::Test', 'a test', 'public', ${yes}, 'owner', ${time}, ${time}`,
    ),
    insert('metadef_tags', 'namespace_id, name, created_at', `1, 'tag', ${time}`),
  ]
}
