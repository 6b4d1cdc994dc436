import { ServiceError } from '../domain/errors.ts'
import { enforce } from '../policy/enforce.ts'
import type { Store } from '../store/store.ts'
import type { Core, RequestContext } from './core.ts'

/** The stores that clients may know of. Throws `not-found` where there is only one, without a name. */
export function listStores(core: Core): readonly Store[] {
  if (!core.stores.multi) throw new ServiceError('not-found', 'Multi backend is not supported at this site.')
  return core.stores.all
}

/** The same, for those who may also see how they are configured. */
export function listStoresInDetail(core: Core, ctx: RequestContext): readonly Store[] {
  const stores = listStores(core)
  enforce(core.policy, 'stores_info_detail', ctx.identity, { project_id: ctx.identity.projectId })
  return stores
}
