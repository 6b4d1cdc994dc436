/**
 * Tries the service against its own OpenAPI document with schemathesis: no answer is an error of the server, and each
 * has a status, a media type, headers and a body that the document knows.
 *
 *     node test/acceptance/openapi/run.ts
 *
 * OPENAPI_EXAMPLES (4) says how many requests are made up for each operation, OPENAPI_SEED (1) which. Needs
 * tools/python-tools.sh schemathesis.
 */
import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { root } from '../../support/product.ts'
import { startServer } from '../../support/server.ts'
import type { Verdict } from '../verdict.ts'

const TOKEN = 'ada:pa:admin,member,reader'
const CONFIG = {
  DEFAULT: { enabled_backends: 'fast:file, cheap:file' },
  glance_store: { default_backend: 'fast' },
}
const CHECKS = ['not_a_server_error', 'status_code', 'content_type', 'response_headers', 'response_schema']
/** How many images and namespaces are there: deleting some must leave others. */
const SUPPLY = 60

interface Report {
  readonly exit_code: number
  readonly complete: boolean
  readonly operations: { readonly total: number; readonly tested: number }
  readonly test_cases: { readonly generated: number; readonly with_failures: number }
  readonly failures: readonly unknown[]
  readonly errors: readonly unknown[]
}

export async function openApiConformance(env: NodeJS.ProcessEnv): Promise<Verdict> {
  const server = await startServer({ config: CONFIG })
  const dir = await mkdtemp(join(tmpdir(), 'schemathesis-'))
  try {
    const known = await supply(server.url)
    const report = await schemathesis(server.url, dir, known, env)
    const { generated, with_failures: failed } = report.test_cases
    const complete = report.complete && report.operations.tested === report.operations.total && generated > 0
    return {
      title: 'openapi: schemathesis',
      passed: generated - failed,
      skipped: [],
      problems: [
        ...[...report.failures, ...report.errors].map((each) => JSON.stringify(each).slice(0, 2000)),
        ...(complete ? [] : ['not every operation of the document was tried']),
      ],
    }
  } finally {
    await rm(dir, { recursive: true, force: true })
    await server.close()
  }
}

/** Makes things for the requests to be about; gives values of path parameters. */
async function supply(url: string): Promise<Readonly<Record<string, readonly string[]>>> {
  const send = async (method: string, path: string, body: unknown, type = 'application/json'): Promise<unknown> => {
    const headers = { 'X-Auth-Token': TOKEN, 'Content-Type': type }
    const text = typeof body === 'string' ? body : JSON.stringify(body)
    const answer = await fetch(`${url}/v2${path}`, { method, headers, body: text })
    if (!answer.ok) throw new Error(`${method} ${path}: ${answer.status}`)
    return answer.status === 204 ? undefined : await answer.json()
  }
  const images: string[] = []
  const namespaces: string[] = []
  const schema = { title: 'Title', type: 'string' }
  for (let number = 0; number < SUPPLY; number++) {
    const draft = { name: `image ${number}`, disk_format: 'raw', container_format: 'bare', tags: ['red'] }
    const { id } = (await send('POST', '/images', draft)) as { id: string }
    await send('POST', `/images/${id}/members`, { member: 'pb' })
    if (number % 2 === 0) await send('PUT', `/images/${id}/file`, 'data', 'application/octet-stream')
    images.push(id)
    const namespace = `space ${number}`
    await send('POST', '/metadefs/namespaces', {
      namespace,
      objects: [{ name: 'red', properties: { some: schema } }],
      properties: { red: schema },
      tags: [{ name: 'red' }],
      resource_type_associations: [{ name: 'red' }],
    })
    namespaces.push(namespace)
  }
  const red = ['red']
  return { image_id: images, namespace: namespaces, name: red, tag_value: red, member_id: ['pb'], store_id: ['fast'] }
}

async function schemathesis(url: string, dir: string, known: unknown, env: NodeJS.ProcessEnv): Promise<Report> {
  const tools = promisify(execFile)(`${root}tools/python-tools.sh`, ['schemathesis'], { timeout: 600_000 })
  const venv = (await tools).stdout.trim()
  const file = join(dir, 'report.json')
  const checks = CHECKS.map((name) => (name === 'not_a_server_error' ? name : `${name}_conformance`)).join(',')
  const course = ['--max-examples', env['OPENAPI_EXAMPLES'] ?? '4', '--seed', env['OPENAPI_SEED'] ?? '1', '--no-shrink']
  const output = ['--report', 'json', '--report-json-path', file, '--warnings', 'off', '--generation-database', 'none']
  const phases = ['--phases', 'coverage,fuzzing,stateful', '--continue-on-failure', '--checks', checks]
  const auth = ['--header', `X-Auth-Token: ${TOKEN}`]
  const args = ['run', `${url}/openapi.json`, '--url', url, ...auth, ...phases, ...course, ...output]
  const child = spawn(join(venv, 'bin/schemathesis'), args, {
    cwd: dir,
    stdio: ['ignore', 'ignore', 'inherit'],
    timeout: 1_200_000,
    env: {
      ...process.env,
      SCHEMATHESIS_HOOKS: fileURLToPath(new URL('hooks.py', import.meta.url)),
      KNOWN_PARAMETERS: JSON.stringify(known),
    },
  })
  await once(child, 'exit')
  return JSON.parse(await readFile(file, 'utf8')) as Report
}

if (import.meta.main) {
  const { passed, problems } = await openApiConformance(process.env)
  for (const problem of problems) console.log(problem)
  console.log(`openapi: ${passed} passed, ${problems.length} failed`)
  process.exitCode = problems.length === 0 ? 0 : 1
}
