import type { Generator, World } from './generate.ts'
import type { NamespaceModel } from './model.ts'
import { type Asked, jsonBody, query, segment } from './request.ts'
import * as values from './values.ts'

const LIST = '/v2/metadefs/namespaces'
const ROUTE = '/metadefs/namespaces'
const ONE = `${ROUTE}/:namespace`
const KINDS = ['objects', 'properties', 'tags'] as const
type Kind = (typeof KINDS)[number]

const NAMES = ['OS::Compute::Quota', 'plain', 'with blank', 'a/b', 'x'.repeat(80), 'Upper', 'upper', '%41', 'tags']
/** Both servers know them from the start: what a refused namespace leaves behind would show in their list. */
export const TYPES = ['OS::Nova::Server', 'OS::Glance::Image', 'OS::Cinder::Volume', 'mine']
/** Without those beyond ASCII: what gets such a name there is found by no path. */
const HOSTILE_NAMES = values.HOSTILE_TEXT.filter((text) => /^[\x20-\x7e]*$/.test(text))
const PREFIXES = ['hw_', '', 'x:']

const at = (name: string, rest = ''): string => `${LIST}/${segment(name)}${rest}`

function aNamespace({ random, model }: World): string {
  const known = [...model.namespaces.keys()]
  if (known.length === 0 || random.chance(0.06)) return random.pick([...NAMES, ...values.IDS])
  return random.pick(known)
}
/** Only admins change metadata definitions. */
const editor = (world: World): values.Caller =>
  world.random.chance(0.8) ? world.random.pick(['admin', 'ada']) : world.caller()
const emptyNamespace = (name: string): NamespaceModel => ({
  name,
  objects: new Set(),
  properties: new Set(),
  tags: new Set(),
  types: new Set(),
})

/** A schema that a property may have; one in eight is not as it should be. */
function schema({ random }: World): Record<string, unknown> {
  const type = random.pick(['string', 'integer', 'number', 'boolean', 'array'])
  const draft: Record<string, unknown> = { title: random.pick(['Title', '', 'ü']), type }
  if (random.chance(0.3)) draft['description'] = values.text(random)
  if (random.chance(0.3)) draft['default'] = random.pick<unknown>(['x', 1, true])
  if (type === 'string' && random.chance(0.4)) draft['enum'] = random.some(['a', 'b', 'c'], 2)
  if (type === 'string' && random.chance(0.2)) draft['pattern'] = '^a'
  if (type === 'integer' && random.chance(0.5))
    Object.assign(draft, { minimum: 0, maximum: random.pick([1, 2 ** 31 - 1]) })
  if (type === 'array') draft['items'] = { type: 'string', ...(random.chance(0.5) ? { enum: ['a'] } : {}) }
  if (random.chance(0.2)) draft['readonly'] = random.chance(0.5)
  if (random.chance(0.2)) draft['operators'] = ['<or>']
  if (random.chance(1 / 8)) {
    const field = random.pick(['title', 'type', 'enum', 'minimum', 'unknown', 'readonly', 'minLength'])
    draft[field] = random.pick<unknown>(values.NO_TEXT)
  }
  return draft
}

const objectDraft = (world: World, name: unknown): Record<string, unknown> => {
  const { random } = world
  const draft: Record<string, unknown> = { name }
  if (random.chance(0.4)) draft['description'] = values.text(random)
  if (random.chance(0.5))
    draft['properties'] = Object.fromEntries(random.some(['p1', 'p2', 'p3'], 2).map((each) => [each, schema(world)]))
  if (random.chance(0.3)) draft['required'] = random.some(['p1', 'p2', 'p9'], 1)
  if (random.chance(0.05)) draft[random.pick(['unknown', 'self', 'created_at', 'schema'])] = 'x'
  return draft
}

const associationDraft = ({ random }: World, name: unknown): Record<string, unknown> => ({
  name,
  ...(random.chance(0.5) ? { prefix: random.pick(PREFIXES) } : {}),
  ...(random.chance(0.3) ? { properties_target: random.pick(['image', 'volume', 'x'.repeat(81)]) } : {}),
})

