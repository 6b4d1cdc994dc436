import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { describe, it } from 'node:test'
import { fileURLToPath } from 'node:url'
import { GROUPS } from './groups.ts'
import { parseIni } from './ini.ts'
import type { Option } from './options.ts'

const inRepository = (path: string) => fileURLToPath(new URL(`../../${path}`, import.meta.url))

describe('the declarations', () => {
  it('are what the checked-in documentation and sample say', () => {
    const check = [inRepository('tools/docs-gen.ts'), '--check']
    assert.equal(execFileSync(process.execPath, check, { encoding: 'utf8' }), '')
  })

  it('have their defaults in the sample, so that switching every line on changes nothing', () => {
    const sample = readFileSync(inRepository('etc/glance-api.conf'), 'utf8')
    const switchedOn = sample.replace(/^#(?=\w+ =(?! <None>$))/gm, '')
    const entries = parseIni(switchedOn, 'sample')
    for (const [group, options] of Object.entries(GROUPS)) {
      for (const [name, option] of Object.entries(options) as [string, Option][]) {
        const raw = entries.filter((entry) => entry.group === group && entry.name === name).map(({ value }) => value)
        const value = raw.length === 0 && option.kind !== 'multi' ? undefined : option.parse(raw)
        assert.deepEqual(value, option.default, `[${group}] ${name}`)
      }
    }
  })

  it('explain every option in a sentence or two', () => {
    for (const [group, options] of Object.entries(GROUPS)) {
      for (const [name, option] of Object.entries(options)) assert.match(option.help, /^\S.*\.$/, `[${group}] ${name}`)
    }
  })
})
