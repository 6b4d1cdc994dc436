import { createInterface } from 'node:readline/promises'
import { Command, Option } from 'commander'
import { isUuid } from '../domain/ids.ts'
import { type CacheClient, cacheClient, Refused } from './cache-client.ts'
import { grid } from './table.ts'

export interface ManageOptions {
  readonly verbose?: boolean
  readonly debug?: boolean
  readonly host: string
  readonly port: string
  readonly insecure?: boolean
  readonly force?: boolean
  readonly osAuthToken: string
  readonly osUsername: string
  readonly osPassword: string
  readonly osProjectId: string
  readonly osProjectName: string
  readonly osUserDomainId: string
  readonly osProjectDomainId: string
  readonly osDomainId: string
  readonly osAuthUrl: string
  readonly osAuthStrategy?: string
}

type Say = (line: string) => void

interface Action {
  readonly help: string
  /** Follows "Failed to". */
  readonly does: string
  /** Asked before anything is done. */
  readonly question?: (id: string) => string
  readonly takesId?: boolean
  /** `tell` speaks only with --verbose. */
  run(client: CacheClient, id: string, tell: Say): Promise<void>
}

interface CachedEntry {
  readonly image_id: string
  readonly last_accessed: number
  readonly last_modified: number
  readonly size: number
  readonly hits: number
}

/** Upstream's commands, with its words where scripts read them. */
const ACTIONS: Readonly<Record<string, Action>> = {
  'list-cached': {
    help: 'List all images currently cached',
    does: 'show cached images',
    run: async (client) => {
      const { cached_images: images } = await client.call<{ cached_images: readonly CachedEntry[] }>(
        'GET',
        '/cached_images',
      )
      if (images.length === 0) return console.log('No cached images.')
      console.log(`Found ${images.length} cached images...`)
      const head = ['ID', 'Last Accessed (UTC)', 'Last Modified (UTC)', 'Size', 'Hits']
      const rows = images.map((image) => [
        image.image_id,
        image.last_accessed === 0 ? 'N/A' : isoTime(image.last_accessed),
        isoTime(image.last_modified),
        String(image.size),
        String(image.hits),
      ])
      console.log(grid(head, rows, ['Size', 'Hits']))
    },
  },
  'list-queued': {
    help: 'List all images currently queued for caching',
    does: 'show queued images',
    run: async (client) => {
      const { queued_images: ids } = await client.call<{ queued_images: readonly string[] }>('GET', '/queued_images')
      if (ids.length === 0) return console.log('No queued images.')
      console.log(`Found ${ids.length} queued images...`)
      console.log(
        grid(
          ['ID'],
          ids.map((id) => [id]),
        ),
      )
    },
  },
  'queue-image': {
    help: 'Queue an image for caching',
    does: 'queue the specified image for caching',
    takesId: true,
    question: (id) => `Queue image ${id} for caching?`,
    run: async (client, id, tell) => {
      await client.call('PUT', `/queued_images/${id}`)
      tell(`Queued image ${id} for caching`)
    },
  },
  'delete-cached-image': {
    help: 'Purges an image from the cache',
    does: 'delete the specified cached image',
    takesId: true,
    question: (id) => `Delete cached image ${id}?`,
    run: async (client, id, tell) => {
      await client.call('DELETE', `/cached_images/${id}`)
      tell(`Deleted cached image ${id}`)
    },
  },
  'delete-all-cached-images': {
    help: 'Removes all images from the cache',
    does: 'Delete all cached images',
    question: () => 'Delete all cached images?',
    run: async (client, _, tell) => {
      const { num_deleted: count } = await client.call<{ num_deleted: number }>('DELETE', '/cached_images')
      tell(`Deleted ${count} cached images`)
    },
  },
  'delete-queued-image': {
    help: 'Deletes an image from the cache queue',
    does: 'delete the specified queued image',
    takesId: true,
    question: (id) => `Delete queued image ${id}?`,
    run: async (client, id, tell) => {
      await client.call('DELETE', `/queued_images/${id}`)
      tell(`Deleted queued image ${id}`)
    },
  },
  'delete-all-queued-images': {
    help: 'Deletes all images from the cache queue',
    does: 'Delete all queued images',
    question: () => 'Delete all queued images?',
    run: async (client, _, tell) => {
      const { num_deleted: count } = await client.call<{ num_deleted: number }>('DELETE', '/queued_images')
      tell(`Deleted ${count} queued images`)
    },
  },
}

/** As Python prints a time: with microseconds, unless there are none. */
function isoTime(seconds: number): string {
  const micros = Math.round(seconds * 1e6)
  const whole = new Date(Math.floor(micros / 1e6) * 1000).toISOString().slice(0, 19)
  const rest = micros % 1e6
  return rest === 0 ? whole : `${whole}.${String(rest).padStart(6, '0')}`
}

const commandList = (): string =>
  [
    'Commands:',
    ...[['help <command>', 'Output help for one of the commands below'] as const, ...listed()].map(
      ([name, help]) => `    ${name.padEnd(28)}${help}`,
    ),
  ].join('\n\n')
