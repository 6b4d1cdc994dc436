import { existsSync } from 'node:fs'
import { setTimeout as delay } from 'node:timers/promises'
import { Command } from 'commander'
import { ServiceError } from '../domain/errors.ts'
import type { ImageId } from '../domain/ids.ts'
import { openLog } from '../log.ts'
import { withConfigOptions } from './config-options.ts'

/** Of a scrubber of upstream's, which may be about to erase what is to be restored. */
const PID_FILE = '/var/run/glance/glance-scrubber.pid'

/** glance-scrubber: erases the data of images that were deleted with `delayed_delete`, or restores one. */
export function scrubberCommand(): Command {
  const command = new Command()
    .description('Erases the data of images whose delayed delete has come to its end.')
    .option('-D, --daemon', 'do so every wakeup_time seconds, until it is told to end')
    .option('--restore <image id>', 'make an image in pending_delete active again, and erase nothing')
  const read = withConfigOptions(command, ['glance-api', 'glance-scrubber'])
  return command.action(async (flags: { readonly daemon?: boolean; readonly restore?: string }) => {
    const config = read()
    const { debug, use_json: json, log_file: file, scrub_time, scrub_pool_size, wakeup_time } = config.DEFAULT
    const daemon = flags.daemon ?? config.DEFAULT.daemon
    if (flags.restore !== undefined && daemon)
      throw new ServiceError('invalid', '--restore and --daemon cannot go together.')
    if (flags.restore !== undefined && existsSync(PID_FILE))
      throw new ServiceError('invalid', `glance-scrubber is already running: ${PID_FILE} is there.`)
    const { openConfiguredDatabase, openConfiguredStores } = await import('../app.ts')
    const { scrub } = await import('../core/delayed-delete.ts')
    const log = openLog({ name: 'glance.scrubber', debug, json, file })
    const db = await openConfiguredDatabase(config, log)
    try {
      if (flags.restore !== undefined) {
        await db.delayed.restore(flags.restore as ImageId)
        log.info(`Image ${flags.restore} is active again`)
        return
      }
      const stores = await openConfiguredStores(config, log)
      const ending = new AbortController()
      for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => ending.abort())
      const { signal } = ending
      const pass = () => scrub({ db, stores, log }, { delayMs: scrub_time * 1000, parallel: scrub_pool_size, signal })
      try {
        if (!daemon) await pass()
        while (daemon && !signal.aborted) {
          await pass().catch((error: unknown) => log.error('Cannot scrub now', error))
          await delay(wakeup_time * 1000, undefined, { signal }).catch(() => undefined)
        }
      } finally {
        await stores.close()
      }
    } finally {
      await db.close()
      log.flush()
    }
  })
}
