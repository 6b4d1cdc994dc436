import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { type ErrorKind, hasKind } from '../domain/errors.ts'
import type { ProjectId } from '../domain/ids.ts'
import {
  type DefinitionDrafts,
  NAMESPACE_SORT_KEYS,
  type NamespaceAttributes,
  type NamespaceQuery,
  TAG_SORT_KEYS,
} from '../domain/metadef.ts'
import type { DatabaseHarness } from './conformance.ts'
import type { MetadefRepository, Scope } from './database.ts'

const project = (name: string) => name as ProjectId
const ADMIN: Scope = { admin: true, project: project('admins') }
const as = (name: string | undefined): Scope => ({
  admin: false,
  project: name === undefined ? undefined : project(name),
})

const namespace = (name: string, change: Partial<NamespaceAttributes> = {}): NamespaceAttributes => ({
  name,
  displayName: null,
  description: null,
  visibility: 'public',
  protected: false,
  owner: project('owner'),
  ...change,
})
const drafts = (change: Partial<DefinitionDrafts> = {}): DefinitionDrafts => ({
  objects: [],
  properties: [],
  tags: [],
  associations: [],
  ...change,
})
const query = (change: Partial<NamespaceQuery> = {}): NamespaceQuery => ({
  visibility: undefined,
  resourceTypes: undefined,
  sort: { key: 'created_at', descending: true },
  marker: undefined,
  limit: 1000,
  ...change,
})

const schema = { title: 'A', type: 'string', enum: ['x'], default: 'x' }
const object = (name: string) => ({ name, description: null, required: [], properties: new Map() })
const association = (name: string, prefix: string | null = null) => ({ name, prefix, target: null })
const FULL = drafts({
  objects: [{ name: 'o', description: 'd', required: ['a', 'b'], properties: new Map([['__proto__', schema]]) }],
  properties: [{ name: 'p', schema }],
  tags: [{ name: 'old' }, { name: 'new' }],
  associations: [association('OS::Nova::Flavor', 'hw:'), association('OS::Glance::Image')],
})

const fails = (kind: ErrorKind, promise: Promise<unknown>, message?: RegExp) =>
  assert.rejects(promise, (error) => hasKind(error, kind) && (message === undefined || message.test(error.message)))

const names = (items: readonly { readonly name: string }[]) => items.map(({ name }) => name)
const listed = async (metadefs: MetadefRepository, scope: Scope, change: Partial<NamespaceQuery> = {}) =>
  (await metadefs.list(query(change), scope)).map((each) => each.namespace.name)
const summary = async (metadefs: MetadefRepository, name: string) => {
  const { objects, properties, tags, associations } = await metadefs.contents(name)
  return [objects, properties, tags, associations].map(names)
}