function namespaceDraft(world: World, name: unknown): Record<string, unknown> {
  const { random } = world
  const draft: Record<string, unknown> = { namespace: name }
  if (random.chance(0.6))
    draft['visibility'] = random.weighted([
      [6, random.pick(['public', 'private'])],
      [1, random.pick<unknown>(['shared', null, 1])],
    ])
  if (random.chance(0.3)) draft['display_name'] = values.text(random)
  if (random.chance(0.3)) draft['description'] = random.pick(['', 'x'.repeat(500), 'x'.repeat(501), 'ü'])
  if (random.chance(0.15))
    draft['protected'] = random.chance(0.8) ? random.chance(0.5) : random.pick<unknown>(values.NO_BOOLEANS)
  if (random.chance(0.25)) draft['owner'] = random.pick(values.PROJECTS)
  if (random.chance(0.06))
    draft[random.pick(['self', 'created_at', 'unknown', 'id', 'display_name'])] = random.pick<unknown>(values.NO_TEXT)
  return draft
}

const create: Generator = (world) => {
  const { random, model } = world
  const name: unknown = random.weighted<unknown>([
    [6, `ns-${random.below(1e6)}`],
    [3, random.pick(NAMES)],
    [1, random.pick<unknown>([...HOSTILE_NAMES, ...values.NO_TEXT])],
  ])
  const draft = namespaceDraft(world, name)
  if (random.chance(0.25)) draft['objects'] = random.some(['o1', 'o2', 'o3'], 2).map((each) => objectDraft(world, each))
  if (random.chance(0.25))
    draft['properties'] = Object.fromEntries(random.some(['q1', 'q2'], 2).map((each) => [each, schema(world)]))
  if (random.chance(0.25)) draft['tags'] = random.some(['t1', 't2', 't3'], 2).map((each) => ({ name: each }))
  if (random.chance(0.25))
    draft['resource_type_associations'] = random.some(TYPES, 1).map((each) => associationDraft(world, each))
  // What is left there of a refused one cannot be removed under such a name.
  if (name === 'a/b') delete draft['resource_type_associations']
  const message = random.chance(0.03)
    ? { headers: [['Content-Type', 'application/json']] as const, body: random.pick(values.BROKEN_BODIES) }
    : jsonBody(draft)
  return {
    as: editor(world),
    route: `POST ${ROUTE}`,
    request: { method: 'POST', target: LIST, ...message },
    ...(typeof name === 'string' ? { touches: { namespaces: [name] } } : {}),
    // What has been made of a refused one may stay there.
    spoils: (status) => status === 400,
    learn: (status) => {
      if (status !== 201 || typeof name !== 'string') return
      const made = emptyNamespace(name)
      for (const kind of ['objects', 'tags'] as const)
        for (const item of (draft[kind] ?? []) as { name: string }[]) made[kind].add(item.name)
      for (const each of Object.keys(draft['properties'] ?? {})) made.properties.add(each)
      for (const item of (draft['resource_type_associations'] ?? []) as { name: string }[]) made.types.add(item.name)
      model.namespaces.set(name, made)
    },
  }
}

const list: Generator = (world) => {
  const { random, model } = world
  const pairs: [string, string][] = []
  if (random.chance(0.3)) pairs.push(['limit', random.pick(['1', '2', '0', '1000', '-1'])])
  if (random.chance(0.2)) pairs.push(['marker', random.pick([...NAMES, ...model.namespaces.keys()])])
  if (random.chance(0.3))
    pairs.push(['sort_key', random.pick(['namespace', 'created_at', 'updated_at', 'display_name', 'x'])])
  if (random.chance(0.3)) pairs.push(['sort_dir', random.pick(['asc', 'desc', 'x'])])
  if (random.chance(0.2)) pairs.push(['visibility', random.pick(['public', 'private', 'x'])])
  if (random.chance(0.2)) pairs.push(['resource_types', random.pick([...TYPES, 'mine,OS::Nova::Server', 'x'])])
  return {
    as: world.caller(),
    route: `GET ${ROUTE}`,
    request: { method: 'GET', target: `${LIST}${query(pairs)}`, headers: [] },
  }
}

