import { homedir } from 'node:os'
import { type Command, Option } from 'commander'
import { type Config, readConfig } from '../config/config.ts'

type Given = { readonly file: string } | { readonly dir: string }

export interface Reading {
  /** Whose files are read where none is named: the command's own, unless given. */
  readonly program?: string
  /** Hears of wrong values, which are errors otherwise. */
  readonly wrong?: (message: string) => void
}
/** Reads the configuration that the options of a command name; `overrides` are `group.option` and win. */
export type ReadConfig = (overrides?: Readonly<Record<string, string>>, reading?: Reading) => Config

/**
 * Adds the options that every command of upstream's has. The result reads the configuration they name, in the order
 * they were given in.
 */
export function withConfigOptions(command: Command, program: string | readonly string[]): ReadConfig {
  const configs: Given[] = []
  const gather = (flag: string, help: string, make: (value: string) => Given) =>
    command.addOption(new Option(flag, help).argParser((value: string) => void configs.push(make(value))))
  gather('--config-file <file>', 'configuration file; may be repeated, the later one wins', (file) => ({ file }))
  gather('--config-dir <dir>', 'directory of *.conf files; may be repeated', (dir) => ({ dir }))
  command.option('-d, --debug', 'log details')
  return (overrides = {}, reading = {}) =>
    readConfig(
      {
        program: reading.program ?? program,
        ...(configs.length > 0 ? { configs } : {}),
        env: process.env,
        home: homedir(),
        overrides: command.opts<{ debug?: boolean }>().debug ? { ...overrides, debug: 'true' } : overrides,
      },
      reading.wrong,
    )
}
