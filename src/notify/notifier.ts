import type { Identity } from '../auth/identity.ts'
import type { Image, Member } from '../domain/image.ts'
import type { Task } from '../domain/task.ts'

export type Notification =
  | {
      readonly type:
        | 'image.create'
        | 'image.update'
        | 'image.prepare'
        | 'image.upload'
        | 'image.activate'
        | 'image.delete'
        | 'image.deactivate'
        | 'image.reactivate'
      readonly image: Image
    }
  | { readonly type: 'image.send'; readonly image: Image; readonly bytes: number; readonly to: Identity }
  | { readonly type: 'image.member.create' | 'image.member.update' | 'image.member.delete'; readonly member: Member }
  | {
      readonly type: 'task.create' | 'task.run' | 'task.processing' | 'task.success' | 'task.failure'
      readonly task: Task
    }

export interface Notifier {
  /** Queues and returns. Delivery failures are logged, never thrown: the operation already happened. */
  notify(event: Notification): void
  /** Delivers what is queued, then stops. */
  close(): Promise<void>
}

/** Tells nobody: upstream's default. */
export const silentNotifier: Notifier = { notify: () => undefined, close: async () => undefined }
