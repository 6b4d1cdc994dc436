import { GROUPS } from '../../config/groups.ts'
import { change, restore } from '../change.ts'
import { definePlugin } from '../plugin.ts'

const NAME = 'inject_image_metadata'

/** Properties that every imported image gets, unless whoever imports it has certain roles. */
export const injectMetadata = definePlugin({
  name: NAME,
  group: 'inject_metadata_properties',
  options: GROUPS.inject_metadata_properties,
  open: ({ ignore_user_roles, inject }) => {
    const ignored = new Set(ignore_user_roles.map((role) => role.toLowerCase()))
    const properties = new Map(Object.entries(inject ?? {}).filter(([name]) => !name.startsWith('os_glance')))
    return {
      name: NAME,
      step: (job) => ({
        name: NAME,
        run: async () => {
          if (properties.size === 0 || job.requester.roles.some((role) => ignored.has(role))) return
          await change(job, NAME, { setProperties: properties })
        },
        undo: () => restore(job, NAME),
      }),
    }
  },
})
