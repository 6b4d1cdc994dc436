import { createInterface } from 'node:readline/promises'
import type { Readable, Writable } from 'node:stream'
import type { ReadStream } from 'node:tty'
import { type Command, Option } from 'commander'
import { ROLES, type RoleName } from '../auth/standalone/registry.ts'
import type { Standalone } from '../auth/standalone.ts'
import { ServiceError } from '../domain/errors.ts'

/** Opens the identity service of a data directory. */
export type OpenStandalone = (dataDir: string) => Standalone | Promise<Standalone>

export interface Terminal {
  readonly input: Readable & Partial<Pick<ReadStream, 'isTTY' | 'setRawMode'>>
  readonly output: Writable
}

type Row = Readonly<Record<string, string | boolean | null>>

type Output = readonly Row[] | Row
type Run<Options> = (standalone: Standalone, options: Options, name: string) => Output | Promise<Output>
type Add = <Options extends object>(parent: Command, usage: string, description: string, run: Run<Options>) => Command

interface Common {
  readonly data: string
  readonly json?: boolean
}

interface PasswordOptions {
  readonly password?: string
  readonly passwordPrompt?: boolean
}

interface RoleOptions {
  readonly user?: string
  readonly project?: string
  readonly system?: boolean
}

/**
 * Adds `identity user|project|role …`, which looks after the built-in identity service without a login.
 * `program` says with its option `--data` where that is.
 */
export function identityCommand(
  program: Command,
  openStandalone: OpenStandalone,
  terminal: Terminal = { input: process.stdin, output: process.stdout },
): Command {
  const identity = program
    .command('identity')
    .description('Look after the users, projects and roles of the built-in identity service')

  /** Adds a command that has the open identity service at hand, and prints the rows it returns. */
  function add<Options extends object>(
    parent: Command,
    usage: string,
    description: string,
    run: Run<Options>,
  ): Command {
    const command: Command = parent
      .command(usage)
      .description(description)
      .option('--json', 'print JSON')
      .action(async (...given: readonly unknown[]) => {
        const { data, json, ...options } = command.optsWithGlobals<Common & Options>()
        const name = typeof given[0] === 'string' ? given[0] : ''
        try {
          const standalone = await openStandalone(data)
          try {
            const rows = await run(standalone, options as unknown as Options, name)
            terminal.output.write(
              json ? `${JSON.stringify(rows, null, 2)}\n` : table(Array.isArray(rows) ? rows : [rows]),
            )
          } finally {
            standalone.close()
          }
        } catch (error) {
          if (!(error instanceof ServiceError)) throw error
          command.error(`error: ${error.message}`, { exitCode: 1 })
        }
      })
    return command
  }

  addUserCommands(identity.command('user').description('Users'), add, terminal)
  addProjectCommands(identity.command('project').description('Projects'), add)
  addRoleCommands(identity.command('role').description('Who may do what, and where'), add)
  return identity
}

const describe = ({
  id,
  name,
  enabled,
}: {
  readonly id: string
  readonly name: string
  readonly enabled: boolean
}): Row => ({
  id,
  name,
  enabled,
})

function addUserCommands(user: Command, add: Add, terminal: Terminal): void {
  add(user, 'list', 'List users', ({ users }) => users.list().map(describe))

  const create = add<PasswordOptions>(user, 'create <name>', 'Create a user', async ({ users }, options, name) => {
    const password = await readPassword(options, terminal)
    return describe(await users.create({ name, ...(password === undefined ? {} : { password }) }))
  })
  const set = add<PasswordOptions & { readonly enable?: boolean; readonly disable?: boolean }>(
    user,
    'set <user>',
    'Change a user, by name or id; a new password ends all logins',
    async ({ users }, { enable, disable, ...options }, name) => {
      const { id } = users.find(name)
      const password = await readPassword(options, terminal)
      const enabled = disable ? false : enable
      return describe(
        await users.update(id, {
          ...(password === undefined ? {} : { password }),
          ...(enabled === undefined ? {} : { enabled }),
        }),
      )
    },
  )
  for (const command of [create, set]) {
    command
      .addOption(new Option('--password <password>', 'others on this machine may see it').conflicts('passwordPrompt'))
      .option('--password-prompt', 'ask for the password, or read it as one line from standard input')
  }
  set.addOption(new Option('--enable', 'let the user log in').conflicts('disable'))
  set.option('--disable', 'keep the user from logging in, and end all logins')

  add(user, 'delete <user>', 'Delete a user, by name or id', ({ users }, _options, name) => {
    const found = users.find(name)
    users.delete(found.id)
    return describe(found)
  })
}

