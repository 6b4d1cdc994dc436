import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { describe, it, type TestContext } from 'node:test'
import { type Config, describe as describeConfig, readConfig } from './config.ts'
import { integer, multi, text } from './options.ts'
import type { Sources } from './sources.ts'

/** A directory with these files, for as long as the test runs. */
function folder(t: TestContext, files: Readonly<Record<string, string>>): string {
  const root = mkdtempSync(join(tmpdir(), 'config-'))
  t.after(() => rmSync(root, { recursive: true }))
  for (const [name, content] of Object.entries(files)) {
    mkdirSync(dirname(join(root, name)), { recursive: true })
    writeFileSync(join(root, name), content)
  }
  return root
}

/** Reads a single file of this content. */
function read(t: TestContext, content: string, sources: Partial<Sources> = {}): Config {
  const file = join(folder(t, { 'a.conf': content }), 'a.conf')
  return readConfig({ program: 'glance-api', configs: [{ file }], etc: '/nowhere', ...sources })
}

/** What is said of a file called F. */
function refusal(t: TestContext, content: string, sources: Partial<Sources> = {}): string {
  const file = join(folder(t, { 'a.conf': content }), 'a.conf')
  try {
    readConfig({ program: 'glance-api', configs: [{ file }], etc: '/nowhere', ...sources })
  } catch (error) {
    assert.equal((error as { kind?: string }).kind, 'invalid')
    return (error as Error).message.replaceAll(file, 'F')
  }
  return assert.fail('the configuration is accepted')
}

const warnings = (config: Config): readonly string[] =>
  config.warnings().map((warning) => config.files.reduce((text, file) => text.replaceAll(file, 'F'), warning))

const help = 'for a test'
const fileOptions = {
  datadir: text({ default: '/var/lib/images', help }),
  datadirs: multi({ help }),
  chunk_size: integer({ default: 65_536, min: 1, deprecated: ['block_size'], help }),
  store_key: text({ secret: true, help }),
}

describe('readConfig()', () => {
  it('gives every option its default when there is nothing to read', () => {
    const config = readConfig({ program: 'glance-api', etc: '/nowhere' })
    assert.deepEqual(config.files, [])
    assert.equal(config.DEFAULT.bind_port, 9292)
    assert.equal(config.DEFAULT.workers, undefined)
    assert.deepEqual(config.DEFAULT.enabled_import_methods, ['glance-direct', 'web-download', 'copy-image'])
    assert.deepEqual(config.warnings(), [])
  })

  it('cannot be changed', () => {
    const config = readConfig({ program: 'glance-api', overrides: { enabled_backends: 'a:file' }, etc: '/nowhere' })
    const change = (target: object, name: string) => () => Object.assign(target, { [name]: 1 })
    assert.throws(change(config, 'DEFAULT'), TypeError)
    assert.throws(change(config.DEFAULT, 'bind_port'), TypeError)
    assert.throws(change(config.image_format.disk_formats, '0'), TypeError)
    assert.throws(change(config.DEFAULT.enabled_backends ?? {}, 'a'), TypeError)
  })

  it('lets the command line beat the environment, and the environment the files', (t) => {
    const file = '[DEFAULT]\nbind_port = 1\nbacklog = 1\nworkers = 1\n[database]\nmax_retries = 1\n'
    const config = read(t, file, {
      env: { OS_DEFAULT__BIND_PORT: '2', OS_DEFAULT__BACKLOG: '2', OS_DATABASE__MAX_RETRIES: '2' },
      overrides: { bind_port: '3', 'database.max_retries': '3' },
    })
    const { bind_port, backlog, workers } = config.DEFAULT
    assert.deepEqual([bind_port, backlog, workers, config.database.max_retries], [3, 2, 1, 3])
  })

  it('matches groups in any case and merges them, except that DEFAULT is only DEFAULT', (t) => {
    const config = read(t, '[Database]\nmax_retries = 1\n[DATABASE]\nmax_pool_size = 2\n[default]\nbind_port = 3\n')
    assert.deepEqual([config.database.max_retries, config.database.max_pool_size], [1, 2])
    assert.equal(config.DEFAULT.bind_port, 9292)
    assert.deepEqual(warnings(config), ['F: unknown group [default], did you mean [DEFAULT]?'])
  })

  it('takes the last of several values, and all of them where several make sense', (t) => {
    const config = read(t, '[oslo_policy]\npolicy_file = a\npolicy_file = b\npolicy_dirs = c\npolicy_dirs = d\n')
    assert.equal(config.oslo_policy.policy_file, 'b')
    assert.deepEqual(config.oslo_policy.policy_dirs, ['c', 'd'])
  })

  it('takes a value of the environment as one value', (t) => {
    const config = read(t, '[oslo_policy]\npolicy_dirs = a\n', { env: { OS_OSLO_POLICY__POLICY_DIRS: 'b,c' } })
    assert.deepEqual(config.oslo_policy.policy_dirs, ['b,c'])
  })
})

