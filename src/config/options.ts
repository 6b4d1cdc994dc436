// The option kit: declarations give type, check, sample file and documentation.

/** How one option is read from text and shown. `T` is what the code gets. */
export interface Option<T = unknown> {
  readonly kind: 'text' | 'integer' | 'float' | 'boolean' | 'choice' | 'list' | 'dict' | 'multi'
  readonly default: T
  readonly help: string
  /** Parses one raw value (several lines for `multi`). Throws an Error whose message says what is expected. */
  parse(raw: readonly string[]): T
  /** As it is written in a file. */
  print(value: T): string
  readonly secret?: boolean
  /** Re-read on SIGHUP. */
  readonly mutable?: boolean
  /** Older spellings, `name` or `group.name`; they work and warn. */
  readonly deprecated?: readonly string[]
}
export type OptionGroup = Readonly<Record<string, Option<never> | Option<unknown>>>
export type Values<Group extends OptionGroup> = {
  readonly [Name in keyof Group]: Group[Name] extends Option<infer T> ? T : never
}
