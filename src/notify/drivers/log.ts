import type { Log } from '../../log.ts'
import type { NotifyDriver } from '../driver.ts'

/** Writes notifications to the log, under names that begin with `oslo.messaging.notification.` as upstream does. */
export const logDriver = (log: Log): NotifyDriver => ({
  accept: (message) => {
    const at = log.with({ logger: `oslo.messaging.notification.${message.event}` })
    at[message.priority === 'ERROR' ? 'error' : 'info'](discreet(message.json))
  },
  close: async () => undefined,
})

/** Members that may hold a password, by parts of their names (oslo_utils.strutils). */
const SECRET = /admin_?pass|password|auth_?token|new_?pass|secret|sys_pswd|token|passphrase|private_?key|access_?key/i

const discreet = (json: string): string =>
  SECRET.test(json)
    ? JSON.stringify(JSON.parse(json), (name, value: unknown) =>
        typeof value === 'string' && SECRET.test(name) ? '***' : value,
      )
    : json
