import { readdir, readFile, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { LoadMode, MetadefRepository, Scope } from '../db/database.ts'
import { ServiceError } from '../domain/errors.ts'
import type { ProjectId } from '../domain/ids.ts'
import type {
  DefinitionDrafts,
  Definitions,
  Namespace,
  NamespaceAttributes,
  PropertySchema,
} from '../domain/metadef.ts'

/** Where the lines go that tell an operator what has been done. */
export interface Report {
  info(line: string): void
  error(line: string): void
}

type Json = Readonly<Record<string, unknown>>

const EVERYTHING: Scope = { admin: true, project: undefined }

/** What `--merge`, `--prefer_new` and `--overwrite` mean together; undefined, with a word why, when they do not. */
export function loadMode(
  { merge, preferNew, overwrite }: Readonly<Record<'merge' | 'preferNew' | 'overwrite', boolean>>,
  report: Report,
): LoadMode | undefined {
  if (!merge && (preferNew || overwrite)) {
    report.error('--prefer_new and --overwrite say how to merge: they need --merge too.')
    return undefined
  }
  if (preferNew && overwrite) {
    report.error('Either --prefer_new or --overwrite can be given, not both.')
    return undefined
  }
  if (overwrite) return 'overwrite'
  if (preferNew) return 'prefer-new'
  return merge ? 'merge' : 'skip'
}

/** Loads a file, or all `*.json` of a folder. What cannot be loaded is reported, and the others go on. */
export async function loadMetadefs(
  metadefs: MetadefRepository,
  path: string,
  mode: LoadMode,
  report: Report,
): Promise<void> {
  let files: readonly string[]
  try {
    files = await filesAt(path)
  } catch (error) {
    report.error(messageOf(error))
    return
  }
  if (files.length === 0) report.error(`There are no .json files in ${path}.`)
  for (const file of files) {
    try {
      const { namespace, definitions } = parseFile(JSON.parse(await readFile(file, 'utf8')))
      const loaded = await metadefs.load(namespace, definitions, mode)
      report.info(loaded ? `${file}: ${namespace.name} is loaded.` : `${file}: ${namespace.name} is there already.`)
    } catch (error) {
      report.error(`${file} cannot be loaded: ${messageOf(error)}`)
    }
  }
}

/** Writes each namespace to a file in the folder `path`, named after its display name, as `loadMetadefs` reads it. */
export async function exportMetadefs(metadefs: MetadefRepository, path: string, report: Report): Promise<void> {
  const all = { visibility: undefined, resourceTypes: undefined, marker: undefined, limit: undefined } as const
  const sort = { key: 'namespace', descending: false } as const
  const used = new Set<string>()
  for (const { namespace } of await metadefs.list({ ...all, sort }, EVERYTHING)) {
    let name = letters(namespace.displayName ?? '')
    if (name === '' || used.has(name)) name = letters(namespace.name)
    used.add(name)
    const file = join(path, `${name}.json`)
    try {
      const text = JSON.stringify(toFile(namespace, await metadefs.contents(namespace.name)), undefined, 4)
      await writeFile(file, `${text}\n`)
      report.info(`${namespace.name} is written to ${file}.`)
    } catch (error) {
      report.error(`${file} cannot be written: ${messageOf(error)}`)
    }
  }
}

async function filesAt(path: string): Promise<readonly string[]> {
  if ((await stat(path)).isFile()) return [path]
  const entries = await readdir(path, { withFileTypes: true })
  return entries
    .filter((entry) => entry.name.endsWith('.json') && !entry.isDirectory())
    .map((entry) => join(path, entry.name))
    .toSorted()
}

const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error))
const letters = (text: string): string => text.replace(/[^\p{L}\p{N}]+/gu, '')

function parseFile(value: unknown): {
  readonly namespace: NamespaceAttributes
  readonly definitions: DefinitionDrafts
} {
  const file = record(value, 'The file')
  const list = (name: string): readonly Json[] => {
    const items = file[name] ?? []
    if (!Array.isArray(items)) throw new ServiceError('invalid', `"${name}" must be a list`)
    return items.map((item) => record(item, `Each of "${name}"`))
  }
  return {
    namespace: {
      name: required(file, 'namespace'),
      displayName: optional(file, 'display_name'),
      description: optional(file, 'description'),
      visibility: file['visibility'] === 'public' ? 'public' : 'private',
      protected: file['protected'] === true,
      owner: (optional(file, 'owner') ?? 'admin') as ProjectId,
    },
    definitions: {
      associations: list('resource_type_associations').map((item) => ({
        name: required(item, 'name'),
        prefix: optional(item, 'prefix'),
        target: optional(item, 'properties_target'),
      })),
      properties: schemas(file).map(([name, schema]) => ({ name, schema })),
      objects: list('objects').map((item) => ({
        name: required(item, 'name'),
        description: optional(item, 'description'),
        required: Array.isArray(item['required']) ? item['required'].map(String) : [],
        properties: new Map(schemas(item)),
      })),
      tags: list('tags').map((item) => ({ name: required(item, 'name') })),
    },
  }
}

function record(value: unknown, what: string): Json {
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw new ServiceError('invalid', `${what} must be a JSON object`)
  return value as Json
}

function required(item: Json, name: string): string {
  const text = optional(item, name)
  if (text === null || text === '') throw new ServiceError('invalid', `"${name}" is missing`)
  return text
}

function optional(item: Json, name: string): string | null {
  const value = item[name] ?? null
  if (value !== null && typeof value !== 'string') throw new ServiceError('invalid', `"${name}" must be a text`)
  return value
}

const schemas = (item: Json): readonly (readonly [string, PropertySchema])[] =>
  Object.entries(record(item['properties'] ?? {}, '"properties"')).map(([name, schema]) => [
    name,
    record(schema, `"${name}"`),
  ])

/** Without the owner: whoever loads it elsewhere has other projects. */
const toFile = (namespace: Namespace, { associations, objects, properties, tags }: Definitions) => ({
  namespace: namespace.name,
  display_name: namespace.displayName,
  description: namespace.description,
  visibility: namespace.visibility,
  protected: namespace.protected,
  resource_type_associations: associations.map(({ name, prefix, target }) => ({
    name,
    prefix,
    properties_target: target,
  })),
  properties: Object.fromEntries(properties.map(({ name, schema }) => [name, schema])),
  objects: objects.map((object) => ({
    name: object.name,
    description: object.description,
    required: object.required,
    properties: Object.fromEntries(object.properties),
  })),
  tags: tags.map(({ name }) => ({ name })).toReversed(),
})
