export type Outcome = 'passed' | 'failed' | 'skipped'

export interface TestResult {
  readonly name: string
  readonly outcome: Outcome
  readonly reason?: string
}

export interface Verdict {
  readonly title: string
  readonly passed: number
  /** Tests that did not pass, as the list of skips says. */
  readonly notCovered: number
  /** One line for each thing that is not as it should be. */
  readonly problems: readonly string[]
}

/** The regular expressions of one `[section]`; `#` begins a comment. */
export function parseSkips(text: string, section: string): readonly RegExp[] {
  const skips: RegExp[] = []
  let current = ''
  for (const line of text.split('\n').map((line) => line.replace(/#.*/, '').trim())) {
    const heading = /^\[(\w+)\]$/.exec(line)
    if (heading !== null) current = heading[1] ?? ''
    else if (line !== '' && current === section) skips.push(new RegExp(line))
  }
  return skips
}

/** Every test passes, but for those on the list; whatever is on the list does not pass. */
export function judge(title: string, tests: readonly TestResult[], skips: readonly RegExp[]): Verdict {
  const isListed = ({ name }: TestResult): boolean => skips.some((skip) => skip.test(name))
  const passed = tests.filter(({ outcome }) => outcome === 'passed')
  const others = tests.filter(({ outcome }) => outcome !== 'passed')
  const problems = [
    ...others
      .filter((test) => !isListed(test))
      .map(({ name, outcome, reason }) => `${outcome}: ${name}${reason ? ` (${reason})` : ''}`),
    ...passed.filter(isListed).map(({ name }) => `on the list of skips, but passes: ${name}`),
    ...skips
      .filter((skip) => !tests.some(({ name }) => skip.test(name)))
      .map((skip) => `on the list of skips, but names no test: ${skip.source}`),
    ...(tests.length === 0 ? ['no test ran'] : []),
  ]
  const good = passed.filter((test) => !isListed(test))
  return { title, passed: good.length, notCovered: others.filter(isListed).length, problems }
}
