// Written for old versions of Node too, so that they can say what is missing.
import { existsSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

const [major, minor] = process.versions.node.split('.').map(Number)
if (major < 24 || (major === 24 && minor < 12)) {
  console.error(`Glimpse needs Node 24.12 or newer; this is ${process.versions.node} (${process.execPath}).`)
  console.error('Install a newer Node, or run "npm ci" with development dependencies, which bring one along.')
  process.exit(1)
}
// What was compiled once need not be at the next start; where the folder cannot be written, nothing is lost.
const { enableCompileCache } = await import('node:module')
enableCompileCache(fileURLToPath(new URL('../node_modules/.cache/glimpse', import.meta.url)))
// A checkout runs its sources; a release has only what was compiled from them.
const sources = new URL('../src/cli/main.ts', import.meta.url)
const { main } = await import(existsSync(sources) ? sources.href : new URL('../dist/cli/main.js', import.meta.url).href)
await main(process.argv[2], process.argv.slice(3))
