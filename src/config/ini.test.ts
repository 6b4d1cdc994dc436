import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { parseIni, printEntry } from './ini.ts'

const read = (content: string) => parseIni(content, 'a.conf').map(({ group, name, value }) => [group, name, value])

describe('a configuration file', () => {
  it('assigns with = or :, whichever comes first', () => {
    const expected = [
      ['DEFAULT', 'a', 'x:y'],
      ['DEFAULT', 'b', 'x=y'],
      ['DEFAULT', 'c', ''],
    ]
    assert.deepEqual(read('[DEFAULT]\na = x:y\nb: x=y\nc =\n'), expected)
  })

  it('keeps groups and assignments in order, each with its line', () => {
    assert.deepEqual(parseIni('[A]\nx = 1\n\n[b]\r\nx = 2\n[A]\nx = 3', 'a.conf'), [
      { group: 'A', name: 'x', value: '1', line: 2 },
      { group: 'b', name: 'x', value: '2', line: 5 },
      { group: 'A', name: 'x', value: '3', line: 7 },
    ])
  })

  it('takes - for _ in names of options, and leaves case alone', () => {
    assert.deepEqual(read('[g]\nLog-File = a-b\n'), [['g', 'Log_File', 'a-b']])
  })

  it('has comments only where # or ; is the first character of a line', () => {
    assert.deepEqual(read('# a\n;b\n[g]\nx = 1 # y\n#z = 2\n'), [['g', 'x', '1 # y']])
  })

  it('continues a value on indented lines, without their indentation', () => {
    assert.deepEqual(read('[g]\nx = a,\n  b\n\tc \ny =\n  d\n'), [
      ['g', 'x', 'a,\nb\nc'],
      ['g', 'y', '\nd'],
    ])
  })

  it('strips one pair of equal quotes around a value', () => {
    const values = read('[g]\na = " x "\nb = \'y\'\nc = ""z""\nd = "w\'\ne = "\nf = "v"w\n').map(([, , value]) => value)
    assert.deepEqual(values, [' x ', 'y', '"z"', '"w\'', '', '"v"w'])
  })

  const refused: readonly (readonly [what: string, content: string, message: string])[] = [
    ['an option before any group', 'x = 1', 'a.conf:1: expected a [group] before the first option'],
    ['a group that is not closed', '[g', 'a.conf:1: expected ] at the end of a line that starts with ['],
    ['a comment behind a group', '[g] # c', 'a.conf:1: expected ] at the end of a line that starts with ['],
    ['a group without a name', '\n[]', 'a.conf:2: expected the name of a group between [ and ]'],
    ['a line without a value', '[g]\nhunter2', 'a.conf:2: expected an option: name = value'],
    ['a value without a name', '[g]\n= 1', 'a.conf:2: expected the name of an option before the value'],
    [
      'indentation after a group',
      '[g]\n x = 1',
      'a.conf:2: this line continues nothing: its first character is a blank',
    ],
    [
      'indentation after a comment',
      '[g]\nx = 1\n#\n 2',
      'a.conf:4: this line continues nothing: its first character is a blank',
    ],
    [
      'indentation after a blank line',
      '[g]\nx = 1\n\n 2',
      'a.conf:4: this line continues nothing: its first character is a blank',
    ],
  ]
  for (const [what, content, message] of refused) {
    it(`refuses ${what} and says where, without repeating the line`, () => {
      assert.throws(() => read(content), { kind: 'invalid', message })
    })
  }

  it('reads back every value that can be printed', () => {
    const letters = fc.stringMatching(/^[ab"'#;=:[\]$\\ \t-]*$/)
    const more = letters.map((line) => line.trim()).filter((line) => line !== '')
    const value = fc
      .tuple(letters, fc.array(more, { maxLength: 3 }))
      .map(([first, rest]) => [first, ...rest].join('\n'))
    const entry = fc.record({ group: fc.stringMatching(/^[a-z.:]+$/), name: fc.stringMatching(/^[a-z_]+$/), value })
    fc.assert(
      fc.property(fc.array(entry), (entries) => {
        const content = entries.map(({ group, name, value }) => `[${group}]\n${printEntry(name, value)}\n`).join('')
        assert.deepEqual(
          read(content),
          entries.map(({ group, name, value }) => [group, name, value]),
        )
      }),
    )
  })
})
