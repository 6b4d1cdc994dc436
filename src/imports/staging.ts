import { randomUUID } from 'node:crypto'
import { readdir, rename, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { hasKind, ServiceError } from '../domain/errors.ts'
import type { AttemptId, ImageId, LocationUri, StoreId } from '../domain/ids.ts'
import type { ByteSource } from '../io/bytes.ts'
import type { Tap } from '../io/pump.ts'
import type { StoreDriver } from '../store/driver.ts'
import type { Staging } from './import.ts'

/** As upstream calls it. */
export const STAGING_STORE = 'os_glance_staging_store' as StoreId

/** `<id>` and `<id>.suffix`; what the driver has not finished begins with a dot. */
const NAME = /^\.?([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})(?:\.|$)/

/** `driver` keeps its data in files `<directory>/<image id>`, and what is unfinished beside them as `.<image id>.…`. */
export function openStaging(driver: StoreDriver, directory: string): Staging {
  const path = (image: ImageId, suffix = '') => join(directory, suffix === '' ? image : `${image}.${suffix}`)
  const uri = (image: ImageId) => `file://${path(image)}` as LocationUri
  const forever = () => new AbortController().signal

  const namesOf = async (image: ImageId): Promise<readonly string[]> =>
    (await readdir(directory)).filter((name) => NAME.exec(name)?.[1] === image)
  const removeAll = async (names: readonly string[]): Promise<void> => {
    for (const name of names) await rm(join(directory, name), { force: true })
  }

  return {
    id: STAGING_STORE,
    write: async (image, body, { size, taps = [], signal }) => {
      await removeAll((await namesOf(image)).filter((name) => name.startsWith('.')))
      const attempt = randomUUID() as AttemptId
      const sized = size === undefined ? {} : { size }
      return (await driver.write(image, tapped(body, taps), { ...sized, attempt, signal })).size
    },
    read: (image, range, signal) => driver.read(uri(image), { ...range, signal }),
    size: async (image) => {
      try {
        return (await driver.stat(uri(image), { signal: forever() })).size
      } catch (error) {
        if (hasKind(error, 'not-found')) return undefined
        throw error
      }
    },
    path,
    replace: (image, suffix) => rename(path(image, suffix), path(image)),
    remove: async (image) => removeAll(await namesOf(image)),
    list: async (ageMs) => {
      const found = new Set<ImageId>()
      const before = Date.now() - ageMs
      for (const name of await readdir(directory)) {
        const image = NAME.exec(name)?.[1]
        if (image === undefined) continue
        const changed = await stat(join(directory, name)).then(
          ({ mtimeMs }) => mtimeMs,
          () => Number.POSITIVE_INFINITY, // somebody else removed it
        )
        if (changed <= before) found.add(image as ImageId)
      }
      return [...found]
    },
    close: () => driver.close(),
  }
}

async function* tapped(body: ByteSource, taps: readonly Tap[]): ByteSource {
  for await (const chunk of body) {
    for (const tap of taps) tap.update(chunk)
    yield chunk
  }
  for (const tap of taps) tap.end?.()
}

/** Where there is none: nothing is ever in it, and nothing gets in. `why` is for clients. */
export function noStaging(why: string): Staging {
  const refuse = async () => {
    throw new ServiceError('unavailable', why)
  }
  return {
    id: STAGING_STORE,
    write: refuse,
    read: refuse,
    size: async () => undefined,
    path: (image) => image,
    replace: refuse,
    remove: async () => undefined,
    list: async () => [],
    close: async () => undefined,
  }
}
