import type { ProjectId } from '../domain/ids.ts'

/** What Keystone's limits count, under upstream's names; sizes in MiB. */
export const RESOURCES = [
  'image_size_total',
  'image_stage_total',
  'image_count_total',
  'image_count_uploading',
] as const
export type Resource = (typeof RESOURCES)[number]
/** -1 means no limit. */
export type ResourceLimits = Readonly<Record<Resource, number>>

/** Limits of projects, which somebody else keeps. */
export interface ProjectLimits {
  /** Of what belongs to no project: null. Throws `unavailable`. */
  of(project: ProjectId | null): Promise<ResourceLimits>
  close(): Promise<void>
}
