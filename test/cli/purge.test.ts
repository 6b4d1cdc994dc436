import assert from 'node:assert/strict'
import { execFile, spawn, spawnSync } from 'node:child_process'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { DatabaseSync } from 'node:sqlite'
import { after, before, describe, it, type TestContext } from 'node:test'
import { fileURLToPath } from 'node:url'
import { promisify, stripVTControlCharacters } from 'node:util'
import { openDatabase } from '../../src/db/sql/connect.ts'
import { onServer } from '../support/on-server.ts'
import { root, until } from '../support/product.ts'
import { mariadbAvailable, postgresAvailable, startMariadb, startPostgres } from '../support/servers/sql.ts'

const run = promisify(execFile)
const PYTHON = '/usr/bin/python3'
const hasGlance = spawnSync(PYTHON, ['-c', 'import glance.cmd.manage']).status === 0
const skip = hasGlance || process.env['CI'] === 'true' ? false : 'the real glance-manage is not installed'

interface Ended {
  readonly code: number
  readonly stdout: string
  readonly stderr: string
}
type Manage = (...args: readonly string[]) => Promise<Ended>

/** An empty database, and SQL for it. */
interface Place {
  readonly url: string
  query(sql: string): Promise<readonly string[]>
}

const TABLES = [
  ...['task_info', 'image_properties', 'image_tags', 'image_locations', 'image_members', 'tasks', 'images'],
] as const
const keyOf = (table: string) => (table === 'task_info' ? 'task_id' : 'id')

/** Which rows there are. */
const rowsIn = async (place: Place): Promise<Readonly<Record<string, string>>> => {
  const found: Record<string, string> = {}
  for (const table of TABLES)
    found[table] = (await place.query(`select ${keyOf(table)} from ${table} order by 1`)).join(' ')
  return found
}

/** Images and tasks of the days after 2001-01-01: the first `dead` of them deleted, one a day. */
const seed = (count: number, dead: number): string => {
  const day = (n: number) => new Date(Date.UTC(2001, 0, 1 + n)).toISOString().slice(0, 10)
  const marks = (n: number) => (n < dead ? `true, '${day(n)} 00:00:00'` : 'false, null')
  const rows = (make: (n: number) => string) => Array.from({ length: count }, (_, n) => make(n)).join(',')
  const born = `'2000-01-01 00:00:00'`
  return `insert into images (id, name, status, created_at, deleted, deleted_at, min_disk, min_ram, protected, visibility,
      os_hidden) values ${rows((n) => `('image-${n}', 'n', '${n < dead ? 'deleted' : 'active'}', ${born}, ${marks(n)}, 0, 0, false, 'shared', false)`)};
    insert into image_properties (image_id, name, value, created_at, deleted, deleted_at)
      values ${rows((n) => `('image-${n}', 'p', 'v', ${born}, ${marks(n)}), ('image-${n}', 'lost', 'v', ${born}, true, '${day(n)} 12:00:00')`)};
    insert into image_tags (image_id, value, created_at, deleted, deleted_at)
      values ${rows((n) => `('image-${n}', 't', ${born}, ${marks(n)})`)};
    insert into image_locations (image_id, value, created_at, deleted, deleted_at, status)
      values ${rows((n) => `('image-${n}', 'file:///${n}', ${born}, ${marks(n)}, '${n < dead ? 'deleted' : 'active'}')`)};
    insert into image_members (image_id, member, can_share, status, created_at, deleted, deleted_at)
      values ${rows((n) => `('image-${n}', 'm', false, 'accepted', ${born}, ${marks(n)})`)};
    insert into tasks (id, type, status, owner, created_at, deleted, deleted_at)
      values ${rows((n) => `('task-${n}', 'import', 'success', 'o', ${born}, ${marks(n)})`)};
    insert into task_info (task_id, input) select id, '{}' from tasks where id <> 'task-1'`
}

const folder = async (t: TestContext): Promise<string> => {
  const dir = await mkdtemp(join(tmpdir(), 'glimpse-purge-'))
  t.after(() => rm(dir, { recursive: true }))
  return dir
}

const sqlitePlace = async (t: TestContext): Promise<Place> => {
  const file = join(await folder(t), 'glance.sqlite')
  const query = async (sql: string) => {
    const raw = new DatabaseSync(file, { timeout: 10_000 })
    try {
      if (!sql.startsWith('select')) raw.exec(sql)
      return sql.startsWith('select')
        ? raw
            .prepare(sql)
            .all()
            .map((row) => Object.values(row).join('\t'))
        : []
    } finally {
      raw.close()
    }
  }
  return { url: `sqlite:///${file}`, query }
}

const filled = async (place: Place, count: number, dead: number): Promise<Place> => {
  await (await openDatabase(place.url)).close()
  await place.query(seed(count, dead))
  return place
}

