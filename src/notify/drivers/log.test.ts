import assert from 'node:assert/strict'
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { it } from 'node:test'
import { openLog } from '../../log.ts'
import { exampleMessage } from '../conformance.ts'
import { logDriver } from './log.ts'

it('notifications in the log stand under a name of their own, at the level of their priority, without passwords', async (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'glimpse-log-'))
  t.after(() => rmSync(dir, { recursive: true }))
  const file = join(dir, 'log')
  const log = openLog({ name: 'glance.api', debug: false, json: false, file })
  const driver = logDriver(log)
  const message = exampleMessage()
  driver.accept(message)
  const secret = { properties: { os_admin_password: 'hunter2', os_distro: 'debian' } }
  driver.accept({ ...message, priority: 'ERROR', json: JSON.stringify(secret) })
  let lines: readonly string[] = []
  while (lines.length < 3) {
    await new Promise((resolve) => setTimeout(resolve, 10)) // the file is being opened
    log.flush()
    lines = existsSync(file) ? readFileSync(file, 'utf8').split('\n') : []
  }
  const [first = '', second = ''] = lines
  assert.match(first, / INFO oslo\.messaging\.notification\.image\.member\.create \[-\] \{/)
  assert.deepEqual(JSON.parse(first.slice(first.indexOf('{'))), JSON.parse(message.json))
  assert.match(second, / ERROR oslo\.messaging\.notification\.image\.member\.create /)
  assert.deepEqual(JSON.parse(second.slice(second.indexOf('{'))), {
    properties: { os_admin_password: '***', os_distro: 'debian' },
  })
})