const listed = () => Object.entries(ACTIONS).map(([name, { help }]) => [name, help] as const)

/** glance-cache-manage: looks after the cache of one node, by its API. */
export function cacheManageCommand(): Command {
  const env = (name: string, otherwise = '') => process.env[name] || otherwise
  const command = new Command()
    .description(
      `Looks after the image cache of one node. Deprecated: the cache API does the same.\n\n${commandList()}`,
    )
    .argument('<command...>', 'the command, and what it is about')
    .option('-v, --verbose', 'say what was done')
    .option('-d, --debug', 'say more when something fails')
    .option('-H, --host <address>', 'address of the API of the node', '0.0.0.0')
    .option('-p, --port <port>', 'port of the API', '9292')
    .option('-k, --insecure', 'do not verify certificates')
    .option('-f, --force', 'ask no questions')
    .option('-S, --os_auth_strategy <strategy>', 'keystone or noauth')
  for (const [name, short, otherwise] of [
    ['auth-token', '-A'],
    ['username', '-I'],
    ['password', '-K'],
    ['region-name', '-R'],
    ['project-id', ''],
    ['project-name', '-T'],
    ['user-domain-id', ''],
    ['project-domain-id', ''],
    ['domain-id', '', 'default'],
    ['auth-url', '-N'],
  ] as const) {
    const variable = `OS_${name.toUpperCase().replaceAll('-', '_')}`
    const older = `--os_${name.replaceAll('-', '_')} <value>`
    const dashed = `os-${name}`.replace(/-(\w)/g, (_, letter: string) => letter.toUpperCase())
    command.option(`--os-${name} <value>`, `default: $${variable}`)
    command.setOptionValueWithSource(dashed, env(variable, otherwise), 'env')
    command.addOption(new Option(short === '' ? older : `${short}, ${older}`).hideHelp())
    command.on(`option:os_${name.replaceAll('-', '_')}`, (value: string) => command.setOptionValue(dashed, value))
  }
  command.addOption(new Option('--auth_token <value>').hideHelp())
  command.on('option:auth_token', (value: string) => command.setOptionValue('osAuthToken', value))
  return command.action(async (words: readonly string[]) => {
    console.error('glance-cache-manage is deprecated: the cache API (/v2/cache) does the same.')
    process.exitCode = await manage(command, words)
  })
}

async function manage(command: Command, [name = '', ...args]: readonly string[]): Promise<number> {
  const options = command.opts<ManageOptions & { os_auth_strategy?: string }>()
  const topic = name === 'help' ? args[0] : name
  if (topic === undefined) {
    command.outputHelp()
    return 0
  }
  const action = Object.hasOwn(ACTIONS, topic) ? ACTIONS[topic] : undefined
  if (action === undefined) {
    console.log(`\nError: "${topic}" is not a valid command.\n\n${commandList()}\n`)
    console.error(`Unknown command: ${topic}`)
    return 1
  }
  if (name === 'help') {
    console.log(`glance-cache-manage ${topic}${action.takesId ? ' <IMAGE_ID>' : ''} [options]\n\n    ${action.help}.`)
    return 0
  }
  const id = admitted(topic, action, args)
  if (id === undefined) return 1
  if (action.question !== undefined && !options.force && !(await confirmed(action.question(id)))) return 0
  const began = performance.now()
  const tell: Say = (line) => options.verbose && console.log(line)
  const { os_auth_strategy: strategy } = options
  try {
    await action.run(cacheClient({ ...options, ...(strategy ? { osAuthStrategy: strategy } : {}) }), id, tell)
  } catch (error) {
    return explain(error, action, options)
  }
  tell(`Completed in ${((performance.now() - began) / 1000).toFixed(4)} sec.`)
  return 0
}

/** The id that the command is about, '' where there is none; undefined when it is not as it must be. */
function admitted(name: string, { takesId }: Action, args: readonly string[]): string | undefined {
  if (!takesId) return ''
  const [id, ...more] = args
  if (id === undefined || more.length > 0) {
    console.log(
      `Please specify the ID of the image you wish for command '${name}' from the cache as the first and only argument.`,
    )
    return undefined
  }
  if (isUuid(id)) return id
  console.log(`Image ID '${id}' is not a valid UUID.`)
  return undefined
}

/** No answer is a no. */
async function confirmed(question: string): Promise<boolean> {
  const terminal = createInterface({ input: process.stdin, output: process.stdout })
  const ended = new Promise<string>((resolve) => terminal.once('close', () => resolve('')))
  const answer = await Promise.race([terminal.question(`${question} [y/N] `), ended])
  terminal.close()
  return ['y', 'yes'].includes(answer.trim().toLowerCase())
}

function explain(error: unknown, { does }: Action, { host, debug }: ManageOptions): number {
  if (error instanceof Refused && error.status === 404) {
    console.log(`Cache management middleware not enabled on host ${host}`)
  } else if (error instanceof Refused && error.status === 403) {
    console.log('Not authorized to make this request.')
  } else {
    console.log(`Failed to ${does}. Got error:`)
    console.log(error instanceof Error ? error.message : String(error))
    if (debug) console.error(error)
  }
  return 1
}
