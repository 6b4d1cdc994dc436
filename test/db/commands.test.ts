import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { copyFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, describe, it, type TestContext } from 'node:test'
import { promisify } from 'node:util'
import { manageCommand } from '../../src/cli/manage.ts'
import { root } from '../support/product.ts'
import { schemaOf, sqliteFiles } from '../support/schema-dump.ts'
import { COURSES, type Said, said } from './commands.ts'

const run = promisify(execFile)
/** What upstream's own tool said, recorded by tools/record-schema.ts. */
const recorded = JSON.parse(readFileSync(new URL('upstream/commands.json', import.meta.url), 'utf8')) as Readonly<
  Record<string, readonly Said[]>
>

/** A new database of ours begins at Train and not at Liberty, so that it has two revisions between its first steps. */
const BETWEEN_STEPS = [': train_contract01, 2024_1_expand01', ': 2024_1_expand01'] as const

const dir = mkdtempSync(join(tmpdir(), 'glimpse-commands-'))
after(() => rmSync(dir, { recursive: true }))
const files = sqliteFiles(dir)
const confOf = (url: string): string => {
  const conf = url.replace(/^sqlite:\/\/\/(.*)\.sqlite$/, '$1.conf')
  writeFileSync(conf, `[database]\nconnection = ${url}\n`)
  return conf
}

/** Runs a command in this process, because starting one takes longer than most of what it does. */
async function manage(t: TestContext, url: string, command: string): Promise<Said> {
  const out: string[] = []
  const err: string[] = []
  const mocks = [
    t.mock.method(console, 'log', (line: string) => out.push(line)),
    t.mock.method(console, 'error', (line: string) => err.push(line)),
  ]
  const program = await manageCommand()
  try {
    await program.parseAsync(['--config-file', confOf(url), ...command.split(' ')], { from: 'user' })
    return said(command, Number(process.exitCode ?? 0), out.join('\n'), err.join('\n'))
  } finally {
    process.exitCode = 0
    for (const { mock } of mocks) mock.restore()
  }
}

describe('glance-manage', () => {
  for (const [title, commands] of Object.entries(COURSES))
    it(`says of ${title} what upstream says`, async (t) => {
      const url = await files.database()
      for (const [n, command] of commands.entries()) {
        const answer = await manage(t, url, command)
        const stdout = title === 'a new database' ? answer.stdout.replace(...BETWEEN_STEPS) : answer.stdout
        assert.deepEqual({ ...answer, stdout }, recorded[title]?.[n])
      }
    })

  it('expands an empty database to what it contracts', async (t) => {
    const [steps, atOnce] = [await files.database(), await files.database()]
    for (const command of ['db expand', 'db_migrate', 'db_contract']) await manage(t, steps, command)
    await manage(t, atOnce, 'db_sync')
    assert.equal(await schemaOf(files, steps), await schemaOf(files, atOnce))
  })

  it('refuses what is no revision, and a database older than Train, in one line', async (t) => {
    const url = await files.database()
    const nonsense = await manage(t, url, 'db upgrade --version nonsense')
    assert.deepEqual([nonsense.code, nonsense.error], [1, "ERROR: Can't locate revision identified by 'nonsense'"])
    await manage(t, url, 'db version_control --version pike_contract01')
    const old = await manage(t, url, 'db sync')
    assert.equal(old.code, 1)
    assert.match(old.error, /^Failed to sync database: ERROR: .*pike_contract01, which is older than Train/)
    assert.equal((await manage(t, url, 'db version')).stdout, 'pike_contract01')
  })

  it("finds the service's own configuration, and lets that of its name win", async (t) => {
    const home = mkdtempSync(join(tmpdir(), 'glimpse-home-'))
    t.after(() => rmSync(home, { recursive: true }))
    const [service, own] = [await files.database(), await files.database()]
    await manage(t, service, 'db version_control --version zed_contract01')
    await manage(t, own, 'db version_control --version yoga_contract01')
    const version = async () =>
      (await run(join(root, 'bin/glance-manage'), ['db', 'version'], { env: { ...process.env, HOME: home } })).stdout
    copyFileSync(confOf(service), join(home, 'glance-api.conf'))
    assert.equal(await version(), 'zed_contract01\n')
    copyFileSync(confOf(own), join(home, 'glance-manage.conf'))
    assert.equal(await version(), 'yoga_contract01\n')
  })

  it('ends as upstream does: 2 after a command line that is none, 3 when something is to be done', async () => {
    const conf = confOf(await files.database())
    const code = (...args: readonly string[]) =>
      run(join(root, 'bin/glance-manage'), ['--config-file', conf, ...args]).then(
        () => 0,
        ({ code }: { code: number }) => code,
      )
    assert.deepEqual(
      await Promise.all([code('db', 'check'), code('db'), code('db', 'downgrade'), code()]),
      [3, 2, 2, 2],
    )
    const { stdout } = await run(join(root, 'bin/glance-manage'), ['--version'])
    assert.match(stdout, /^\d+\.\d+\.\d+\n$/)
  })
})

describe('glimpse db', () => {
  it('optimizes and reverts the database of a configuration, or of a data folder', async () => {
    const url = await files.database()
    const conf = confOf(url)
    const glimpse = (...args: readonly string[]) => run(join(root, 'bin/glimpse'), args)
    await run(join(root, 'bin/glance-manage'), ['--config-file', conf, 'db_sync'])
    const complete = await schemaOf(files, url)
    const reverted = await glimpse('--config-file', conf, 'db', 'revert')
    assert.match(reverted.stdout, /trigger glimpse_member_inserted of image_members\n.*Nothing of Glimpse is left/s)
    assert.doesNotMatch(await schemaOf(files, url), /glimpse/)
    const optimized = await glimpse('db', 'optimize', '--config-file', conf)
    assert.match(optimized.stdout, /^1 of (\d+): index .*\n\1 of \1: table .*Everything is there/s)
    assert.equal(await schemaOf(files, url), complete)
    await assert.rejects(glimpse('--data', dir, 'db', 'optimize'), ({ stderr }: { stderr: string }) =>
      stderr.includes(`${dir}/glance.sqlite is not there`),
    )
  })
})
