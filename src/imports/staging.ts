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

const imageOf = (name: string) => NAME.exec(name)?.[1] as ImageId | undefined

/** `driver` keeps its data in files `<directory>/<image id>`, and what is unfinished beside them as `.<image id>.…`. */
export function openStaging(driver: StoreDriver, directory: string): Staging {
  const path = (image: ImageId, suffix = '') => join(directory, suffix === '' ? image : `${image}.${suffix}`)
  const uri = (image: ImageId) => `file://${path(image)}` as LocationUri
  const forever = () => new AbortController().signal

  const namesOf = async (image: ImageId): Promise<readonly string[]> =>
    (await readdir(directory)).filter((name) => imageOf(name) === image)
  const isOlder = async (name: string, ageMs: number): Promise<boolean> => {
    const found = await stat(join(directory, name)).catch(() => undefined) // somebody else may have removed it
    return found !== undefined && found.mtimeMs <= Date.now() - ageMs
  }
  const drop = (name: string) => rm(join(directory, name), { force: true })

  return {
    id: STAGING_STORE,
    write: async (image, body, { size, taps = [], signal }) => {
      for (const name of await namesOf(image)) if (name.startsWith('.')) await drop(name)
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
    remove: async (image, ageMs = 0) => {
      for (const name of await namesOf(image)) if (ageMs === 0 || (await isOlder(name, ageMs))) await drop(name)
    },
    list: async () => [...new Set((await readdir(directory)).flatMap((name) => imageOf(name) ?? []))],
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