const confFor = async (t: TestContext, place: Place): Promise<string> => {
  const conf = join(await folder(t), 'glance-api.conf')
  await writeFile(conf, `[database]\nconnection = ${place.url}\n`)
  return conf
}

const ours = async (t: TestContext, place: Place): Promise<Manage> => {
  const conf = await confFor(t, place)
  return (...args) =>
    run(join(root, 'bin/glance-manage'), ['--config-file', conf, ...args]).then(
      (printed) => ({ code: 0, ...printed }),
      (error: { code: number; stdout: string; stderr: string }) => error,
    )
}

/** What an operator reads, without the time, the process and the level that a log has before it. */
const saidBy = ({ stderr }: Ended): readonly string[] =>
  stripVTControlCharacters(stderr)
    .split('\n')
    .map((line) => line.replace(/^\S+ \S+ \d+ (INFO|ERROR) \S+ \[.*?\] /, ''))
    .filter((line) => /^(Purging|Deleted|Purge command|Must|Maximal|Minimal|Invalid int|'max_rows')/.test(line))

describe('db purge beside the real glance-manage', { skip }, () => {
  let real: ReturnType<typeof spawn>
  let answers: AsyncIterator<string>
  before(() => {
    if (!hasGlance) assert.fail('the real glance-manage is not installed')
    real = spawn(PYTHON, [fileURLToPath(new URL('glance_manage.py', import.meta.url))], {
      stdio: ['pipe', 'pipe', 'inherit'],
      env: { ...process.env, PYTHONWARNINGS: 'ignore' },
    })
    answers = createInterface(real.stdout as NonNullable<typeof real.stdout>)[Symbol.asyncIterator]()
  })
  after(() => real?.kill('SIGKILL'))
  const theirs = async (t: TestContext, place: Place): Promise<Manage> => {
    const conf = await confFor(t, place)
    return async (...args) => {
      real.stdin?.write(`${JSON.stringify(['--config-file', conf, ...args])}\n`)
      return JSON.parse((await answers.next()).value as string) as Ended
    }
  }

  /** While tags and other rows refer to images. */
  const TOO_EARLY = ['db', 'purge_images_table', '--age_in_days', '1'] as const
  const STEPS: readonly (readonly string[])[] = [
    ['db', 'purge', '--age_in_days', '7', '--max_rows', '0'],
    ['db', 'purge', '7', '3'],
    TOO_EARLY,
    ['db', 'purge'],
    ['db', 'purge', '--max_rows', '-1', '--age_in_days=0'],
    ['db', 'purge_images_table', '1', '2'],
    ['db', 'purge_images_table'],
    ['db', 'purge_images_table', '0', '-1'],
  ]
  const sameSteps = async (t: TestContext, open: () => Promise<Place>, steps = STEPS) => {
    const [one, other] = [await filled(await open(), 130, 120), await filled(await open(), 130, 120)]
    const [glimpse, glance] = [await ours(t, one), await theirs(t, other)]
    for (const step of steps) {
      const [mine, upstreams] = await Promise.all([glimpse(...step), glance(...step)])
      const title = step.join(' ')
      const left = await rowsIn(other)
      for (const [table, rows] of Object.entries(await rowsIn(one)))
        assert.equal(rows, left[table], `${title}: ${table}`)
      assert.deepEqual([mine.code, saidBy(mine)], [upstreams.code, saidBy(upstreams)], title)
      assert.equal(mine.stdout, '', title)
    }
    assert.equal((await rowsIn(one))['images']?.split(' ').length, 10)
  }

  // Debian's release does not have SQLite look after foreign keys; later ones do.
  const onSqlite = STEPS.filter((step) => step !== TOO_EARLY)
  it('the same rows go, with the same words and exit codes, on SQLite', (t) =>
    sameSteps(t, () => sqlitePlace(t), onSqlite))
  for (const [name, found, start] of [
    ['PostgreSQL', postgresAvailable(), startPostgres],
    ['MariaDB', mariadbAvailable(), startMariadb],
  ] as const)
    onServer(name, found, start, (server) => {
      it(`the same rows go, with the same words and exit codes`, (t) =>
        sameSteps(t, async () => {
          const url = await server().database()
          return { url, query: (sql) => server().query(url, sql) }
        }))
    })

  it('the same values are refused, with the same words and exit codes', async (t) => {
    const place = await filled(await sqlitePlace(t), 1, 1)
    const [glimpse, glance] = [await ours(t, place), await theirs(t, place)]
    const all = await rowsIn(place)
    const days = String(Math.floor(Date.now() / 86_400_000))
    for (const values of [
      ['x', '1'],
      ['1', '1.5'],
      ['-1', '1'],
      ['--age_in_days', '-1'],
      [String(Number(days) + 1)],
      ['1', '-2'],
      ['--max_rows=-2'],
      ['1', '2147483648'],
      ['--age_in_days', 'x'],
      ['--max_rows', '1.0'],
      ['--nonsense'],
    ]) {
      const args = ['db', values[0] === 'x' ? 'purge_images_table' : 'purge', ...values]
      const [mine, upstreams] = await Promise.all([glimpse(...args), glance(...args)])
      assert.notEqual(upstreams.code, 0, args.join(' '))
      assert.deepEqual([mine.code, saidBy(mine)], [upstreams.code, saidBy(upstreams)], args.join(' '))
    }
    // There never was an old name for it.
    for (const manage of [glimpse, glance]) assert.equal((await manage('db_purge')).code, 2)
    assert.deepEqual(await rowsIn(place), all)
  })
})

