import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { describe, it } from 'node:test'
import { RULES } from '../../src/policy/rules.ts'
import { startServer } from '../support/server.ts'
import { serving, startWebServer } from '../support/servers/web.ts'
import { askEnforcer, matrixOf, questions } from './checks.ts'
import { askServer, configOf, OPERATIONS } from './operations.ts'
import { type Matrix, parse } from './situations.ts'

const recorded = async (name: string): Promise<Matrix> =>
  parse(await readFile(new URL(`recorded/${name}.txt`, import.meta.url), 'utf8'))

/** `TITLE, SITUATION, CALLER: wanted, got` for each cell that differs. */
function differences(wanted: Matrix, got: Matrix): readonly string[] {
  const titles = new Set([...wanted.keys(), ...got.keys()])
  return [...titles].flatMap((title) =>
    Object.entries(wanted.get(title) ?? { '(not recorded)': {} }).flatMap(([situation, cells]) =>
      Object.entries(cells)
        .filter(([caller, cell]) => got.get(title)?.[situation]?.[caller] !== cell)
        .map(
          ([caller, cell]) => `${title}, ${situation}, ${caller}: ${cell}, ${got.get(title)?.[situation]?.[caller]}`,
        ),
    ),
  )
}

/** Rules that no request of the matrix asks by themselves. It only shrinks. */
const UNASKED = [
  // Parts of other rules; the matrix of rules has them.
  ...['default', 'context_is_admin', 'service_api', 'metadef_default', 'metadef_admin'],
  // Nothing asks them, in Glance neither.
  ...['get_task', 'get_tasks', 'add_task', 'modify_task'],
]

describe('the policy matrix', () => {
  it('has the rules allow and deny what those of Glance do', async () => {
    const asked = questions()
    assert.deepEqual(differences(await recorded('rules-33.0.0'), matrixOf(asked, askEnforcer(asked))), [])
  })

  it('has every request answered as by Glance', async (t) => {
    const web = await startWebServer()
    t.after(() => web.close())
    web.on('/data', serving(Buffer.from('data')))
    const server = await startServer({ config: configOf(web.port) })
    t.after(() => server.close())
    const identify = (token: string) => ({ 'X-Auth-Token': token })
    const got = await askServer({ url: server.url, web: web.url, identify })
    assert.deepEqual(differences(await recorded('requests-33.0.0'), got), [])
  })

  it('asks every rule but those on the list', () => {
    const asked = new Set(OPERATIONS.map(({ rule }) => rule))
    const unasked: readonly string[] = Object.keys(RULES).filter((rule) => !asked.has(rule))
    assert.deepEqual(unasked.toSorted(), UNASKED.toSorted())
  })
})
