import type { AddressInfo } from 'node:net'
import { createServer, connect as dial, type Socket } from 'node:net'

export type Direction = 'to server' | 'to client'

/** Stands between a client and a database server, knows where their messages end, and cuts connections there. */
export interface CuttingProxy {
  readonly port: number
  /** Counts messages anew. What was asked for before is forgotten. */
  reset(): void
  /** Messages since the last `reset`, of all connections. */
  count(direction: Direction): number
  /** Cuts the connection of the `n`th message from now, from 1, in place of delivering it; `andAll` is down then. */
  cutAt(direction: Direction, n: number, andAll?: boolean): void
  /** The same for the client; the server gets the message, `to server`, when `deliver` is called. */
  holdAt(n: number): void
  /** Whether the message has come. */
  hasCut(): boolean
  deliver(): void
  /** Cuts all connections; refuses new ones until it is given back. */
  setDown(down: boolean): void
  close(): Promise<void>
}

/** Where the first message in the buffer ends; undefined when that cannot be said yet. One for each connection. */
type Framing = (data: Buffer, direction: Direction) => number | undefined

const TLS_REQUEST = 80_877_103
const FRAMINGS = {
  // A type and a length that counts itself. What a client says first has no type; when it asks for TLS, the answer is
  // one letter, and it says something for the first time again.
  postgresql: () => {
    let started = false
    let asked = false
    return (data, direction) => {
      if (direction === 'to client' && asked) {
        asked = false
        return 1
      }
      if (data.length < 5 || (!started && direction === 'to server' && data.length < 8)) return undefined
      if (started || direction === 'to client') return 1 + data.readUInt32BE(1)
      asked = data.readUInt32BE(4) === TLS_REQUEST
      started = !asked
      return data.readUInt32BE(0)
    }
  },
  // A length, and a number.
  mysql: () => (data) => (data.length < 4 ? undefined : 4 + data.readUIntLE(0, 3)),
} as const satisfies Record<string, () => Framing>

interface Plan {
  readonly direction: Direction
  readonly n: number
  readonly hold: boolean
  readonly andAll: boolean
}

export async function startCuttingProxy(kind: keyof typeof FRAMINGS, target: number): Promise<CuttingProxy> {
  const seen = { 'to server': 0, 'to client': 0 }
  let plan: Plan | undefined
  let cut = false
  let held: (() => void) | undefined
  let down = false
  const pairs = new Set<() => void>()

  const setDown = (to: boolean) => {
    down = to
    if (down) for (const end of pairs) end()
  }
  const splitter = (
    direction: Direction,
    frame: Framing,
    to: Socket,
    cutHere: (rest: Buffer, hold: boolean) => void,
  ) => {
    let pending = Buffer.alloc(0)
    let over = false
    let length: number | undefined
    return (data: Buffer) => {
      if (over) return
      pending = Buffer.concat([pending, data])
      for (;;) {
        length ??= frame(pending, direction)
        const end = length
        if (end === undefined || pending.length < end) return
        length = undefined
        seen[direction] += 1
        if (plan?.direction === direction && plan.n === seen[direction] && !cut) {
          cut = true
          over = true
          if (plan.andAll) setDown(true)
          return cutHere(pending, plan.hold)
        }
        to.write(pending.subarray(0, end))
        pending = pending.subarray(end)
      }
    }
  }

  const server = createServer((client) => {
    if (down) return void client.destroy()
    const upstream = dial(target, '127.0.0.1')
    const frame: Framing = FRAMINGS[kind]()
    for (const socket of [client, upstream]) socket.setNoDelay(true).on('error', () => undefined)
    // What was delivered before the cut arrives.
    const end = () => {
      client.end()
      upstream.end()
      pairs.delete(end)
    }
    pairs.add(end)
    const cutHere = (rest: Buffer, hold: boolean) => {
      if (!hold) return end()
      client.end()
      held = () => upstream.end(rest)
    }
    client.on('data', splitter('to server', frame, upstream, cutHere))
    upstream.on('data', splitter('to client', frame, client, cutHere))
    client.on('close', () => {
      if (held === undefined) end()
    })
    upstream.on('close', end)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return {
    port: (server.address() as AddressInfo).port,
    reset: () => {
      seen['to server'] = 0
      seen['to client'] = 0
      plan = undefined
      cut = false
      held = undefined
    },
    count: (direction) => seen[direction],
    cutAt: (direction, n, andAll = false) => {
      plan = { direction, n: seen[direction] + n, hold: false, andAll }
    },
    holdAt: (n) => {
      plan = { direction: 'to server', n: seen['to server'] + n, hold: true, andAll: false }
    },
    hasCut: () => cut,
    deliver: () => held?.(),
    setDown,
    close: async () => {
      for (const end of pairs) end()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}
