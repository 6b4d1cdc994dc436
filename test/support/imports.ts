import type { Imports } from '../../src/core/core.ts'
import type { Database } from '../../src/db/database.ts'
import { openRunner } from '../../src/imports/runner.ts'
import { noStaging } from '../../src/imports/staging.ts'
import { silentLog } from '../../src/log.ts'

/** For tests that import nothing. */
export const noImports = (db: Database): Imports => ({
  methods: [],
  offered: [],
  plugins: [],
  staging: noStaging('Images cannot be imported in this test'),
  runner: openRunner({ db, log: silentLog, limit: 1, keepMs: 1000, onTask: () => undefined }),
  selfUrl: undefined,
  relay: async () => {
    throw new Error('no other node')
  },
})