describe('the files', () => {
  it('apply in the order given, directories with their *.conf sorted by name', (t) => {
    const root = folder(t, {
      'first.conf': '[DEFAULT]\nbacklog = 1\nbind_port = 1\nworkers = 1\n[oslo_policy]\npolicy_dirs = one\n',
      'd/20.conf': '[DEFAULT]\nbacklog = 20\nbind_port = 20\n[oslo_policy]\npolicy_dirs = twenty\n',
      'd/10.conf': '[DEFAULT]\nbacklog = 10\n',
      'd/.30.conf': '[DEFAULT]\nbacklog = 30\n',
      'd/README': 'not read',
      'last.conf': '[DEFAULT]\nbind_port = 3\n',
    })
    const [first, dir, last] = [
      { file: join(root, 'first.conf') },
      { dir: join(root, 'd') },
      { file: join(root, 'last.conf') },
    ]
    const config = readConfig({ program: 'glance-api', configs: [first, dir, last], etc: '/nowhere' })
    const { workers, backlog, bind_port } = config.DEFAULT
    assert.deepEqual([workers, backlog, bind_port], [1, 20, 3])
    assert.deepEqual(config.oslo_policy.policy_dirs, ['one', 'twenty'])
    assert.deepEqual(
      config.files.map((file) => file.slice(root.length)),
      ['/first.conf', '/d/10.conf', '/d/20.conf', '/last.conf'],
    )
  })

  it('are found in the home directory and below /etc when none is given, the first of each name counting', (t) => {
    const root = folder(t, {
      'home/.glance/glance-api.conf': '[DEFAULT]\nbacklog = 1\n',
      'home/glance-api.conf': '[DEFAULT]\nbacklog = 2\nworkers = 2\n',
      'etc/glance/glance.conf': '[DEFAULT]\nbacklog = 3\nbind_port = 3\n',
      'etc/glance/glance-api.conf.d/a.conf': '[DEFAULT]\nmax_header_line = 4\n',
    })
    const sources = { program: 'glance-api', home: join(root, 'home'), etc: join(root, 'etc') }
    const config = readConfig(sources)
    const { backlog, bind_port, workers, max_header_line } = config.DEFAULT
    assert.deepEqual([backlog, bind_port, workers, max_header_line], [1, 3, undefined, 4])
    assert.equal(readConfig({ ...sources, program: 'glance-manage' }).DEFAULT.backlog, 3)
  })

  it('given on the command line replace default files, but not default directories', (t) => {
    const root = folder(t, {
      'etc/glance/glance-api.conf': '[DEFAULT]\nbacklog = 1\n',
      'etc/glance/glance-api.conf.d/a.conf': '[DEFAULT]\nworkers = 2\nbind_port = 2\n',
      'mine.conf': '[DEFAULT]\nbind_port = 3\n',
      'mine.d/a.conf': '',
    })
    const sources = { program: 'glance-api', etc: join(root, 'etc') }
    const withFile = readConfig({ ...sources, configs: [{ file: join(root, 'mine.conf') }] }).DEFAULT
    assert.deepEqual([withFile.backlog, withFile.workers, withFile.bind_port], [4096, 2, 3])
    const withDir = readConfig({ ...sources, configs: [{ dir: join(root, 'mine.d') }] }).DEFAULT
    assert.deepEqual([withDir.backlog, withDir.workers], [1, undefined])
  })

  it('come from OS_GLANCE_CONFIG_DIR when it is set, glance-api.conf beating glance-image-import.conf', (t) => {
    const root = folder(t, {
      'glance-image-import.conf': '[DEFAULT]\nbacklog = 1\nworkers = 1\n',
      'glance-api.conf': '[DEFAULT]\nbacklog = 2\n',
      'etc/glance/glance.conf': '[DEFAULT]\nbind_port = 3\n',
    })
    const env = { OS_GLANCE_CONFIG_DIR: ` ${root} ` }
    const { backlog, workers, bind_port } = readConfig({ program: 'glance-api', env, etc: join(root, 'etc') }).DEFAULT
    assert.deepEqual([backlog, workers, bind_port], [2, 1, 9292])
  })

  it('must exist when they are asked for', (t) => {
    const root = folder(t, {})
    const fails = (sources: Partial<Sources>, message: string) =>
      assert.throws(() => readConfig({ program: 'glance-api', etc: '/nowhere', ...sources }), {
        kind: 'invalid',
        message,
      })
    fails({ configs: [{ file: join(root, 'x.conf') }] }, `Cannot read configuration file ${root}/x.conf: ENOENT`)
    fails({ configs: [{ dir: join(root, 'x') }] }, `Cannot read configuration directory ${root}/x: ENOENT`)
    fails({ env: { OS_GLANCE_CONFIG_DIR: root } }, `Cannot read configuration file ${root}/glance-api.conf: ENOENT`)
  })

  it('name file and line when they are malformed', (t) => {
    assert.equal(refusal(t, '[DEFAULT]\nbind_port\n'), 'F:2: expected an option: name = value')
  })
})

