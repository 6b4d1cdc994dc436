import { randomUUID } from 'node:crypto'
import type { Notification } from './notifier.ts'
import { type Payload, type Priority, tell } from './payloads.ts'

/** One notification, ready to be sent. */
export interface Message {
  /** A UUID; the same however often the message is sent. */
  readonly id: string
  readonly event: Notification['type']
  readonly priority: Priority
  readonly publisher: string
  readonly time: Date
  readonly payload: Payload | string
  /** All of this as an object of oslo.messaging. */
  readonly json: string
}

/** One way of telling others. */
export interface NotifyDriver {
  /** Takes the message and returns at once. Never throws. */
  accept(message: Message): void
  /** Delivers what it has taken, within `timeoutMs`. */
  close(timeoutMs: number): Promise<void>
}

export function createMessage(event: Notification, publisher: string): Message {
  const time = new Date()
  const { priority, payload } = tell(event, time)
  const id = randomUUID()
  const json = JSON.stringify({
    message_id: id,
    publisher_id: publisher,
    event_type: event.type,
    priority,
    payload,
    timestamp: timestamp(time),
  })
  return { id, event: event.type, priority, publisher, time, payload, json }
}

/** As Python prints a time: six digits behind the point, or none and no point at a full second. */
function timestamp(time: Date): string {
  const [seconds = '', fraction] = time.toISOString().replace('T', ' ').replace('Z', '').split('.')
  return fraction === '000' ? seconds : `${seconds}.${fraction}000`
}
