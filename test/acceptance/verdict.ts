export type Outcome = 'passed' | 'failed' | 'skipped'

export interface TestResult {
  readonly name: string
  readonly outcome: Outcome
  readonly reason?: string
}

/** A line of the list of skips: which tests do not pass, and why. */
export interface Skip {
  readonly pattern: RegExp
  readonly reason: string
}

export interface Verdict {
  readonly title: string
  readonly passed: number
  /** What the list of skips says will not pass, and how many tests each of its lines stands for. */
  readonly skipped: readonly (Skip & { readonly tests: number })[]
  /** One line for each thing that is not as it should be. */
  readonly problems: readonly string[]
}

/** The lines of these `[section]`s: a regular expression, and after ` # ` the reason. A line without a reason throws. */
export function parseSkips(text: string, sections: readonly string[]): readonly Skip[] {
  const skips: Skip[] = []
  let current = ''
  for (const line of text.split('\n').map((line) => line.trim())) {
    if (line === '' || line.startsWith('#')) continue
    const heading = /^\[(\w[\w -]*)\]$/.exec(line)?.[1]
    const [pattern, reason] = line.split(/\s+#\s+/, 2)
    if (heading !== undefined) current = heading
    else if (pattern === undefined || reason === undefined) throw new Error(`A skip without a reason: ${line}`)
    else if (sections.includes(current)) skips.push({ pattern: new RegExp(pattern), reason })
  }
  return skips
}

/** Every test passes, but for those on the list; whatever is on the list does not pass. */
export function judge(title: string, tests: readonly TestResult[], skips: readonly Skip[]): Verdict {
  const listed = ({ name }: TestResult): Skip | undefined => skips.find(({ pattern }) => pattern.test(name))
  const passed = tests.filter(({ outcome }) => outcome === 'passed')
  const others = tests.filter(({ outcome }) => outcome !== 'passed')
  const fits = skips.map((skip) => ({ ...skip, tests: tests.filter((test) => listed(test) === skip).length }))
  const problems = [
    ...others
      .filter((test) => listed(test) === undefined)
      .map(({ name, outcome, reason }) => `${outcome}: ${name}${reason ? ` (${reason})` : ''}`),
    ...passed.filter(listed).map(({ name }) => `on the list of skips, but passes: ${name}`),
    ...fits
      .filter(({ tests: count }) => count === 0)
      .map(({ pattern }) => `on the list of skips, but names no test: ${pattern.source}`),
    ...(tests.length === 0 ? ['no test ran'] : []),
  ]
  const good = passed.filter((test) => listed(test) === undefined)
  return { title, passed: good.length, skipped: fits.filter(({ tests: count }) => count > 0), problems }
}

/** `NAME: N passed, N failed, N skipped`. */
export function summary({ title, passed, skipped, problems }: Verdict): string {
  const count = skipped.reduce((sum, { tests }) => sum + tests, 0)
  return `${title}: ${passed} passed, ${problems.length} failed, ${count} skipped`
}

/** The summary, what was skipped and why, and what is wrong. */
export const print = (verdict: Verdict): string =>
  [
    summary(verdict),
    ...verdict.skipped.map(({ pattern, reason, tests }) => `  skipped ${tests}: ${reason} (${pattern.source})`),
    ...verdict.problems.map((problem) => `  ${problem}`),
  ].join('\n')
