/**
 * Records test/notify/events.json from a running server, usually upstream Glance, that notifies over RabbitMQ:
 *
 *     tools/record-notifications.ts URL AMQP_URL
 *
 * Its stores are `fast` (default) and `cheap`, its user_storage_quota is 100B, its driver is messagingv2, and its
 * identity service takes tokens of the form USER:PROJECT:ROLES.
 */
import { writeFile } from 'node:fs/promises'
import { clear, play, STEPS } from '../test/notify/scenario.ts'
import { listen } from '../test/support/servers/rabbitmq.ts'

const [url, amqp] = process.argv.slice(2)
if (url === undefined || amqp === undefined) {
  console.error('usage: record-notifications.ts URL AMQP_URL')
  process.exit(2)
}
await clear(url)
const listener = await listen(amqp)
try {
  const told = await play(url, STEPS, listener.received)
  const file = new URL('../test/notify/events.json', import.meta.url)
  await writeFile(file, `${JSON.stringify(told, null, 2)}\n`)
} finally {
  await listener.close()
}
