import { databaseSettings } from '../../app.ts'
import type { Config } from '../../config/config.ts'
import { REGISTRY_API } from '../../config/registry.ts'
import { type DatabaseInspection, inspectDatabase } from '../../db/sql/inspect.ts'
import { hasKind } from '../../domain/errors.ts'
import type { ReadConfig } from '../config-options.ts'
import { checkConfiguration } from './configuration.ts'
import { checkDatabase } from './database.ts'
import { noticedBy } from './differences.ts'
import { checkPolicies } from './policies.ts'
import { type Finding, gather, note, ok, problem, type Section } from './report.ts'
import { checkCache, checkIdentity, checkNotifications } from './services.ts'
import { checkStores } from './stores.ts'
import { lookAtStores, type StoresLook, type Survey, surveyLocations } from './survey.ts'

/** Looks at everything that the configuration leads to; `sample` images of each store. Changes nothing. */
export async function* inspectDeployment(read: ReadConfig, sample: number): AsyncIterable<Section> {
  const wrong: string[] = []
  let config: Config
  try {
    config = read({}, { program: 'glance-api', wrong: (message) => wrong.push(message) })
  } catch (error) {
    if (!hasKind(error, 'invalid')) throw error
    yield { title: 'Configuration', findings: [problem(error.message, 'without it, nothing else can be looked at')] }
    return
  }
  // The stores' groups are known when their types have been asked.
  const stores = await lookAtStores(config)
  let inspection: DatabaseInspection | Error | undefined
  try {
    yield await gather('Configuration', checkConfiguration(config, wrong))
    inspection = await openInspection(config)
    const survey = await surveyed(inspection, stores, sample)
    yield await gather('Database', checkDatabase(config, inspection, survey))
    yield await gather('Stores', checkStores(config, stores, survey))
    yield await gather('Policies', checkPolicies(config))
    yield await gather('Identity', checkIdentity(config))
    yield await gather('Notifications', checkNotifications(config))
    yield await gather('Image cache', checkCache(config))
    yield await gather('Clients will notice', checkClients(config))
  } finally {
    if (inspection !== undefined && !(inspection instanceof Error)) await inspection.close()
    await stores.close()
  }
}

// What fails is one of the things to be told, by the section about the database.

const openInspection = async (config: Config): Promise<DatabaseInspection | Error> =>
  config.DEFAULT.data_api === REGISTRY_API
    ? new Error('the registry has it')
    : inspectDatabase(databaseSettings(config)).catch(asError)

async function surveyed(
  inspection: DatabaseInspection | Error,
  stores: StoresLook,
  sample: number,
): Promise<Survey | Error> {
  if (inspection instanceof Error) return inspection
  return surveyLocations(inspection, stores, sample).catch(asError)
}

const asError = (error: unknown): Error => (error instanceof Error ? error : new Error(String(error)))

function* checkClients(config: Config): Iterable<Finding> {
  for (const { says } of noticedBy(config)) yield ok(says)
  yield note('All known differences, most of them errors that are not repeated, are in docs/differences.md.')
}