describe('findFile()', () => {
  it('looks in configuration directories, beside files (the last first), then in the standard places', (t) => {
    const files = [
      'd/a',
      'one/a',
      'two/a',
      'one/b',
      'two/b',
      'home/.glance/b',
      'home/c',
      'etc/glance/c',
      'etc/glance/d',
    ]
    const root = folder(t, {
      ...Object.fromEntries(files.map((name) => [name, ''])),
      'one/x.conf': '',
      'two/y.conf': '',
    })
    const config = readConfig({
      program: 'glance-api',
      configs: [{ file: join(root, 'one/x.conf') }, { dir: join(root, 'd') }, { file: join(root, 'two/y.conf') }],
      home: join(root, 'home'),
      etc: join(root, 'etc'),
    })
    const found = ['a', 'b', 'c', 'd', 'e'].map((name) => config.findFile(name)?.slice(root.length))
    assert.deepEqual(found, ['/d/a', '/two/b', '/home/c', '/etc/glance/d', undefined])
    assert.equal(config.findFile(join(root, 'one/a')), join(root, 'one/a'))
  })
})

describe('a reference', () => {
  it('is replaced by the option of the same group, of DEFAULT, or of the group it names', (t) => {
    const config = read(
      t,
      `[DEFAULT]
public_endpoint = http://\${bind_host}:$bind_port/
bind_host = $DEFAULT.default_publisher_id
default_publisher_id = here
[keystone_authtoken]
auth_url = $public_endpoint$interface
username = \${database.backend}-\${database.mysql_sql_mode}$workers
`,
    )
    assert.equal(config.DEFAULT.public_endpoint, 'http://here:9292/')
    assert.equal(config.keystone_authtoken.auth_url, 'http://here:9292/internal')
    assert.equal(config.keystone_authtoken.username, 'sqlalchemy-TRADITIONAL')
  })

  it('may name an option that only the file knows', (t) => {
    assert.equal(read(t, '[DEFAULT]\nmy_ip = ::1\nbind_host = $my_ip\n').DEFAULT.bind_host, '::1')
  })

  it('is not seen in $$, \\$, $1, a $ at the end or an open brace', (t) => {
    const config = read(t, '[keystone_authtoken]\nusername = a$$b\\$c$1$\nuser_id = ${open\n')
    assert.deepEqual([config.keystone_authtoken.username, config.keystone_authtoken.user_id], ['a$b$c$1$', '${open'])
  })

  it('to an unknown option is refused, and a secret is not repeated then', (t) => {
    const why = 'expected the name of an option after $; a $ that stands for itself is written $$'
    assert.equal(refusal(t, '[DEFAULT]\nbind_host = a$nope\n'), `F:2: [DEFAULT] bind_host = a$nope: ${why}`)
    const password = '[keystone_authtoken]\npassword = pa$word\n'
    assert.equal(refusal(t, password), `F:2: [keystone_authtoken] password = ****: ${why}`)
  })

  it('to itself is refused', (t) => {
    const content = '[DEFAULT]\nbind_host = $log_dir\nlog_dir = $bind_host\n'
    assert.match(refusal(t, content), /^F:2: .* expected a value that does not refer to itself$/)
  })
})