describe('db purge', () => {
  it('--dry-run tells what would go, and leaves it', async (t) => {
    const place = await filled(await sqlitePlace(t), 8, 5)
    await place.query(`update image_locations set status = 'pending_delete' where image_id = 'image-0'`)
    const manage = await ours(t, place)
    const all = await rowsIn(place)
    const { stdout, code } = await manage('db', 'purge', '--dry-run', '--max_rows', '6')
    assert.equal(code, 0)
    for (const [table, rows, kept] of [
      ['task_info', 4, 0],
      ['image_properties', 6, 0],
      ['image_locations', 4, 1],
      ['tasks', 5, 0],
    ] as const)
      assert.match(stdout, new RegExp(`\\| +${table} +\\| +${rows} \\| +${kept} \\|`))
    assert.match((await manage('db', 'purge_images_table', '--dry-run')).stdout, /Nothing of images can go: .*db purge/)
    assert.deepEqual(await rowsIn(place), all)
    const { stderr } = await manage('db', 'purge')
    assert.match(stderr, /Kept 1 row\(s\) of table image_locations/)
    assert.equal((await manage('db', 'purge_images_table')).code, 0)
    assert.match((await rowsIn(place))['images'] ?? '', /^image-0 image-5/)
  })

  it('of images that were deleted at one moment, those go first that nothing refers to', async (t) => {
    const place = await filled(await sqlitePlace(t), 4, 4)
    await place.query(`update images set deleted_at = '2001-01-01 00:00:00'`)
    const manage = await ours(t, place)
    await manage('db', 'purge', '0', '-1')
    await place.query(`insert into image_tags (image_id, value, created_at, deleted)
      values ('image-0', 't', '2001-01-01', false), ('image-1', 't', '2001-01-01', false)`)
    const { code } = await manage('db', 'purge_images_table', '0', '3')
    assert.deepEqual([code, (await rowsIn(place))['images']], [1, 'image-0 image-1 image-2 image-3'])
    assert.equal((await manage('db', 'purge_images_table', '0', '2')).code, 0)
    assert.equal((await rowsIn(place))['images'], 'image-0 image-1')
  })

  it('a value that is given twice is refused', async (t) => {
    const manage = await ours(t, await filled(await sqlitePlace(t), 1, 1))
    const { code, stderr } = await manage('db', 'purge', '3', '--age_in_days', '30')
    assert.equal(code, 1)
    assert.match(stderr, /once/)
  })

  it('killed at any moment, it leaves a database that the next one can go on with', async (t) => {
    const place = await filled(await sqlitePlace(t), 3000, 2990)
    const conf = await confFor(t, place)
    const left = async () => Number((await place.query('select count(*) from image_properties'))[0])
    let interrupted = 0
    for (let killed = 0; killed < 3; killed++) {
      const now = await left()
      const child = spawn(join(root, 'bin/glance-manage'), ['--config-file', conf, 'db', 'purge', '0', '-1'])
      const ended = new Promise((resolve) => child.once('exit', resolve))
      await until('the first batches', async () => (await left()) < now || child.exitCode !== null, { everyMs: 1 })
      child.kill('SIGKILL')
      await ended
      if (child.signalCode === 'SIGKILL') interrupted += 1
      assert.deepEqual(await place.query('select * from pragma_foreign_key_check'), [])
    }
    assert.ok(interrupted > 0)
    const manage = await ours(t, place)
    const two = await Promise.all([manage('db', 'purge', '0', '-1'), manage('db', 'purge', '0', '-1')])
    assert.deepEqual(
      two.map(({ code }) => code),
      [0, 0],
    )
    assert.equal((await manage('db', 'purge_images_table', '0', '-1')).code, 0)
    const rows = await rowsIn(place)
    assert.deepEqual(
      TABLES.map((table) => [table, rows[table]?.split(' ').length]),
      TABLES.map((table) => [table, 10]),
    )
    assert.deepEqual(await place.query('select * from pragma_foreign_key_check'), [])
  })
})
