import type { Random } from './random.ts'

/** Values for the fields of requests: ordinary ones, those at an edge, and such as do not belong there. */

export const PROJECTS = ['pa', 'pb', 'pc'] as const

/** Who asks: tokens `USER:PROJECT:ROLES`. */
export const CALLERS = {
  alice: 'alice:pa:member,reader',
  anna: 'anna:pa:member,reader',
  rita: 'rita:pa:reader',
  norole: 'norole:pa:',
  ada: 'ada:pa:admin,member,reader',
  bob: 'bob:pb:member,reader',
  bea: 'bea:pb:reader',
  carol: 'carol:pc:member,reader',
  admin: 'admin:admin:admin,member,reader',
  service: 'service:service:service',
  root: 'root::admin,member,reader:system=all',
} as const
export type Caller = keyof typeof CALLERS

export const DISK_FORMATS = ['ami', 'ari', 'aki', 'vhd', 'vhdx', 'vmdk', 'raw', 'qcow2', 'vdi', 'iso', 'ploop']
export const CONTAINER_FORMATS = ['ami', 'ari', 'aki', 'bare', 'ovf', 'ova', 'docker', 'compressed']
export const VISIBILITIES = ['private', 'shared', 'community', 'public']
export const IMAGE_STATUSES = [
  'queued',
  'saving',
  'active',
  'deactivated',
  'deleted',
  'killed',
  'importing',
  'uploading',
]

export const TAGS = ['red', 'green', 'blue', 'a b', 'ü', 'x'.repeat(255), 'in:x', "it's", 'a,b', '%', '1']
export const NAMES = [
  'cirros',
  'Cirros',
  'debian',
  'ubuntu',
  '',
  'a,b',
  'in:cirros,debian',
  'ü',
  '"quoted"',
  ' blank ',
  'x'.repeat(255),
]
/** Beyond `os_` and other names of the service's own. */
export const PROPERTIES = [
  'os_distro',
  'hw_disk_bus',
  'color',
  'Color',
  'os_version',
  'min_size',
  'a.b',
  'x'.repeat(255),
  'ü',
]
export const HOSTILE_TEXT = [
  'x'.repeat(256),
  '\u0000',
  'a\u0000b',
  '😀',
  '\ud800',
  '../../etc',
  "'; drop table images; --",
  '<b>&"',
  '{{7*7}}',
  '%s%n',
  '\r\nX: y',
  '\u202e',
]
export const NO_TEXT = [1, 0, -1, 1.5, true, null, [], {}, ['a'], { a: 'b' }]
export const NUMBERS = [0, 1, 2, 512, 2 ** 31 - 1]
export const NO_NUMBERS = [-1, 2 ** 31, 2 ** 63, 1e30, 1.5, '1', '', 'x', true, null, [], {}]
export const NO_BOOLEANS = ['true', 'True', 'false', 0, 1, '', null, [], 'yes']
export const IDS = [
  'x',
  'not-a-uuid',
  '00000000-0000-0000-0000-00000000000',
  '00000000000000000000000000000000',
  'A'.repeat(36),
  ' ',
  'ü',
]

/** Bodies that are no JSON object. */
export const BROKEN_BODIES = [
  '',
  '{',
  '{"name": }',
  '[]',
  '[{}]',
  '"text"',
  '1',
  'null',
  'true',
  '{"name": "a"',
  '{} {}',
  "{'name': 'a'}",
  '{"name": "\\ud800"}',
  '\ufeff{}',
  '{"a": 1,}',
  ' ',
  '!hex 7b226e616d65223a22ff227d',
  '!hex 00',
]

/** An empty text is sorted as none here, and before it there. */
const NAMED = NAMES.filter((name) => name !== '')

export const text = (random: Random): string =>
  random.weighted([
    [8, random.pick(NAMED)],
    [1, random.pick(HOSTILE_TEXT)],
  ])

/** A value for a field of images; one in eight does not belong there. */
export function imageValue(random: Random, field: string): unknown {
  if (random.chance(1 / 8)) return random.pick<unknown>([...NO_TEXT, ...HOSTILE_TEXT, ...NO_NUMBERS])
  switch (field) {
    case 'name':
      return random.weighted([
        [9, text(random)],
        [1, null],
      ])
    case 'disk_format':
      return random.weighted([
        [9, random.pick(DISK_FORMATS)],
        [1, null],
      ])
    case 'container_format':
      return random.weighted([
        [5, 'bare'],
        [4, random.pick(CONTAINER_FORMATS)],
        [1, null],
      ])
    case 'visibility':
      return random.pick(VISIBILITIES)
    case 'min_disk':
    case 'min_ram':
      return random.pick(NUMBERS)
    case 'protected':
    case 'os_hidden':
      return random.weighted([
        [6, random.chance(0.3)],
        [1, random.pick<unknown>(NO_BOOLEANS)],
      ])
    case 'tags':
      return random.some(TAGS, random.below(4))
    case 'owner':
      return random.pick([...PROJECTS, 'nobody', null])
    default:
      return text(random)
  }
}

export const WRITABLE = [
  'name',
  'disk_format',
  'container_format',
  'visibility',
  'min_disk',
  'min_ram',
  'protected',
  'os_hidden',
  'tags',
]
/** What clients may not set, or only sometimes. */
export const GUARDED = [
  'owner',
  'id',
  'status',
  'size',
  'virtual_size',
  'checksum',
  'os_hash_algo',
  'os_hash_value',
  'created_at',
  'updated_at',
  'self',
  'file',
  'schema',
  'direct_url',
  'locations',
  'stores',
  'os_glance_import_task',
  'os_glance_x',
  'is_public',
  'deleted',
  'members',
]
