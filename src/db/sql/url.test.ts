import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, describe, it } from 'node:test'
import { ServiceError } from '../../domain/errors.ts'
import { mysqlTls, withDefaultFile } from './mysql-options.ts'
import { isInMemory, parseDatabaseUrl, type ServerUrl, timeoutOf, unheededOptions } from './url.ts'

const server = (url: string, parameters?: string): ServerUrl => {
  const parsed = parseDatabaseUrl(url, parameters)
  assert.ok(parsed.kind !== 'sqlite')
  return parsed
}
/** In short: user, password, host, port, database. */
const parts = (url: string) => {
  const { user, password, host, port, database } = server(url)
  return [user, password, host, port, database]
}
const dir = mkdtempSync(join(tmpdir(), 'glimpse-url-'))
after(() => rmSync(dir, { recursive: true }))

describe('the URL of a server', () => {
  it('is read with every driver that SQLAlchemy knows', () => {
    for (const scheme of ['mysql', 'mysql+pymysql', 'mysql+mysqlconnector', 'mysql+mysqldb', 'mariadb+pymysql'])
      assert.equal(server(`${scheme}://u@h/glance`).kind, 'mysql')
    for (const scheme of ['postgresql', 'postgres', 'postgresql+psycopg', 'postgresql+psycopg2', 'postgresql+asyncpg'])
      assert.equal(server(`${scheme}://u@h/glance`).kind, 'postgresql')
  })

  it('may have any name, password and place', () => {
    assert.deepEqual(parts('mysql://u:p@h/glance'), ['u', 'p', 'h', undefined, 'glance'])
    assert.deepEqual(parts('mysql://u:p%40%3A%2F%25%3F@h:3307/glance'), ['u', 'p@:/%?', 'h', 3307, 'glance'])
    assert.deepEqual(parts('mysql://u:a%zz%40+b@h/glance'), ['u', 'a%zz@+b', 'h', undefined, 'glance'])
    assert.deepEqual(parts('mysql://u:p/?:w@h/glance?charset=utf8'), ['u', 'p/?:w', 'h', undefined, 'glance'])
    assert.deepEqual(parts('mysql://u:p@w@h/glance?charset=utf8'), ['u', 'p@w', 'h', undefined, 'glance'])
    assert.deepEqual(parts('mysql://u@cloud:p@h/glance'), ['u@cloud', 'p', 'h', undefined, 'glance'])
    assert.deepEqual(parts('mysql://u:p@[fd00::1]:3307/glance'), ['u', 'p', 'fd00::1', 3307, 'glance'])
    assert.deepEqual(parts('mysql://u:p@[fd00::1]/glance'), ['u', 'p', 'fd00::1', undefined, 'glance'])
    assert.deepEqual(parts('mysql://u@h:/glance'), ['u', undefined, 'h', undefined, 'glance'])
    assert.deepEqual(parts('postgresql:///glance'), [undefined, undefined, undefined, undefined, 'glance'])
    const socket = server('postgresql://u@/glance?host=%2Fvar%2Frun%2Fpostgresql')
    assert.deepEqual([socket.host, socket.options.get('host')], [undefined, '/var/run/postgresql'])
  })

  it('that cannot be served is refused with the reason, and without what it holds', () => {
    for (const [url, why] of [
      ['mysql://u:s3cret@h:s3cret/glance', /port is not a number/],
      ['mysql://u:s3cret@h:70000/glance', /port is not a number/],
      ['mysql://u:s3cret@h', /names no database/],
      ['mysql://u:s3cret@a:1,b:2/glance', /several hosts/],
      ['mysql://u:s3cret@a,b/glance', /several hosts/],
      ['postgresql://u:s3cret@/glance?host=a:5432&host=b:5432', /several hosts/],
      ['mysql://u:s3cret@[fd00::1/glance', /is not like mysql:\/\/user:password@host/],
      ['mysql://u:s3cret@h/glance?ssl_capath=/s3cret', /ssl_capath is not supported/],
      ['postgresql://u:s3cret@h/glance?sslcrl=/s3cret', /sslcrl is not supported/],
      ['mysql+pymysql:/u:s3cret@h/glance', /is not a database URL/],
    ] as const)
      assert.throws(
        () => server(url),
        (error) => error instanceof ServiceError && why.test(error.message) && !error.message.includes('s3cret'),
        url,
      )
  })

  it('may have options without effect, which are told by name', () => {
    const connection = 'mysql://u:s3cret@h/glance?charset=utf8&read_timeout=s3cret'
    const slave_connection = 'postgresql://u@h/glance?target_session_attrs=any&sslmode=prefer'
    assert.deepEqual(unheededOptions({ connection, slave_connection, connection_parameters: 'write_timeout=1' }), [
      '[database] connection: options of the URL without effect: read_timeout, write_timeout',
      '[database] slave_connection: options of the URL without effect: target_session_attrs, write_timeout',
    ])
    assert.deepEqual(unheededOptions({ connection: 'sqlite:///glance.db?timeout=3' }), [])
  })

  it('may say how long to wait for a connection', () => {
    const wait = (seconds: string) =>
      timeoutOf(server(`mysql://h/glance?connect_timeout=${seconds}`), 'connect_timeout', 9000)
    assert.deepEqual([wait('5'), wait('60'), wait('0')], [5000, 9000, 9000])
    assert.throws(() => wait('soon'), /connect_timeout is not a number of seconds/)
  })
})

