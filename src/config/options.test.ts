import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import {
  bool,
  bytes,
  choice,
  defaults,
  dict,
  float,
  integer,
  list,
  multi,
  type Option,
  oneOf,
  port,
  text,
  wholeNumber,
} from './options.ts'

const help = 'for a test'

/** What each of `written` is read as; the error's message for one that is refused. */
const read = (option: Option, written: readonly string[]): readonly unknown[] =>
  written.map((raw) => {
    try {
      return option.parse([raw])
    } catch (error) {
      return (error as Error).message
    }
  })

describe('an option', () => {
  it('of kind boolean takes true, 1, on, yes and their opposites in any case, and nothing else', () => {
    assert.deepEqual(read(bool({ help }), ['true', '1', 'On', 'YES']), [true, true, true, true])
    assert.deepEqual(read(bool({ help }), ['False', '0', 'off', 'no']), [false, false, false, false])
    const refused = 'expected true or false'
    assert.deepEqual(read(bool({ default: true, help }), ['', '2', 'yess']), [refused, refused, refused])
  })

  it('of kind integer takes decimal numbers with blanks around them, within inclusive limits', () => {
    const option = integer({ default: 7, min: -3, max: 1000, help })
    assert.deepEqual(read(option, [' 5 ', '+5', '05', '-3', '1_000']), [5, 5, 5, -3, 1000])
    const refused = 'expected an integer from -3 to 1000'
    const wrong = ['-4', '1001', '0x10', '1e2', '1.0', 'five']
    assert.deepEqual(
      read(option, wrong),
      wrong.map(() => refused),
    )
  })

  it('that is a number stays at its default when the value is empty', () => {
    assert.deepEqual(read(integer({ default: 7, help }), ['', '  ']), [7, 7])
    assert.deepEqual(read(integer({ help }), ['']), [undefined])
    assert.deepEqual(read(float({ help }), ['']), [undefined])
  })

  it('of kind float takes fractions and exponents, but no infinity', () => {
    assert.deepEqual(read(float({ min: 0, help }), ['60', '1.5', '.5', '5.', '1e3']), [60, 1.5, 0.5, 5, 1000])
    const refused = 'expected a number of at least 0'
    assert.deepEqual(read(float({ min: 0, help }), ['-1', 'inf', 'nan', '1,5']), [refused, refused, refused, refused])
  })

  it('that is a port lies between 0 and 65535', () => {
    const refused = 'expected a port number from 0 to 65535'
    assert.deepEqual(read(port({ help }), ['0', '65535', '65536', '-1', 'http']), [
      0,
      65_535,
      refused,
      refused,
      refused,
    ])
  })

  it('that is an amount of bytes takes units of 1024, without a space', () => {
    assert.deepEqual(read(bytes({ help }), ['40', ' 40B ', '2KB', '3MB', '1GB', '5TB']), [
      40,
      40,
      2048,
      3 << 20,
      2 ** 30,
      5 * 2 ** 40,
    ])
    for (const refused of read(bytes({ default: 1, help }), ['', '-1', '1 KB', '1kb', '1.5GB', 'KB']))
      assert.match(String(refused), /^expected a whole number of bytes/)
  })

  it('of kind choice minds the case unless told otherwise, and gives the spelling of the declaration', () => {
    assert.deepEqual(read(choice(['roles', 'None'], { help }), ['roles', 'ROLES']), [
      'roles',
      'expected one of roles, None',
    ])
    assert.deepEqual(read(choice(['roles', 'None'], { ignoreCase: true, help }), ['NONE', 'Roles']), ['None', 'roles'])
  })

  it('of kind text keeps every letter, and may insist on a form', () => {
    assert.deepEqual(read(text({ help }), ['', ' "a" # b ']), ['', ' "a" # b '])
    const size = text({ pattern: /^\d+(?:MB|GB)?$/, expects: 'a size', help })
    assert.deepEqual(read(size, ['10MB', '10 eggs']), ['10MB', 'expected a size'])
  })

  it('of kind list splits at commas, trims, ignores commas at the end, and keeps those in quotes', () => {
    const written = ['a,b', ' a , b ', 'a,b,,', 'a,,b', ',a', '', ' ', '"a,b",\'c,d\' , e', '\na,\nb', '"ab"c']
    assert.deepEqual(read(list({ help }), written), [
      ...[['a', 'b'], ['a', 'b'], ['a', 'b'], ['a', '', 'b'], ['', 'a'], [], []],
      ...[['a,b', 'c,d', 'e'], ['a', 'b'], ['"ab"c']],
    ])
  })

  it('of kind list with bounds insists on them', () => {
    const option = list({ bounds: true, help })
    assert.deepEqual(read(option, ['[a, b]', '[]', '["a,b",c]', '[a],']), [['a', 'b'], [], ['a,b', 'c'], ['a']])
    const refused = 'expected a list written [a,b]'
    assert.deepEqual(read(option, ['a,b', '', '[a', 'a]']), [refused, refused, refused, refused])
  })

  it('of kind list checks each item', () => {
    const ports = list({ bounds: true, of: wholeNumber({ min: 1 }), help })
    assert.deepEqual(read(ports, ['[80, 443]', '[80,x]']), [
      [80, 443],
      'expected a list written [a,b] with each item an integer of at least 1',
    ])
    const methods = list({ of: oneOf(['copy', 'move']), help })
    assert.deepEqual(read(methods, ['copy', 'burn']), [
      ['copy'],
      'expected a list written a,b with each item one of copy, move',
    ])
  })

  it('of kind dict splits at the first colon, and keeps a comma which no name follows', () => {
    const written = ['fast:file, cheap:s3', 'a:b:c', 'a:b,c', 'a:b,c,d:e', '', '__proto__:x']
    assert.deepEqual(
      read(dict({ help }), written).map((found) => Object.entries(found as object)),
      [
        ...[
          [
            ['fast', 'file'],
            ['cheap', 's3'],
          ],
          [['a', 'b:c']],
          [['a', 'b,c']],
          [
            ['a', 'b,c'],
            ['d', 'e'],
          ],
        ],
        ...[[], [['__proto__', 'x']]],
      ],
    )
    const refused = 'expected pairs written name:value,name:value, each name once'
    assert.deepEqual(read(dict({ help }), ['a', 'a:b,a:c', ':x']), [refused, refused, refused])
  })

  it('counts as often as it is given when it is of kind multi, and the last time otherwise', () => {
    assert.deepEqual(multi({ help }).parse(['a', 'b,c']), ['a', 'b,c'])
    assert.equal(text({ help }).parse(['a', 'b']), 'b')
  })

  it('reads back what it prints', () => {
    const item = fc.stringMatching(/^[ab,"[\]:;= \t-]{0,8}$/)
    const roundTrip = <T>(option: Option<T>, values: fc.Arbitrary<T>) =>
      fc.assert(fc.property(values, (value) => assert.deepEqual(option.parse(option.print(value)), value)))
    roundTrip(bool({ default: false, help }), fc.boolean())
    roundTrip(integer({ default: 0, help }), fc.maxSafeInteger())
    roundTrip(
      float({ default: 0, help }),
      fc.double({ noNaN: true, noDefaultInfinity: true }).map((value) => value + 0),
    )
    roundTrip(list({ default: [], help }), fc.array(item))
    roundTrip(list({ default: [], bounds: true, help }), fc.array(item))
    roundTrip(multi({ help }), fc.array(fc.string(), { minLength: 1 }))
    const name = fc.stringMatching(/^[a-z_]{1,6}$/)
    const value = fc.stringMatching(/^(?:[a-z][a-z:/]{0,6})?$/)
    const entries = (found: unknown) => Object.entries(found as object)
    fc.assert(
      fc.property(fc.dictionary(name, value), (found) => {
        const option = dict({ default: {}, help })
        assert.deepEqual(entries(option.parse(option.print(found))), entries(found))
      }),
    )
  })

  it('prints nothing when it is not set', () => {
    assert.deepEqual(
      [integer({ help }), text({ help }), list({ help })].map((option) => option.print(undefined)),
      [[], [], []],
    )
  })
})

describe('a group', () => {
  it('has the declared defaults, and undefined where there is none', () => {
    const values = defaults({ size: integer({ default: 5, help }), name: text({ help }), dirs: multi({ help }) })
    const typed: { readonly size: number; readonly name: string | undefined; readonly dirs: readonly string[] } = values
    assert.deepEqual(typed, { size: 5, name: undefined, dirs: [] })
  })

  it('cannot be changed, nor can its lists', () => {
    const { names } = defaults({ names: list({ default: ['a'], help }) })
    assert.throws(() => (names as string[]).push('b'), TypeError)
    assert.throws(() => (list({ default: [], help }).parse(['a']) as string[]).push('b'), TypeError)
  })
})
