import type { AddressInfo } from 'node:net'
import { styleText } from 'node:util'
import { type Command, InvalidArgumentError } from 'commander'
import type { ReadConfig } from './config-options.ts'
import type { Level, Paint, Section } from './takeover/report.ts'

interface CheckOptions {
  readonly json?: boolean
  readonly sample: number
  readonly shadow?: string
  readonly against?: string
  readonly tokenFile?: readonly string[]
  readonly header?: readonly string[]
  readonly accessLog?: string
  readonly rate: number
  readonly limit: number
  readonly insecure?: boolean
  readonly cacert?: string
}

/** Wrong usage; a problem that was found is 1. */
const USAGE = 2

const HELP = `
The configuration is that of glance-api: --config-file and --config-dir, which
may be repeated, or where the files are looked for otherwise.

Nothing of the deployment is changed. The exit code is 0 when nothing stops the
switch, 1 when something does, and 2 for wrong usage.

With --shadow, GET requests go to a running Glance and to Glimpse, and the
answers are compared; the other sections are left out. Without --against, a
Glimpse that only reads serves on a free port of this machine meanwhile.`

/** Adds `takeover check`, which looks at a deployment before anybody switches. */
export function takeoverCommand(program: Command, read: ReadConfig): void {
  const takeover = program.command('takeover').description('Take the place of a Glance')
  const list = (value: string, before: readonly string[] = []) => [...before, value]
  takeover
    .command('check')
    .description('look at a deployment of Glance before switching, and change nothing')
    .option('--json', 'print JSON')
    .option('--sample <number>', 'images of each store whose data is looked for', wholeNumber, 100)
    .option('--shadow <url>', 'compare the answers of the Glance at this URL with those of Glimpse', url)
    .option('--against <url>', 'where that Glimpse is (default: one that is started for it)', url)
    .option('--token-file <file>', 'file of tokens to ask with, one in a line; may be repeated (default: OS_*)', list)
    .option('--header <line>', '"Name: value" of each request; may be repeated', list)
    .option('--access-log <file>', 'repeat the GET requests of this log (Glance, Apache, nginx) instead of a walk')
    .option('--rate <number>', 'requests in a second, at most', positiveNumber, 10)
    .option('--limit <number>', 'requests in all, at most', wholeNumber, 1000)
    .option('--insecure', 'accept any certificate of --shadow and --against')
    .option('--cacert <file>', 'certificates by which they are known')
    .addHelpText('after', HELP)
    .exitOverride(({ exitCode }) => process.exit(exitCode === 0 ? 0 : USAGE))
    .action(async (options: CheckOptions) => {
      process.exitCode = await (options.shadow === undefined
        ? inspect(read, options)
        : compare(read, options, options.shadow))
    })
}

function wholeNumber(text: string): number {
  if (!/^\d+$/.test(text)) throw new InvalidArgumentError('A whole number is wanted.')
  return Number(text)
}
function positiveNumber(text: string): number {
  if (!(Number(text) > 0)) throw new InvalidArgumentError('A number above 0 is wanted.')
  return Number(text)
}
/** Without `/v2` and slashes at the end. */
function url(text: string): string {
  if (!/^https?:\/\/[^/?#]+/.test(text) || !URL.canParse(text)) throw new InvalidArgumentError('A URL is wanted.')
  return text.replace(/\/+$/, '').replace(/\/v2$/, '')
}

const COLOURS = { ok: 'green', note: 'yellow', problem: 'red', title: 'bold', advice: 'cyan' } as const
/** Colours on a terminal, unless NO_COLOR asks for none. */
const paint: Paint = (style, text) => styleText(COLOURS[style], text, { stream: process.stdout })
const width = (): number => process.stdout.columns ?? 80

async function inspect(read: ReadConfig, { json, sample }: CheckOptions): Promise<number> {
  const { inspectDeployment } = await import('./takeover/check.ts')
  const { count, printSection, printVerdict } = await import('./takeover/report.ts')
  const sections: Section[] = []
  for await (const section of inspectDeployment(read, sample)) {
    sections.push(section)
    if (!json) console.log(printSection(section, width(), paint))
  }
  if (json) printJson(sections)
  else console.log(printVerdict(sections, paint))
  return count(sections, 'problem') === 0 ? 0 : 1
}

function printJson(sections: readonly Section[], more: object = {}): void {
  const levels = sections.flatMap(({ findings }) => findings.map(({ level }) => level))
  const n = (level: Level) => levels.filter((one) => one === level).length
  console.log(JSON.stringify({ problems: n('problem'), notes: n('note'), sections, ...more }, undefined, 2))
}

async function compare(read: ReadConfig, options: CheckOptions, theirs: string): Promise<number> {
  const { openRest } = await import('../io/rest.ts')
  const { openCallers } = await import('./takeover/shadow/callers.ts')
  const { replay, walk } = await import('./takeover/shadow/course.ts')
  const { shadow, shadowFindings, shadowTotal } = await import('./takeover/shadow/shadow.ts')
  const { gather, printSection } = await import('./takeover/report.ts')
  const { insecure = false, cacert: cafile, accessLog, rate, limit } = options
  const { tokenFile: tokenFiles = [], header: headers = [] } = options
  const { callers, close } = openCallers({ tokenFiles, headers, env: process.env, insecure, cafile })
  const rest = openRest({ name: 'The service', retries: 0, insecure, cafile })
  const ours = options.against === undefined ? await serveReadOnly(read) : { url: options.against, close: undefined }
  const isWatched = process.stderr.isTTY && !options.json
  try {
    const result = await shadow({
      ...{ rest, theirs, ours: ours.url, callers, rate, limit },
      course: accessLog === undefined ? walk : () => replay(accessLog),
      ...(isWatched ? { progress: (asked) => process.stderr.write(`\r${asked} requests`) } : {}),
    })
    if (isWatched) process.stderr.write('\r\u001b[K')
    const section = await gather(
      `Shadow reads: ${theirs} there, ${options.against ?? 'Glimpse'} here`,
      shadowFindings(result),
    )
    if (options.json) {
      const { reasons, ...counts } = result
      printJson([section], { shadow: { ...counts, reasons: Object.fromEntries(reasons) } })
    } else {
      console.log(printSection(section, width(), paint))
      console.log(shadowTotal(result))
    }
    return section.findings.some(({ level }) => level === 'problem') ? 1 : 0
  } finally {
    await ours.close?.()
    await rest.close()
    await close()
  }
}

/** A Glimpse of this process that writes nothing, on a free port. */
async function serveReadOnly(read: ReadConfig) {
  const { openApp } = await import('../app.ts')
  const { silentLog } = await import('../log.ts')
  const config = read({}, { program: 'glance-api' })
  const app = await openApp({ config, log: silentLog, readOnly: true })
  const { server } = app.http
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(0, '127.0.0.1', resolve)
  })
  const { port } = server.address() as AddressInfo
  return { url: `http://127.0.0.1:${port}`, close: () => app.close(1000) }
}
