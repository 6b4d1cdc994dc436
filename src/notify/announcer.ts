import { createMessage, type NotifyDriver } from './driver.ts'
import { type Notifier, silentNotifier } from './notifier.ts'

export interface AnnouncerOptions {
  readonly drivers: readonly NotifyDriver[]
  readonly publisher: string
  /** Events that are not told: by their names, or by the first word of these. */
  readonly disabled: readonly string[]
  /** What waiting messages get when the notifier closes. */
  readonly drainMs: number
}

/** Tells every driver of what happens. */
export function announcer({ drivers, publisher, disabled, drainMs }: AnnouncerOptions): Notifier {
  if (drivers.length === 0) return silentNotifier
  const silenced = new Set(disabled)
  return {
    notify: (event) => {
      if (silenced.has(event.type) || silenced.has(event.type.slice(0, event.type.indexOf('.')))) return
      const message = createMessage(event, publisher)
      for (const driver of drivers) driver.accept(message)
    },
    close: async () => {
      await Promise.all(drivers.map((driver) => driver.close(drainMs)))
    },
  }
}
