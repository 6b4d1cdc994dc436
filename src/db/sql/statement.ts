import type { CompiledQuery, RawBuilder } from 'kysely'

/** A place in a statement that gets its value when the statement runs. */
class Slot {
  readonly name: string
  constructor(name: string) {
    this.name = name
  }
}

export type Value = string | number | boolean | null
export type Values = Readonly<Record<string, Value>>

/** A statement compiled once, run many times. */
export interface Statement<Row> {
  readonly with: (values: Values) => CompiledQuery<Row>
  /** Whether a server may keep it and its plan, which then is the same for all values. */
  readonly kept: boolean
}

/** Stands in a query for a value of type `T` to come. */
export const slot = <T extends Value>(name: string): T => new Slot(name) as unknown as T

/** Freezes a query; `slot`s become its parameters. */
export const statement = <Row>(compiled: CompiledQuery<Row>, kept: boolean): Statement<Row> => {
  const { parameters } = compiled
  return {
    kept,
    with: (values) => ({
      ...compiled,
      parameters: parameters.map((parameter) => (parameter instanceof Slot ? values[parameter.name] : parameter)),
    }),
  }
}

/** A piece of SQL text. */
export type Fragment = RawBuilder<unknown>
