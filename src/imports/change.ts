import { hasKind } from '../domain/errors.ts'
import type { Image } from '../domain/image.ts'
import type { ImportJob } from './import.ts'
import { note } from './notes.ts'

type Attributes = Partial<Pick<Image, 'diskFormat' | 'containerFormat' | 'size' | 'virtualSize'>>

/** What a step may change of an image, and can take back. */
export interface RevocableChange extends Attributes {
  readonly setProperties?: ReadonlyMap<string, string>
}

/** What was there before. */
interface Before {
  readonly attributes: Attributes
  readonly set: readonly (readonly [name: string, value: string | null])[]
  readonly unset: readonly string[]
}

type Job = Pick<ImportJob, 'staging' | 'imageId' | 'task' | 'image' | 'save'>

const before = ({ staging, imageId, task }: Job, step: string) => note<Before>(staging, imageId, task, `${step}.before`)

/** Changes the image; what a step changes it says at once. Doing it again changes nothing, not even what `restore` does. */
export async function change(job: Job, step: string, wanted: RevocableChange): Promise<void> {
  const remembered = before(job, step)
  if ((await remembered.read()) === undefined) await remembered.write(snapshot(job.image(), wanted))
  await job.save(wanted)
}

/** Takes back what `change` did for the same step, in whatever process that was. */
export async function restore(job: Job, step: string): Promise<void> {
  const remembered = before(job, step)
  const known = await remembered.read()
  if (known === undefined) return
  try {
    await job.save({ ...known.attributes, setProperties: new Map(known.set), unsetProperties: known.unset })
  } catch (error) {
    // A deleted image has nothing to restore.
    if (!hasKind(error, 'not-found')) throw error
  }
  await remembered.remove()
}

function snapshot(image: Image, { setProperties = new Map(), ...attributes }: RevocableChange): Before {
  const names = [...setProperties.keys()]
  return {
    attributes: Object.fromEntries(Object.keys(attributes).map((name) => [name, image[name as keyof Attributes]])),
    set: names.filter((name) => image.properties.has(name)).map((name) => [name, image.properties.get(name) ?? null]),
    unset: names.filter((name) => !image.properties.has(name)),
  }
}
