import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { describe, it } from 'node:test'
import { RULES } from '../../src/policy/rules.ts'
import { startServer } from '../support/server.ts'
import { askEnforcer, matrixOf, questions } from './checks.ts'
import { askServer, OPERATIONS } from './operations.ts'
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

/** Rules that no request of the matrix asks, because what asks them is not built, or is no request. It only shrinks. */
const UNASKED = [
  ...['default', 'context_is_admin', 'service_api', 'metadef_default', 'metadef_admin'],
  // Nothing asks them, in Glance neither.
  ...['get_task', 'get_tasks', 'add_task', 'modify_task'],
  // Asked beside another rule, where it is about locations or copies.
  ...['get_image_location', 'set_image_location', 'delete_image_location', 'download_from_store'],
  // Of the cache, which the servers of the matrix do not have.
  ...['cache_image', 'cache_list', 'cache_delete', 'cache_clean', 'cache_prune', 'manage_image_cache'],
  'list_cached_nodes',
  // Not recorded yet.
  ...['add_image_location', 'copy_image', 'tasks_api_access'],
]

describe('the policy matrix', () => {
  it('has the rules allow and deny what those of Glance do', async () => {
    const asked = questions()
    assert.deepEqual(differences(await recorded('rules-33.0.0'), matrixOf(asked, askEnforcer(asked))), [])
  })

  it('has every request answered as by Glance', async (t) => {
    const server = await startServer()
    t.after(() => server.close())
    const identify = (token: string) => ({ 'X-Auth-Token': token })
    const got = await askServer({ url: server.url, identify })
    assert.deepEqual(differences(await recorded('requests-33.0.0'), got), [])
  })

  it('asks every rule but those on the list', () => {
    const asked = new Set(OPERATIONS.map(({ rule }) => rule))
    const unasked: readonly string[] = Object.keys(RULES).filter((rule) => !asked.has(rule))
    assert.deepEqual(unasked.toSorted(), UNASKED.toSorted())
  })
})
