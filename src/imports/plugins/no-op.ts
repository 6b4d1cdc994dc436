import { definePlugin } from '../plugin.ts'

/** Shows that plugins run. */
export const noOp = definePlugin({
  name: 'no_op',
  group: 'no_op',
  options: {},
  open: (_, { log }) => ({
    name: 'no_op',
    step: ({ imageId }) => ({
      name: 'no_op',
      run: async () => log.debug(`Image ${imageId}: no_op has run`),
    }),
  }),
})
