import { Command } from 'commander'
import type { ImageCache } from '../cache/cache.ts'
import type { Config } from '../config/config.ts'
import { ServiceError } from '../domain/errors.ts'
import { openLog } from '../log.ts'
import { withConfigOptions } from './config-options.ts'

type Job = (config: Config, log: ReturnType<typeof openLog>) => Promise<void>

/** A command that looks once after the cache of this node, and ends. */
function jobCommand(name: string, description: string, instead: string, job: Job): Command {
  const command = new Command().description(`${description} Deprecated: ${instead} does the same.`)
  const read = withConfigOptions(command, ['glance-api', 'glance-cache'])
  return command.action(async () => {
    console.error(`${name} is deprecated: ${instead} does the same.`)
    const config = read()
    if (!config.DEFAULT.image_cache_dir) throw new ServiceError('invalid', 'image_cache_dir is not set')
    const { debug, use_json: json, log_file: file } = config.DEFAULT
    const log = openLog({ name: name.replaceAll('-', '.'), debug, json, file })
    try {
      await job(config, log)
    } finally {
      log.flush()
    }
  })
}

/** glance-cache-prefetcher */
export const prefetcherCommand = (): Command =>
  jobCommand(
    'glance-cache-prefetcher',
    'Caches the images that are queued on this node.',
    'the running service',
    async (config, log) => {
      const { openApp } = await import('../app.ts')
      const { prefetchQueued } = await import('../core/cached-images.ts')
      const app = await openApp({ config, log })
      try {
        await prefetchQueued(app.core)
      } finally {
        await app.close(0)
      }
    },
  )

/** glance-cache-pruner */
export const prunerCommand = (): Command =>
  jobCommand(
    'glance-cache-pruner',
    'Evicts images from the cache of this node until it is within image_cache_max_size.',
    'POST /v2/cache/prune',
    async (config, log) => {
      await withCache(config, log, async (cache) => {
        const { files, bytes } = await cache.prune()
        log.info(`Pruned ${files} files with ${bytes} bytes`)
      })
    },
  )

/** glance-cache-cleaner */
export const cleanerCommand = (): Command =>
  jobCommand(
    'glance-cache-cleaner',
    'Removes what failed or stalled from the cache of this node.',
    'POST /v2/cache/clean',
    (config, log) => withCache(config, log, (cache) => cache.clean()),
  )

const withCache: (
  config: Config,
  log: Parameters<Job>[1],
  work: (cache: ImageCache) => Promise<void>,
) => Promise<void> = async (config, log, work) => {
  const { openConfiguredCache, openConfiguredDatabase } = await import('../app.ts')
  const db = await openConfiguredDatabase(config, log)
  try {
    const cache = await openConfiguredCache(config, db, log)
    try {
      if (cache !== undefined) await work(cache)
    } finally {
      await cache?.close()
    }
  } finally {
    await db.close()
  }
}
