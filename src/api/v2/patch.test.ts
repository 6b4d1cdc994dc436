import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { hasKind } from '../../domain/errors.ts'
import { parsePatch, parsePointer, patchDialect } from './patch.ts'

const any = () => undefined
const draft10 = (...operations: unknown[]) => parsePatch(operations, 'draft-10', any)
const draft4 = (...operations: unknown[]) => parsePatch(operations, 'draft-4', any)

describe('patch', () => {
  it('reads both dialects', () => {
    assert.deepEqual(draft10({ op: 'replace', path: '/name', value: 'x' }), [
      { op: 'set', attribute: 'name', value: 'x' },
    ])
    assert.deepEqual(draft4({ replace: '/name', value: 'x' }), [{ op: 'set', attribute: 'name', value: 'x' }])
  })

  it('lets an add of an existing property replace it in draft 10 only', () => {
    const [modern] = draft10({ op: 'add', path: '/a', value: '1' })
    const [old] = draft4({ add: '/a', value: '1' })
    assert.equal(modern?.op === 'set-property' && modern.must, 'any')
    assert.equal(old?.op === 'set-property' && old.must, 'be-new')
  })

  it('decodes ~1 before ~0 and trims blanks', () => {
    assert.deepEqual(parsePointer('/a~1b'), ['a/b'])
    assert.deepEqual(parsePointer('/a~01'), ['a~1'])
    assert.deepEqual(parsePointer('/ a '), ['a'])
  })

  for (const [title, pointer] of [
    ['no slash', 'a'],
    ['adjacent slashes', '/a//b'],
    ['a slash at the end', '/a/'],
    ['an unknown escape', '/a~2'],
    ['a lone tilde', '/a~'],
  ] as const) {
    it(`refuses a pointer with ${title}`, () => {
      assert.throws(
        () => parsePointer(pointer),
        (error) => hasKind(error, 'invalid'),
      )
    })
  }

  for (const name of ['status', 'checksum', 'id', 'size', 'self', 'os_hash_value', 'stores']) {
    it(`refuses to touch ${name}`, () => {
      assert.throws(
        () => draft10({ op: 'replace', path: `/${name}`, value: 'x' }),
        (error) => hasKind(error, 'forbidden'),
      )
    })
  }

  it('refuses names that belong to the service', () => {
    for (const name of ['location', 'deleted', 'os_glance_import_task']) {
      assert.throws(
        () => draft10({ op: 'add', path: `/${name}`, value: 'x' }),
        (error) => hasKind(error, 'forbidden'),
      )
    }
  })

  it('refuses what is no operation', () => {
    for (const operation of [
      1,
      null,
      [],
      {},
      { op: 'move', path: '/a' },
      { op: 'add', path: '/a' },
      { op: 'add', value: 1 },
    ]) {
      assert.throws(
        () => draft10(operation),
        (error) => hasKind(error, 'invalid'),
      )
    }
    assert.throws(
      () => draft4({ add: '/a', remove: '/a', value: '1' }),
      (error) => hasKind(error, 'invalid'),
    )
    assert.throws(
      () => parsePatch({}, 'draft-10', any),
      (error) => hasKind(error, 'invalid'),
    )
  })

  it('names both media types when it gets another one', () => {
    assert.equal(patchDialect('application/openstack-images-v2.1-json-patch; charset=utf-8'), 'draft-10')
    assert.throws(
      () => patchDialect('application/json'),
      (error) => hasKind(error, 'unsupported-media-type') && JSON.stringify(error.detail).includes('accept-patch'),
    )
  })

  it('gives back any property name that is encoded as a pointer', () => {
    const name = fc.string({ minLength: 1 }).filter((text) => text.trim() === text && !/[/~\s]/.test(text))
    fc.assert(fc.property(name, (text) => assert.deepEqual(parsePointer(`/${text}`), [text])))
  })
})
