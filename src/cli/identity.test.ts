import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { PassThrough, Readable } from 'node:stream'
import { describe, it, type TestContext } from 'node:test'
import { Command, CommanderError } from 'commander'
import { openStandalone } from '../auth/standalone.ts'
import { identityCommand } from './identity.ts'

/** Runs `identity …` as often as wanted on one fresh data directory, and returns what it printed. */
function start(t: TestContext) {
  const directory = mkdtempSync(join(tmpdir(), 'identity-'))
  t.after(() => rmSync(directory, { recursive: true }))
  const open = (data: string) => openStandalone({ file: join(data, 'identity.sqlite'), passwordCost: 4 })

  async function run(line: string, input = ''): Promise<string> {
    const output = new PassThrough()
    const errors: string[] = []
    const program = new Command()
      .option('--data <dir>', 'data')
      .exitOverride()
      .configureOutput({ writeErr: (text) => errors.push(text) })
    identityCommand(program, open, { input: Readable.from([input]), output })
    try {
      await program.parseAsync(['--data', directory, 'identity', ...line.split(' ')], { from: 'user' })
    } catch (error) {
      if (!(error instanceof CommanderError)) throw error
      throw new Error(errors.join('').trim(), { cause: error })
    }
    output.end()
    return Buffer.concat(await output.toArray()).toString()
  }
  const logIn = async (name: string, password: string) => {
    const standalone = open(directory)
    try {
      return await standalone.tokens.issue({
        password: { user: { name }, password },
        scope: { kind: 'unscoped' },
        address: '',
      })
    } finally {
      standalone.close()
    }
  }
  return { run, logIn }
}

describe('identity user', () => {
  it('creates, lists, changes and deletes users', async (t) => {
    const { run, logIn } = start(t)
    assert.equal(await run('user list'), 'none\n')
    const { id } = JSON.parse(await run('user create bo --password first --json'))
    await logIn('bo', 'first')
    assert.equal(await run('user list'), `ID${' '.repeat(30)}  NAME  ENABLED\n${id}  bo    yes\n`)
    await run('user set bo --password second --disable')
    await assert.rejects(logIn('bo', 'second'))
    await run(`user set ${id} --enable`)
    await logIn('bo', 'second')
    await run('user delete bo')
    assert.deepEqual(JSON.parse(await run('user list --json')), [])
  })

  it('reads a password from standard input', async (t) => {
    const { run, logIn } = start(t)
    await run('user create bo --password-prompt', 'quiet one\n')
    await logIn('bo', 'quiet one')
    await assert.rejects(run('user set bo --password-prompt'), /no password on standard input/)
  })

  it('says what is wrong', async (t) => {
    const { run } = start(t)
    await run('user create bo')
    await assert.rejects(run('user create bo'), /error: There already is a user named 'bo'/)
    await assert.rejects(run('user delete nobody'), /error: Could not find user: nobody/)
    await assert.rejects(run('user set bo --enable --disable'), /cannot be used with/)
    await assert.rejects(run('user set bo --password x --password-prompt'), /cannot be used with/)
  })
})

describe('identity role', () => {
  it('gives, lists and takes away roles on projects and on the system', async (t) => {
    const { run } = start(t)
    await run('user create bo')
    await run('project create lab --description Laboratory')
    await run('role add --user bo --project lab member')
    await run('role add --user bo --system admin')
    assert.equal(
      await run('role list'),
      'USER  PROJECT  SYSTEM  ROLE\nbo             yes     admin\nbo    lab      no      member\n',
    )
    assert.deepEqual(JSON.parse(await run('role list --project lab --json')), [
      { user: 'bo', project: 'lab', system: false, role: 'member' },
    ])
    await run('role remove --user bo --system admin')
    await run('project delete lab')
    assert.equal(await run('role list --user bo'), 'none\n')
  })

  it('says what is wrong', async (t) => {
    const { run } = start(t)
    await run('user create bo')
    await assert.rejects(run('role add --user bo member'), /Say either --project or --system/)
    await assert.rejects(run('role add --user bo --system boss'), /Could not find role: boss/)
    await assert.rejects(run('role add --user bo --project lab member'), /Could not find project: lab/)
    await assert.rejects(run('role remove --user bo --system admin'), /Could not find role assignment/)
  })
})
