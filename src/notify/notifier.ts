import type { Identity } from '../auth/identity.ts'
import type { ImageId, StoreId } from '../domain/ids.ts'
import type { Image, Member } from '../domain/image.ts'
import type { Association, MetadefObject, MetadefProperty, MetadefTag, Namespace } from '../domain/metadef.ts'
import type { Task } from '../domain/task.ts'

/** Something that happened. Names are those of Glance. */
export type Notification =
  | { readonly type: 'image.create' | 'image.update' | 'image.activate' | 'image.delete'; readonly image: Image }
  /** `store` is where the data goes, when a client could have chosen another. */
  | { readonly type: 'image.prepare'; readonly image: Image; readonly store: StoreId | undefined }
  | { readonly type: 'image.upload'; readonly image: Image }
  /** No data came to be: `failure` says why, for the eyes of others than the client. */
  | { readonly type: 'image.upload'; readonly imageId: ImageId; readonly failure: string }
  | {
      readonly type: 'image.send'
      readonly image: Image
      /** Bytes that went out, and that should have. */
      readonly bytes: number
      readonly expected: number
      readonly to: Identity
    }
  | { readonly type: 'image.member.create' | 'image.member.update' | 'image.member.delete'; readonly member: Member }
  | {
      readonly type: 'task.create' | 'task.run' | 'task.processing' | 'task.success' | 'task.failure' | 'task.delete'
      readonly task: Task
    }
  | {
      readonly type: `metadef_namespace.${DefinitionChange | 'delete_objects' | 'delete_properties' | 'delete_tags'}`
      readonly namespace: Namespace
      readonly oldName?: string
    }
  | Defined<`metadef_object.${DefinitionChange}`, MetadefObject>
  | Defined<`metadef_property.${DefinitionChange}`, MetadefProperty>
  | Defined<`metadef_tag.${DefinitionChange}`, MetadefTag>
  | Defined<'metadef_resource_type.create' | 'metadef_resource_type.delete', Association>

type DefinitionChange = 'create' | 'update' | 'delete'

/** Something in a namespace; `oldName` is what it was called before. */
interface Defined<Type extends string, Item> {
  readonly type: Type
  readonly namespace: string
  readonly item: Item
  readonly oldName?: string
}

export interface Notifier {
  /** Queues and returns. Delivery failures are logged, never thrown: the operation already happened. */
  notify(event: Notification): void
  /** Delivers what is queued, as far as the time for that allows, then stops. */
  close(): Promise<void>
}

/** Tells nobody: upstream's default. */
export const silentNotifier: Notifier = { notify: () => undefined, close: async () => undefined }
