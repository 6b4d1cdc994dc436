/** Who asks about what: the rows and columns of the policy matrix. */

/** Whoever is not of the service itself is of the project `pa`. */
export const CALLERS = {
  admin: 'admin:admin:admin,member,reader',
  member: 'alice:pa:member,reader',
  reader: 'rita:pa:reader',
  norole: 'norole:pa:',
  service: 'service:service:service',
  root: 'root::admin,member,reader:system=all',
} as const
export type Caller = keyof typeof CALLERS

/** Makes what requests are about. */
export const OWNERS = { pa: 'ada:pa:admin,member,reader', pb: 'bea:pb:admin,member,reader' } as const

export interface Situation {
  readonly owner: keyof typeof OWNERS
  readonly visibility: string
  /** Projects that a shared image is shared with. */
  readonly members: readonly string[]
}

const own = (visibility: string, members: readonly string[] = []): Situation => ({ owner: 'pa', visibility, members })
const foreign = (visibility: string, members: readonly string[] = []): Situation => ({
  owner: 'pb',
  visibility,
  members,
})

export const IMAGES: Readonly<Record<string, Situation>> = {
  'own private': own('private'),
  'own shared': own('shared', ['pc']),
  'own community': own('community'),
  'own public': own('public'),
  'foreign private': foreign('private'),
  'foreign shared with others': foreign('shared', ['pc']),
  'foreign shared with us': foreign('shared', ['pa', 'pc']),
  'foreign community': foreign('community'),
  'foreign public': foreign('public'),
}

export const NAMESPACES: Readonly<Record<string, Situation>> = {
  'own private': own('private'),
  'own public': own('public'),
  'foreign private': foreign('private'),
  'foreign public': foreign('public'),
}

/** What has no owner. */
export const NOTHING: Readonly<Record<string, Situation>> = { anything: own('private') }

/** One row for each situation, one column for each caller; the cells are what is answered. */
export type Block = Readonly<Record<string, Readonly<Record<string, string>>>>
export type Matrix = ReadonlyMap<string, Block>

const COLUMNS = Object.keys(CALLERS)

export const print = (about: string, matrix: Matrix): string =>
  [`# ${about}`, ...[...matrix].map(([title, block]) => ['', title, row('', COLUMNS), ...rows(block)].join('\n'))]
    .join('\n')
    .concat('\n')

const rows = (block: Block): readonly string[] =>
  Object.entries(block).map(([situation, cells]) =>
    row(
      situation,
      COLUMNS.map((caller) => cells[caller] ?? ''),
    ),
  )

const row = (first: string, cells: readonly string[]): string =>
  `  ${first.padEnd(28)}${cells.map((cell) => cell.padEnd(9)).join('')}`.trimEnd()

export function parse(text: string): Matrix {
  const blocks = text.split('\n\n').slice(1)
  return new Map(
    blocks.map((block) => {
      const [title = '', , ...lines] = block.trimEnd().split('\n')
      const parsed = lines.map((line) => {
        const cells = line.slice(30).trim().split(/\s+/)
        return [
          line.slice(2, 30).trim(),
          Object.fromEntries(COLUMNS.map((caller, index) => [caller, cells[index] ?? ''])),
        ]
      })
      return [title, Object.fromEntries(parsed) as Block]
    }),
  )
}
