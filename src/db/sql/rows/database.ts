import type { RowDatabase } from '../../rows.ts'
import type { Connection } from '../session.ts'
import { badArguments, type Commands, checkArguments, checkCharacters } from './command.ts'
import { imageListCommands } from './image-list.ts'
import { imageCommands } from './images.ts'
import { memberCommands } from './members.ts'
import { metadefCommands } from './metadefs.ts'
import { rowTables } from './table.ts'
import { taskCommands } from './tasks.ts'

const COMMANDS: Commands = {
  ...imageCommands,
  ...imageListCommands,
  ...memberCommands,
  ...taskCommands,
  ...metadefCommands,
}

/** Glance's tables by its old commands. */
export const rowDatabase = (connection: Connection): RowDatabase => {
  const tables = rowTables(connection)
  return {
    has: (name) => Object.hasOwn(COMMANDS, name),
    run: async (name, context, args) => {
      const command = Object.hasOwn(COMMANDS, name) ? COMMANDS[name] : undefined
      if (command === undefined) throw badArguments(`There is no command ${name}`)
      checkArguments(name, command, args)
      if (command.effect === 'write') checkCharacters(args)
      const desk = { ...tables, context, facts: connection.facts }
      return connection[command.effect]((session) => command.run({ ...desk, session }, args))
    },
  }
}
