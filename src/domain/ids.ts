declare const brand: unique symbol
type Branded<T, Name extends string> = T & { readonly [brand]: Name }

export type ImageId = Branded<string, 'ImageId'>
export type ProjectId = Branded<string, 'ProjectId'>
export type UserId = Branded<string, 'UserId'>
export type StoreId = Branded<string, 'StoreId'>
export type TaskId = Branded<string, 'TaskId'>
/** One process that serves requests, unique over all nodes and restarts. */
export type WorkerId = Branded<string, 'WorkerId'>
/** One attempt to write the data of one image. */
export type AttemptId = Branded<string, 'AttemptId'>
/** Where a store keeps the bytes. May carry credentials: never logged, shown only by policy. */
export type LocationUri = Branded<string, 'LocationUri'>

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i

/** Whether `text` looks like an image id: hex digits with dashes, any case. */
export const isUuid = (text: string): boolean => UUID.test(text)
