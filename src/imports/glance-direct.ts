import type { ImportMethod } from './import.ts'

/** What a client has staged. */
export const glanceDirect: ImportMethod = { name: 'glance-direct', from: 'uploading' }
