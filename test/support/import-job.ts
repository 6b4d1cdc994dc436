import { randomUUID } from 'node:crypto'
import { mkdtemp, readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { ImageChange } from '../../src/db/database.ts'
import type { ImageId, StoreId, TaskId } from '../../src/domain/ids.ts'
import type { Image } from '../../src/domain/image.ts'
import type { ImportJob, Staging } from '../../src/imports/import.ts'
import { silentLog } from '../../src/log.ts'

/** An import that waits for steps to be run, with a staging directory of its own. */
export interface TestImport {
  readonly dir: string
  image: Image
  /** Bytes, as they were reported. */
  readonly progress: number[]
  /** The same import as another process would see it. */
  job(change?: Partial<ImportJob>): ImportJob
  stage(data: Buffer | string): Promise<void>
  staged(): Promise<Buffer>
  /** What there is in the directory beside the staged data. */
  leftovers(): Promise<readonly string[]>
  close(): Promise<void>
}

export async function startImport(given: Partial<Image> = {}): Promise<TestImport> {
  const dir = await mkdtemp(join(tmpdir(), 'glimpse-import-'))
  const imageId = randomUUID() as ImageId
  const task = randomUUID() as TaskId
  const path = (image: ImageId, suffix = '') => join(dir, suffix === '' ? image : `${image}.${suffix}`)
  const unused = async () => {
    throw new Error('not for this test')
  }
  const staging: Staging = {
    id: 'os_glance_staging_store' as StoreId,
    write: unused,
    read: unused,
    list: unused,
    close: async () => undefined,
    size: (image) =>
      stat(path(image)).then(
        ({ size }) => size,
        () => undefined,
      ),
    path,
    replace: (image, suffix) => rename(path(image, suffix), path(image)),
    remove: async (image) => {
      for (const name of await readdir(dir)) if (name.startsWith(image)) await rm(join(dir, name))
    },
  }
  const test: TestImport = {
    dir,
    image: {
      id: imageId,
      name: null,
      status: 'importing',
      visibility: 'private',
      owner: null,
      protected: false,
      hidden: false,
      size: null,
      virtualSize: null,
      minRam: 0,
      minDisk: 0,
      diskFormat: 'raw',
      containerFormat: 'bare',
      checksum: null,
      osHashAlgo: null,
      osHashValue: null,
      createdAt: new Date(),
      updatedAt: new Date(),
      tags: [],
      properties: new Map(),
      locations: [],
      ...given,
    },
    progress: [],
    job: (change) => ({
      task,
      imageId,
      tries: 1,
      image: () => test.image,
      stores: [],
      requester: { userId: undefined, projectId: undefined, roles: ['member'], token: undefined },
      staging,
      log: silentLog,
      sizeLimit: Number.POSITIVE_INFINITY,
      save: async (what) => {
        test.image = changed(test.image, what)
        return test.image
      },
      progress: (bytes) => void test.progress.push(bytes),
      ...change,
    }),
    stage: (data) => writeFile(path(imageId), data),
    staged: () => readFile(path(imageId)),
    leftovers: async () =>
      (await readdir(dir)).filter((name) => name !== imageId).map((name) => name.slice(imageId.length)),
    close: () => rm(dir, { recursive: true, force: true }),
  }
  return test
}

function changed(image: Image, { setProperties = new Map(), unsetProperties = [], ...attributes }: ImageChange): Image {
  const properties = new Map([...image.properties, ...setProperties])
  for (const name of unsetProperties) properties.delete(name)
  const { addLocations: _, locations: __, storageLimit: ___, ...plain } = attributes
  return { ...image, ...plain, properties }
}
