// Written for old versions of Node too, so that they can say what is missing.
import { existsSync } from 'node:fs'

const [major, minor] = process.versions.node.split('.').map(Number)
if (major < 24 || (major === 24 && minor < 12)) {
  console.error(`Glimpse needs Node 24.12 or newer; this is ${process.versions.node} (${process.execPath}).`)
  console.error('Install a newer Node, or run "npm ci" with development dependencies, which bring one along.')
  process.exit(1)
}
const built = new URL('../dist/cli/main.js', import.meta.url)
const { main } = await import(existsSync(built) ? built.href : new URL('../src/cli/main.ts', import.meta.url).href)
await main(process.argv[2], process.argv.slice(3))
