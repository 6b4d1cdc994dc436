import assert from 'node:assert/strict'
import { globSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { STATUS } from '../../src/api/http/errors.ts'
import { IGNORED_OPTIONS } from '../../src/cli/takeover/ignored-options.ts'
import { GROUPS, storeOptions } from '../../src/config/groups.ts'
import { RULES, type Rule } from '../../src/policy/rules.ts'
import { askServer, configOf } from '../policy/operations.ts'
import { parse, transcripts } from '../support/golden.ts'
import { root } from '../support/product.ts'
import { startServer, type TestServer } from '../support/server.ts'
import { serving, startWebServer } from '../support/servers/web.ts'

/** The lists only shrink: what is on one must still lack what the list is about. */
const list = async (name: string): Promise<readonly string[]> =>
  (await readFile(new URL(`${name}.txt`, import.meta.url), 'utf8'))
    .split('\n')
    .map((line) => line.replace(/#.*/, '').trim())
    .filter((line) => line !== '')
    .toSorted()

interface Operation {
  readonly 'x-openstack-policies'?: readonly string[]
}

/** Of the document that the service serves: rules by `METHOD /path`, whose parameters are `{}`. */
async function describedRoutes({ url }: TestServer): Promise<ReadonlyMap<string, readonly string[]>> {
  const { paths } = (await (await fetch(`${url}/openapi.json`)).json()) as {
    paths: Readonly<Record<string, Readonly<Record<string, Operation>>>>
  }
  const operations = Object.entries(paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => {
      return [plain(`${method.toUpperCase()} ${path}`), operation['x-openstack-policies'] ?? []] as const
    }),
  )
  return new Map(operations)
}
const plain = (operation: string): string => operation.replace(/\{\w+\}|:\w+/g, '{}')

describe('coverage', () => {
  it('every route is described and asks a rule, but for those on the list', async (t) => {
    const server = await startServer()
    t.after(() => server.close())
    const described = await describedRoutes(server)
    const undescribed = server.app.routes
      .filter(({ path }) => path !== '/v2') // the way to /v2/
      .map(({ method, path }) => plain(`${method} ${path}`))
    assert.deepEqual(
      undescribed.filter((route) => !described.has(route)),
      [],
    )
    const free = [...described].filter(([, rules]) => rules.length === 0).map(([route]) => route)
    assert.deepEqual(free.toSorted(), await list('routes-without-rules'))
  })

  it('every rule names routes that are there and that ask it, but for those on the list', async (t) => {
    const server = await startServer()
    t.after(() => server.close())
    const described = await describedRoutes(server)
    const missing: readonly string[] = Object.entries<Rule>(RULES).flatMap(([rule, { operations }]) =>
      operations
        .filter((operation) => described.get(plain(operation))?.includes(rule) !== true)
        .map((operation) => `${rule}: ${operation}`),
    )
    assert.deepEqual([...missing].toSorted(), await list('rules-without-routes'))
  })

  it('a route asks no rules but those that it says', async (t) => {
    const web = await startWebServer()
    t.after(() => web.close())
    web.on('/data', serving(Buffer.from('data')))
    const server = await startServer({ config: configOf(web.port) })
    t.after(() => server.close())
    const described = await describedRoutes(server)
    const { policy } = server.app.core
    const { allows } = policy
    const asked = new Set<string>()
    Object.assign(policy, {
      allows: (...[rule, identity, target]: Parameters<typeof allows>) => {
        asked.add(rule)
        return allows.call(policy, rule, identity, target)
      },
    })
    const untold = new Set<string>()
    await askServer({
      url: server.url,
      web: web.url,
      identify: (token) => ({ 'X-Auth-Token': token }),
      before: () => asked.clear(),
      after: (route) => {
        for (const rule of asked)
          if (rule !== 'context_is_admin' && !described.get(plain(route))?.includes(rule))
            untold.add(`${route}: ${rule}`)
      },
    })
    assert.deepEqual([...untold], [])
  })

  it('every kind of error is in some transcript, but for those on the list', async () => {
    const seen = new Set<number>()
    for (const file of await transcripts()) {
      for (const { response } of parse(await readFile(file, 'utf8')).exchanges) seen.add(response?.status ?? 0)
    }
    const unseen = Object.entries(STATUS).filter(([, status]) => !seen.has(status))
    assert.deepEqual(unseen.map(([kind]) => kind).toSorted(), await list('errors-without-transcript'))
  })

  it('every option is read somewhere, but for those that are accepted without effect', async () => {
    const files = globSync('**/*.ts', { cwd: join(root, 'src') }).filter(
      (file) => !file.endsWith('.test.ts') && file !== 'config/groups.ts' && !file.startsWith('cli/takeover/'),
    )
    const source = (await Promise.all(files.map((file) => readFile(join(root, 'src', file), 'utf8')))).join('\n')
    const words = new Set(source.match(/\w+/g))
    const unread: readonly string[] = Object.entries({ ...GROUPS, '(store)': storeOptions }).flatMap(
      ([group, options]) =>
        Object.keys(options)
          .filter((name) => !words.has(name))
          .map((name) => `${group}.${name}`),
    )
    assert.deepEqual(unread.toSorted(), Object.keys(IGNORED_OPTIONS).toSorted())
  })
})
