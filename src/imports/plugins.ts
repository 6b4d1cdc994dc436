import { isAbsolute } from 'node:path'
import { pathToFileURL } from 'node:url'
import * as kit from '../config/options.ts'
import { ServiceError } from '../domain/errors.ts'
import type { ImportPlugin } from './import.ts'
import type { PluginTools, PluginType } from './plugin.ts'
import { conversion } from './plugins/conversion.ts'
import { decompression } from './plugins/decompression.ts'
import { injectMetadata } from './plugins/inject-metadata.ts'
import { noOp } from './plugins/no-op.ts'
import { transformStep } from './transform.ts'

const BUILT_IN = [noOp, decompression, conversion, injectMetadata] as unknown as readonly PluginType[]

/** What a plugin of somebody else gets of the service, which it cannot import. */
const { bool, choice, dict, float, integer, list, multi, text } = kit
export const PLUGIN_KIT = {
  options: { bool, choice, dict, float, integer, list, multi, text },
  ServiceError,
  transformStep,
} as const
export type PluginKit = typeof PLUGIN_KIT

/** The default export of a module that brings a plugin. */
export type PluginModule = (kit: PluginKit) => PluginType

/**
 * The plugins of `image_import_plugins`, in that order: a name of ours, the absolute path of a module, or a package.
 * Throws `invalid` for one that is not there or does not work.
 */
export async function openPlugins(
  names: readonly string[],
  configure: (group: string, options: PluginType['options']) => Parameters<PluginType['open']>[0],
  tools: PluginTools,
): Promise<readonly ImportPlugin[]> {
  const twice = names.find((name, index) => names.indexOf(name) < index)
  if (twice !== undefined) throw new ServiceError('invalid', `image_import_plugins names "${twice}" twice`)
  return Promise.all(
    names.map(async (name) => {
      const type = BUILT_IN.find((plugin) => plugin.name === name) ?? (await loadType(name))
      return type.open(configure(type.group, type.options), tools)
    }),
  )
}

async function loadType(name: string): Promise<PluginType> {
  const unusable = (why: string, cause?: unknown) =>
    new ServiceError('invalid', `image_import_plugins: "${name}" ${why}`, { cause })
  let module: { readonly default?: unknown }
  try {
    module = (await import(isAbsolute(name) ? pathToFileURL(name).href : name)) as typeof module
  } catch (cause) {
    const known = BUILT_IN.map((plugin) => plugin.name).join(', ')
    throw unusable(`is none of ${known}, nor a module that can be loaded: ${(cause as Error).message}`, cause)
  }
  if (typeof module.default !== 'function') throw unusable('does not export a function as its default')
  const type = (module.default as PluginModule)(PLUGIN_KIT) as Partial<PluginType> | undefined
  const { name: own, group, options = {}, open } = type ?? {}
  if (typeof own !== 'string' || typeof group !== 'string' || typeof open !== 'function') {
    throw unusable('gives no plugin: it must have name, group, options and open')
  }
  return { name: own, group, options, open }
}
