import type { Database } from './database.ts'

/** What repeating a call does: nothing, or the change once more. */
export type Effect = 'read' | 'write'

type Callable = (...args: never) => unknown
/** One line for each method of `T`; one that is missing, or not there any more, is a type error. */
type Table<T> = {
  readonly [Name in Exclude<keyof T, 'close'>]-?: NonNullable<T[Name]> extends Callable
    ? Effect
    : Table<NonNullable<T[Name]>>
}

const DEFINITIONS = {
  list: 'read',
  get: 'read',
  insert: 'write',
  replace: 'write',
  remove: 'write',
  clear: 'write',
} as const

/** Every method of the database that a registry serves. */
export const METHODS = {
  images: {
    insert: 'write',
    get: 'read',
    list: 'read',
    update: 'write',
    usage: 'read',
    ownerUsage: 'read',
    addTag: 'write',
    removeTag: 'write',
    remove: 'write',
    dropLocation: 'write',
    restoreLocation: 'write',
    undropped: 'read',
    claim: 'write',
    settle: 'write',
  },
  members: { add: 'write', list: 'read', get: 'read', setStatus: 'write', remove: 'write' },
  workers: { renew: 'write', list: 'read', claims: 'read', takeOver: 'write', remove: 'write' },
  metadefs: {
    insert: 'write',
    get: 'read',
    list: 'read',
    replace: 'write',
    remove: 'write',
    contents: 'read',
    load: 'write',
    clear: 'write',
    objects: DEFINITIONS,
    properties: DEFINITIONS,
    tags: { ...DEFINITIONS, page: 'read', insertAll: 'write' },
    associations: { list: 'read', insert: 'write', remove: 'write' },
    resourceTypes: 'read',
  },
  cached: { addNode: 'write', list: 'read', put: 'write', touch: 'write', remove: 'write', nodes: 'read' },
  tasks: { insert: 'write', get: 'read', list: 'read', ofImage: 'read', update: 'write', forgetExpired: 'write' },
  maintenance: { survey: 'read', purgeable: 'read', purge: 'write' },
  delayed: { over: 'read', end: 'write', restore: 'write' },
  jobs: { begin: 'write', advance: 'write', finish: 'write', list: 'read', takeOver: 'write' },
} as const satisfies Table<Database>

interface Tree {
  readonly [name: string]: Effect | Tree
}

export type Call = (...args: readonly unknown[]) => Promise<unknown>

/** A database whose methods `make` makes, from names such as `metadefs.objects.list`. */
export function databaseOf(make: (name: string, effect: Effect) => Call): Omit<Database, 'close'> {
  const grow = (tree: Tree, prefix: string): unknown =>
    Object.fromEntries(
      Object.entries(tree).map(([name, below]) => [
        name,
        typeof below === 'string' ? make(prefix + name, below) : grow(below, `${prefix}${name}.`),
      ]),
    )
  return grow(METHODS, '') as Omit<Database, 'close'>
}

/** The methods of a database by those names. */
export function methodsOf(db: Database): ReadonlyMap<string, Call> {
  const found = new Map<string, Call>()
  const walk = (tree: Tree, node: Readonly<Record<string, unknown>>, prefix: string): void => {
    for (const [name, below] of Object.entries(tree)) {
      const member = node[name]
      if (typeof below === 'string') found.set(prefix + name, (member as Call).bind(node))
      else walk(below, member as Readonly<Record<string, unknown>>, `${prefix}${name}.`)
    }
  }
  walk(METHODS, db as unknown as Readonly<Record<string, unknown>>, '')
  return found
}
