import { reason } from '../reason.ts'
/** `problem`: what stops the switch, or would lose something by it. */
export type Level = 'ok' | 'note' | 'problem'

export interface Finding {
  readonly level: Level
  /** A sentence or two; never a secret. */
  readonly text: string
  /** What to do. */
  readonly advice?: string
  /** Lines that are shown below it. */
  readonly details?: readonly string[]
}

export interface Section {
  readonly title: string
  readonly findings: readonly Finding[]
}

export const ok = (text: string, details?: readonly string[]): Finding => finding('ok', text, undefined, details)
export const note = (text: string, advice?: string, details?: readonly string[]): Finding =>
  finding('note', text, advice, details)
export const problem = (text: string, advice?: string, details?: readonly string[]): Finding =>
  finding('problem', text, advice, details)

const finding = (level: Level, text: string, advice?: string, details: readonly string[] = []): Finding => ({
  level,
  text,
  ...(advice === undefined ? {} : { advice }),
  ...(details.length === 0 ? {} : { details }),
})

/** Goes through a section to its end; an error that nobody expected is a problem of the section. */
export async function gather(title: string, found: AsyncIterable<Finding> | Iterable<Finding>): Promise<Section> {
  const findings: Finding[] = []
  try {
    for await (const one of found) findings.push(one)
  } catch (error) {
    findings.push(problem(`This part could not be looked at any further: ${reason(error)}`))
  }
  return { title, findings }
}

export const count = (sections: readonly Section[], level: Level): number =>
  sections.flatMap(({ findings }) => findings).filter((one) => one.level === level).length

/** `1 image`, `5 images`. */
export const many = (n: number, thing: string, things = `${thing}s`): string =>
  `${n.toLocaleString('en')} ${n === 1 ? thing : things}`

/** The first few of `lines`, and how many more there are. */
export const few = (lines: readonly string[], most = 10): readonly string[] =>
  lines.length <= most ? lines : [...lines.slice(0, most), `and ${many(lines.length - most, 'more', 'more')}`]

export type Style = Level | 'title' | 'advice'
/** Gives text its colour, or leaves it as it is. */
export type Paint = (style: Style, text: string) => string

const INDENT = 11
const WIDEST = 100

/** A section for a person, in lines of at most `width` characters, unless a single word is longer. */
export const printSection = ({ title, findings }: Section, width: number, paint: Paint): string =>
  [paint('title', title), ...findings.flatMap((one) => printFinding(one, Math.min(width, WIDEST), paint)), ''].join(
    '\n',
  )

function printFinding({ level, text, advice, details = [] }: Finding, width: number, paint: Paint): readonly string[] {
  const room = width - INDENT
  const margin = ' '.repeat(INDENT)
  const [first = '', ...rest] = wrap(text, room)
  const label = paint(level, level.padEnd(INDENT - 2))
  return [
    `  ${label}${first}`,
    ...rest.map((one) => margin + one),
    ...details.flatMap((detail) => wrap(detail, room - 2, 2).map((one) => `${margin}  ${one}`)),
    ...(advice === undefined ? [] : wrap(`-> ${advice}`, room, 3).map((one) => margin + paint('advice', one))),
  ]
}

/** The last line. */
export function printVerdict(sections: readonly Section[], paint: Paint): string {
  const [problems, notes] = [count(sections, 'problem'), count(sections, 'note')]
  const toRead = notes === 0 ? '' : ` ${many(notes, 'note')} to read.`
  return problems === 0
    ? `${paint('ok', 'Nothing stops the switch.')}${toRead}`
    : `${paint('problem', `${many(problems, 'problem')} to solve before the switch.`)}${toRead}`
}

/** Lines of at most `room` characters, those behind the first with `hang` blanks in front. */
export function wrap(text: string, room: number, hang = 0): readonly string[] {
  const lines: string[] = []
  let line = ''
  for (const word of text.split(' ')) {
    if (line !== '' && line.length + 1 + word.length > room) {
      lines.push(line)
      line = ' '.repeat(hang) + word
    } else line = line === '' ? word : `${line} ${word}`
  }
  return [...lines, line]
}