it('tells a database in memory', () => {
  const urls = ['sqlite://', 'sqlite+pysqlite:///:memory:', 'sqlite:///glance.db', 'mysql://h/:memory:', undefined]
  assert.deepEqual(urls.map(isInMemory), [true, true, false, false, false])
})

describe('TLS of MySQL', () => {
  const ca = join(dir, 'ca.pem')
  writeFileSync(ca, 'authority')
  const tls = (options: string) => {
    const found = mysqlTls(server(`mysql+pymysql://u@h/glance?${options}`))
    return found && [found.rejectUnauthorized, found.verifyIdentity]
  }

  it('is what PyMySQL makes of the URL', () => {
    for (const [options, expected] of [
      ['charset=utf8', undefined],
      ['ssl_verify_cert=false', undefined],
      [`ssl_ca=${ca}&ssl_disabled=true`, undefined],
      [`ssl_ca=${ca}`, [true, true]],
      [`ssl_ca=${ca}&ssl_check_hostname=false`, [true, false]],
      [`ssl_ca=${ca}&ssl_verify_cert=true`, [true, false]],
      [`ssl_ca=${ca}&ssl_verify_cert=true&ssl_verify_identity=true`, [true, true]],
      [`ssl_ca=${ca}&ssl_verify_cert=0`, [false, false]],
      ['ssl_verify_cert=true', [true, false]],
      ['ssl_verify_identity=true', [true, true]],
      ['ssl_check_hostname=false', [false, false]],
      ['ssl=true', [false, false]],
      ['ssl_mode=REQUIRED', [false, false]],
      ['ssl_mode=VERIFY_CA', [true, false]],
      [`ssl_mode=VERIFY_IDENTITY&ssl_ca=${ca}`, [true, true]],
      ['ssl_mode=DISABLED', undefined],
      ['ssl_mode=PREFERRED', undefined],
    ] as const)
      assert.deepEqual(tls(options), expected, options)
  })

  it('is refused when a file cannot be read, or a mode is none', () => {
    assert.throws(() => tls('ssl_ca=/nowhere/ca.pem'), /ssl_ca cannot be read/)
    assert.throws(() => tls('ssl_mode=REQUIERD'), /ssl_mode is none of/)
  })

  it('trusts the authorities of the system where none are named', () => {
    const authorities = mysqlTls(server('mysql://u@h/glance?ssl_verify_cert=1'))?.ca
    assert.ok(Array.isArray(authorities) && authorities.length > 0)
  })
})

describe('read_default_file', () => {
  const file = join(dir, 'my.cnf')
  writeFileSync(
    file,
    `# of the deployment
[mysqld]
user = mysql
[client]
user = "glance"
password='p=#w'
host: db.example.org
port=3307
ssl-ca = /etc/ca.pem
[other]
ssl_cert=/etc/cert.pem
socket = /run/mysql.sock
`,
  )
  const read = (url: string) => withDefaultFile(server(url))

  it('gives what the URL leaves open', () => {
    const found = read(`mysql+pymysql:///glance?read_default_file=${file}`)
    assert.deepEqual(
      [found.user, found.password, found.host, found.port, found.options.get('ssl_ca')],
      ['glance', 'p=#w', 'db.example.org', 3307, '/etc/ca.pem'],
    )
    const other = read(`mysql+pymysql://u:p@h:1/glance?read_default_file=${file}&ssl_ca=/mine.pem`)
    assert.deepEqual(
      [other.user, other.password, other.host, other.port, other.options.get('ssl_ca')],
      ['u', 'p', 'h', 1, '/mine.pem'],
    )
  })

  it('may be read in another group', () => {
    const group = `read_default_file=${file}&read_default_group=other`
    const found = read(`mysql://u@h/glance?${group}`)
    assert.deepEqual(
      [found.user, found.options.get('ssl_cert'), found.options.get('unix_socket')],
      ['u', '/etc/cert.pem', undefined],
    )
    assert.equal(read(`mysql://u@/glance?${group}`).options.get('unix_socket'), '/run/mysql.sock')
  })

  it('has to be there', () => {
    assert.throws(
      () => read('mysql://u@h/glance?read_default_file=/nowhere/my.cnf'),
      /read_default_file cannot be read/,
    )
  })
})