const one: Generator = (world) => {
  const { random, model } = world
  const name = aNamespace(world)
  return random.weighted<() => Asked>([
    [
      4,
      () => {
        const pairs: [string, string][] = random.chance(0.3) ? [['resource_type', random.pick(TYPES)]] : []
        return {
          as: world.caller(),
          route: `GET ${ONE}`,
          request: { method: 'GET', target: at(name, query(pairs)), headers: [] },
        }
      },
    ],
    [
      3,
      () => {
        const renamed = random.chance(0.15) ? random.pick(NAMES) : name
        return {
          as: editor(world),
          route: `PUT ${ONE}`,
          request: { method: 'PUT', target: at(name), ...jsonBody(namespaceDraft(world, renamed)) },
          touches: { namespaces: [name, renamed] },
          learn: (status) => {
            const known = model.namespaces.get(name)
            if (status !== 200 || known === undefined) return
            model.namespaces.delete(name)
            model.namespaces.set(renamed, { ...known, name: renamed })
          },
        }
      },
    ],
    [
      1,
      () => ({
        as: editor(world),
        route: `DELETE ${ONE}`,
        request: { method: 'DELETE', target: at(name), headers: [] },
        touches: { namespaces: [name] },
        learn: (status) => void (status === 204 && model.namespaces.delete(name)),
      }),
    ],
  ])()
}

const itemDraft = (world: World, kind: Kind, name: unknown): unknown => {
  if (kind === 'objects') return objectDraft(world, name)
  return kind === 'tags' ? { name } : { name, ...schema(world) }
}

