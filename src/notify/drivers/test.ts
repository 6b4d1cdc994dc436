import type { Message, NotifyDriver } from '../driver.ts'

/** The latest notifications of this process, for tests of whatever embeds the service. */
export const NOTIFICATIONS: Message[] = []
const KEPT = 1000

export const testDriver = (): NotifyDriver => ({
  accept: (message) => {
    NOTIFICATIONS.push(message)
    if (NOTIFICATIONS.length > KEPT) NOTIFICATIONS.shift()
  },
  close: async () => undefined,
})
