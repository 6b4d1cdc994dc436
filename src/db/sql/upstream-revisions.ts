import { ServiceError } from '../../domain/errors.ts'

/** Upstream's releases that have revisions of the schema, oldest first: each has one in either of its two branches. */
export const RELEASES: readonly string[] = ['train', 'ussuri', 'wallaby', 'xena', 'yoga', 'zed', '2023_1', '2024_1']

/** What Glance up to Rocky left, of which only the last can be on the way to Train. */
const BEFORE_TRAIN = [
  ...['liberty', 'mitaka01', 'mitaka02', 'ocata01', 'ocata_expand01', 'ocata_contract01', 'pike01', 'pike_expand01'],
  ...[
    'pike_contract01',
    'queens_expand01',
    'queens_contract01',
    'rocky_expand01',
    'rocky_contract01',
    'rocky_expand02',
  ],
]
const ROCKY = 'rocky_contract02'

/**
 * How far a database is in the two branches, as indices of RELEASES; the contract branch may be at -1, which is Rocky.
 * What a release contracts depends on what it expands, so that `expand` is never behind.
 */
export interface Level {
  readonly expand: number
  readonly contract: number
}

const NEWEST = RELEASES.length - 1
/** Where a database is up to date. */
export const NEWEST_LEVEL: Level = { expand: NEWEST, contract: NEWEST }
/** From here on there is everything that the service itself needs: the tables of the image cache came later. */
export const SERVABLE = RELEASES.indexOf('wallaby')

export const expandRevision = (release: number): string => `${RELEASES[release]}_expand01`
export const contractRevision = (release: number): string => (release < 0 ? ROCKY : `${RELEASES[release]}_contract01`)

const parse = (revision: string): { readonly branch: keyof Level; readonly release: number } | undefined => {
  if (revision === ROCKY) return { branch: 'contract', release: -1 }
  const [, name = '', branch] = /^(\w+)_(expand|contract)01$/.exec(revision) ?? []
  const release = RELEASES.indexOf(name)
  return release < 0 ? undefined : { branch: branch as keyof Level, release }
}

/** Whether upstream has, or had, such a revision. */
export const isRevision = (text: string): boolean => parse(text) !== undefined || BEFORE_TRAIN.includes(text)

/**
 * What the rows of `alembic_version` mean. Throws `unavailable` for a database older than Train, and for one of a
 * later Glance.
 */
export const levelOf = (heads: readonly string[]): Level => {
  let contract: number | undefined
  let expand = -1
  for (const head of heads) {
    const known = parse(head)
    if (known === undefined && !BEFORE_TRAIN.includes(head))
      throw new ServiceError('unavailable', `The database schema is at ${head}, which is newer than this service knows`)
    if (known?.branch === 'contract') contract = known.release
    // Upstream's table names no ancestors: what has been contracted has been expanded.
    if (known) expand = Math.max(expand, known.release)
  }
  if (contract === undefined && expand >= 0)
    throw new ServiceError(
      'unavailable',
      `The database schema is at ${heads.join(', ')}, half made by Glance: finish it with its own glance-manage db migrate and db contract`,
    )
  if (contract === undefined || expand < 0)
    throw new ServiceError(
      'unavailable',
      `The database schema is at ${heads.join(', ')}, which is older than Train: upgrade it with Glance 19.0 or later first`,
    )
  return { expand, contract }
}

/** The rows of `alembic_version` that say so. */
export const headsOf = ({ expand, contract }: Level): readonly string[] =>
  expand === contract ? [contractRevision(contract)] : [contractRevision(contract), expandRevision(expand)]

/** What must be reached for a revision to be in force; undefined for what is none. */
export const targetOf = (revision: string): Level | undefined => {
  if (revision === 'heads' || revision === 'contract@head') return NEWEST_LEVEL
  if (revision === 'expand@head') return { expand: NEWEST, contract: -1 }
  const known = parse(revision)
  if (known) return { expand: known.release, contract: known.branch === 'contract' ? known.release : -1 }
  return BEFORE_TRAIN.includes(revision) ? { expand: -1, contract: -1 } : undefined
}
