import type { OptionGroup, Values } from '../config/options.ts'
import type { SafetyOptions } from '../io/inspect.ts'
import type { Log } from '../log.ts'
import type { ImportPlugin } from './import.ts'

/** What a plugin receives of the service. */
export interface PluginTools {
  /** What image data may be. */
  readonly formats: SafetyOptions
  readonly log: Log
  /** Seconds that one program run by a plugin may take. */
  readonly programSeconds: number
}

/** A kind of plugin: what a name in `image_import_plugins` stands for. */
export interface PluginType<Group extends OptionGroup = OptionGroup> {
  readonly name: string
  /** Where its options stand. */
  readonly group: string
  readonly options: Group
  /** Throws `invalid` with a message for the operator when the configuration cannot work. */
  open(config: Values<Group>, tools: PluginTools): ImportPlugin | Promise<ImportPlugin>
}

/** Gives `open` its argument's type from `options`. */
export const definePlugin = <const Group extends OptionGroup>(plugin: PluginType<Group>): PluginType<Group> => plugin