describe('a wrong value', () => {
  it('is refused in one line with file, group, option and what is expected', (t) => {
    const expected = 'expected a port number from 0 to 65535'
    assert.equal(refusal(t, '[DEFAULT]\n\nbind_port = http\n'), `F:3: [DEFAULT] bind_port = http: ${expected}`)
    assert.equal(refusal(t, '[DEFAULT]\nbind_port = 1\n  2\n'), `F:2: [DEFAULT] bind_port = 1\\n2: ${expected}`)
  })

  it('is blamed on the environment or the command line when it comes from there', (t) => {
    assert.match(
      refusal(t, '', { env: { OS_DEFAULT__DEBUG: 'maybe' } }),
      /^OS_DEFAULT__DEBUG: \[DEFAULT\] debug = maybe: /,
    )
    assert.match(refusal(t, '', { overrides: { debug: 'maybe' } }), /^command line: \[DEFAULT\] debug = maybe: /)
  })

  it('does no harm where a stronger source replaces it', (t) => {
    assert.equal(read(t, '[DEFAULT]\nbind_port = x\n', { env: { OS_DEFAULT__BIND_PORT: '5' } }).DEFAULT.bind_port, 5)
  })
})

describe('an older name', () => {
  it('works with a warning, in another group as well', (t) => {
    const config = read(t, '[database]\nidle_timeout = 5\n[DEFAULT]\ndisk_formats = raw\n')
    assert.equal(config.database.connection_recycle_time, 5)
    assert.deepEqual(config.image_format.disk_formats, ['raw'])
    assert.deepEqual(warnings(config), [
      'Deprecated: Option "idle_timeout" from group "database" is deprecated. Use option "connection_recycle_time" from group "database".',
      'Deprecated: Option "disk_formats" from group "DEFAULT" is deprecated. Use option "disk_formats" from group "image_format".',
    ])
  })

  it('loses against the present name, wherever it stands in the file', (t) => {
    const config = read(t, '[database]\nconnection_recycle_time = 1\nidle_timeout = 5\n')
    assert.equal(config.database.connection_recycle_time, 1)
    assert.deepEqual(config.warnings(), [])
  })
})

describe('warnings', () => {
  it('name an option that is going away, once, when it is set', (t) => {
    const config = read(t, '[DEFAULT]\nshow_multiple_locations = true\nshow_multiple_locations = true\n')
    assert.equal(config.warnings().length, 1)
    assert.match(config.warnings()[0] ?? '', /^Deprecated: Option "show_multiple_locations" .* for removal: /)
  })

  it('suggest the name that was meant, when one is near', (t) => {
    const config = read(
      t,
      '[DEFAULT]\nbind_prot = 1\nfrobnicate = 2\n[keystone_authtokn]\na = 1\n[xyz]\nb = 1\nc = 1\n',
    )
    assert.deepEqual(warnings(config), [
      'F:2: unknown option [DEFAULT] bind_prot, did you mean bind_port?',
      'F:3: unknown option [DEFAULT] frobnicate',
      'F: unknown group [keystone_authtokn], did you mean [keystone_authtoken]?',
      'F: unknown group [xyz]',
    ])
  })

  it('list obsolete options in one line for each group, and advise where there is a successor', (t) => {
    const old = '[DEFAULT]\nowner_is_tenant = a\nverbose = not even a boolean\nlocation_strategy = store_type\n'
    const config = read(
      t,
      `${old}[task]\neventlet_executor_pool_size = 1\n[store_type_location_strategy]\nstore_type_preference = a\n`,
    )
    assert.deepEqual(warnings(config), [
      'Without effect any more in [DEFAULT]: owner_is_tenant, verbose',
      '[DEFAULT] location_strategy has no effect any more: give each store a weight instead',
      'Without effect any more in [task]: eventlet_executor_pool_size',
      '[store_type_location_strategy] store_type_preference has no effect any more: give each store a weight instead',
    ])
  })

  it('keep silent about groups of OpenStack libraries and about headings without options', (t) => {
    const silent = '[oslo_messaging_rabbit]\nssl = true\n[cors.subdomain]\na = 1\n[profiler]\nenabled = true\n[file]\n'
    assert.deepEqual(read(t, `${silent}[DEFAULT]\ntransport_url = rabbit://\n`).warnings(), [])
  })

  it('never repeat a value', (t) => {
    const config = read(
      t,
      '[database]\nconection = mysql://u:hunter2@h/d\n[DEFAULT]\nmetadata_encryption_key = hunter2\n',
    )
    assert.equal(config.warnings().length, 2)
    assert.doesNotMatch(config.warnings().join('\n'), /hunter2/)
  })
})