function addProjectCommands(project: Command, add: Add): void {
  add(project, 'list', 'List projects', ({ projects }) => projects.list().map(describe))
  add<{ readonly description?: string }>(
    project,
    'create <name>',
    'Create a project',
    async ({ projects }, options, name) =>
      describe(await projects.create({ name, extra: { description: options.description ?? '' } })),
  ).option('--description <text>', 'what it is for')
  add(
    project,
    'delete <project>',
    'Delete a project, by name or id; its images stay',
    ({ projects }, _options, name) => {
      const found = projects.find(name)
      projects.delete(found.id)
      return describe(found)
    },
  )
}

function addRoleCommands(role: Command, add: Add): void {
  const where = ({ projects }: Standalone, { project, system }: RoleOptions) => ({
    ...(project === undefined ? {} : { projectId: projects.find(project).id }),
    ...(system ? { system } : {}),
  })

  const list = add<RoleOptions>(role, 'list', 'List who has which role', (standalone, options) => {
    const { users, projects, assignments } = standalone
    const userId = options.user === undefined ? {} : { userId: users.find(options.user).id }
    return assignments.list({ ...userId, ...where(standalone, options) }).map((one) => ({
      user: users.get(one.userId).name,
      project: one.projectId === undefined ? null : projects.get(one.projectId).name,
      system: one.projectId === undefined,
      role: one.role,
    }))
  })

  const change = (verb: 'grant' | 'revoke') => (standalone: Standalone, options: RoleOptions, name: string) => {
    const { users, assignments } = standalone
    const { user = '', project, system } = options
    if ((project === undefined) === !system) throw new ServiceError('invalid', 'Say either --project or --system')
    const { projectId } = where(standalone, options)
    assignments[verb]({ userId: users.find(user).id, projectId, role: parseRole(name) })
    return { user, project: project ?? null, system: system ?? false, role: name }
  }
  const give = add<RoleOptions>(role, 'add <role>', `Give a user a role: ${ROLES.join(', ')}`, change('grant'))
  const take = add<RoleOptions>(role, 'remove <role>', 'Take a role away from a user', change('revoke'))

  list.option('--user <user>', 'of this user only')
  for (const command of [give, take]) command.requiredOption('--user <user>', 'name or id')
  for (const command of [list, give, take]) {
    command.option('--project <project>', 'name or id').option('--system', 'on the whole system')
  }
}

function parseRole(name: string): RoleName {
  const role = ROLES.find((one) => one === name)
  if (!role) throw new ServiceError('not-found', `Could not find role: ${name}. There are ${ROLES.join(', ')}.`)
  return role
}

async function readPassword(options: PasswordOptions, terminal: Terminal): Promise<string | undefined> {
  if (!options.passwordPrompt) return options.password
  const password = await ask('Password: ', terminal)
  if (terminal.input.isTTY && (await ask('Again: ', terminal)) !== password) {
    throw new ServiceError('invalid', 'The passwords differ')
  }
  return password
}

/** One line, not echoed on a terminal. */
async function ask(question: string, { input, output }: Terminal): Promise<string> {
  const isTerminal = input.isTTY === true
  // Without an output readline echoes nothing, and as a terminal it keeps the terminal itself from echoing.
  const lines = createInterface({ input, terminal: isTerminal })
  if (isTerminal) output.write(question)
  try {
    return await new Promise<string>((resolve, reject) => {
      lines.once('line', resolve)
      lines.once('SIGINT', () => reject(new ServiceError('invalid', 'Interrupted')))
      lines.once('close', () => reject(new ServiceError('invalid', 'There is no password on standard input')))
    })
  } finally {
    lines.close()
    if (isTerminal) output.write('\n')
  }
}

/** Columns aligned, a line of titles above; a boolean is yes or no, null is empty. */
function table(rows: readonly Row[]): string {
  const titles = Object.keys(rows[0] ?? {})
  if (titles.length === 0) return 'none\n'
  const show = (value: Row[string] | undefined) => (typeof value === 'boolean' ? (value ? 'yes' : 'no') : (value ?? ''))
  const lines = [
    titles.map((title) => title.toUpperCase()),
    ...rows.map((row) => titles.map((title) => show(row[title]))),
  ]
  const widths = titles.map((_, column) => Math.max(...lines.map((line) => line[column]?.length ?? 0)))
  return lines
    .map(
      (line) =>
        `${line
          .map((cell, column) => cell.padEnd(widths[column] ?? 0))
          .join('  ')
          .trimEnd()}\n`,
    )
    .join('')
}
