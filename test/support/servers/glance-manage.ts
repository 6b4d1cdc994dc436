import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { glanceVenv } from './glance.ts'

export interface Outcome {
  readonly code: number
  readonly stdout: string
  readonly stderr: string
}

/** The real glance-manage of PyPI, ready to run many times. */
export interface GlanceManage {
  /** Runs it on the database of a SQLAlchemy URL. */
  run(url: string, ...args: readonly string[]): Promise<Outcome>
  /** Runs the data migrations of a release. */
  migrateData(url: string, release: string): Promise<Outcome>
  stop(): Promise<void>
}

/** Throws where the venv cannot be had. */
export async function openGlanceManage(): Promise<GlanceManage> {
  const venv = await glanceVenv()
  const dir = await mkdtemp(join(tmpdir(), 'glance-manage-'))
  const script = fileURLToPath(new URL('../../db/manage.py', import.meta.url))
  const python = spawn(join(venv, 'bin/python'), [script], {
    cwd: dir,
    env: { ...process.env, PYTHONWARNINGS: 'ignore', TMPDIR: dir },
    stdio: ['pipe', 'pipe', 'inherit'],
  })
  const ended = once(python, 'exit')
  const answers = createInterface(python.stdout)[Symbol.asyncIterator]()
  /** One after the other. */
  let turn: Promise<unknown> = Promise.resolve()
  const ask = (url: string, request: { readonly argv: readonly string[]; readonly data?: string }) => {
    const answer = turn.then(async () => {
      const conf = join(dir, 'glance.conf')
      await writeFile(conf, `[database]\nconnection = ${url}\n`)
      python.stdin.write(`${JSON.stringify({ ...request, argv: ['--config-file', conf, ...request.argv] })}\n`)
      const { value, done } = await answers.next()
      if (done) throw new Error('glance-manage ended')
      return JSON.parse(value) as Outcome
    })
    turn = answer.catch(() => undefined)
    return answer
  }
  return {
    run: (url, ...argv) => ask(url, { argv }),
    migrateData: (url, release) => ask(url, { argv: ['db', 'version'], data: release }),
    stop: async () => {
      python.stdin.end()
      await ended
      await rm(dir, { recursive: true, force: true })
    },
  }
}
