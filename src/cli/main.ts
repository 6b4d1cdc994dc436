import { readFileSync } from 'node:fs'
import { Command, InvalidArgumentError } from 'commander'
import { hasKind } from '../domain/errors.ts'
import { withConfigOptions } from './config-options.ts'
import { reason } from './reason.ts'

const VERSION = (
  JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')) as { version: string }
).version

/** Runs the command that was called `name`; its failure is one line and exit code 1. */
export async function main(name: string, argv: readonly string[]): Promise<void> {
  const commands: Readonly<Record<string, () => Command | Promise<Command>>> = {
    glimpse: glimpseCommand,
    'glance-api': apiCommand,
    'glance-registry': registryCommand,
    'glance-manage': async () => (await import('./manage.ts')).manageCommand(),
    'glance-scrubber': async () => (await import('./scrubber.ts')).scrubberCommand(),
    'glance-cache-manage': async () => (await import('./cache-manage.ts')).cacheManageCommand(),
    'glance-cache-prefetcher': async () => (await import('./cache-jobs.ts')).prefetcherCommand(),
    'glance-cache-pruner': async () => (await import('./cache-jobs.ts')).prunerCommand(),
    'glance-cache-cleaner': async () => (await import('./cache-jobs.ts')).cleanerCommand(),
  }
  const make = commands[name] ?? glimpseCommand
  try {
    const command = (await make()).name(name)
    // glance-manage has a use of its own for the name, behind its commands.
    if (!command.options.some(({ long }) => long === '--version')) command.version(VERSION)
    else if (argv.length === 1 && argv[0] === '--version') return console.log(VERSION)
    await command.parseAsync(argv as string[], { from: 'user' })
  } catch (error) {
    console.error(`ERROR: ${reason(error)}`)
    if (!hasKind(error, 'invalid', 'unavailable', 'not-found', 'conflict')) console.error(error)
    process.exit(1) // what was opened before the failure must not keep the process
  }
}

function port(text: string): number {
  const value = Number(text)
  if (!Number.isInteger(value) || value < 0 || value > 65_535)
    throw new InvalidArgumentError('A port is a number up to 65535.')
  return value
}

function count(text: string): number {
  const value = Number(text)
  if (!Number.isInteger(value) || value < 0) throw new InvalidArgumentError('A whole number is wanted.')
  return value
}

async function glimpseCommand(): Promise<Command> {
  const { identityCommand } = await import('./identity.ts')
  const { serveStandalone, openStandaloneIn } = await import('./serve.ts')
  const { addPartsCommands } = await import('./schema.ts')
  const { takeoverCommand } = await import('./takeover.ts')
  const command = new Command()
    .description('An OpenStack Image service. Without a command it serves, with everything it needs in one folder.')
    .option('--data <dir>', 'folder of the database, the images and clouds.yaml', './data')
    .option('--host <address>', 'address to listen on', '127.0.0.1')
    .option('--port <number>', 'port to listen on', port, 9292)
    .option('--workers <number>', 'worker processes; 0 serves in this one (default: one per core)', count)
  const read = withConfigOptions(command, 'glimpse')
  command.action((options: Parameters<typeof serveStandalone>[1]) => serveStandalone(read, options))
  identityCommand(command, openStandaloneIn)
  addPartsCommands(command, read)
  takeoverCommand(command, read)
  return command
}

async function apiCommand(): Promise<Command> {
  const { serveConfigured } = await import('./serve.ts')
  const command = new Command()
    .description('Serves the Image API as glance-api.conf says.')
    .option('--log-file <file>', 'log to this file')
    .option('--show-config', 'print every option with its value (secrets masked), and end')
  const read = withConfigOptions(command, 'glance-api')
  return command.action((options: Parameters<typeof serveConfigured>[1]) => serveConfigured(read, options))
}

async function registryCommand(): Promise<Command> {
  const { serveRegistry } = await import('./serve.ts')
  const command = new Command()
    .description('Serves the database to API nodes that have none of their own, as glance-registry.conf says.')
    .option('--log-file <file>', 'log to this file')
    .option('--show-config', 'print every option with its value (secrets masked), and end')
  const read = withConfigOptions(command, 'glance-registry')
  return command.action((options: Parameters<typeof serveRegistry>[1]) => serveRegistry(read, options))
}
