import type { Image } from '../domain/image.ts'
import { inspector, judge } from './inspect.ts'
import type { Tap } from './pump.ts'

/** What image data must be. */
export interface FormatRules {
  /** Whether the data must be of the format that the image states. */
  readonly requireFormatMatch: boolean
  readonly vmdkAllowedTypes: readonly string[]
  readonly gptNonfatal: readonly string[]
}

export interface Inspection extends Tap {
  /** Bytes that a machine would see as the disk; null when that is unknown, or the data has not ended yet. */
  virtualSize(): number | null
}

/**
 * Looks at the format while the data passes; at its end refuses what is not as stated, before the store keeps it.
 * Only data in a `bare` container is looked at.
 */
export function inspection(
  { containerFormat, diskFormat }: Pick<Image, 'containerFormat' | 'diskFormat'>,
  { requireFormatMatch: requireMatch, vmdkAllowedTypes, gptNonfatal }: FormatRules,
  warn: (message: string) => void,
): Inspection {
  if (containerFormat !== 'bare') return { update: () => undefined, virtualSize: () => null }
  const { update, end } = inspector()
  let size = 0
  let virtualSize: number | null = null
  return {
    update: (chunk) => {
      size += chunk.length
      update(chunk)
    },
    end: () => {
      const verdict = judge(end(), diskFormat ?? 'raw', size, { requireMatch, vmdkAllowedTypes, gptNonfatal })
      verdict.warnings.forEach(warn)
      virtualSize = verdict.virtualSize
    },
    virtualSize: () => virtualSize,
  }
}