/** What every database must do with metadata definitions. */
export function metadefConformance(harness: DatabaseHarness): void {
  describe(`${harness.name}: metadata definitions`, () => {
    const test = (title: string, body: (metadefs: MetadefRepository) => Promise<void>) =>
      it(title, { skip: harness.skip?.[title] ?? false }, async (t) => body((await harness.open(t)).metadefs))

    test('insert() keeps a namespace with all that is in it', async (metadefs) => {
      const attributes = namespace('N', { displayName: 'Näme', description: 'text', protected: true })
      const { createdAt, updatedAt, ...stored } = await metadefs.insert(attributes, FULL)
      assert.deepEqual(stored, attributes)
      assert.equal(createdAt.getTime(), updatedAt?.getTime())
      const { objects, properties, tags, associations } = await metadefs.contents('N')
      const [{ createdAt: _, updatedAt: __, ...first } = assert.fail('no object')] = objects
      assert.deepEqual(first, FULL.objects[0])
      assert.deepEqual(properties[0]?.schema, schema)
      assert.deepEqual(names(tags), ['new', 'old'])
      assert.deepEqual(
        associations.map(({ name, prefix, target }) => ({ name, prefix, target })),
        FULL.associations,
      )
    })

    test('insert() keeps nothing when a name is there twice', async (metadefs) => {
      const twice: Partial<DefinitionDrafts>[] = [
        { objects: [object('a'), object('a')] },
        { properties: [...FULL.properties, ...FULL.properties] },
        { tags: [{ name: 't' }, { name: 't' }] },
        { associations: [association('A'), association('A')] },
      ]
      for (const half of twice) await fails('conflict', metadefs.insert(namespace('N'), drafts({ ...FULL, ...half })))
      await fails('not-found', metadefs.get('N', ADMIN))
      assert.deepEqual(await metadefs.resourceTypes(), [])
      await metadefs.insert(namespace('N'), drafts())
      assert.deepEqual(await summary(metadefs, 'N'), [[], [], [], []])
    })

    test('a name is taken for all projects', async (metadefs) => {
      await metadefs.insert(namespace('N', { visibility: 'private', owner: project('a') }), drafts())
      await fails('conflict', metadefs.insert(namespace('N', { owner: project('b') }), drafts()), /namespace=N/)
    })

    test('a project sees its own and the public, an administrator all', async (metadefs) => {
      await metadefs.insert(namespace('open', { owner: project('a') }), drafts())
      await metadefs.insert(namespace('a', { visibility: 'private', owner: project('a') }), drafts())
      await metadefs.insert(namespace('b', { visibility: 'private', owner: project('b') }), drafts())
      const seen: [Scope, string[]][] = [
        [as('a'), ['a', 'open']],
        [as('b'), ['b', 'open']],
        [as('c'), ['open']],
        [as(undefined), ['open']],
        [ADMIN, ['b', 'a', 'open']],
      ]
      for (const [scope, expected] of seen) {
        assert.deepEqual(await listed(metadefs, scope), expected)
        for (const name of ['open', 'a', 'b']) {
          if (expected.includes(name)) assert.equal((await metadefs.get(name, scope)).name, name)
          else {
            await fails('not-found', metadefs.get(name, scope))
            await fails('not-found', metadefs.list(query({ marker: name }), scope))
          }
        }
      }
      assert.deepEqual(await listed(metadefs, as('a'), { visibility: 'private' }), ['a'])
    })

    test('pages in any order are the whole list', async (metadefs) => {
      for (const n of [3, 1, 4, 2, 5]) {
        const displayName = n === 4 ? null : `${n % 2}`
        await metadefs.insert(namespace(`n${n}`, { displayName, protected: n > 2 }), drafts())
      }
      for (const key of NAMESPACE_SORT_KEYS) {
        for (const descending of [false, true]) {
          const sort = { key, descending }
          const whole = await listed(metadefs, ADMIN, { sort })
          assert.equal(new Set(whole).size, 5)
          const paged: string[] = []
          for (;;) {
            const page = await listed(metadefs, ADMIN, { sort, limit: 2, marker: paged.at(-1) })
            paged.push(...page)
            if (page.length < 2) break
          }
          assert.deepEqual(paged, whole, `${key} ${descending}`)
        }
      }
      assert.deepEqual(await listed(metadefs, ADMIN, { limit: 0 }), [])
      assert.deepEqual(await listed(metadefs, ADMIN, { sort: { key: 'namespace', descending: true }, limit: 2 }), [
        'n5',
        'n4',
      ])
    })

    test('list() narrows by resource types and shows those of each namespace', async (metadefs) => {
      await metadefs.insert(namespace('both'), drafts({ associations: [association('A', 'a_'), association('B')] }))
      await metadefs.insert(namespace('one'), drafts({ associations: [association('B')] }))
      await metadefs.insert(namespace('none'), drafts())
      assert.deepEqual(await listed(metadefs, ADMIN, { resourceTypes: ['A'] }), ['both'])
      assert.deepEqual(await listed(metadefs, ADMIN, { resourceTypes: ['A', 'B'] }), ['one', 'both'])
      assert.deepEqual(await listed(metadefs, ADMIN, { resourceTypes: ['C'] }), [])
      const all = await metadefs.list(query(), ADMIN)
      assert.deepEqual(
        all.map((each) => names(each.associations)),
        [[], ['B'], ['A', 'B']],
      )
      assert.equal(all[2]?.associations[0]?.prefix, 'a_')
    })

    test('replace() forgets what is not said and leaves what is inside', async (metadefs) => {
      await metadefs.insert(namespace('N', { description: 'text' }), FULL)
      await metadefs.insert(namespace('other'), drafts())
      await fails('conflict', metadefs.replace('N', namespace('other')), /same name of other/)
      await fails('not-found', metadefs.replace('M', namespace('M')))
      const replaced = await metadefs.replace('N', namespace('M', { visibility: 'private' }))
      assert.equal(replaced.description, null)
      await fails('not-found', metadefs.get('N', ADMIN))
      assert.deepEqual(await summary(metadefs, 'M'), [['o'], ['p'], ['new', 'old'], names(FULL.associations)])
    })

    test('remove() takes all that is inside, and leaves resource types', async (metadefs) => {
      await metadefs.insert(namespace('N'), FULL)
      await metadefs.insert(namespace('M'), FULL)
      await metadefs.remove('N')
      await fails('not-found', metadefs.remove('N'))
      await metadefs.insert(namespace('N'), drafts())
      assert.deepEqual(await summary(metadefs, 'N'), [[], [], [], []])
      assert.deepEqual(await summary(metadefs, 'M'), [['o'], ['p'], ['new', 'old'], names(FULL.associations)])
      assert.deepEqual(names(await metadefs.resourceTypes()), ['OS::Nova::Flavor', 'OS::Glance::Image'])
    })

    for (const kind of ['objects', 'properties', 'tags'] as const) {
      test(`${kind} have names of their own in each namespace`, async (metadefs) => {
        const make = (name: string) => ({ ...object(name), schema })
        const { [kind]: repository } = metadefs
        await metadefs.insert(namespace('N'), drafts())
        await metadefs.insert(namespace('M'), drafts())
        for (const [where, name] of [
          ['N', 'b'],
          ['N', 'a'],
          ['M', 'a'],
        ] as const)
          assert.equal((await repository.insert(where, make(name))).name, name)
        assert.deepEqual(names(await repository.list('N')), ['a', 'b'])
        await fails('conflict', repository.insert('N', make('a')), /name=a already exists in namespace=N/)
        await fails('conflict', repository.replace('N', 'a', make('b')), /name=b/)
        await fails('not-found', repository.replace('N', 'c', make('c')), /Could not find .*c/)
        assert.equal((await repository.replace('N', 'a', make('c'))).name, 'c')
        assert.equal((await repository.replace('N', 'c', make('c'))).name, 'c')
        await fails('not-found', repository.get('N', 'a'))
        assert.equal((await repository.get('M', 'a')).name, 'a')
        await repository.remove('N', 'b')
        await fails('not-found', repository.remove('N', 'b'))
        await repository.clear('N')
        await repository.clear('N')
        assert.deepEqual(await repository.list('N'), [])
        assert.deepEqual(names(await repository.list('M')), ['a'])
        const lost = [
          () => repository.list('X'),
          () => repository.get('X', 'a'),
          () => repository.insert('X', make('a')),
          () => repository.clear('X'),
        ]
        for (const each of lost) await fails('not-found', each(), /namespace=X/)
      })
    }

    test('replace() of an object or a property forgets what is not said', async (metadefs) => {
      await metadefs.insert(namespace('N'), FULL)
      const replaced = await metadefs.objects.replace('N', 'o', object('o'))
      assert.deepEqual([replaced.description, replaced.required, replaced.properties], [null, [], new Map()])
      const changed = await metadefs.properties.replace('N', 'p', {
        name: 'p',
        schema: { title: 'B', type: 'integer' },
      })
      assert.deepEqual(changed.schema, { title: 'B', type: 'integer' })
    })

    test('many tags take the place of all, or are added, or change nothing', async (metadefs) => {
      const tags = (...all: string[]) => all.map((name) => ({ name }))
      const inside = async () => names(await metadefs.tags.list('N'))
      await metadefs.insert(namespace('N'), drafts({ tags: tags('z') }))
      await metadefs.tags.insertAll('N', tags('b', 'a'), 'replace')
      assert.deepEqual(await inside(), ['a', 'b'])
      await metadefs.tags.insertAll('N', tags('c'), 'append')
      assert.deepEqual(await inside(), ['a', 'b', 'c'])
      await fails('conflict', metadefs.tags.insertAll('N', tags('d', 'c'), 'append'))
      await fails('conflict', metadefs.tags.insertAll('N', tags('d', 'd'), 'replace'))
      assert.deepEqual(await inside(), ['a', 'b', 'c'])
      await fails('not-found', metadefs.tags.insertAll('X', tags('d'), 'append'))
    })

    test('pages of tags in any order are all tags', async (metadefs) => {
      await metadefs.insert(namespace('N'), drafts({ tags: ['c', 'a', 'd', 'b'].map((name) => ({ name })) }))
      await metadefs.insert(namespace('M'), drafts({ tags: [{ name: 'x' }] }))
      for (const key of TAG_SORT_KEYS) {
        const sort = { key, descending: true }
        const whole = names(await metadefs.tags.page('N', { sort, marker: undefined, limit: undefined }))
        const first = names(await metadefs.tags.page('N', { sort, marker: undefined, limit: 3 }))
        const rest = names(await metadefs.tags.page('N', { sort, marker: first.at(-1), limit: 3 }))
        assert.deepEqual([...first, ...rest], whole)
        assert.deepEqual(whole, key === 'name' ? ['d', 'c', 'b', 'a'] : ['b', 'd', 'a', 'c'])
      }
      const sort = { key: 'name', descending: false } as const
      await fails('not-found', metadefs.tags.page('N', { sort, marker: 'x', limit: 1 }))
    })

    test('an association makes its resource type, once', async (metadefs) => {
      await metadefs.insert(namespace('N'), drafts())
      await metadefs.insert(namespace('M'), drafts())
      const made = await metadefs.associations.insert('N', { name: 'A', prefix: 'a_', target: 't' })
      assert.deepEqual([made.name, made.prefix, made.target], ['A', 'a_', 't'])
      await metadefs.associations.insert('M', association('A'))
      await fails('conflict', metadefs.associations.insert('N', association('A')), /resource-type=A to namespace=N/)
      assert.deepEqual(names(await metadefs.resourceTypes()), ['A'])
      await metadefs.associations.remove('N', 'A')
      await fails('not-found', metadefs.associations.remove('N', 'A'))
      assert.deepEqual(await metadefs.associations.list('N'), [])
      assert.deepEqual(names(await metadefs.associations.list('M')), ['A'])
    })

    test('load() does with a namespace that is there what the mode says', async (metadefs) => {
      const old = namespace('N', { description: 'old' })
      const fresh = namespace('N', { description: 'new' })
      const before = drafts({ tags: [{ name: 'kept' }], properties: [{ name: 'p', schema: { type: 'old' } }] })
      const expected = {
        skip: [false, 'old', ['kept'], 'old', []],
        merge: [true, 'old', ['kept', 'new', 'old'], 'old', ['o']],
        'prefer-new': [true, 'new', ['kept', 'new', 'old'], 'string', ['o']],
        overwrite: [true, 'new', ['new', 'old'], 'string', ['o']],
      } as const
      for (const mode of ['skip', 'merge', 'prefer-new', 'overwrite'] as const) {
        assert.equal(await metadefs.load(old, before, mode), true)
        const wrote = await metadefs.load(fresh, FULL, mode)
        const { description } = await metadefs.get('N', ADMIN)
        const tags = names(await metadefs.tags.list('N'))
        const property = await metadefs.properties.get('N', 'p')
        const objects = names(await metadefs.objects.list('N'))
        assert.deepEqual([wrote, description, tags, property.schema['type'], objects], expected[mode], mode)
        await metadefs.remove('N')
      }
    })

    test('clear() leaves nothing', async (metadefs) => {
      await metadefs.insert(namespace('N'), FULL)
      await metadefs.clear()
      assert.deepEqual(await listed(metadefs, ADMIN), [])
      assert.deepEqual(await metadefs.resourceTypes(), [])
    })
  })
}
