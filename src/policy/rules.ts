export const RULES = {} as const
export type RuleName = string
