import assert from 'node:assert/strict'
import { after, before, describe, it } from 'node:test'
import type { Availability, SqlServer } from './servers/sql.ts'

/** Describes what holds on a real database server; where there is none, that is printed, and a failure on CI. */
export function onServer<Server extends Pick<SqlServer, 'stop'>>(
  name: string,
  found: Availability,
  start: () => Promise<Server>,
  body: (server: () => Server) => void,
): void {
  if (!found.ok) {
    it(`${name} serves as the database`, { skip: process.env['CI'] === 'true' ? false : found.reason }, () =>
      assert.fail(found.reason),
    )
    return
  }
  describe(name, () => {
    let server: Server
    before(async () => {
      server = await start()
    })
    after(() => server.stop())
    body(() => server)
  })
}
