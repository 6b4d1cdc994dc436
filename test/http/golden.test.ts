import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { basename } from 'node:path'
import { describe, it } from 'node:test'
import { cast, parse, record, replay, SERVERS, transcripts } from '../support/golden.ts'
import { startRegistry } from '../support/registry.ts'
import { selfSpokenTokens, startServer, testDatabase } from '../support/server.ts'
import { startTranscriptsWeb } from '../support/servers/web.ts'

const UPDATE = process.env['UPDATE_GOLDEN'] === '1'

/** A server of that name, with an empty database. */
const startNamed = async (server: string): Promise<{ readonly url: string; close(): Promise<void> }> =>
  server === 'registry'
    ? startRegistry(await testDatabase('sqlite://'), {}, selfSpokenTokens())
    : startServer({ config: configOf(server) })

const configOf = (server: string) => {
  if (!Object.hasOwn(SERVERS, server)) throw new Error(`no server is called ${server}`)
  return SERVERS[server as keyof typeof SERVERS]
}

describe('golden transcripts', async () => {
  for (const file of await transcripts()) {
    it(`${basename(file)} is answered as recorded`, async (t) => {
      const { server } = parse(await readFile(file, 'utf8'))
      const started = await startNamed(server)
      t.after(() => started.close())
      const web = await startTranscriptsWeb()
      t.after(() => web.close())
      const target = { baseUrl: started.url, tokens: cast(file), web: new URL(web.url).host }
      if (UPDATE) {
        for (const title of await record(file, target)) t.diagnostic(`rewritten: ${title}`)
        return
      }
      for (const { title, details, pending } of await replay(file, target)) {
        await t.test(title, () => {
          if (pending === undefined) assert.deepEqual(details, [])
          else assert.notDeepEqual(details, [], `answered as written now: take "# pending: ${pending}" away`)
        })
      }
    })
  }
})
