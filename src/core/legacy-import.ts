import type { NewImage } from '../db/database.ts'
import { hasKind, ServiceError } from '../domain/errors.ts'
import type { ImageId } from '../domain/ids.ts'
import { whenceTo } from '../domain/image.ts'
import type { Task } from '../domain/task.ts'
import { shownUri } from '../imports/http-client.ts'
import type { Step } from '../imports/import.ts'
import type { Flow, RunningJob } from '../imports/runner.ts'
import type { Core, RequestContext } from './core.ts'
import { admitFormats, eraseData } from './image-data.ts'
import { type ImageDraft, newImage } from './images.ts'
import { importFlow, orderOf } from './import-flow.ts'
import { beginWork } from './jobs.ts'

/** A task of type `import`: a new image of what is at an address. */
export interface LegacyImport {
  readonly uri: string
  readonly image: ImageDraft
}

const METHOD = 'web-download'

/** Makes the image and begins to download its data. Throws what makes the image impossible. */
export async function beginLegacyImport(
  core: Core,
  ctx: RequestContext,
  { uri, image: draft }: LegacyImport,
  input: Readonly<Record<string, unknown>>,
  about: ImageId | null,
): Promise<Task> {
  if (core.imports.methods.every(({ name }) => name !== METHOD)) {
    throw new ServiceError('unavailable', `Import method '${METHOD}' is not available`)
  }
  const image: NewImage = newImage(core, ctx, draft)
  admitFormats(image)
  return beginWork(core, ctx, {
    type: 'import',
    input: { ...input, import_from: shownUri(uri) },
    image,
    about,
    context: { roles: ctx.identity.roles, uri },
    change: { image: { status: 'importing' }, from: ['queued'] },
    flow: (running) => legacyFlow(core, running),
  })
}

/** As an import by web-download into the default store, without its lists of stores; when it fails, there is no image. */
export async function legacyFlow(core: Core, running: RunningJob): Promise<Flow> {
  const { uri } = running.job.context as { readonly uri: string }
  const flow = await importFlow(core, running, { order: orderOf(core, { name: METHOD, uri }, [null]) })
  const image: Step = {
    name: 'image',
    run: async () => undefined,
    undo: async () => {
      const gone = await core.db.images.remove(running.job.imageId, whenceTo('deleted')).catch((error: unknown) => {
        if (!hasKind(error, 'not-found')) throw error
      })
      if (gone === undefined) return
      core.notifier.notify({ type: 'image.delete', image: { ...gone, status: 'deleted' } })
      await eraseData(core, gone.id, gone.locations)
    },
  }
  return {
    ...flow,
    steps: [image, ...flow.steps],
    done: () => {
      const { image: { setProperties: _, ...change } = {}, ...rest } = flow.done()
      return { ...rest, image: change }
    },
  }
}
