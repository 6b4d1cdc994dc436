/**
 * Records who may do what with the real Glance of tools/python-tools.sh, with secure RBAC, into test/policy/recorded:
 * what its rules say, and what its server answers.
 *
 *     node tools/record-policy.ts [rules|requests]
 */
import { spawn } from 'node:child_process'
import { writeFile } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { text } from 'node:stream/consumers'
import { fileURLToPath } from 'node:url'
import { matrixOf, questions } from '../test/policy/checks.ts'
import { askServer, configOf } from '../test/policy/operations.ts'
import { type Matrix, print } from '../test/policy/situations.ts'
import { glanceVenv, identityHeaders, startGlance } from '../test/support/servers/glance.ts'
import { startPostgres } from '../test/support/servers/sql.ts'
import { serving, startWebServer } from '../test/support/servers/web.ts'

const wanted = process.argv[2]
const venv = await glanceVenv()
const release = basename(venv).replace('glance-', '')

if (wanted !== 'requests') {
  const asked = questions()
  const script = fileURLToPath(new URL('../test/policy/checks.py', import.meta.url))
  const python = spawn(join(venv, 'bin/python'), [script], { stdio: ['pipe', 'pipe', 'inherit'] })
  python.stdin.end(JSON.stringify(asked))
  const answers = JSON.parse(await text(python.stdout)) as readonly string[]
  await save('rules', matrixOf(asked, answers))
}
if (wanted !== 'rules') {
  const web = await startWebServer()
  web.on('/data', serving(Buffer.from('data')))
  // On SQLite it fails now and then, when work goes on in the background.
  const sql = await startPostgres()
  const glance = await startGlance({
    config: { ...configOf(web.port), database: { connection: await sql.database() } },
  })
  try {
    await save('requests', await askServer({ url: glance.url, web: web.url, identify: identityHeaders }))
  } finally {
    await glance.stop()
    await sql.stop()
    await web.close()
  }
}

async function save(name: string, matrix: Matrix): Promise<void> {
  const file = new URL(`../test/policy/recorded/${name}-${release}.txt`, import.meta.url)
  await writeFile(file, print(`The ${name} of Glance ${release}. Written by tools/record-policy.ts.`, matrix))
}