const items: Generator = (world) => {
  const { random, model } = world
  const space = aNamespace(world)
  const kind = random.pick(KINDS)
  const known = [...(model.namespaces.get(space)?.[kind] ?? [])]
  const name =
    known.length > 0 && random.chance(0.75)
      ? random.pick(known)
      : random.pick(['i1', 'i2', 'i3', 'with blank', 'x'.repeat(80)])
  const param = `/:name`
  const touches = { namespaces: [space] }
  const changed = (right: number, change: (names: Set<string>) => void) => (status: number) => {
    const names = model.namespaces.get(space)?.[kind]
    if (status === right && names !== undefined) change(names)
  }
  return random.weighted<() => Asked>([
    [
      3,
      () => {
        const pairs: [string, string][] = random.chance(0.3) ? [['limit', random.pick(['1', '5', '0', '-1'])]] : []
        return {
          as: world.caller(),
          route: `GET ${ONE}/${kind}`,
          request: { method: 'GET', target: at(space, `/${kind}${query(pairs)}`), headers: [] },
        }
      },
    ],
    [
      5,
      () => {
        const fresh: unknown = random.weighted<unknown>([
          [8, `i${random.below(6)}`],
          [2, name],
          [1, random.pick<unknown>([...values.NO_TEXT, ...HOSTILE_NAMES])],
        ])
        if (kind !== 'tags') {
          return {
            as: editor(world),
            route: `POST ${ONE}/${kind}`,
            request: { method: 'POST', target: at(space, `/${kind}`), ...jsonBody(itemDraft(world, kind, fresh)) },
            touches,
            learn: changed(201, (names) => names.add(String(fresh))),
          }
        }
        if (random.chance(0.5) && typeof fresh === 'string' && fresh !== '') {
          return {
            as: editor(world),
            route: `POST ${ONE}/tags/:name`,
            request: { method: 'POST', target: at(space, `/tags/${segment(fresh)}`), headers: [] },
            touches,
            learn: changed(201, (names) => names.add(fresh)),
          }
        }
        const tags = random.some(['i1', 'i2', 'i3', 'i4'], 1 + random.below(3)).map((each) => ({ name: each }))
        const body = random.chance(0.9)
          ? { tags }
          : random.pick<unknown>([{ tags: [...tags, ...tags] }, { tags: [{}] }, { tags: 'x' }, { tags: [{ name: 1 }] }])
        const append = random.chance(0.3)
        const { headers, body: text } = jsonBody(body)
        return {
          as: editor(world),
          route: `POST ${ONE}/tags`,
          request: {
            method: 'POST',
            target: at(space, '/tags'),
            headers: [...headers, ...(append ? [['X-Openstack-Append', 'True'] as const] : [])],
            body: text,
          },
          touches,
          learn: changed(201, (names) => {
            if (!append) names.clear()
            for (const tag of tags) names.add(tag.name)
          }),
        }
      },
    ],
    [
      3,
      () => {
        const pairs: [string, string][] =
          kind === 'properties' && random.chance(0.3) ? [['resource_type', random.pick(TYPES)]] : []
        return {
          as: world.caller(),
          route: `GET ${ONE}/${kind}${param}`,
          request: { method: 'GET', target: at(space, `/${kind}/${segment(name)}${query(pairs)}`), headers: [] },
        }
      },
    ],
    [
      3,
      () => {
        const renamed = random.chance(0.3) ? `i${random.below(6)}` : name
        return {
          as: editor(world),
          route: `PUT ${ONE}/${kind}${param}`,
          request: {
            method: 'PUT',
            target: at(space, `/${kind}/${segment(name)}`),
            ...jsonBody(itemDraft(world, kind, renamed)),
          },
          touches,
          learn: changed(200, (names) => {
            names.delete(name)
            names.add(renamed)
          }),
        }
      },
    ],
    [
      2,
      () => ({
        as: editor(world),
        route: `DELETE ${ONE}/${kind}${param}`,
        request: { method: 'DELETE', target: at(space, `/${kind}/${segment(name)}`), headers: [] },
        touches,
        learn: changed(204, (names) => names.delete(name)),
      }),
    ],
    [
      1,
      () => ({
        as: editor(world),
        route: `DELETE ${ONE}/${kind}`,
        request: { method: 'DELETE', target: at(space, `/${kind}`), headers: [] },
        touches,
        learn: changed(204, (names) => names.clear()),
      }),
    ],
  ])()
}

const types: Generator = (world) => {
  const { random, model } = world
  const space = aNamespace(world)
  const known = [...(model.namespaces.get(space)?.types ?? [])]
  const name = known.length > 0 && random.chance(0.7) ? random.pick(known) : random.pick(TYPES)
  const base = `${ONE}/resource_types`
  return random.weighted<() => Asked>([
    [
      1,
      () => ({
        as: world.caller(),
        route: 'GET /metadefs/resource_types',
        request: { method: 'GET', target: '/v2/metadefs/resource_types', headers: [] },
      }),
    ],
    [
      2,
      () => ({
        as: world.caller(),
        route: `GET ${base}`,
        request: { method: 'GET', target: at(space, '/resource_types'), headers: [] },
      }),
    ],
    [
      4,
      () => ({
        as: editor(world),
        route: `POST ${base}`,
        request: {
          method: 'POST',
          target: at(space, '/resource_types'),
          ...jsonBody(associationDraft(world, random.chance(0.9) ? name : random.pick(values.NO_TEXT))),
        },
        touches: { namespaces: [space] },
        learn: (status) => void (status === 201 && model.namespaces.get(space)?.types.add(name)),
      }),
    ],
    [
      2,
      () => ({
        as: editor(world),
        route: `DELETE ${base}/:name`,
        request: { method: 'DELETE', target: at(space, `/resource_types/${segment(name)}`), headers: [] },
        touches: { namespaces: [space] },
        learn: (status) => void (status === 204 && model.namespaces.get(space)?.types.delete(name)),
      }),
    ],
  ])()
}

export const metadefGenerators: readonly (readonly [weight: number, generator: Generator])[] = [
  [7, create],
  [3, list],
  [6, one],
  [16, items],
  [4, types],
]
