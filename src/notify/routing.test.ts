import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { hasKind } from '../domain/errors.ts'
import type { Message, NotifyDriver } from './driver.ts'
import { parseRoutes, routed } from './routing.ts'

const EXAMPLE = `
billing:
  messagingv2:
    accepted_events: ['image.*', 'task.success']
    accepted_priorities: [INFO]
  log:
alarms:
  webhook:
    accepted_priorities: ['err*', warn]
  messagingv2:
    accepted_events: ['metadef_[!n]*.create', 'image.?end']
`

describe('routing', () => {
  const routes = parseRoutes(EXAMPLE)
  const takers = (event: string, priority = 'INFO'): readonly string[] => {
    const names: string[] = []
    const driver = (name: string): NotifyDriver => ({
      accept: () => void names.push(name),
      close: async () => undefined,
    })
    const drivers = new Map(['messagingv2', 'log', 'webhook'].map((name) => [name, [driver(name)]]))
    routed(routes, drivers).accept({ event, priority } as Message)
    return names
  }

  for (const [event, priority, expected] of [
    ['image.create', 'INFO', ['messagingv2', 'log']],
    ['image.member.create', 'INFO', ['messagingv2', 'log']],
    ['image.upload', 'ERROR', ['log', 'webhook']],
    ['task.success', 'INFO', ['messagingv2', 'log']],
    ['task.failure', 'INFO', ['log']],
    ['image.send', 'ERROR', ['log', 'webhook', 'messagingv2']],
    ['metadef_tag.create', 'INFO', ['log', 'messagingv2']],
    ['metadef_namespace.create', 'INFO', ['log']],
  ] as const) {
    it(`takes ${event} at ${priority} to ${expected.join(', ')}, once each`, () => {
      assert.deepEqual(takers(event, priority).toSorted(), expected.toSorted())
    })
  }

  it('takes dots and other marks in patterns as they are', () => {
    const [route] = parseRoutes('a: {log: {accepted_events: ["image.create", "a(b)+", "[z-a]"]}}')
    assert.equal(route?.accepts({ event: 'image.create', priority: 'INFO' }), true)
    assert.equal(route?.accepts({ event: 'image_create' as never, priority: 'INFO' }), false)
    assert.equal(route?.accepts({ event: 'a(b)+' as never, priority: 'INFO' }), true)
  })

  it('goes nowhere with an empty file', () => assert.deepEqual(parseRoutes(''), []))

  for (const wrong of ['- a', 'a: b', 'a: {log: 1}', 'a: {log: {accepted_events: image}}', 'a: {', 'a: [log]']) {
    it(`refuses ${wrong}`, () =>
      assert.throws(
        () => parseRoutes(wrong),
        (error) => hasKind(error, 'invalid'),
      ))
  }
})
