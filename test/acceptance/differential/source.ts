import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'

/** What imports and locations are about, by path. */
export const CONTENTS: Readonly<Record<string, string>> = { '/abc': 'abc', '/long': 'a'.repeat(70_000) }

export interface Source {
  readonly url: string
  readonly port: number
  close(): Promise<void>
}

/** A web server with a few files that both sides may fetch. */
export async function startSource(): Promise<Source> {
  const server = createServer((request, response) => {
    const content = CONTENTS[request.url ?? '']
    response.writeHead(content === undefined ? 404 : 200, { 'content-length': content?.length ?? 0 })
    response.end(request.method === 'HEAD' ? undefined : content)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  return {
    url: `http://127.0.0.1:${port}`,
    port,
    close: async () => {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}
