import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { hasKind } from '../../domain/errors.ts'
import { pageLink, parseIsoTime, parseListQuery, splitQuoted } from './list-query.ts'

const limits = { pageDefault: 25, pageMax: 1000 }
const parse = (text: string) => parseListQuery([...new URLSearchParams(text)], limits)
const refused = (text: string) =>
  assert.throws(
    () => parse(text),
    (error) => hasKind(error, 'invalid'),
    text,
  )

describe('list query', () => {
  it('has upstream defaults', () => {
    assert.deepEqual(parse(''), {
      visibility: undefined,
      memberStatus: 'accepted',
      limit: 25,
      marker: undefined,
      sort: [{ key: 'created_at', descending: true }],
      hidden: false,
      filters: [],
    })
  })

  it('caps the limit and accepts zero', () => {
    assert.equal(parse('limit=5000').limit, 1000)
    assert.equal(parse('limit=0').limit, 0)
    for (const bad of ['-1', 'abc', '', '1.5']) refused(`limit=${bad}`)
  })

  it('applies one sort_dir to all keys, and wants as many otherwise', () => {
    assert.deepEqual(parse('sort_key=name&sort_key=size&sort_dir=asc').sort, [
      { key: 'name', descending: false },
      { key: 'size', descending: false },
    ])
    refused('sort_key=name&sort_dir=asc&sort_dir=desc')
  })

  it('refuses to mix the sort syntaxes', () => refused('sort=name:asc&sort_key=name'))
  it('sorts descending by default in the new syntax', () => {
    assert.deepEqual(parse('sort=name,size:asc').sort, [
      { key: 'name', descending: true },
      { key: 'size', descending: false },
    ])
  })

  for (const bad of [
    'sort_key=owner',
    'sort=name:up',
    'visibility=secret',
    'member_status=maybe',
    'os_hidden=abcd',
    'protected=False',
    'changes-since=2020-01-01',
    'marker=',
    'marker=x',
    'size_min=big',
    'name_min=1',
    'name=no:such',
    'created_at=no:2020-01-01',
    'created_at=gt:yesterday',
    'name=in:a"b"',
    'name=in:"a',
    'name=%F0%9F%98%80',
  ]) {
    it(`refuses ${bad}`, () => refused(bad))
  }

  it('keeps all tags, and the last of other repeated parameters', () => {
    assert.deepEqual(parse('tag=a&tag=b&owner=x&owner=y').filters, [
      { by: 'tag', tag: 'a' },
      { by: 'tag', tag: 'b' },
      { by: 'column', column: 'owner', values: ['y'] },
    ])
  })

  it('takes unknown names as extra properties', () => {
    assert.deepEqual(parse('os_distro=debian').filters, [{ by: 'property', name: 'os_distro', value: 'debian' }])
  })

  it('finds nothing, or everything, beyond the numbers that columns hold', () => {
    const nothing = (column: string) => [{ by: 'column', column, values: [] }]
    const huge = '9'.repeat(30)
    assert.deepEqual(parse(`size_min=${huge}`).filters, nothing('size'))
    assert.deepEqual(parse(`virtual_size_max=-${huge}`).filters, nothing('virtual_size'))
    assert.deepEqual(parse(`min_ram_min=${2 ** 31}`).filters, nothing('min_ram'))
    assert.deepEqual(parse(`min_disk=${2 ** 31}`).filters, nothing('min_disk'))
    assert.deepEqual(parse(`size_max=${huge}`).filters, [{ by: 'range', column: 'size', max: Number.MAX_SAFE_INTEGER }])
    assert.deepEqual(parse(`min_ram_min=${2 ** 31 - 1}`).filters, [
      { by: 'range', column: 'min_ram', min: 2 ** 31 - 1 },
    ])
  })

  it('splits in: at commas outside quotes', () => {
    assert.deepEqual(splitQuoted('a,b'), ['a', 'b'])
    assert.deepEqual(splitQuoted('"a,b",c'), ['a,b', 'c'])
    assert.deepEqual(splitQuoted('a,,b'), ['a', '', 'b'])
    assert.deepEqual(splitQuoted(String.raw`"a\"b"`), [String.raw`a\"b`])
  })

  it('reads ISO 8601 with and without zone', () => {
    const noon = Date.UTC(2020, 0, 2, 12)
    for (const text of [
      '2020-01-02T12:00:00Z',
      '2020-01-02T12:00:00',
      '20200102T120000Z',
      '2020-01-02T14:00:00+02:00',
      '2020-01-02 12:00',
    ]) {
      assert.equal(parseIsoTime(text)?.getTime(), noon, text)
    }
    assert.equal(parseIsoTime('2020-13-01'), undefined)
  })

  it('repeats every parameter but the marker in its links', () => {
    const query = [...new URLSearchParams('limit=2&tag=a&tag=b&marker=old&name=%C3%BC x')]
    const link = pageLink('/v2/images', query, 'new')
    assert.equal(link, '/v2/images?limit=2&tag=a&tag=b&name=%C3%BC+x&marker=new')
    assert.equal(pageLink('/v2/images', [], undefined), '/v2/images')
  })

  it('never throws anything but `invalid`', () => {
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.constantFrom('name', 'limit', 'sort', 'created_at', 'tag', 'size_min', 'x'), fc.string())),
        (query) => {
          try {
            parseListQuery(query, limits)
          } catch (error) {
            assert.ok(hasKind(error, 'invalid'))
          }
        },
      ),
    )
  })
})
