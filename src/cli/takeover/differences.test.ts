import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { describe, it } from 'node:test'
import { readConfig } from '../../config/config.ts'
import { GROUPS } from '../../config/groups.ts'
import { DIFFERENCES, noticedBy } from './differences.ts'

const document = readFileSync(new URL('../../../docs/differences.md', import.meta.url), 'utf8')
/** The first cell of every row; the registry has a configuration of its own. */
const rows = (document.split('\n## The registry\n')[0] ?? '')
  .split('\n')
  .filter((line) => line.startsWith('| '))
  .map((line) => line.slice(2, line.indexOf(' |', 2)))

/** `backend` is a word of locations. */
const isOption = (name: string): boolean =>
  name !== 'backend' && Object.values(GROUPS).some((group) => Object.hasOwn(group, name))

describe('what the takeover check says of differences', () => {
  it('is about rows of docs/differences.md', () => {
    assert.deepEqual(
      DIFFERENCES.map(({ row }) => row).filter((row) => !rows.includes(row)),
      [],
    )
  })

  it('has every option that a row is about', () => {
    const named = rows.flatMap((row) =>
      [...row.matchAll(/`(?:\[\w+\] )?(\w+)(?: = [^`]*)?`/g)].map(([, name = '']) => name),
    )
    const told = new Set(DIFFERENCES.flatMap(({ options = [] }) => options.map((key) => key.replace(/^\w+\./, ''))))
    assert.deepEqual(
      [...new Set(named)].filter((name) => isOption(name) && !told.has(name)),
      [],
    )
  })

  it('names options that there are', () => {
    const unknown = DIFFERENCES.flatMap(({ options = [] }) => options).filter((key) => {
      const [group = '', name = ''] = key.split('.')
      return !Object.hasOwn((GROUPS as Record<string, object>)[group] ?? {}, name)
    })
    assert.deepEqual(unknown, [])
  })

  it('depends on the configuration', () => {
    const told = (overrides: Readonly<Record<string, string>>) =>
      noticedBy(readConfig({ program: 'glance-api', etc: '/nowhere', overrides })).map(({ row }) => row)
    assert.ok(!told({}).includes('image cache: ranges'))
    const cached = { image_cache_dir: '/cache', 'paste_deploy.flavor': 'keystone+caching' }
    assert.ok(told(cached).includes('image cache: ranges'))
    assert.ok(told(cached).includes('Keystone does not answer'))
    assert.ok(
      told({ 'database.connection': 'mysql+pymysql://u:p@h/glance' }).some((row) => row.startsWith('times of MySQL')),
    )
  })
})