describe('the group of a store', () => {
  it('falls back to [backend_defaults], then to the declared defaults', (t) => {
    const config = read(
      t,
      `[DEFAULT]
enabled_backends = fast:file, cheap:file
[fast]
datadir = /fast
weight = 10
[backend_defaults]
datadir = /shared
block_size = 512
datadirs = /a
datadirs = /b
`,
    )
    assert.deepEqual(Object.entries(config.DEFAULT.enabled_backends ?? {}), [
      ['fast', 'file'],
      ['cheap', 'file'],
    ])
    const common = { datadirs: ['/a', '/b'], chunk_size: 512, store_key: undefined }
    assert.deepEqual({ ...config.group('fast', fileOptions) }, { datadir: '/fast', ...common })
    assert.deepEqual({ ...config.group('cheap', fileOptions) }, { datadir: '/shared', ...common })
    assert.deepEqual([config.storeGroup('fast').weight, config.storeGroup('cheap').weight], [10, 0])
    assert.deepEqual([config.group('glance_store', fileOptions).datadir], ['/var/lib/images'])
  })

  it('may be set in the environment', (t) => {
    const env = { OS_DEFAULT__ENABLED_BACKENDS: 'fast:file', OS_FAST__DATADIR: '/env' }
    assert.equal(read(t, '[fast]\ndatadir = /file\n', { env }).group('fast', fileOptions).datadir, '/env')
  })

  it('is checked when it is asked for, and not suspected before', (t) => {
    const config = read(
      t,
      '[DEFAULT]\nenabled_backends = fast:file\n[fast]\ndatdir = /a\n[backend_defaults]\nchunk_siz = 1\n',
    )
    assert.deepEqual(config.warnings(), [])
    config.group('fast', fileOptions)
    assert.deepEqual(warnings(config), [
      'F:4: unknown option [fast] datdir, did you mean datadir?',
      'F:6: unknown option [backend_defaults] chunk_siz, did you mean chunk_size?',
    ])
  })

  it('refuses a wrong value like any other group', (t) => {
    const config = read(t, '[glance_store]\nchunk_size = 0\n')
    assert.throws(() => config.group('glance_store', fileOptions), {
      kind: 'invalid',
      message: /a\.conf:2: \[glance_store\] chunk_size = 0: expected an integer of at least 1$/,
    })
  })
})

describe('describe()', () => {
  it('shows every option of every group with its value, and masks secrets', (t) => {
    const content =
      '[DEFAULT]\nenabled_backends = fast:file\n[database]\nconnection = mysql://u:hunter2@h/d\n[fast]\nstore_key = hunter2\n'
    const config = read(t, content)
    config.group('fast', fileOptions)
    const lines = describeConfig(config).split('\n')
    assert.doesNotMatch(lines.join('\n'), /hunter2/)
    const fast = lines.slice(lines.indexOf('[fast]'), lines.indexOf('[fast]') + 5)
    assert.deepEqual(fast, [
      '[fast]',
      'datadir = /var/lib/images',
      '# datadirs is not set',
      'chunk_size = 65536',
      'store_key = ****',
    ])
    for (const line of [
      '[DEFAULT]',
      'bind_port = 9292',
      '# workers is not set',
      'connection = ****',
      '# slave_connection is not set',
    ]) {
      assert.ok(lines.includes(line), line)
    }
  })
})
