/**
 * Records the transcripts below test/http from a running server, usually upstream Glance:
 *
 *     tools/record-golden.ts URL SERVER [FILE...]
 *
 * URL is where it listens, SERVER which of the servers of the corpus it is (a name in SERVERS); only files for that
 * one are recorded. Exchanges marked `# differs:` keep their answers. Its identity service must take tokens of the form
 * USER:PROJECT:ROLES. See test/http/README.md.
 */
import { readFile } from 'node:fs/promises'
import { relative } from 'node:path'
import { cast, parse, record, SERVERS, transcripts } from '../test/support/golden.ts'
import { startTranscriptsWeb } from '../test/support/servers/web.ts'

const [url, server, ...wanted] = process.argv.slice(2)
if (url === undefined || server === undefined || !Object.hasOwn(SERVERS, server)) {
  console.error(`usage: record-golden.ts URL ${Object.keys(SERVERS).join('|')} [FILE...]`)
  process.exit(2)
}

const headers = { 'X-Auth-Token': 'cleaner:cleaner:admin,member,reader' }

const web = await startTranscriptsWeb()
for (const file of await transcripts()) {
  if (parse(await readFile(file, 'utf8')).server !== server) continue
  if (wanted.length > 0 && !wanted.some((name) => file.endsWith(name))) continue
  await removeImages(url)
  await removeNamespaces(url)
  const changed = await record(
    file,
    { baseUrl: url, tokens: cast(file), web: new URL(web.url).host },
    { keepMarked: true },
  )
  console.log(`${relative('', file)}: ${changed.length} changed`)
}
await removeImages(url)
await removeNamespaces(url)
await web.close()

/** Every file starts on a server without images. */
async function removeImages(baseUrl: string): Promise<void> {
  for (const query of ['visibility=all', 'visibility=all&os_hidden=true']) {
    const answer = await fetch(`${baseUrl}/v2/images?limit=1000&${query}`, { headers })
    const { images } = (await answer.json()) as { images: { id: string; protected: boolean }[] }
    for (const image of images) {
      if (image.protected)
        await fetch(`${baseUrl}/v2/images/${image.id}`, {
          method: 'PATCH',
          headers: { ...headers, 'Content-Type': 'application/openstack-images-v2.1-json-patch' },
          body: JSON.stringify([{ op: 'replace', path: '/protected', value: false }]),
        })
      await fetch(`${baseUrl}/v2/images/${image.id}`, { method: 'DELETE', headers })
    }
  }
}

/** Nor namespaces; resource types stay, because nothing removes them. */
async function removeNamespaces(baseUrl: string): Promise<void> {
  const all = `${baseUrl}/v2/metadefs/namespaces`
  const { namespaces } = (await (await fetch(`${all}?limit=1000`, { headers })).json()) as {
    namespaces: { namespace: string; protected: boolean }[]
  }
  for (const { namespace, protected: kept } of namespaces) {
    const one = `${all}/${encodeURIComponent(namespace)}`
    if (kept) await fetch(one, { method: 'PUT', headers, body: JSON.stringify({ namespace }) })
    await fetch(one, { method: 'DELETE', headers })
  }
}
