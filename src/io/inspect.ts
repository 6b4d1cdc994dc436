import { ServiceError } from '../domain/errors.ts'
import { capture, tailOf } from './inspect/capture.ts'
import { gpt, iso } from './inspect/disc.ts'
import { luks } from './inspect/luks.ts'
import { type Failure, type Finding, LAST_MAX, type Probe } from './inspect/probe.ts'
import { qcow2, qed } from './inspect/qcow2.ts'
import { vdi } from './inspect/vdi.ts'
import { vhd, vhdx } from './inspect/vhd.ts'
import { vmdk } from './inspect/vmdk.ts'

/** Every format that can be told from its data; `raw` is data that none of them claims. */
const FORMATS = { qcow2, qed, vhd, vhdx, vmdk, vdi, iso, gpt, luks } as const satisfies Record<string, () => Probe>

export type FormatName = keyof typeof FORMATS | 'raw'

/** One format that the data may be taken for. */
export interface Match {
  readonly format: FormatName
  /** The variety of the format: create type of a vmdk; fixed, dynamic or differencing vhd. */
  readonly subformat?: string
  /** Bytes that a machine would see as the disk; undefined when the data does not say. */
  readonly virtualSize: number | undefined
  /** The safety checks that the data did not pass. */
  readonly failures: readonly Failure[]
}

export interface Inspection {
  /** Never empty: data that matches nothing else is `raw`, and then nothing but that. */
  readonly matches: readonly Match[]
}

/** Looks at image data as it passes and says what it is. Memory stays below 200 KiB however large the data is. */
export interface Inspector {
  /** Takes chunks of any size, and keeps nothing of `chunk` but copies. */
  update(chunk: Buffer): void
  /** Call once, after the last chunk. */
  end(): Inspection
}

export function inspector(): Inspector {
  const captures = Object.entries(FORMATS).map(([format, probe]) => ({
    format: format as FormatName,
    ...capture(probe()),
  }))
  const tail = tailOf(LAST_MAX)
  let size = 0
  let active = captures
  return {
    update: (chunk) => {
      if (active.length > 0) {
        for (const { update } of active) update(chunk, size)
        active = active.filter(({ waiting }) => waiting())
      }
      tail.update(chunk)
      size += chunk.length
    },
    end: () => {
      const matches = captures.flatMap(({ format, end }): readonly Match[] => {
        const finding = end(tail.bytes(), size)
        return finding === undefined ? [] : [match(format, finding)]
      })
      return { matches: matches.length > 0 ? matches : [{ format: 'raw', virtualSize: size, failures: [] }] }
    },
  }
}

function match(format: FormatName, { virtualSize, failures, ...finding }: Finding): Match {
  if (virtualSize === undefined || virtualSize <= Number.MAX_SAFE_INTEGER) {
    return { format, ...finding, virtualSize: virtualSize === undefined ? undefined : Number(virtualSize), failures }
  }
  const tooLarge = { check: 'virtual_size', reason: `A virtual size of ${virtualSize} bytes is not possible` }
  return { format, ...finding, virtualSize: undefined, failures: [...failures, tooLarge] }
}

export interface SafetyOptions {
  /** `vmdk_allowed_types` */
  readonly vmdkAllowedTypes: readonly string[]
  /** `gpt_safety_checks_nonfatal` */
  readonly gptNonfatal: readonly string[]
}
export interface JudgeOptions extends SafetyOptions {
  /** `require_image_format_match` */
  readonly requireMatch: boolean
}

export interface Verdict {
  /** Null when unknown. */
  readonly virtualSize: number | null
  /** What was let through although it is not as it should be; for the operator's log. */
  readonly warnings: readonly string[]
}

/**
 * Decides whether data of `size` bytes may be an image whose disk_format is `declared`.
 * Throws `unsupported-media-type` when it is something else, may be taken for several things, or is not safe.
 */
export function judge(inspection: Inspection, declared: string, size: number, options: JudgeOptions): Verdict {
  const found = single(inspection.matches, declared)
  if (found === undefined) {
    // Nobody knows as which of them it will be opened; a partition table alone leads nowhere else.
    const risky = inspection.matches.filter(({ format }) => format !== 'gpt')
    if (!options.requireMatch) for (const match of risky) checkSafety(match, options)
    return unmatched(severalFormats(inspection), options)
  }
  if (!fits(found.format, declared)) {
    return unmatched(`Image disk_format ${declared} does not match stream data ${found.format}`, options)
  }
  const tolerated = checkSafety(found, options)
  const disguised = declared === 'raw' && found.format !== 'raw'
  return {
    // Zero, too, means unknown.
    virtualSize: virtualSize(found, declared, size) || null,
    warnings: [...(disguised ? [`Image disk_format raw is really ${found.format}`] : []), ...tolerated],
  }
}

/**
 * The one format that the data has, for a program that shall read it as that and nothing else; a disk with a partition
 * table is raw. Throws `unsupported-media-type` when it may be taken for several, or is not safe.
 */
export function identify(inspection: Inspection, declared: string, options: SafetyOptions): FormatName {
  const found = single(inspection.matches, declared)
  if (found === undefined) throw new ServiceError('unsupported-media-type', severalFormats(inspection))
  checkSafety(found, options)
  return found.format === 'gpt' ? 'raw' : found.format
}

const severalFormats = ({ matches }: Inspection): string =>
  `Multiple formats detected: ${matches.map(({ format }) => format).join(', ')}`

/** The one format that the data has, or undefined when it may be taken for several. */
function single(matches: readonly Match[], declared: string): Match | undefined {
  if (matches.length === 1) return matches[0]
  if (matches.length > 2) return undefined
  const named = (format: FormatName) => matches.find((match) => match.format === format)
  const table = named('gpt')
  // A disc that also boots as a disk has a partition table in front.
  if (table && named('iso')) return named('iso')
  // A fixed vhd is the content of a disk, whose own partition table comes first, with a footer.
  if (table && named('vhd')?.subformat === 'fixed') return declared === 'vhd' ? named('vhd') : table
  return undefined
}

function fits(found: FormatName, declared: string): boolean {
  // raw promises nothing about the bytes; ami, aki, ari and ploop have nothing that could be looked for.
  const uninspectable = !Object.hasOwn(FORMATS, declared)
  return found === declared || declared === 'raw' || (found === 'raw' && uninspectable)
}

/** Safety checks belong to a format: where a mismatch is let through, there is none whose checks would count. */
function unmatched(reason: string, { requireMatch }: JudgeOptions): Verdict {
  if (requireMatch) throw new ServiceError('unsupported-media-type', reason)
  return { virtualSize: null, warnings: [reason] }
}

function virtualSize(found: Match, declared: string, size: number): number | undefined {
  if (declared === 'raw') return size
  return found.format === declared ? found.virtualSize : undefined
}

/** Throws if a check failed that matters; returns the reasons of those that do not. */
function checkSafety({ format, subformat, failures }: Match, options: SafetyOptions): readonly string[] {
  const allowed = options.vmdkAllowedTypes.map((type) => type.toLowerCase())
  const refused =
    format === 'vmdk' && (subformat === undefined || !allowed.includes(subformat.toLowerCase()))
      ? [...failures, { check: 'descriptor', reason: `Subformat ${subformat} is not in vmdk_allowed_types` }]
      : failures
  const tolerable = format === 'gpt' && refused.every(({ check }) => options.gptNonfatal.includes(check))
  if (refused.length > 0 && !tolerable) {
    throw new ServiceError('unsupported-media-type', 'Image failed safety checks', {
      detail: { format, failures: refused },
    })
  }
  return refused.map(({ reason }) => reason)
}
