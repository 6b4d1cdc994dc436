import { homedir } from 'node:os'
import { type Command, Option } from 'commander'
import { type Config, readConfig } from '../config/config.ts'

type Given = { readonly file: string } | { readonly dir: string }

/**
 * Adds the options that every command of upstream's has. The result reads the configuration they name, in the order
 * they were given in; `overrides` are `group.option` and win.
 */
export function withConfigOptions(
  command: Command,
  program: string | readonly string[],
): (overrides?: Readonly<Record<string, string>>) => Config {
  const configs: Given[] = []
  const gather = (flag: string, help: string, make: (value: string) => Given) =>
    command.addOption(new Option(flag, help).argParser((value: string) => void configs.push(make(value))))
  gather('--config-file <file>', 'configuration file; may be repeated, the later one wins', (file) => ({ file }))
  gather('--config-dir <dir>', 'directory of *.conf files; may be repeated', (dir) => ({ dir }))
  command.option('-d, --debug', 'log details')
  return (overrides = {}) =>
    readConfig({
      program,
      ...(configs.length > 0 ? { configs } : {}),
      env: process.env,
      home: homedir(),
      overrides: command.opts<{ debug?: boolean }>().debug ? { ...overrides, debug: 'true' } : overrides,
    })
}
