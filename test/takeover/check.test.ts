import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { hash } from 'node:crypto'
import { existsSync } from 'node:fs'
import { chown, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { userInfo } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, it, type TestContext } from 'node:test'
import { promisify, stripVTControlCharacters } from 'node:util'
import { locationCipher } from '../../src/db/sql/location-cipher.ts'
import type { LocationUri } from '../../src/domain/ids.ts'
import { freePort, root } from '../support/product.ts'
import type { TestConfig } from '../support/server.ts'
import { type Glance, startGlance } from '../support/servers/glance.ts'
import { populate, told, type Variant, variant, withoutGlance } from './deployment.ts'

const run = promisify(execFile)

const CONFIG: TestConfig = {
  DEFAULT: { enabled_backends: 'fast:file, cheap:file', enabled_import_methods: '[glance-direct,copy-image]' },
  glance_store: { default_backend: 'fast' },
}

describe('glimpse takeover check of what the real Glance made', { skip: withoutGlance() }, () => {
  let glance: Glance
  before(async () => {
    glance = await startGlance({ config: CONFIG })
    await populate(glance)
  })
  after(() => glance.stop())

  /** The problems of a deployment with one thing changed. */
  const problems = async (t: TestContext, config: TestConfig, change?: (deployment: Variant) => unknown) => {
    const deployment = await variant(t, glance, config)
    await change?.(deployment)
    return told(await deployment.sections(), 'problem')
  }
  const onlyProblem = async (
    t: TestContext,
    expected: RegExp,
    config: TestConfig,
    change?: (deployment: Variant) => unknown,
  ) => {
    const found = await problems(t, config, change)
    assert.equal(found.length, 1, found.join('\n'))
    assert.match(found[0] ?? '', expected)
  }

  it('finds no problem in a healthy one, and changes nothing', async (t) => {
    const { dir, sections } = await variant(t, glance)
    const state = async () => {
      const names = (await readdir(dir, { recursive: true })).toSorted()
      return [names.join(), hash('sha256', await readFile(join(dir, 'glance.sqlite')))]
    }
    const before = await state()
    const found = await sections()
    assert.deepEqual(told(found, 'problem'), [])
    assert.deepEqual(await state(), before)
    const good = told(found, 'ok').join('\n')
    assert.match(good, /Configuration: These files were read.*glance-api\.conf/)
    assert.match(good, /Database: The schema is that of the present releases/)
    assert.match(good, /Database: Rows, about: \| images: 8, image_properties: 8, image_tags: 16, image_locations: 6/)
    assert.match(good, /Database: Images: 6 active, 2 queued\./)
    assert.match(good, /Database: Each of 6 locations leads to a store/)
    assert.match(good, /Stores: Store fast: 6 of 6 images, taken at random, are there with their size\./)
    assert.match(
      told(found, 'note').join('\n'),
      /Database: The indexes and triggers of Glimpse are not there.*images: \d+ indexes.*glimpse db optimize/,
    )
  })

  describe('configuration', () => {
    it('names each value that cannot be read', async (t) => {
      const found = await problems(t, { DEFAULT: { workers: 'many', image_size_cap: '0' } })
      assert.equal(found.length, 2, found.join('\n'))
      assert.match(found[0] ?? '', /glance-api\.conf:\d+: \[DEFAULT\] \w+ = \w+: expected an integer/)
    })
    it('tells typing errors, removed options and ignored ones apart', async (t) => {
      const { sections } = await variant(t, glance, {
        DEFAULT: { wrokers: '3', qpid_hostname: 'x', use_syslog: 'true', log_date_format: '%H' },
        profiler: { enabled: 'true' },
      })
      const found = await sections()
      const notes = told(found, 'note').join('\n')
      assert.match(notes, /Probably misspelled: \[DEFAULT\] wrokers \(.*\).*did you mean workers\?/)
      assert.match(notes, /older releases.*\[DEFAULT\] qpid_hostname/)
      assert.match(notes, /\[DEFAULT\] use_syslog has no effect: the service logs to/)
      assert.match(notes, /osprofiler.*\[profiler\] enabled/)
      assert.match(told(found, 'ok').join('\n'), /ignored here, without harm.*\[DEFAULT\] log_date_format/)
    })
    it('says which options mean something else', async (t) => {
      const { sections } = await variant(t, glance, { DEFAULT: { user_storage_quota: '5GB' } })
      assert.match(
        told(await sections(), 'note').join('\n'),
        /\[DEFAULT\] user_storage_quota means something else here/,
      )
    })
    it('finds filters that would be lost', async (t) => {
      await onlyProblem(
        t,
        /filter audit \(keystonemiddleware\.audit:filter_factory\) would be lost/,
        {},
        async ({ dir }) => {
          const file = join(dir, 'paste.ini')
          const text = (await readFile(file, 'utf8')).replace(/context +rootapp/, 'context audit rootapp')
          await writeFile(
            file,
            `${text}[filter:audit]\npaste.filter_factory = keystonemiddleware.audit:filter_factory\n`,
          )
        },
      )
    })
    it('knows no other pipelines', async (t) => {
      const found = await problems(t, { paste_deploy: { flavor: 'trusted-auth' } })
      assert.match(found[0] ?? '', /flavor = trusted-auth: unknown pipeline/)
    })
    it('finds what would keep the service from starting', async (t) => {
      const plugins = { image_import_plugins: '[antivirus]' }
      await onlyProblem(t, /keeps the service from starting.*antivirus/, { image_import_opts: plugins })
      await onlyProblem(t, /keeps the service from starting.*properties\.conf/, {
        DEFAULT: { property_protection_file: '/nowhere/properties.conf' },
      })
    })
  })

  describe('database', () => {
    it('cannot be reached: the password is not shown', async (t) => {
      const port = await freePort()
      const connection = `postgresql+psycopg2://glance:s3cret@127.0.0.1:${port}/glance`
      const found = await problems(t, { database: { connection } })
      assert.equal(found.length, 1, found.join('\n'))
      assert.match(
        found[0] ?? '',
        new RegExp(`Database: The database glance at 127\\.0\\.0\\.1:${port} cannot be read.*ECONNREFUSED`),
      )
      assert.doesNotMatch(found.join(), /s3cret/)
    })
    it('is not there', (t) =>
      onlyProblem(t, /Database: .*gone\.sqlite cannot be opened/, {
        database: { connection: 'sqlite:////nowhere/gone.sqlite' },
      }))
    it('is of an older release, or of a newer one', async (t) => {
      const at = (revision: string) => `update alembic_version set version_num = '${revision}'`
      await onlyProblem(t, /schema is at ussuri_contract01.*run "glance-manage db sync"/, {}, ({ sql }) =>
        sql(at('ussuri_contract01')),
      )
      await onlyProblem(t, /schema is at 2027_1_contract01, which is newer/, {}, ({ sql }) =>
        sql(at('2027_1_contract01')),
      )
      const { sql, sections } = await variant(t, glance)
      sql(at('zed_contract01'))
      const found = await sections()
      assert.deepEqual(told(found, 'problem'), [])
      assert.match(told(found, 'note').join('\n'), /schema is at zed_contract01.*centralized_db/)
    })
    it('has images that cannot be served', async (t) => {
      await onlyProblem(t, /1 image of status broken/, {}, ({ sql }) =>
        sql("update images set status = 'broken' where id = (select id from images where status = 'queued' limit 1)"),
      )
      await onlyProblem(t, /1 location in store gone, which is not there/, {}, ({ sql }) =>
        sql(`update image_locations set meta_data = '{"store": "gone"}' where id = 1`),
      )
      await onlyProblem(t, /1 location of 6 cannot be read as an address.*encrypted/, {}, ({ sql }) =>
        sql("update image_locations set value = 'gAAAAABhZ0x5dGhpcyBpcyBub3QgYW4gYWRkcmVzcw==' where id = 1"),
      )
    })
    it('has encrypted locations, with this key or with another one', async (t) => {
      const key = '0123456789abcdef'
      const seal = async ({ dir, sql }: Variant) => {
        const uri = `file://${join(dir, 'fast', (await readdir(join(dir, 'fast')))[0] ?? '')}` as LocationUri
        sql(`update image_locations set value = '${locationCipher(key).seal(uri)}' where value = '${uri}'`)
      }
      assert.deepEqual(await problems(t, { DEFAULT: { metadata_encryption_key: key } }, seal), [])
      const other = { DEFAULT: { metadata_encryption_key: 'fedcba9876543210' } }
      await onlyProblem(t, /1 location of 6 cannot be read as an address.*is not the key of all of them/, other, seal)
      await onlyProblem(t, /cannot be opened: metadata_encryption_key must be 16, 24 or 32 bytes/, {
        DEFAULT: { metadata_encryption_key: 'short' },
      })
    })
    it('has work under way', async (t) => {
      const { sql, sections } = await variant(t, glance)
      sql(`update images set status = 'importing', updated_at = datetime('now') where id = (select id from images where status = 'queued' limit 1);
        update images set status = 'saving', updated_at = '2020-01-01 00:00:00.000000' where id = (select id from images where status = 'queued' limit 1);
        insert into image_properties (image_id, name, value, created_at, deleted)
          select id, 'os_glance_import_task', 'x', datetime('now'), 0 from images limit 1;
        insert into tasks (id, type, status, owner, created_at, deleted) values ('1', 'import', 'processing', 'p1', datetime('now'), 0)`)
      const found = await sections()
      assert.deepEqual(told(found, 'problem'), [])
      const notes = told(found, 'note').join('\n')
      assert.match(notes, /being uploaded or imported now: \| [\w-]+: importing/)
      assert.match(notes, /for more than a day.* \| [\w-]+: saving/)
      assert.match(notes, /An import holds 1 image/)
      assert.match(notes, /1 task of type import: processing/)
    })
    it('has staged images, which are not lost', async (t) => {
      const { sql, sections } = await variant(t, glance)
      sql(`update images set status = 'uploading', updated_at = '2020-01-01 00:00:00.000000'
        where id = (select id from images where status = 'queued' limit 1)`)
      const notes = told(await sections(), 'note').join('\n')
      assert.match(notes, /Images are staged.* \| [\w-]+: uploading \| .*imported by either service/)
      assert.doesNotMatch(notes, /more than a day|being uploaded/)
    })
    it('is behind a registry: the old connection is not used', async (t) => {
      const { sections } = await variant(t, glance, {
        DEFAULT: { data_api: 'glance.db.registry.api' },
        database: { connection: 'sqlite:////nowhere/gone.sqlite' },
      })
      const found = await sections()
      assert.deepEqual(told(found, 'problem'), [])
      assert.match(told(found, 'note').join('\n'), /Database: The database is behind the registry/)
    })
  })

  describe('stores', () => {
    it('have lost data', async (t) => {
      await onlyProblem(
        t,
        /Stores: Store fast: of 6 of 6 images taken at random, 2 are not (?=.*: not there)(?=.*: 3 bytes instead of)/,
        {},
        async ({ dir }) => {
          const [first = '', second = ''] = await readdir(join(dir, 'fast'))
          await writeFile(join(dir, 'fast', second), 'abc')
          await rm(join(dir, 'fast', first))
        },
      )
    })
    it('are not mounted, and are not made', async (t) => {
      const deployment = await variant(t, glance)
      await rename(join(deployment.dir, 'cheap'), join(deployment.dir, 'away'))
      const found = told(await deployment.sections(), 'problem')
      assert.equal(found.length, 1, found.join('\n'))
      assert.match(found[0] ?? '', /Store cheap: .*cheap is not there/)
      assert.equal(existsSync(join(deployment.dir, 'cheap')), false)
    })
    it('are of a type that is not there', (t) =>
      onlyProblem(t, /Store third of type rbd cannot be used/, {
        DEFAULT: { enabled_backends: 'fast:file, cheap:file, third:rbd' },
      }))
    it('have no directory of their own', async (t) => {
      const { sections } = await variant(t, glance, {
        DEFAULT: { enabled_backends: 'fast:file, cheap:file, new:file' },
      })
      assert.match(told(await sections(), 'note').join('\n'), /the directory of store new, which is the default then/)
    })
    it('are of another user than root, who looks at them', {
      skip: userInfo().uid !== 0 && 'only root can do that',
    }, async (t) => {
      const deployment = await variant(t, glance)
      await chown(join(deployment.dir, 'cheap'), 65534, 65534)
      assert.match(told(await deployment.sections(), 'note').join('\n'), /runs as root.*cheap is another user’s/)
    })
    it('and the staging area cannot be made', async (t) => {
      // Below a file there is no directory, whoever asks.
      await onlyProblem(t, /Staging area: .*staging is not there, and cannot be made/, {
        os_glance_staging_store: { filesystem_store_datadir: '/dev/null/staging' },
      })
    })
    it('have no default', (t) =>
      onlyProblem(t, /default_backend is other, which is no store/, { glance_store: { default_backend: 'other' } }))
  })

  describe('policies', () => {
    const withPolicy =
      (text: string) =>
      ({ dir }: Variant) =>
        writeFile(join(dir, 'policy.yaml'), text)
    it('ask another server', (t) =>
      onlyProblem(
        t,
        /Policies: Checks that ask another server.*get_image: .*http:/,
        {},
        withPolicy('get_image: "role:admin or http://127.0.0.1/ask"'),
      ))
    it('cannot be read', (t) =>
      onlyProblem(t, /Policies: The service would not start.*policy\.yaml/, {}, withPolicy('get_image: [')))
    it('go round in circles', (t) => onlyProblem(t, /refers to itself/, {}, withPolicy('a: rule:b\nb: rule:a')))
    it('differ from the defaults, or are about nothing', async (t) => {
      const { dir, sections } = await variant(t, glance, { oslo_policy: { enforce_new_defaults: 'false' } })
      await writeFile(
        join(dir, 'policy.yaml'),
        'get_images: role:auditor\ndelete_imagee: "!"\nours: role:x\nadd_image: rule:ours\nadd_member: "site_flag:yes"\nget_tasks: "!"',
      )
      const found = await sections()
      assert.deepEqual(told(found, 'problem'), [])
      assert.match(told(found, 'ok').join('\n'), /4 rules other than the default.*get_images: role:auditor/)
      const notes = told(found, 'note').join('\n')
      assert.match(notes, /nothing asks for.*delete_imagee \|/)
      assert.match(notes, /decide nothing: get_tasks/)
      assert.match(notes, /no token has here.*add_member: site_flag:yes/)
      assert.match(notes, /enforce_new_defaults is false/)
    })
  })

  it('finds services that are away', async (t) => {
    const port = await freePort()
    const found = await problems(
      t,
      {
        paste_deploy: { flavor: 'keystone' },
        keystone_authtoken: {
          auth_url: `http://127.0.0.1:${port}/v3`,
          username: 'glance',
          password: 's3cret',
          memcached_servers: `127.0.0.1:${port}`,
        },
        oslo_messaging_notifications: {
          driver: 'messagingv2',
          transport_url: `rabbit://glance:s3cret@127.0.0.1:${port}/`,
        },
        DEFAULT: { image_cache_dir: '/nowhere/cache' },
      },
      async ({ dir }) => {
        const file = join(dir, 'paste.ini')
        await writeFile(file, (await readFile(file, 'utf8')).replaceAll('glance-api]', 'glance-api-keystone]'))
      },
    )
    const all = found.join('\n')
    assert.match(all, /Configuration: The pipeline of flavor keystone has no authtoken filter/)
    assert.match(all, /Identity: The service cannot log in to Keystone.*ECONNREFUSED/)
    assert.match(all, /Notifications: rabbit:\/\/127\.0\.0\.1:\d+ cannot be used/)
    assert.equal(found.length, 3, all)
    assert.doesNotMatch(all, /s3cret/)
  })

  it('tells which switch it is about by its exit code, in lines of 80 characters', async (t) => {
    const check = (args: readonly string[], env: NodeJS.ProcessEnv = {}) =>
      run(`${root}bin/glimpse`, ['takeover', 'check', ...args], { env: { ...process.env, ...env } }).then(
        ({ stdout }) => ({ code: 0, stdout, stderr: '' }),
        ({ code, stdout, stderr }: { code: number; stdout: string; stderr: string }) => ({ code, stdout, stderr }),
      )
    const healthy = await variant(t, glance)
    const good = await check(['--config-file', healthy.config])
    assert.equal(good.code, 0, good.stdout)
    assert.equal(stripVTControlCharacters(good.stdout), good.stdout)
    const long = good.stdout.split('\n').filter((line) => line.length > 80 && line.trim().includes(' '))
    assert.deepEqual(long, [])
    assert.match(good.stdout, /Nothing stops the switch\. \d+ notes to read\.\n$/)

    const broken = await variant(t, glance, { DEFAULT: { workers: 'many' } })
    const bad = await check(['--json', '--config-file', broken.config])
    assert.equal(bad.code, 1)
    assert.equal((JSON.parse(bad.stdout) as { problems: number }).problems, 1)

    assert.equal((await check(['--no-such-option'])).code, 2)
    assert.equal((await check(['--rate', 'fast'])).code, 2)
    assert.equal((await check(['--help'])).code, 0)
  })
})
